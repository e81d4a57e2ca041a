"""What checks of cluster.yaml yield: a problem, with its place in the file."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from bundler.catalog.lifecycles import ReleaseLine


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something wrong at `path` of cluster.yaml. A warning (`is_error=False`) stops no build."""

    path: tuple[str | int, ...]
    text: str
    is_error: bool = True
    weakening: str = ""  # its name in catalog/weakenings.tsv: --strict refuses it
    ended: ReleaseLine | None = None  # a line that upstream no longer maintains: the same


def suggest(name: str, known: Sequence[str]) -> str:
    """The end of a message about an unknown name: the nearest known one, or nothing."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
