"""Read the control fields of .deb files.

Source: deb-control(5), Debian policy 7 (relationships between packages).
"""

import re
import subprocess
from collections.abc import Iterator
from email.parser import HeaderParser
from functools import cache
from pathlib import Path

from bundler.cache.stamps import read_stat
from bundler.errors import ArtifactError
from bundler.sources.packages.files import PackageFile, PackageNeed

FIELDS = (
    "Package",
    "Version",
    "Architecture",
    "Installed-Size",
    "Pre-Depends",
    "Depends",
    "Provides",
    "Source",
)
ALTERNATIVE = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9+.-]*)(:\w+)?\s*(\(\s*(?P<op>[<>=]+)\s*(?P<version>[^\s)]+)\s*\))?"
)
OPERATORS = {"<<": "lt", "<=": "le", "=": "eq", ">=": "ge", ">>": "gt", "<": "le", ">": "ge"}
"""Operator → its name in dpkg --compare-versions."""


def read_deb(path: Path) -> PackageFile:
    """Read a .deb file; ArtifactError if it is not one, or dpkg-deb is missing."""
    try:
        stat = tuple(read_stat(path))
    except OSError as error:
        raise ArtifactError(f"{path}: not a Debian package: {error.strerror}") from error
    return _read_once(path, stat)


@cache
def _read_once(path: Path, _stat: tuple[int, ...]) -> PackageFile:
    """Read a file once in a run, for the lock and for the bundles."""
    try:
        done = subprocess.run(
            ["dpkg-deb", "--field", str(path), *FIELDS], capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise ArtifactError(
            "dpkg-deb is missing on this machine; it reads Debian packages",
            hint="install dpkg (Debian, Ubuntu, Fedora, Arch and Homebrew have it)",
        ) from error
    fields = HeaderParser().parsestr(done.stdout)
    if done.returncode or not all(fields.get(name) for name in FIELDS[:3]):
        reason = done.stderr.strip().partition("\n")[0].removeprefix("dpkg-deb: error: ")
        raise ArtifactError(f"{path}: not a Debian package: {reason or 'invalid control file'}")
    name, version, arch = (fields[key] for key in FIELDS[:3])
    size = fields.get("Installed-Size", "")
    source, _, source_version = fields.get("Source", "").replace("(", "").partition(" ")
    return PackageFile(
        path=path,
        # the name that apt uses
        file_name=f"{name}_{version.replace(':', '%3a')}_{arch}.deb",
        name=name,
        version=version,
        arch=arch,
        kilobytes=int(size) if size.isdigit() else path.stat().st_size >> 10,
        needs=tuple(
            dict.fromkeys(
                group
                for field in ("Pre-Depends", "Depends")
                for group in parse_relations(fields.get(field, ""))
            )
        ),
        provides=tuple(
            need for group in parse_relations(fields.get("Provides", "")) for need in group
        ),
        source=f"{source}@{source_version.rstrip(')')}" if source_version else source,
    )


def parse_relations(text: str) -> Iterator[tuple[PackageNeed, ...]]:
    """`a (>= 1) | b, c` → a tuple of alternatives for each part between commas."""
    for part in text.split(","):
        group = []
        for alternative in part.split("|"):
            if match := ALTERNATIVE.fullmatch(alternative.strip()):
                op = OPERATORS.get(match["op"] or "", "")
                group.append(PackageNeed(name=match["name"], op=op, version=match["version"] or ""))
        if group:
            yield tuple(group)
