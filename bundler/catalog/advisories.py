"""Known vulnerabilities of what bundles hold: the rows of advisories.tsv.

component     as in pins.tsv, `kubernetes`, or DISTRIBUTION-RELEASE/SOURCE-PACKAGE
id            of the CVE, or of the advisory without one; aliases: other ids, separated by spaces
severity      low, medium, high or critical; empty: nobody rated it where it was read
affected      versions, as a vers range (github.com/package-url/vers-spec)
summary       one sentence
not_affected  why bundles do not have the vulnerability: a justification of OpenVEX; empty: they do
reason        the same in words
unless        PROGRAM SETTING that makes them affected all the same; empty: nothing does
source        where the row comes from

It is no database: it has what the maintainers of bundler found about the versions in pins.tsv.
"""

from dataclasses import dataclass
from datetime import date
from functools import cache

from bundler.catalog import read_table

READ = date(2026, 12, 1)
"""When the newest row was published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvisoryRow:
    """One row of the table."""

    component: str
    id: str
    aliases: str
    severity: str
    affected: str
    summary: str
    not_affected: str
    reason: str
    unless: str
    source: str


@cache
def list_advisories() -> tuple[AdvisoryRow, ...]:
    """Read the complete table."""
    return tuple(AdvisoryRow(**row) for row in read_table("advisories.tsv"))
