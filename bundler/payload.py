"""Large files as compressed tar segments: made once, kept by content, laid into N bundles.

A segment is a file's content with the zeros that pad it to tar's blocks, as one or more gzip
members. Gzip members may follow one another (RFC 1952, 2.2), so a bundle is a concatenation of
segments, and no bundle costs a compression. libdeflate is used because its output depends on
its version alone, not on the processor or on what zlib the builder's Python was linked with.
"""

import gzip
import hashlib
import json
import lzma
import os
import tarfile
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkstemp
from typing import BinaryIO

import deflate

from bundler.cache import Cache
from bundler.catalog import Artifact
from bundler.errors import ArtifactError
from bundler.files import TEMPORARY, explain_disk_faults, write_atomically
from bundler.members import BadMemberError, BoundedInfo, unpacked_limit, walk

LEVEL = 6
COMPRESSOR = f"libdeflate-{deflate.__version__}-{LEVEL}"
CHUNK = 4 << 20
BLOCK = 512
THREADS = os.cpu_count() or 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """A large file: what it is, and where its compressed segment lies."""

    sha256: str
    size: int
    segment: Path


def compress(data: bytes) -> bytes:
    """One gzip member without name and time."""
    return bytes(deflate.gzip_compress(data, LEVEL))


def ensure_file(path: Path, cache: Cache) -> Payload:
    """The payload of a file on disk."""
    return ensure_part(path, 0, path.stat().st_size, cache)


def ensure_part(
    path: Path, offset: int, size: int, cache: Cache, *, known: str | None = None
) -> Payload:
    """The payload of some bytes of a file; it is read for its digest, unless that is `known`."""
    with path.open("rb") as file:
        digest = known or _hash_part(file, offset, size)
        segment = _segment_path(cache, digest)
        if not segment.is_file():
            file.seek(offset)
            _make_segment(file, size, cache, digest)
    return Payload(sha256=digest, size=size, segment=segment)


def ensure_members(
    artifact: Artifact, archive: Path, names: Sequence[str], cache: Cache
) -> dict[str, Payload]:
    """The payloads of an upstream tarball's members; the archive is read only if one is missing.

    Raises ArtifactError where a member is missing, is no plain file, or the archive is damaged.
    """
    found = {name: _recall(artifact, name, cache) for name in names}
    missing = {name for name, payload in found.items() if payload is None}
    if missing:
        with cache.lock(f"members-{artifact.digest}"):
            found |= _read_members(artifact, archive, missing, cache)
    return {name: payload for name, payload in found.items() if payload is not None}


def read_payload(payload: Payload) -> Iterator[bytes]:
    """The content again, decompressed, in pieces."""
    left = payload.size
    with gzip.open(payload.segment) as file:
        while left and (chunk := file.read(min(CHUNK, left))):
            left -= len(chunk)
            yield chunk


def padding(size: int) -> bytes:
    """The zeros that fill tar's last block."""
    return bytes(-size % BLOCK)


def _hash_part(file: BinaryIO, offset: int, size: int) -> str:
    hasher = hashlib.sha256()
    file.seek(offset)
    while size and (chunk := file.read(min(CHUNK, size))):
        hasher.update(chunk)
        size -= len(chunk)
    return hasher.hexdigest()


def _read_members(
    artifact: Artifact, archive: Path, names: Iterable[str], cache: Cache
) -> dict[str, Payload]:
    left = set(names)
    found = {}
    try:
        with tarfile.open(archive, "r:*", tarinfo=BoundedInfo) as tar:
            # to its end, though all may be found before: a second file of one name may follow
            for member in walk(tar, unpacked_limit(archive.stat().st_size)):
                name = member.name.removeprefix("./")
                if name not in left:
                    continue
                file = tar.extractfile(member) if member.isreg() else None
                if file is None:
                    raise ArtifactError(f"{artifact.label}: {name} is no plain file")
                digest = _make_segment(file, member.size, cache, None)  # type: ignore[arg-type]
                found[name] = Payload(
                    sha256=digest, size=member.size, segment=_segment_path(cache, digest)
                )
                left.discard(name)
    except BadMemberError as error:
        raise ArtifactError(
            f"{artifact.label}: {artifact.url} is no archive to trust: {error}",
            hint="find out who made it, and take another, with its digest under `artifacts`",
        ) from error
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise ArtifactError(f"{artifact.label}: a damaged archive: {error}") from error
    if left:
        raise ArtifactError(
            f"{artifact.label}: {artifact.url} holds no {', '.join(sorted(left))}",
            hint="check that the version and the URL belong together",
        )
    for name, payload in found.items():  # only now: what is recorded is never looked at again
        _remember(artifact, name, payload, cache)
    return found


def _recall(artifact: Artifact, name: str, cache: Cache) -> Payload | None:
    try:
        record = json.loads(_member_path(artifact, name, cache).read_bytes())
        segment = _segment_path(cache, record["sha256"])
        if segment.is_file():
            return Payload(sha256=record["sha256"], size=record["size"], segment=segment)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _remember(artifact: Artifact, name: str, payload: Payload, cache: Cache) -> None:
    record = json.dumps({"sha256": payload.sha256, "size": payload.size}).encode()
    write_atomically(_member_path(artifact, name, cache), record)


def _make_segment(file: BinaryIO, size: int, cache: Cache, expected: str | None) -> str:
    """Compress `size` bytes of `file` into the segment of their digest; returns the digest."""
    directory = cache.directory("segments", COMPRESSOR)
    with explain_disk_faults(directory):
        descriptor, name = mkstemp(prefix=TEMPORARY, dir=directory)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as out:
                digest = _compress_stream(file, size, out)
                out.flush()
                os.fsync(out.fileno())
            _check_unchanged(digest, expected)
            temporary.replace(directory / digest)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    return digest


def _check_unchanged(digest: str, expected: str | None) -> None:
    if expected is not None and digest != expected:
        raise ArtifactError("a file changed while it was read: build again")


def _compress_stream(file: BinaryIO, size: int, out: BinaryIO) -> str:
    """Chunks are compressed side by side and written in order; at most a few are in memory."""
    hasher = hashlib.sha256()
    running: deque[Future[bytes]] = deque()
    left = size
    with ThreadPoolExecutor(THREADS) as pool:
        while left:
            chunk = file.read(min(CHUNK, left))
            if not chunk:
                raise EOFError("the file ended early")
            left -= len(chunk)
            hasher.update(chunk)
            running.append(pool.submit(compress, chunk if left else chunk + padding(size)))
            if len(running) > 2 * THREADS:
                out.write(running.popleft().result())
        out.writelines(future.result() for future in running)
    return hasher.hexdigest()


def _segment_path(cache: Cache, digest: str) -> Path:
    return cache.directory("segments", COMPRESSOR) / digest


def _member_path(artifact: Artifact, name: str, cache: Cache) -> Path:
    key = hashlib.sha256(name.encode()).hexdigest()
    return cache.directory("members", artifact.digest) / f"{key}.json"
