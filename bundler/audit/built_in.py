"""The advisories of the catalog."""

from collections.abc import Iterable, Iterator

from bundler.audit.advisory import Advisory, NotAffected, read_ranges
from bundler.audit.parts import Part
from bundler.catalog.advisories import READ, AdvisoryRow, list_advisories


class BuiltIn:
    """The table advisories.tsv."""

    name = "bundler's table"
    day = READ

    def __init__(self) -> None:
        self.size: int | None = len(list_advisories())

    def find(self, parts: Iterable[Part]) -> Iterator[tuple[Part, Advisory]]:
        """Every row about a part, of any version."""
        rows: dict[str, list[Advisory]] = {}
        for row in list_advisories():
            rows.setdefault(row.component, []).append(_make_advisory(row, self.name))
        for part in parts:
            for component in part.components:
                for advisory in rows.get(component, ()):
                    yield part, advisory


def _make_advisory(row: AdvisoryRow, database: str) -> Advisory:
    return Advisory(
        id=row.id,
        aliases=frozenset(row.aliases.split()),
        severity=row.severity,
        summary=row.summary,
        ranges=read_ranges(row.affected),
        database=database,
        not_affected=NotAffected(
            justification=row.not_affected, reason=row.reason, unless=row.unless
        )
        if row.not_affected
        else None,
    )
