"""payload-DIGEST.tar: what nodes share, once, for the layout `split`.

    payload-DIGEST/SHA256SUMS        of the members below; its own digest is the payload's identity
    payload-DIGEST/SHA256.tar.gz     one file, by the digest of its content; its segment as it is

Members are whole tarballs of one file named SHA256, so plain tar takes a single file out of the
payload without reading the others, and any directory that it was unpacked to is as good.
"""

import gzip
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
    read_tar,
    read_text,
)
from bundler.formats.digests import HashingReader

END = bytes(2 * tarfile.BLOCKSIZE)
SUMS = "SHA256SUMS"
SHORT = 16
"""Digits of the identity in file names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """A payload file that is yet to be written."""

    members: tuple[tuple[Payload, int], ...]  # and the member's size
    sums: bytes

    @property
    def identity(self) -> str:
        """What the manifests of node tarballs call it by."""
        return hashlib.sha256(self.sums).hexdigest()

    @property
    def name(self) -> str:
        """The directory in the tarball; the file's name without .tar."""
        return payload_name(self.identity)


def payload_name(identity: str) -> str:
    """payload-DIGEST, with as many digits as a file name bears."""
    return f"payload-{identity[:SHORT]}"


def make_shared(payloads: Iterable[Payload]) -> Shared:
    """Each content once, sorted by digest; every segment is read."""
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
    """The payload file's bytes: the same for the same contents, wherever it is built."""
    yield _header(f"{shared.name}/{SUMS}", len(shared.sums)) + shared.sums
    yield padding(len(shared.sums))
    for payload, size in shared.members:
        yield _header(f"{shared.name}/{payload.sha256}.tar.gz", size)
        yield from _member(payload)
        yield padding(size)
    yield END


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedReport:
    """A payload file that was read."""

    identity: str
    files: frozenset[str]  # digests of the contents that are whole
    faults: tuple[str, ...]


def inspect_shared(path: Path) -> SharedReport:
    """Read a payload file, or its volumes, to its end; OutputError where it is none at all."""
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
            held = _read_member(reader, path / name)
            if reader.finish() != sums.pop(name, None) or f"{held}.tar.gz" != name:
                faults.append(f"{name}: not what {SUMS} says")
            else:
                files.add(held)
    if not identity:
        raise OutputError(f"{path}: no payload: it holds no {SUMS}")
    faults += [f"{name}: missing" for name in sorted(sums)]
    return SharedReport(identity=identity, files=frozenset(files), faults=tuple(faults))


def _read_member(member: HashingReader, where: Path) -> str:
    """The digest of the one file that a member holds; nothing where it cannot be read."""
    try:
        with explain_damage(where), gzip.open(cast("IO[bytes]", member)) as unzipped:
            held = [
                HashingReader(file).finish()
                for _, _, file in list_files(cast("IO[bytes]", unzipped))
            ]
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
