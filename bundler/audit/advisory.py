"""An advisory, and the ranges of versions that it is about."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Protocol

from bundler.audit.parts import Part
from bundler.audit.versions import START, read_vers, read_version

SEVERITIES = ("low", "medium", "high", "critical")
"""From the lowest to the highest; an advisory without one has an empty text."""
SYNONYMS = {"moderate": "medium", "important": "high", "negligible": "low", "none": "low"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Versions from `introduced` on, before `fixed` or up to `last`; empty: open."""

    introduced: str = ""
    fixed: str = ""
    last: str = ""

    def holds(self, scheme: str, text: str) -> bool | None:
        """Whether the version is in the range; None if one of them cannot be compared."""
        version = read_version(scheme, text)
        ends = {
            name: read_version(scheme, value)
            for name, value in (
                ("introduced", self.introduced), ("fixed", self.fixed), ("last", self.last)
            )
            if value and (value != START or name != "introduced")
        }  # fmt: skip
        if version is None or None in ends.values():
            return None
        return (
            ("introduced" not in ends or version >= ends["introduced"])
            and ("fixed" not in ends or version < ends["fixed"])
            and ("last" not in ends or version <= ends["last"])
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NotAffected:
    """Why bundles do not have a vulnerability."""

    justification: str  # of OpenVEX
    reason: str
    unless: str  # PROGRAM SETTING that makes them affected all the same


@dataclass(frozen=True, slots=True, kw_only=True)
class Advisory:
    """What one database says about one vulnerability of one package."""

    id: str
    aliases: frozenset[str] = frozenset()  # other ids of the same vulnerability
    severity: str = ""
    summary: str = ""
    ranges: tuple[Range, ...] = ()
    versions: frozenset[str] = frozenset()  # affected ones, named one by one
    database: str
    not_affected: NotAffected | None = None

    @property
    def ids(self) -> frozenset[str]:
        """Every id."""
        return self.aliases | {self.id}

    def affects(self, part: Part) -> bool | None:
        """Whether the part's version is affected; None if that cannot be said."""
        if part.compared in self.versions:
            return True
        found = [one.holds(part.scheme, part.compared) for one in self.ranges]
        return True if True in found else None if None in found else False

    def list_fixes(self, part: Part) -> Iterator[str]:
        """The versions that end the ranges with the part's version."""
        for one in self.ranges:
            if one.fixed and one.holds(part.scheme, part.compared):
                yield one.fixed


class Database(Protocol):
    """A source of advisories."""

    name: str
    day: date  # of its newest data
    size: int | None  # advisories in it, if they were counted

    def find(self, parts: Iterable[Part]) -> Iterator[tuple[Part, Advisory]]:
        """Every advisory about a package of a part, of any version."""


class DatabaseFile:
    """A database that was carried in: a file, or a directory of files."""

    def __init__(self, path: Path) -> None:
        """Take the path; until its own date is known, the day is that of the file."""
        self.path = path
        self.name = str(path)
        self.day = datetime.fromtimestamp(path.stat().st_mtime, UTC).date()
        self.size: int | None = None


def read_ranges(vers: str) -> tuple[Range, ...]:
    """The ranges of a vers text of `<`, `>=` and `*`."""
    ranges, introduced = [], START
    for comparator, version in read_vers(vers):
        if comparator == "*":
            ranges.append(Range())
        elif comparator == "<":
            ranges.append(Range(introduced=introduced, fixed=version))
            introduced = ""
        elif comparator == ">=":
            introduced = version
    if introduced not in {"", START}:
        ranges.append(Range(introduced=introduced))
    return tuple(ranges)


def normalize_severity(word: str) -> str:
    """One of SEVERITIES for a word of a database; empty for other words."""
    lower = word.strip().lower()
    lower = SYNONYMS.get(lower, lower)
    return lower if lower in SEVERITIES else ""


def rate_vector(vector: str) -> str:
    """The severity of a CVSS vector; empty if it cannot be read."""
    import cvss  # noqa: PLC0415 - slow to import
    from cvss.exceptions import CVSSError  # noqa: PLC0415

    try:
        if vector.startswith("CVSS:4"):
            return normalize_severity(str(cvss.CVSS4(vector).severity))
        if vector.startswith("CVSS:3"):
            return normalize_severity(str(cvss.CVSS3(vector).severities()[0]))
        return normalize_severity(str(cvss.CVSS2(vector).severities()[0]))
    except CVSSError:
        return ""
