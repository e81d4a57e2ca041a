"""The data of Debian's security tracker (security-tracker.debian.org/tracker/data/json).

{source package: {CVE: {"releases": {codename: {"status", "fixed_version", "urgency"}}}}}
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bundler.audit.advisory import Advisory, DatabaseFile, Range, normalize_severity
from bundler.audit.parts import CODENAMES, Part
from bundler.errors import ArtifactError

NOT_AFFECTED = "0"
"""The fixed version of a package that never had the vulnerability."""


class DebianTracker(DatabaseFile):
    """One file. It has no date of its own: the file's counts."""

    def find(self, parts: Iterable[Part]) -> Iterator[tuple[Part, Advisory]]:
        """Every CVE of a Debian package in its release that is not known to leave it alone."""
        packages = read_tracker(self.path)
        if packages is None:
            raise ArtifactError(f"{self.path}: not the data of Debian's security tracker")
        self.size = sum(map(len, packages.values()))
        for part in parts:
            codename = CODENAMES.get(part.distribution) if part.scheme == "deb" else None
            for name, entry in packages.get(part.source, {}).items() if codename else ():
                release = entry.get("releases", {}).get(codename)
                if release and (made := _make_advisory(name, entry, release, self.name)):
                    yield part, made


def read_tracker(path: Path) -> Mapping[str, Mapping[str, Any]] | None:
    """The packages of the file; None if it is something else."""
    try:
        data = json.loads(path.read_bytes())
        first = next(iter(next(iter(data.values())).values()))
        return data if isinstance(first["releases"], dict) else None
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration, RecursionError):
        return None


def _make_advisory(
    name: str, entry: Mapping[str, Any], release: Mapping[str, Any], database: str
) -> Advisory | None:
    fixed = str(release.get("fixed_version") or "")
    if release.get("status") not in {"open", "resolved"} or fixed == NOT_AFFECTED:
        return None
    urgency = str(release.get("urgency") or "")
    return Advisory(
        id=name,
        severity="low" if urgency == "unimportant" else normalize_severity(urgency),
        summary=str(entry.get("description") or "")[:200],
        ranges=(Range(fixed=fixed),),
        database=database,
    )
