"""MANIFEST: every file that a bundle installs, and the source of those that it does not contain.

    # base SHA256            a delta: the identity of the bundle that must be installed
    # payload SHA256         the layout `split`: the payload file that must be given
    # from-base PATH         one of the files below, already on the host
    # from-payload PATH      one of the files below, in the payload file
    # from-state PATH        not below: needs the state directory, left out by --public-only
    SHA256 MODE SIZE PATH    one line per file, sorted by path; paths have no spaces

The identity of a bundle is the digest of its lines without `#`: it does not depend on the layout.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from bundler.errors import OutputError


class ContentSource(StrEnum):
    """Where a file comes from that is not in the bundle."""

    BASE = "base"
    PAYLOAD = "payload"
    STATE = "state"


ENTRY = re.compile(r"([0-9a-f]{64}) ([0-7]{4}) ([0-9]{1,15}) ([!-~]+)")
NAMED = re.compile(r"# (base|payload) ([0-9a-f]{64})")
ABSENT = re.compile(r"# from-(base|payload|state) ([!-~]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestEntry:
    """One file of a bundle, as in its manifest."""

    path: str
    mode: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleManifest:
    """A parsed manifest."""

    entries: tuple[ManifestEntry, ...]
    identity: str
    base: str | None = None
    payload: str | None = None
    absent: Mapping[str, ContentSource] = field(default_factory=dict)  # path → its source


def identify(manifest: bytes) -> str:
    """Compute the identity of the bundle: the SHA-256 of the lines that name files."""
    lines = manifest.splitlines(keepends=True)
    return hashlib.sha256(b"".join(line for line in lines if line[:1] != b"#")).hexdigest()


def make_header(
    absent: Mapping[str, ContentSource], *, base: str | None = None, payload: str | None = None
) -> bytes:
    """Make the lines above those of the files; empty if the bundle contains every file."""
    lines = [f"# base {base}\n"] if base else []
    lines += [f"# payload {payload}\n"] if payload else []
    lines += [f"# from-{source} {path}\n" for path, source in sorted(absent.items())]
    return "".join(lines).encode()


def parse_manifest(content: bytes, where: str) -> BundleManifest:
    """Parse a manifest; raises OutputError that names `where`."""
    names: dict[str, str] = {}
    absent: dict[str, ContentSource] = {}
    entries = []
    for line in content.decode(errors="replace").splitlines():
        if entry := ENTRY.fullmatch(line):
            sha256, mode, size, path = entry.groups()
            entries.append(
                ManifestEntry(path=path, mode=int(mode, 8), size=int(size), sha256=sha256)
            )
        elif header := NAMED.fullmatch(line):
            names[header[1]] = header[2]
        elif source := ABSENT.fullmatch(line):
            absent[source[2]] = ContentSource(source[1])
        else:
            raise OutputError(f"{where}: not the MANIFEST of a bundle")
    for kind in (ContentSource.BASE, ContentSource.PAYLOAD):
        if kind in absent.values() and kind not in names:
            raise OutputError(f"{where}: has lines `# from-{kind}`, but no line `# {kind}`")
    return BundleManifest(
        entries=tuple(entries),
        identity=identify(content),
        base=names.get(ContentSource.BASE),
        payload=names.get(ContentSource.PAYLOAD),
        absent=absent,
    )
