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
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from bundler.errors import OutputError


class ContentSource(StrEnum):
    """Where a file comes from that is not in the bundle."""

    BASE = "base"
    PAYLOAD = "payload"
    STATE = "state"


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
    try:
        for line in content.decode().splitlines():
            if line.startswith("#"):
                _, key, value = line.split(" ")
                if key.startswith("from-"):
                    absent[value] = ContentSource(key.removeprefix("from-"))
                else:
                    names[key] = value
            else:
                sha256, mode, size, path = line.split(" ")
                entries.append(
                    ManifestEntry(path=path, mode=int(mode, 8), size=int(size), sha256=sha256)
                )
    except ValueError as error:
        raise OutputError(f"{where}: not the MANIFEST of a bundle") from error
    return BundleManifest(
        entries=tuple(entries),
        identity=identify(content),
        base=names.get("base"),
        payload=names.get("payload"),
        absent=absent,
    )
