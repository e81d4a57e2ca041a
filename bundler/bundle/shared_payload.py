"""payload-DIGEST.tar: the files that nodes share, once, for the layout `split`.

    payload-DIGEST/SHA256SUMS        of the members below; its own digest is the payload's identity
    payload-DIGEST/SHA256.tar.gz     one file, named by the digest of its content

Each member is a tarball of one file named SHA256: plain tar extracts one file without reading the
others, and install.sh also accepts a directory to which the payload was unpacked.
"""

import hashlib
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from bundler.cache.payload import Payload, read_segment
from bundler.cache.segments import compress, padding
from bundler.errors import OutputError
from bundler.formats.bundle_archives import (
    explain_damage,
    list_files,
    open_gzip,
    read_tar,
    read_text,
)
from bundler.formats.digests import HashingReader
from bundler.formats.tar_safety import unpack_limit
from bundler.formats.volumes import joined_size

END = bytes(2 * tarfile.BLOCKSIZE)
SUMS = "SHA256SUMS"
SHORT = 16
"""Digits of the identity in file names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """The contents of a payload file that is not yet written."""

    members: tuple[tuple[Payload, int], ...]  # with the size of the member
    sums: bytes

    @property
    def identity(self) -> str:
        """The digest by which manifests of node tarballs name it."""
        return hashlib.sha256(self.sums).hexdigest()

    @property
    def name(self) -> str:
        """The directory in the tarball, and the file name without .tar."""
        return payload_name(self.identity)


def payload_name(identity: str) -> str:
    """Return payload-DIGEST with a short digest, as in file names."""
    return f"payload-{identity[:SHORT]}"


def make_shared(payloads: Iterable[Payload]) -> Shared:
    """Collect each content once, sorted by digest; this reads every segment."""
    members, lines = [], []
    unique = {payload.sha256: payload for payload in payloads}
    for _, payload in sorted(unique.items()):
        hasher, size = hashlib.sha256(), 0
        for piece in _member(payload):
            hasher.update(piece)
            size += len(piece)
        members.append((payload, size))
        lines.append(f"{hasher.hexdigest()}  {payload.sha256}.tar.gz\n")
    return Shared(members=tuple(members), sums="".join(lines).encode())


def shared_pieces(shared: Shared) -> Iterator[bytes]:
    """Yield the bytes of the payload file: the same for the same contents."""
    yield _header(f"{shared.name}/{SUMS}", len(shared.sums)) + shared.sums
    yield padding(len(shared.sums))
    for payload, size in shared.members:
        yield _header(f"{shared.name}/{payload.sha256}.tar.gz", size)
        yield from _member(payload)
        yield padding(size)
    yield END


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedReport:
    """The contents of a payload file, and every fault that was found."""

    identity: str
    files: frozenset[str]  # digests of the intact contents
    faults: tuple[str, ...]


def inspect_shared(path: Path) -> SharedReport:
    """Read a complete payload file, or its volumes; raise OutputError if it is not one."""
    sums: dict[str, str] = {}
    identity, files, faults = "", set(), []
    with explain_damage(path):
        for name, _, content in read_tar(path):
            reader = HashingReader(content)
            if name == SUMS:
                text = read_text(reader)
                identity = hashlib.sha256(text).hexdigest()
                lines = (line.partition("  ") for line in text.decode().splitlines())
                sums = {member: sha256 for sha256, _, member in lines}
                continue
            held = _read_member(reader, path / name, unpack_limit(joined_size(path)))
            if reader.finish() != sums.pop(name, None) or f"{held}.tar.gz" != name:
                faults.append(f"{name}: differs from {SUMS}")
            else:
                files.add(held)
    if not identity:
        raise OutputError(f"{path}: not a payload: {SUMS} is missing")
    faults += [f"{name}: missing" for name in sorted(sums)]
    return SharedReport(identity=identity, files=frozenset(files), faults=tuple(faults))


def _read_member(member: HashingReader, where: Path, limit: int) -> str:
    """Return the digest of the one file in a member, or "" if it cannot be read."""
    try:
        with explain_damage(where):
            unzipped = open_gzip(cast("IO[bytes]", member))
            held = [HashingReader(file).finish() for _, _, file in list_files(unzipped, limit)]
    except OutputError:
        return ""
    return held[0] if len(held) == 1 else ""


def _member(payload: Payload) -> Iterator[bytes]:
    yield compress(_header(payload.sha256, payload.size))
    yield from read_segment(payload)
    yield compress(END)


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.GNU_FORMAT)
