"""Grype's vulnerability database, version 6: SQLite.

Tables and blobs: anchore/grype, grype/db/v6/models.go and blobs.go. A range's constraint is
`>= 1.2.0, < 1.2.8 || < 1.1.0`; an empty one holds for every version.
"""

import json
import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

from bundler.audit.advisory import Advisory, DatabaseFile, Range, normalize_severity, rate_vector
from bundler.audit.parts import GO, Part
from bundler.errors import ArtifactError

MODEL = 6
ECOSYSTEMS = {GO: ("go", "go-module")}
TERM = re.compile(r"(>=|<=|<|>|=)?\s*(\S+)")
QUERY = """
    SELECT v.name, vb.value, pb.value
    FROM packages p
    JOIN affected_package_handles a ON a.package_id = p.id
    JOIN vulnerability_handles v ON v.id = a.vulnerability_id
    LEFT JOIN blobs vb ON vb.id = v.blob_id
    LEFT JOIN blobs pb ON pb.id = a.blob_id
    LEFT JOIN operating_systems o ON o.id = a.operating_system_id
    WHERE p.name = ? COLLATE NOCASE AND v.status NOT IN ('rejected')
"""
OF_GO = " AND p.ecosystem IN ('go', 'go-module', 'golang') AND a.operating_system_id IS NULL"
OF_DISTRIBUTION = (
    " AND o.name = ? AND o.major_version = ? AND (o.minor_version IN ('', ?)"
    " OR o.minor_version IS NULL)"
)
NAMES = {"rhel": "redhat", "rocky": "redhat", "almalinux": "almalinux", "ol": "oracle"}
"""ID of os-release(5) → the name in operating_systems; Rocky's packages are Red Hat's."""


class Grype(DatabaseFile):
    """A database file, as `grype db update` leaves it: 6/vulnerability.db."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with self._open() as connection:
            row = connection.execute("SELECT build_timestamp, model FROM db_metadata").fetchone()
        if row is None or row[1] != MODEL:
            raise ArtifactError(
                f"{path}: not version {MODEL} of Grype's database",
                hint="make it with a newer grype: grype db update",
            )
        self.day = date.fromisoformat(str(row[0])[:10])

    def _open(self) -> "closing[sqlite3.Connection]":
        # immutable: no journal is written next to a file on read-only media
        uri = f"{self.path.absolute().as_uri()}?mode=ro&immutable=1"
        return closing(sqlite3.connect(uri, uri=True))

    def find(self, parts: Iterable[Part]) -> Iterator[tuple[Part, Advisory]]:
        """Every record about a package of a part, of any version."""
        try:
            with self._open() as connection:
                for part in parts:
                    for text, values in _list_queries(part):
                        for name, known, affected in connection.execute(text, values):
                            yield part, _make_advisory(name, known, affected, self.name)
        except (sqlite3.Error, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(
                f"{self.path}: not a complete database of Grype: {error}",
                hint="copy the file again",
            ) from error


def _list_queries(part: Part) -> Iterator[tuple[str, tuple[str, ...]]]:
    if part.scheme == GO:
        for _, name in part.packages:
            yield QUERY + OF_GO, (name,)
    elif part.distribution[0]:
        family, release = part.distribution
        major, _, minor = release.partition(".")
        where = (NAMES.get(family, family), major, minor)
        for name in dict.fromkeys((part.source, part.name)):
            yield QUERY + OF_DISTRIBUTION, (name, *where)


def _make_advisory(name: str, blob: str, package_blob: str, database: str) -> Advisory:
    known, affected = (json.loads(text or "{}") for text in (blob, package_blob))
    return Advisory(
        id=name,
        aliases=frozenset(map(str, [*known.get("aliases", ()), *affected.get("cves", ())])),
        severity=next(filter(None, map(_rate, known.get("severities", ()))), ""),
        summary=str(known.get("description", "")).partition("\n")[0][:200],
        ranges=tuple(one for each in affected.get("ranges", ()) for one in _read_range(each)),
        database=database,
    )


def _rate(severity: dict[str, Any]) -> str:
    value = severity.get("value")
    if isinstance(value, dict):
        return rate_vector(str(value.get("vector", "")))
    return normalize_severity(str(value))


def _read_range(each: dict[str, Any]) -> Iterator[Range]:
    """A Range for each alternative; `> V` is read as `>= V`."""
    constraint = str(each.get("version", {}).get("constraint", "") or "")
    if (each.get("fix") or {}).get("state") == "not-affected":
        return
    for alternative in constraint.split("||"):
        ends = {"introduced": "", "fixed": "", "last": ""}
        for term in filter(str.strip, alternative.split(",")):
            match = TERM.fullmatch(term.strip())
            if not match:
                raise ValueError(f"the constraint {constraint!r} cannot be read")
            operator, version = match[1] or "=", match[2]
            if operator in {">=", ">", "="}:
                ends["introduced"] = version
            if operator in {"<=", "="}:
                ends["last"] = version
            if operator == "<":
                ends["fixed"] = version
        yield Range(**ends)
