"""MANIFEST: every file that a bundle installs, and the source of those that it does not contain.

    # base SHA256            a delta: the public identity of the bundle that must be installed
    # payload SHA256         the layout `split`: the payload file that must be given
    # seal TAG               the secrets are sealed: the tag of their archive (bundle/seal.py)
    # seal-key ID            names the unseal code
    # sealed-to SHA256       the certificate that the unseal code is encrypted to
    # from-base PATH         one of the files below, already on the host
    # from-payload PATH      one of the files below, in the payload file
    # from-seal PATH TAG     not below: in the sealed archive; same content, same tag
    # from-state PATH        not below: needs the state directory, left out by --public-only
    SHA256 MODE SIZE PATH    one line per file, sorted by path; paths have no spaces

The identity of a bundle is the digest of its lines without `#`: it does not depend on the layout.
Its public identity is that of the lines of files that are not secret (0600). A sealed bundle and
the same bundle unsealed have the same public identity, and it tells nothing about secrets.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from bundler.errors import OutputError
from bundler.files import SECRET_MODE


class ContentSource(StrEnum):
    """Where a file comes from that is not in the bundle."""

    BASE = "base"
    PAYLOAD = "payload"
    SEAL = "seal"
    STATE = "state"


ENTRY = re.compile(r"([0-9a-f]{64}) ([0-7]{4}) ([0-9]{1,15}) ([!-~]+)")
NAMED = re.compile(r"# (base|payload|seal|sealed-to) ([0-9a-f]{64})")
SEAL_KEY = re.compile(r"# (seal-key) ([0-9a-f]{16})")
ABSENT = re.compile(r"# from-(base|payload|state) ([!-~]+)")
IN_SEAL = re.compile(r"# from-seal ([!-~]+) ([0-9a-f]{64})")


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestEntry:
    """One file of a bundle, as in its manifest."""

    path: str
    mode: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """How the secrets of a bundle are sealed. Without the unseal code, tags tell nothing."""

    tag: str
    key_id: str
    recipient: str = ""  # the SHA-256 of the host's certificate; empty: a person has the code
    tags: Mapping[str, str]  # by path of each sealed file


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleManifest:
    """A parsed manifest."""

    entries: tuple[ManifestEntry, ...]
    public_identity: str
    base: str | None = None
    payload: str | None = None
    seal: Seal | None = None
    absent: Mapping[str, ContentSource] = field(default_factory=dict)  # path → its source

    def list_contents(self) -> tuple[ManifestEntry, ...]:
        """List the files as they are on the host; a sealed one has its tag in place of a digest."""
        if not self.seal:
            return self.entries
        public = [entry for entry in self.entries if entry.mode != SECRET_MODE]
        sealed = [
            ManifestEntry(path=path, mode=SECRET_MODE, size=0, sha256=tag)
            for path, tag in self.seal.tags.items()
        ]
        return tuple(sorted([*public, *sealed], key=lambda entry: entry.path))


def make_header(
    absent: Mapping[str, ContentSource],
    *,
    base: str | None = None,
    payload: str | None = None,
    seal: Seal | None = None,
) -> bytes:
    """Make the lines above those of the files; empty if the bundle contains every file."""
    tags = seal.tags if seal else {}
    names = {
        "base": base,
        "payload": payload,
        "seal": seal and seal.tag,
        "seal-key": seal and seal.key_id,
        "sealed-to": seal and seal.recipient,
    }
    sources = {**absent, **dict.fromkeys(tags, ContentSource.SEAL)}
    lines = [f"# {key} {value}" for key, value in names.items() if value]
    lines += [
        " ".join([f"# from-{source}", path, *([tags[path]] if path in tags else [])])
        for path, source in sorted(sources.items())
    ]
    return "".join(f"{line}\n" for line in lines).encode()


def parse_manifest(content: bytes, where: str) -> BundleManifest:
    """Parse a manifest; raises OutputError that names `where`."""
    names: dict[str, str] = {}
    absent: dict[str, ContentSource] = {}
    tags: dict[str, str] = {}
    entries = []
    public = hashlib.sha256()
    for line in content.decode(errors="replace").splitlines():
        if entry := ENTRY.fullmatch(line):
            sha256, mode, size, path = entry.groups()
            entries.append(
                ManifestEntry(path=path, mode=int(mode, 8), size=int(size), sha256=sha256)
            )
            if entries[-1].mode != SECRET_MODE:
                public.update(f"{line}\n".encode())
        elif header := NAMED.fullmatch(line) or SEAL_KEY.fullmatch(line):
            names[header[1]] = header[2]
        elif source := ABSENT.fullmatch(line):
            absent[source[2]] = ContentSource(source[1])
        elif sealed := IN_SEAL.fullmatch(line):
            absent[sealed[1]], tags[sealed[1]] = ContentSource.SEAL, sealed[2]
        else:
            raise OutputError(f"{where}: not the MANIFEST of a bundle")
    for kind in (ContentSource.BASE, ContentSource.PAYLOAD, ContentSource.SEAL):
        if kind in absent.values() and kind not in names:
            raise OutputError(f"{where}: has lines `# from-{kind}`, but no line `# {kind}`")
    return BundleManifest(
        entries=tuple(entries),
        public_identity=public.hexdigest(),
        base=names.get(ContentSource.BASE),
        payload=names.get(ContentSource.PAYLOAD),
        seal=_make_seal(names, tags),
        absent=absent,
    )


def _make_seal(names: Mapping[str, str], tags: Mapping[str, str]) -> Seal | None:
    if "seal" not in names:
        return None
    return Seal(
        tag=names["seal"],
        key_id=names.get("seal-key", ""),
        recipient=names.get("sealed-to", ""),
        tags=tags,
    )
