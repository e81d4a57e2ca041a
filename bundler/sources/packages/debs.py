""".deb files: what they say of themselves.

Source: deb-control(5), Debian policy 7 (relationships between packages).
"""

import re
import subprocess
from collections.abc import Iterator
from email.parser import HeaderParser
from functools import cache
from pathlib import Path

from bundler.cache.stamps import look
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
)
ALTERNATIVE = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9+.-]*)(:\w+)?\s*(\(\s*(?P<op>[<>=]+)\s*(?P<version>[^\s)]+)\s*\))?"
)
OPERATORS = {"<<": "lt", "<=": "le", "=": "eq", ">=": "ge", ">>": "gt", "<": "le", ">": "ge"}
"""As dpkg --compare-versions has them."""


def read_deb(path: Path) -> PackageFile:
    """What a .deb file says; ArtifactError where it is none, or this machine has no dpkg-deb."""
    try:
        seen = tuple(look(path))
    except OSError as error:
        raise ArtifactError(f"{path}: no Debian package: {error.strerror}") from error
    return _read_once(path, seen)


@cache
def _read_once(path: Path, _seen: tuple[int, ...]) -> PackageFile:
    """A run asks for the lock's sake, and to lay the files into bundles."""
    try:
        done = subprocess.run(
            ["dpkg-deb", "--field", str(path), *FIELDS], capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise ArtifactError(
            "packages are read with dpkg-deb, which this machine does not have",
            hint="install dpkg (Debian, Ubuntu, Fedora, Arch and Homebrew have it)",
        ) from error
    fields = HeaderParser().parsestr(done.stdout)
    if done.returncode or not all(fields.get(name) for name in FIELDS[:3]):
        reason = done.stderr.strip().partition("\n")[0].removeprefix("dpkg-deb: error: ")
        raise ArtifactError(f"{path}: no Debian package: {reason or 'its control file is odd'}")
    name, version, arch = (fields[key] for key in FIELDS[:3])
    size = fields.get("Installed-Size", "")
    return PackageFile(
        path=path,
        # as apt names it
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
    )


def parse_relations(text: str) -> Iterator[tuple[PackageNeed, ...]]:
    """`a (>= 1) | b, c` → a tuple of alternatives for each comma-separated part."""
    for part in text.split(","):
        group = []
        for alternative in part.split("|"):
            if match := ALTERNATIVE.fullmatch(alternative.strip()):
                op = OPERATORS.get(match["op"] or "", "")
                group.append(PackageNeed(name=match["name"], op=op, version=match["version"] or ""))
        if group:
            yield tuple(group)
