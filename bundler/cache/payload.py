"""Large files as compressed tar segments: made once, kept by content, laid into N bundles."""

import gzip
import hashlib
import json
import lzma
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bundler.cache.segments import (
    BLOCK,
    CHUNK,
    has_segment,
    make_segment,
    segment_path,
)
from bundler.cache.store import Cache
from bundler.catalog import Artifact
from bundler.errors import ArtifactError
from bundler.files import write_atomically
from bundler.formats.tar_safety import (
    BadMemberError,
    iter_members,
    open_tar,
    unpack_limit,
)

MEMBERS = "members"
COPY = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """A large file: what it is, and where its compressed segment lies."""

    sha256: str
    size: int
    segment: Path


def ensure_file(path: Path, cache: Cache) -> Payload:
    """The payload of a file on disk."""
    return ensure_part(path, 0, path.stat().st_size, cache)


def ensure_part(
    path: Path, offset: int, size: int, cache: Cache, *, known: str | None = None
) -> Payload:
    """The payload of some bytes of a file; it is read for its digest, unless that is `known`."""
    with path.open("rb") as file:
        digest = known or _hash_part(file, offset, size)
        if not has_segment(cache, digest):
            file.seek(offset)
            make_segment(file, size, cache, digest)
    return Payload(sha256=digest, size=size, segment=segment_path(cache, digest))


def ensure_members(
    artifact: Artifact, archive: Path, names: Sequence[str], cache: Cache
) -> dict[str, Payload]:
    """The payloads of an upstream tarball's members; the archive is read only if one is missing.

    Raises ArtifactError where a member is missing, is no plain file, or the archive is damaged.
    """
    found = {name: _recall(artifact, name, cache) for name in names}
    missing = {name for name, payload in found.items() if payload is None}
    if missing:
        with cache.lock(f"members-{artifact.digest}", label=artifact.label):
            found |= _read_members(artifact, archive, missing, cache)
    return {name: payload for name, payload in found.items() if payload is not None}


def recall_contents(artifact: Artifact, cache: Cache) -> set[str]:
    """The SHA-256 of what was ever laid into bundles of an upstream file: itself, or members."""
    found = (cache.root / MEMBERS / artifact.digest).glob("*.json")
    records = (_read_record(path) for path in found)
    return {artifact.digest, *(digest for digest, _ in filter(None, records))}


def read_payload(payload: Payload) -> Iterator[bytes]:
    """The content again, decompressed, in pieces; ArtifactError where its segment is damaged."""
    left = payload.size
    with _explain_damage(payload), gzip.open(payload.segment) as file:
        while left and (chunk := file.read(min(CHUNK, left))):
            left -= len(chunk)
            yield chunk
        if left or len(file.read(BLOCK)) != -payload.size % BLOCK:  # its end, checksum included
            raise EOFError("not as long as its content")


def read_head(payload: Payload, length: int) -> bytes:
    """The content's first bytes."""
    with _explain_damage(payload), gzip.open(payload.segment) as file:
        return file.read(min(length, payload.size))


def read_segment(payload: Payload) -> Iterator[bytes]:
    """The content as it is laid into bundles, compressed, in pieces."""
    with _explain_damage(payload), payload.segment.open("rb") as segment:
        while chunk := segment.read(COPY):
            yield chunk


@contextmanager
def _explain_damage(payload: Payload) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{payload.segment} went while it was needed", hint="was the cache pruned? Build again"
        ) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ArtifactError(
            f"{payload.segment} is damaged: {error}", hint="find out why: bundler cache verify"
        ) from error


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
        with open_tar(archive) as tar:
            # to its end, though all may be found before: a second file of one name may follow
            for member in iter_members(tar, unpack_limit(archive.stat().st_size)):
                name = member.name.removeprefix("./")
                if name not in left:
                    continue
                file = tar.extractfile(member) if member.isreg() else None
                if file is None:
                    raise ArtifactError(f"{artifact.label}: {name} is no plain file")
                digest = make_segment(file, member.size, cache, None)  # type: ignore[arg-type]
                found[name] = Payload(
                    sha256=digest, size=member.size, segment=segment_path(cache, digest)
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
    record = _read_record(_member_path(artifact, name, cache))
    if record is None or not has_segment(cache, record[0]):
        return None
    digest, size = record
    return Payload(sha256=digest, size=size, segment=segment_path(cache, digest))


def _read_record(path: Path) -> tuple[str, int] | None:
    """The digest and size of a member; None where nobody noted them."""
    try:
        record = json.loads(path.read_bytes())
        return str(record["sha256"]), int(record["size"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(artifact: Artifact, name: str, payload: Payload, cache: Cache) -> None:
    record = json.dumps({"sha256": payload.sha256, "size": payload.size}).encode()
    write_atomically(_member_path(artifact, name, cache), record)


def _member_path(artifact: Artifact, name: str, cache: Cache) -> Path:
    key = hashlib.sha256(name.encode()).hexdigest()
    return cache.directory(MEMBERS, artifact.digest) / f"{key}.json"
