"""Differences between the catalog and the sources that are meant, with the reason.

explained.tsv: table, a pattern of the row's key joined by `/`, the minors, and why the catalog says
something else than the sources do.
"""

import csv
import re
from pathlib import Path

from bundler.cluster.accepted import is_within

TABLE = Path(__file__).with_name("explained.tsv")


def find_reason(table: str, row: tuple[str, ...], minor: str) -> str:
    """Return why the catalog's row is kept in a minor; empty if nothing explains that."""
    with TABLE.open(encoding="utf-8") as file:
        for one in csv.DictReader(file, delimiter="\t"):
            if (
                one["table"] == table
                and re.fullmatch(one["row"], "/".join(row))
                and is_within(one["since"], one["until"], minor)
            ):
                return one["reason"]
    return ""
