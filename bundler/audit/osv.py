"""Exports of OSV (osv.dev): a zip, or a directory of JSON files in OSV's format.

Schema: ossf.github.io/osv-schema. Ranges of type GIT have commits, not versions: they are left out.
"""

import json
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from bundler.audit.advisory import Advisory, DatabaseFile, Range, normalize_severity, rate_vector
from bundler.audit.parts import Part
from bundler.errors import ArtifactError

NAME = re.compile(rb'"name"\s*:\s*"([^"\\]+)"')
MODIFIED = re.compile(rb'"modified"\s*:\s*"(\d{4}-\d\d-\d\d)')
MAX_RECORD = 64 << 20
"""Bytes of one advisory; those with long lists of versions have a few MiB."""

Names = Mapping[tuple[str, str], list[Part]]
"""(ecosystem, package) → parts."""


class Osv(DatabaseFile):
    """The advisories of an export. `load` reads it once, for the parts that are asked for."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.day = date.min

    def find(self, parts: Iterable[Part]) -> Iterator[tuple[Part, Advisory]]:
        """Every advisory about a package of a part, of any version."""
        names: dict[tuple[str, str], list[Part]] = {}
        for part in parts:
            for key in part.packages:
                names.setdefault(key, []).append(part)
        wanted = {name.encode() for _, name in names}
        size = 0
        for label, content in _iter_records(self.path):
            size += 1
            if stamps := MODIFIED.findall(content):
                self.day = max(self.day, date.fromisoformat(max(stamps).decode()))
            if wanted.isdisjoint(NAME.findall(content)):
                continue
            yield from _read_record(content, f"{self.path}: {label}", names, self.name)
        if not size:
            raise ArtifactError(
                f"{self.path}: no advisory of OSV is in it",
                hint="a zip or a directory of JSON files, as OSV exports them",
            )
        self.size = size


def _iter_records(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        if path.is_dir():
            for file in sorted(path.rglob("*.json")):
                with file.open("rb") as opened:
                    content = _read_bounded(opened.read, file.name, path)
                yield file.name, content
            return
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.filename.endswith(".json"):
                    with archive.open(member) as opened:
                        yield member.filename, _read_bounded(opened.read, member.filename, path)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ArtifactError(
            f"{path}: not a complete zip: {error}", hint="copy the file again"
        ) from error


def _read_bounded(read: Callable[[int], bytes], label: str, path: Path) -> bytes:
    content = read(MAX_RECORD + 1)
    if len(content) > MAX_RECORD:
        raise ArtifactError(f"{path}: {label} is larger than {MAX_RECORD >> 20} MiB")
    return content


def _read_record(
    content: bytes, where: str, names: Names, database: str
) -> Iterator[tuple[Part, Advisory]]:
    """The advisories of one file: one for each package that parts have."""
    try:
        record = json.loads(content)
        if record.get("withdrawn"):
            return
        for affected in record.get("affected", ()):
            package = affected.get("package") or {}
            for part in _find_parts(str(package.get("ecosystem")), str(package.get("name")), names):
                yield part, _make_advisory(record, affected, database)
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise ArtifactError(
            f"{where}: not an advisory in OSV's format ({type(error).__name__}: {error})"
        ) from error


def _find_parts(ecosystem: str, name: str, names: Names) -> Iterator[Part]:
    """`Red Hat:enterprise_linux:9::baseos` is of `Red Hat:enterprise_linux:9`."""
    while ecosystem:
        yield from names.get((ecosystem, name), ())
        ecosystem = ecosystem.rpartition(":")[0]


def _make_advisory(
    record: Mapping[str, Any], affected: Mapping[str, Any], database: str
) -> Advisory:
    ids = {str(each) for key in ("aliases", "upstream") for each in record.get(key) or ()}
    return Advisory(
        id=str(record["id"]),
        aliases=frozenset(ids),
        severity=_rate(record, affected),
        summary=str(record.get("summary") or record.get("details") or "").partition("\n")[0][:200],
        ranges=tuple(
            one
            for each in affected.get("ranges") or ()
            if each.get("type") in {"SEMVER", "ECOSYSTEM"}
            for one in _read_events(each.get("events") or ())
        ),
        versions=frozenset(str(version) for version in affected.get("versions") or ()),
        database=database,
    )


def _read_events(events: Iterable[Mapping[str, str]]) -> Iterator[Range]:
    introduced = ""
    for event in events:
        if "introduced" in event:
            if introduced:
                yield Range(introduced=introduced)
            introduced = str(event["introduced"])
        elif "fixed" in event:
            yield Range(introduced=introduced, fixed=str(event["fixed"]))
            introduced = ""
        elif "last_affected" in event:
            yield Range(introduced=introduced, last=str(event["last_affected"]))
            introduced = ""
    if introduced:
        yield Range(introduced=introduced)


def _rate(record: Mapping[str, Any], affected: Mapping[str, Any]) -> str:
    """The severity that the database states, or that of a CVSS vector, the newest version first."""
    for holder in (affected, record):
        for key in ("ecosystem_specific", "database_specific"):
            stated = holder.get(key) or {}
            for name in ("severity", "urgency"):
                if found := normalize_severity(str(stated.get(name) or "")):
                    return found
    rows = [*(affected.get("severity") or ()), *(record.get("severity") or ())]
    for row in sorted(rows, key=lambda row: str(row.get("type")), reverse=True):
        score = str(row.get("score") or "")
        found = rate_vector(score) if str(row.get("type")).startswith("CVSS") else ""
        if found := found or normalize_severity(score):
            return found
    return ""
