"""Export a cache as one tar file, and import one with every digest checked.

The tar file starts with `bundler-cache/INDEX`, a line `<algorithm>:<digest>` for each file. The
files follow as `bundler-cache/<algorithm>/<digest>`, sorted, without times or owners. So the same
files give the same bytes, each name states the digest, and an incomplete export is detected.
`bundler-cache/DOCUMENTS` (JSON) maps URLs to digests of files without a pin, such as signatures.
Nothing verifies this mapping, so an import stores it apart from what this builder downloaded.
"""

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
    list_refs,
    write_ref,
)
from bundler.cache.store import CHUNK, Cache
from bundler.catalog import Artifact
from bundler.errors import ArtifactError, OutputError
from bundler.files import open_atomically, reserve
from bundler.formats.digests import DIGEST_LENGTHS, HashingReader
from bundler.formats.image_manifests import MAX_LAYER
from bundler.formats.tar_safety import BadMemberError, iter_members, open_tar
from bundler.private_files import open_for_writing
from bundler.urls import show_url

TOP = "bundler-cache"
INDEX = f"{TOP}/INDEX"
DOCUMENTS_MEMBER = f"{TOP}/DOCUMENTS"
MAX_INDEX = 16 << 20  # bytes
MEMBER = re.compile(rf"{TOP}/(?P<algorithm>sha256|sha512)/(?P<digest>[0-9a-f]+)")


@dataclass(frozen=True, slots=True, order=True)
class Blob:
    """One complete upstream file in a cache."""

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
            with suppress(FileNotFoundError):  # another run pruned it
                status = path.stat()
                if stat.S_ISREG(status.st_mode) and not path.name.startswith("."):
                    found.append(Blob(algorithm, path.name, status.st_size))
    return tuple(sorted(found))


def export_blobs(cache: Cache, target: Path, only: Collection[Artifact] | None) -> tuple[Blob, ...]:
    """Write all files, or those of `only`, into a tar file.

    Each is checked while it is read. Raises ArtifactError if one of `only` is missing.
    """
    blobs = list_blobs(cache)
    if only is not None:
        wanted = {(artifact.algorithm, artifact.digest): artifact for artifact in only}
        blobs = tuple(blob for blob in blobs if (blob.algorithm, blob.digest) in wanted)
        held = {(blob.algorithm, blob.digest) for blob in blobs}
        if missing := [a.label for key, a in wanted.items() if key not in held]:
            raise ArtifactError(
                f"not in the cache {cache.root}: {', '.join(missing)}",
                hint="download them with: bundler fetch",
            )
    if target.is_dir():
        raise OutputError(f"{target} is a directory", hint="give the name of a file in it")
    if not target.absolute().parent.is_dir():
        raise OutputError(f"{target.absolute().parent} is not a directory", hint="create it first")
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
            _export_blob(archive, blob, cache)
    return blobs


def import_blobs(cache: Cache, source: Path) -> Iterator[Blob]:
    """Import every file of an exported tar into the cache, after its digest is checked.

    Raises ArtifactError at the first member that `export_blobs` would not write, or with a wrong
    digest. The files before it stay imported.
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
                        f"{source}: {blob.name} is not in its index, or there twice", hint=_HINT
                    )
                left.discard(blob.name)
                content = archive.extractfile(member)
                if content is not None:
                    yield _import_blob(cache, blob, content, source)
    except BadMemberError as error:
        raise ArtifactError(
            f"{source}: not an exported cache: {error}; the rest is not used", hint=_HINT
        ) from error
    except (tarfile.TarError, EOFError) as error:
        raise ArtifactError(
            f"{source}: not a complete, uncompressed tar archive ({error})", hint=_HINT
        ) from error
    if left:
        raise ArtifactError(
            f"{source}: not a complete export: {len(left)} files of its index are missing",
            hint=_HINT,
        )
    for url, digest in documents.items():
        write_ref(IMPORTED, url, digest, cache)


def _find_documents(cache: Cache, blobs: Collection[Blob]) -> dict[str, str]:
    """URLs and the files they served; what this builder downloaded takes precedence."""
    held = {blob.name for blob in blobs}
    known = list_refs(IMPORTED, cache) | list_refs(DOCUMENTS, cache)
    return {show_url(url): digest for url, digest in known.items() if digest in held}


def _read_documents(
    archive: tarfile.TarFile, member: tarfile.TarInfo, source: Path
) -> dict[str, str]:
    is_valid = member.isreg() and member.size <= MAX_INDEX
    content = archive.extractfile(member) if is_valid else None
    try:
        return _DOCUMENTS.validate_json(content.read() if content else b"")
    except ValidationError as error:
        raise ArtifactError(f"{source}: {member.name} cannot be read", hint=_HINT) from error


def _read_index(archive: tarfile.TarFile, member: tarfile.TarInfo | None, source: Path) -> set[str]:
    """The first member: the names of the other members."""
    if not member or member.name != INDEX or not member.isreg() or member.size > MAX_INDEX:
        raise ArtifactError(f"{source}: not an exported cache", hint=_HINT)
    content = archive.extractfile(member)
    return set(content.read().decode(errors="replace").split()) if content else set()


_DOCUMENTS = TypeAdapter(dict[str, Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]])
_HINT = "export it again with: bundler cache export"


def _export_blob(archive: tarfile.TarFile, blob: Blob, cache: Cache) -> None:
    member = _describe(f"{TOP}/{blob.algorithm}/{blob.digest}", blob.size)
    path = cache.blob_path(blob.algorithm, blob.digest)
    try:
        with _Source(path) as file:
            reader = HashingReader(file, blob.algorithm)
            archive.addfile(member, reader)
            digest = reader.finish()
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{blob.name} was removed from the cache during the export",
            hint="did bundler cache prune run? Export again",
        ) from error
    if digest != blob.digest:
        raise ArtifactError(
            f"{path} does not have the digest in its name",
            hint="quarantine it with: bundler cache verify; then bundler fetch, and export again",
        )


def _describe(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o644
    return member


class _Source(io.FileIO):
    """A file that may be on bad media."""

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes; ArtifactError if they cannot be read."""
        try:
            return super().read(size) or b""
        except OSError as error:
            raise ArtifactError(f"{self.name} cannot be read: {error.strerror}") from error


def _check_member(member: tarfile.TarInfo, source: Path) -> Blob:
    match = MEMBER.fullmatch(member.name)
    if not match or not member.isreg() or len(match["digest"]) != DIGEST_LENGTHS[match[1]]:
        raise ArtifactError(
            f"{source}: {member.name!r} is not a file of a cache; it is not used", hint=_HINT
        )
    if member.size > MAX_LAYER:
        raise ArtifactError(
            f"{source}: {member.name} has {member.size} bytes, more than the largest file of a"
            " cache; it is not used",
            hint=_HINT,
        )
    return Blob(match["algorithm"], match["digest"], member.size)


def _import_blob(cache: Cache, blob: Blob, content: IO[bytes], source: Path) -> Blob:
    with cache.lock(f"{blob.algorithm}-{blob.digest}"):
        if cache.has_blob(blob.algorithm, blob.digest):
            return blob
        partial = cache.partial_path(blob.algorithm, blob.digest)
        reader = HashingReader(content, blob.algorithm)
        with reserve(partial, blob.size), open_for_writing(partial, "wb") as file:
            while chunk := reader.read(CHUNK):
                file.write(chunk)
        if reader.finish() != blob.digest:
            quarantined = cache.quarantine(partial, "wrong-digest")
            raise ArtifactError(
                f"{source}: {blob.name} does not have that digest; quarantined as {quarantined}",
                hint="copy the file again; if that does not help, find out who changed it",
            )
        cache.adopt(partial, blob.algorithm, blob.digest)
    return blob
