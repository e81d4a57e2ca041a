"""Large files as compressed tar segments: made once, stored by digest, copied into N bundles."""

import dataclasses
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

from bundler import log
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
from bundler.formats.digests import hash_next
from bundler.formats.tar_safety import (
    BadMemberError,
    iter_members,
    open_tar,
    unpack_limit,
)
from bundler.private_files import read_note
from bundler.urls import show_url

SHORT = 24  # characters of a file name, which may be a digest, in a message
MEMBERS = "members"
COPY = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """A large file: its digest, its size, and the path of its compressed segment."""

    sha256: str
    size: int
    segment: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    """The note about a member of an upstream archive, as it is in a file of members/."""

    archive: str  # sha256:…
    name: str
    sha256: str
    size: int


def ensure_file(path: Path, cache: Cache) -> Payload:
    """The payload of a file on disk."""
    return ensure_part(path, 0, path.stat().st_size, cache)


def ensure_part(
    path: Path, offset: int, size: int, cache: Cache, *, known: str | None = None
) -> Payload:
    """The payload of a range of a file, which is read for its digest unless that is `known`."""
    with path.open("rb") as file:
        file.seek(offset)
        digest = known or hash_next(file, size).hexdigest()
        if has_segment(cache, digest):
            log.detail(f"{path.name}: compressed before, {size} bytes")
        else:
            log.detail(f"{path.name}: is compressed, {size} bytes")
            file.seek(offset)
            try:
                make_segment(file, size, cache, digest, label=path.name[:SHORT])
            except EOFError as error:
                raise ArtifactError(f"{path}: {error}", hint="create the file again") from error
    return Payload(sha256=digest, size=size, segment=segment_path(cache, digest))


def ensure_members(
    artifact: Artifact, archive: Path, names: Sequence[str], cache: Cache
) -> dict[str, Payload]:
    """The payloads of members of an upstream archive, which is read only if one is missing.

    Raises ArtifactError if a member is missing or not a regular file, or the archive is damaged.
    """
    found = {name: _find_payload(artifact, name, cache) for name in names}
    missing = {name for name, payload in found.items() if not payload}
    if missing:
        with cache.lock(f"members-{artifact.digest}", label=artifact.label):
            found |= _read_members(artifact, archive, missing, cache)
    return {name: payload for name, payload in found.items() if payload is not None}


def list_contents(artifact: Artifact, cache: Cache) -> set[str]:
    """The SHA-256 digests of what bundles use of an upstream file: the file, or its members."""
    found = (cache.root / MEMBERS / artifact.digest).glob("*.json")
    records = (_read_record(path, artifact) for path in found)
    return {artifact.digest, *(record.sha256 for record in records if record)}


def read_payload(payload: Payload) -> Iterator[bytes]:
    """The content, decompressed, in pieces; ArtifactError if its segment is damaged."""
    left = payload.size
    with _explain_damage(payload), gzip.open(payload.segment) as file:
        while left and (chunk := file.read(min(CHUNK, left))):
            left -= len(chunk)
            yield chunk
        if (
            left or len(file.read(BLOCK)) != -payload.size % BLOCK
        ):  # to its end, which has the checksum
            raise EOFError("it does not have the length of its content")


def read_head(payload: Payload, length: int) -> bytes:
    """The first bytes of the content."""
    with _explain_damage(payload), gzip.open(payload.segment) as file:
        return file.read(min(length, payload.size))


def read_segment(payload: Payload) -> Iterator[bytes]:
    """The compressed content, as bundles have it, in pieces."""
    with _explain_damage(payload), payload.segment.open("rb") as segment:
        while chunk := segment.read(COPY):
            yield chunk


@contextmanager
def _explain_damage(payload: Payload) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{payload.segment} was removed during the build",
            hint="did bundler cache prune run? Build again",
        ) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ArtifactError(
            f"{payload.segment} is damaged: {error}",
            hint="quarantine it with: bundler cache verify; then build again",
        ) from error


def _read_members(
    artifact: Artifact, archive: Path, names: Iterable[str], cache: Cache
) -> dict[str, Payload]:
    left = set(names)
    found = {}
    try:
        with open_tar(archive) as tar:
            # to the end even if all are found: a second file with the same name may follow
            for member in iter_members(tar, unpack_limit(archive.stat().st_size)):
                name = member.name.removeprefix("./")
                if name not in left:
                    continue
                file = tar.extractfile(member) if member.isreg() else None
                if not file:
                    raise ArtifactError(f"{artifact.label}: {name} is not a regular file")
                digest = make_segment(
                    file,  # type: ignore[arg-type]
                    member.size,
                    cache,
                    None,
                    label=f"{name} of {artifact.label}",
                )
                found[name] = Payload(
                    sha256=digest, size=member.size, segment=segment_path(cache, digest)
                )
                left.discard(name)
    except BadMemberError as error:
        raise ArtifactError(
            f"{artifact.label}: the archive {show_url(artifact.url)} is refused: {error}",
            hint="find out who made it; then pin another file under `artifacts` in cluster.yaml",
        ) from error
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise ArtifactError(f"{artifact.label}: the archive is damaged: {error}") from error
    if left:
        raise ArtifactError(
            f"{artifact.label}: {show_url(artifact.url)} does not contain"
            f" {', '.join(sorted(left))}",
            hint="check that the URL is for this version",
        )
    for name, payload in found.items():  # last: an archive with a record is not checked again
        _write_record(artifact, name, payload, cache)
    return found


def _find_payload(artifact: Artifact, name: str, cache: Cache) -> Payload | None:
    record = _read_record(_member_path(artifact, name, cache), artifact)
    if not record or record.name != name or not has_segment(cache, record.sha256):
        return None
    segment = segment_path(cache, record.sha256)
    return Payload(sha256=record.sha256, size=record.size, segment=segment)


def _read_record(path: Path, artifact: Artifact) -> _Record | None:
    """What is recorded of a member; None if nothing is, or another user wrote it."""
    try:
        record = _Record(**json.loads(read_note(path) or b"null"))
    except (ValueError, TypeError):
        return None
    return record if record.archive == artifact.pin else None


def _write_record(artifact: Artifact, name: str, payload: Payload, cache: Cache) -> None:
    record = _Record(archive=artifact.pin, name=name, sha256=payload.sha256, size=payload.size)
    write_atomically(
        _member_path(artifact, name, cache), json.dumps(dataclasses.asdict(record)).encode()
    )


def _member_path(artifact: Artifact, name: str, cache: Cache) -> Path:
    key = hashlib.sha256(name.encode()).hexdigest()
    return cache.directory(MEMBERS, artifact.digest) / f"{key}.json"
