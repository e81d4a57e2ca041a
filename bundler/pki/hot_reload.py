"""Which program rereads which of its certificates by itself, and so need not be restarted for it.

catalog/rereads.tsv: component, path, the first version that rereads it (empty: none does), and
where that is to be seen. Programs take up a certificate with its key: both files are rows. What
is an authority's counts as read once: several readers in one program seldom all reread it, and one
that believes the old authority only would be worse than a restart.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from bundler.cluster.components import key_of
from bundler.cluster.schema import Cluster
from bundler.cluster.settings import version_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Reread:
    """One file that a program reads: a path, or the beginning of some."""

    component: str
    path: str
    since: str | None  # Kubernetes' minor, or the component's own version
    source: str


def list_read_once(cluster: Cluster, component: str) -> tuple[str, ...]:
    """The files that the component's version reads when it starts, and never again."""
    version = version_of(cluster, component)
    return tuple(
        row.path
        for row in list_rereads()
        if row.component == component and not _is_reread(row, version)
    )


@cache
def list_rereads() -> tuple[Reread, ...]:
    """The whole table."""
    text = (files("bundler.catalog") / "rereads.tsv").read_text(encoding="utf-8")
    return tuple(
        Reread(
            component=row["component"],
            path=row["path"],
            since=row["since"] or None,
            source=row["source"],
        )
        for row in csv.DictReader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    )


def _is_reread(row: Reread, version: str) -> bool:
    return row.since is not None and key_of(row.since) <= key_of(version)
