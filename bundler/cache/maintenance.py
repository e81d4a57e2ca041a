"""Verify the cache (read every file again) and prune it (remove what no cluster needs)."""

import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bundler.cache.archive import Blob, list_blobs
from bundler.cache.payload import list_contents
from bundler.cache.refs import (
    DOCUMENTS,
    IMPORTED,
    list_refs,
    remove_ref,
)
from bundler.cache.segments import COMPRESSOR, list_segments
from bundler.cache.stamps import read_pin, stamp_path
from bundler.cache.store import Cache
from bundler.catalog import Artifact
from bundler.files import LEFTOVER_AGE, remove_leftovers
from bundler.formats.digests import hash_file


@dataclass(frozen=True, slots=True)
class CacheFile:
    """A file of the cache that is not a blob."""

    path: Path
    name: str  # below the cache's root
    size: int  # bytes
    changed: float  # change time in seconds; a quarantined file keeps its modification time


def verify_cache(cache: Cache) -> Iterator[tuple[Blob | CacheFile, bool]]:
    """Read every blob and segment again; yield whether it is unaltered. Altered: quarantined."""
    yield from _verify_blobs(cache)
    yield from _verify_segments(cache)


def prune_cache(
    cache: Cache,
    needed: Collection[Artifact],
    other_contents: Iterable[str] = (),
    *,
    older_than: float = LEFTOVER_AGE,
    dry_run: bool = False,
) -> tuple[Blob | CacheFile, ...]:
    """Remove every file that is not `needed`, and what was made from it; return the removed files.

    `other_contents` are SHA-256 digests of contents that are not from artifacts, whose segments
    stay. Quarantined files and unneeded partial downloads are removed only if they are unchanged
    for `older_than` seconds: another run may be using them.
    """
    keep = {(artifact.algorithm, artifact.digest) for artifact in needed}
    blobs = [blob for blob in list_blobs(cache) if (blob.algorithm, blob.digest) not in keep]
    segments = tuple(_list_unneeded_segments(cache, needed, other_contents))
    quarantined = tuple(_list_old(cache, "quarantine", older_than))
    names = {f"{algorithm}-{digest}" for algorithm, digest in keep}
    partials = tuple(_list_old(cache, "partial", older_than, names))
    if not dry_run:
        for blob in blobs:
            with cache.lock(f"{blob.algorithm}-{blob.digest}"):
                cache.remove_blob(blob.algorithm, blob.digest)
        _remove_refs(cache, {blob.name for blob in blobs})
        for part in (*segments, *quarantined):
            stamp_path(part.path).unlink(missing_ok=True)
            part.path.unlink(missing_ok=True)
        for part in partials:
            with cache.lock(part.path.name):  # a run that resumes it finishes first
                part.path.unlink(missing_ok=True)
        remove_leftovers(cache.root, older_than)
    return (*blobs, *segments, *quarantined, *partials)


def _verify_blobs(cache: Cache) -> Iterator[tuple[Blob, bool]]:
    for blob in list_blobs(cache):
        with cache.lock(f"{blob.algorithm}-{blob.digest}"):
            path = cache.blob_path(blob.algorithm, blob.digest)
            if not path.is_file():
                continue  # another run pruned it
            good = hash_file(path, blob.algorithm) == blob.digest
            if not good:
                cache.quarantine(path, "altered")
        yield blob, good


def _verify_segments(cache: Cache) -> Iterator[tuple[CacheFile, bool]]:
    for path in list_segments(cache):
        part, pin = _describe(path, cache), read_pin(path)
        if part is None or pin is None:
            continue  # pruned, or never finished: no build uses it
        algorithm, _, digest = pin.partition(":")
        try:
            good = hash_file(path, algorithm) == digest
            if not good:
                cache.quarantine(path, "altered-segment")
        except FileNotFoundError:
            continue
        yield part, good


def _remove_refs(cache: Cache, removed: Collection[str]) -> None:
    """Remove the URLs that stood for removed files."""
    for folder in (DOCUMENTS, IMPORTED):
        for url, digest in list_refs(folder, cache).items():
            if digest in removed:
                remove_ref(folder, url, cache)


def _list_unneeded_segments(
    cache: Cache, needed: Iterable[Artifact], other_contents: Iterable[str]
) -> Iterator[CacheFile]:
    contents = set(other_contents).union(*(list_contents(artifact, cache) for artifact in needed))
    for path in list_segments(cache):
        if path.parent.name == COMPRESSOR and path.name in contents:
            continue
        if part := _describe(path, cache):
            yield part


def _list_old(
    cache: Cache, directory: str, older_than: float, keep: Collection[str] = ()
) -> Iterator[CacheFile]:
    for path in sorted(cache.directory(directory).iterdir()):
        if path.name in keep or path.name.startswith("."):
            continue
        part = _describe(path, cache)
        if part and time.time() - part.changed >= older_than:
            yield part


def _describe(path: Path, cache: Cache) -> CacheFile | None:
    """The file's name, size and time; None if another run removed it."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return CacheFile(path, path.relative_to(cache.root).as_posix(), status.st_size, status.st_ctime)
