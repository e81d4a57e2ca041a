"""Until when upstream maintains a release line: the rows of end-of-life.tsv.

component  as in pins.tsv, `kubernetes`, or the distribution's ID of os-release(5)
line       the first parts of the version: 1.20, 29, 12
ends       the last day with fixes; empty: no date is known, the line is maintained
last       the last release of the line, once it is known
source     where the date comes from

A component without rows has no published dates: flannel, the CNI plugins, CoreDNS, metrics-server.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from functools import cache

from bundler.catalog import read_table

READ = date(2026, 8, 22)
"""When the sources of the table were read: no row is newer, and no clock is behind it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseLine:
    """One release line of a component."""

    component: str
    line: str
    ends: date | None
    last: str
    source: str

    @property
    def name(self) -> str:
        """`kubernetes-1.20`, as lifecycle.accept has it."""
        return f"{self.component}-{self.line}"

    def has_ended(self, on: date) -> bool:
        """Whether the line gets no more fixes on that day."""
        return self.ends is not None and self.ends < on

    def holds(self, version: str) -> bool:
        """Whether the version is of this line."""
        return f"{version}.".startswith(f"{self.line}.")


@cache
def list_lifecycles() -> tuple[ReleaseLine, ...]:
    """Every line, those of a component from the oldest to the newest."""
    return tuple(_read_all())


def list_lines(component: str) -> tuple[ReleaseLine, ...]:
    """The lines of a component, oldest first."""
    return tuple(row for row in list_lifecycles() if row.component == component)


def find_lifecycle(component: str, version: str) -> ReleaseLine | None:
    """The line of a version; None if the table does not have it."""
    return next((row for row in list_lines(component) if row.holds(version)), None)


def _read_all() -> Iterator[ReleaseLine]:
    for row in read_table("end-of-life.tsv"):
        yield ReleaseLine(
            component=row["component"],
            line=row["line"],
            ends=date.fromisoformat(row["ends"]) if row["ends"] else None,
            last=row["last"],
            source=row["source"],
        )
