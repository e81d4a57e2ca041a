"""A cache on media: exported as one tar file, imported with every digest checked.

The tar file holds `bundler-cache/INDEX`, a line `<algorithm>:<digest>` for each file, and then the
files as `bundler-cache/<algorithm>/<digest>`, sorted, without times or owners: the same files give
the same bytes, each name says what its content must be, and half an export is known to be half.
Where URLs gave some of them that nobody pins (signatures), `bundler-cache/DOCUMENTS` says which
gave which, as JSON. Nothing vouches for that: an import keeps it apart from what this builder saw.
"""

import hashlib
import io
import json
import re
import stat
import tarfile
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated

from pydantic import Field, TypeAdapter, ValidationError

from bundler.cache.refs import (
    DOCUMENTS,
    IMPORTED,
    list_names,
    remember,
)
from bundler.cache.store import CHUNK, Cache
from bundler.catalog import Artifact
from bundler.errors import ArtifactError, OutputError
from bundler.files import explain_disk_faults, open_atomically
from bundler.formats.digests import DIGEST_LENGTHS
from bundler.formats.tar_safety import BadMemberError, iter_members, open_tar

TOP = "bundler-cache"
INDEX = f"{TOP}/INDEX"
DOCUMENTS_MEMBER = f"{TOP}/DOCUMENTS"
MAX_INDEX = 16 << 20  # bytes
MEMBER = re.compile(rf"{TOP}/(?P<algorithm>sha256|sha512)/(?P<digest>[0-9a-f]+)")


@dataclass(frozen=True, slots=True, order=True)
class Blob:
    """One whole upstream file of a cache."""

    algorithm: str  # sha256 | sha512
    digest: str
    size: int  # bytes

    @property
    def name(self) -> str:
        """`sha256:…`."""
        return f"{self.algorithm}:{self.digest}"


def list_blobs(cache: Cache) -> tuple[Blob, ...]:
    """Every file, sorted."""
    found = []
    for algorithm in DIGEST_LENGTHS:
        for path in cache.directory("blobs", algorithm).iterdir():
            with suppress(FileNotFoundError):  # pruned meanwhile
                status = path.stat()
                if stat.S_ISREG(status.st_mode) and not path.name.startswith("."):
                    found.append(Blob(algorithm, path.name, status.st_size))
    return tuple(sorted(found))


def export_blobs(cache: Cache, target: Path, only: Collection[Artifact] | None) -> tuple[Blob, ...]:
    """Write files into a tar file: all, or those of `only`.

    Each is checked while it is read. Raises ArtifactError where one of `only` is missing.
    """
    blobs = list_blobs(cache)
    if only is not None:
        wanted = {(artifact.algorithm, artifact.digest): artifact for artifact in only}
        blobs = tuple(blob for blob in blobs if (blob.algorithm, blob.digest) in wanted)
        held = {(blob.algorithm, blob.digest) for blob in blobs}
        if missing := [a.label for key, a in wanted.items() if key not in held]:
            raise ArtifactError(
                f"not in the cache {cache.root}: {', '.join(missing)}",
                hint="bring them there with: bundler fetch",
            )
    if target.is_dir():
        raise OutputError(f"{target} is a directory", hint="name a file in it")
    if not target.absolute().parent.is_dir():
        raise OutputError(f"{target.absolute().parent} is no directory", hint="make it first")
    with (
        open_atomically(target) as file,
        open_tar(mode="w", fileobj=file) as archive,
    ):
        index = "".join(f"{blob.name}\n" for blob in blobs).encode()
        archive.addfile(_describe(INDEX, len(index)), io.BytesIO(index))
        if documents := _find_documents(cache, blobs):
            text = json.dumps(documents, sort_keys=True).encode()
            archive.addfile(_describe(DOCUMENTS_MEMBER, len(text)), io.BytesIO(text))
        for blob in blobs:
            _add(archive, blob, cache)
    return blobs


def import_blobs(cache: Cache, source: Path) -> Iterator[Blob]:
    """Take every file of an exported tar into the cache, each when its digest is known to hold.

    Raises ArtifactError at the first member that is not as `export_blobs` writes it, or that is
    not what its name says; what came before it stays.
    """
    try:
        file = _Source(source)
    except OSError as error:
        raise ArtifactError(f"{source}: {error.strerror}") from error
    try:
        with file, open_tar(mode="r|", fileobj=file) as archive:
            members = iter_members(archive)
            left = _read_index(archive, next(members, None), source)
            documents: dict[str, str] = {}
            for member in members:
                if member.name == DOCUMENTS_MEMBER:
                    documents = _read_documents(archive, member, source)
                    continue
                blob = _check_member(member, source)
                if blob.name not in left:
                    raise ArtifactError(
                        f"{source}: {blob.name} is in it twice, or not in its index", hint=_HINT
                    )
                left.discard(blob.name)
                content = archive.extractfile(member)
                if content is not None:
                    yield _take(cache, blob, content, source)
    except BadMemberError as error:
        raise ArtifactError(
            f"{source}: not an exported cache: {error}; the rest of it is not used", hint=_HINT
        ) from error
    except (tarfile.TarError, EOFError) as error:
        raise ArtifactError(
            f"{source}: no whole, uncompressed tar archive ({error})", hint=_HINT
        ) from error
    if left:
        raise ArtifactError(
            f"{source}: no whole export: {len(left)} files of its index are missing", hint=_HINT
        )
    for url, digest in documents.items():
        remember(IMPORTED, url, digest, cache)


def _find_documents(cache: Cache, blobs: Collection[Blob]) -> dict[str, str]:
    """Which URLs were seen to give which of the files; what this builder saw itself comes first."""
    held = {blob.name for blob in blobs}
    known = list_names(IMPORTED, cache) | list_names(DOCUMENTS, cache)
    return {url: digest for url, digest in known.items() if digest in held}


def _read_documents(
    archive: tarfile.TarFile, member: tarfile.TarInfo, source: Path
) -> dict[str, str]:
    is_sound = member.isreg() and member.size <= MAX_INDEX
    content = archive.extractfile(member) if is_sound else None
    try:
        return _DOCUMENTS.validate_json(content.read() if content else b"")
    except ValidationError as error:
        raise ArtifactError(f"{source}: {member.name} cannot be read", hint=_HINT) from error


def _read_index(archive: tarfile.TarFile, member: tarfile.TarInfo | None, source: Path) -> set[str]:
    """The first member: what the rest will be."""
    if member is None or member.name != INDEX or not member.isreg() or member.size > MAX_INDEX:
        raise ArtifactError(f"{source}: no export of a cache", hint=_HINT)
    content = archive.extractfile(member)
    return set(content.read().decode(errors="replace").split()) if content else set()


_DOCUMENTS = TypeAdapter(dict[str, Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]])
_HINT = "make it anew with: bundler cache export"


def _add(archive: tarfile.TarFile, blob: Blob, cache: Cache) -> None:
    member = _describe(f"{TOP}/{blob.algorithm}/{blob.digest}", blob.size)
    path = cache.blob_path(blob.algorithm, blob.digest)
    try:
        with _Source(path) as file:
            reader = _Hashing(file, blob.algorithm)
            archive.addfile(member, reader)
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{blob.name} was taken out of the cache while it was exported",
            hint="by bundler cache prune? Export again",
        ) from error
    if reader.hasher.hexdigest() != blob.digest:
        raise ArtifactError(
            f"{path} is not what its name says", hint="find out why: bundler cache verify"
        )


def _describe(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o644
    return member


class _Source(io.FileIO):
    """A file that may lie on bad media."""

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes; ArtifactError where they cannot be had."""
        try:
            return super().read(size) or b""
        except OSError as error:
            raise ArtifactError(f"{self.name} cannot be read: {error.strerror}") from error


class _Hashing:
    """A file that is hashed while it is read."""

    def __init__(self, file: IO[bytes], algorithm: str) -> None:
        self._file = file
        self.hasher = hashlib.new(algorithm)

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        chunk = self._file.read(size)
        self.hasher.update(chunk)
        return chunk


def _check_member(member: tarfile.TarInfo, source: Path) -> Blob:
    match = MEMBER.fullmatch(member.name)
    if not match or not member.isreg() or len(match["digest"]) != DIGEST_LENGTHS[match[1]]:
        raise ArtifactError(
            f"{source}: {member.name!r} is no file of a cache: nothing of it is used", hint=_HINT
        )
    return Blob(match["algorithm"], match["digest"], member.size)


def _take(cache: Cache, blob: Blob, content: IO[bytes], source: Path) -> Blob:
    with cache.lock(f"{blob.algorithm}-{blob.digest}"):
        if cache.has_blob(blob.algorithm, blob.digest):
            return blob
        partial = cache.partial_path(blob.algorithm, blob.digest)
        reader = _Hashing(content, blob.algorithm)
        with explain_disk_faults(partial), partial.open("wb") as file:
            while chunk := reader.read(CHUNK):
                file.write(chunk)
        if reader.hasher.hexdigest() != blob.digest:
            aside = cache.quarantine(partial, "wrong-digest")
            raise ArtifactError(
                f"{source}: {blob.name} is not what its name says; kept aside: {aside}",
                hint="copy the file again; if it stays so, find out who changed it",
            )
        cache.adopt(partial, blob.algorithm, blob.digest)
    return blob
