"""The cache looked after: everything that builds use is read again, and what nothing needs goes."""

import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bundler.cache.archive import Blob, list_blobs
from bundler.cache.payload import recall_contents
from bundler.cache.refs import (
    DOCUMENTS,
    IMPORTED,
    forget,
    list_names,
)
from bundler.cache.segments import COMPRESSOR, list_segments
from bundler.cache.stamps import hash_file, mark_path, read_pin
from bundler.cache.store import Cache
from bundler.catalog import Artifact
from bundler.files import LEFTOVER_AGE, remove_leftovers


@dataclass(frozen=True, slots=True)
class Part:
    """A file of the cache that is no blob."""

    path: Path
    name: str  # below the cache's root
    size: int  # bytes
    changed: float  # when, in seconds; a file that is put aside keeps the time of its content


def verify_cache(cache: Cache) -> Iterator[tuple[Blob | Part, bool]]:
    """Read every blob and segment again, and whether each is what it was; others are put aside."""
    yield from _verify_blobs(cache)
    yield from _verify_segments(cache)


def prune_cache(
    cache: Cache,
    needed: Collection[Artifact],
    given: Iterable[str] = (),
    *,
    older_than: float = LEFTOVER_AGE,
    dry_run: bool = False,
) -> tuple[Blob | Part, ...]:
    """Take away every file that is not `needed`, and what was made of such; those that were.

    `given` are the SHA-256 of contents that come from elsewhere, and whose segments stay. What was
    put aside, or is half of a file that is not needed, goes when it has been left for `older_than`
    seconds: others may be at work on it.
    """
    keep = {(artifact.algorithm, artifact.digest) for artifact in needed}
    blobs = [blob for blob in list_blobs(cache) if (blob.algorithm, blob.digest) not in keep]
    segments = tuple(_list_useless_segments(cache, needed, given))
    aside = tuple(_list_left(cache, "quarantine", older_than))
    names = {f"{algorithm}-{digest}" for algorithm, digest in keep}
    begun = tuple(_list_left(cache, "partial", older_than, names))
    if not dry_run:
        for blob in blobs:
            with cache.lock(f"{blob.algorithm}-{blob.digest}"):
                cache.remove_blob(blob.algorithm, blob.digest)
        _forget_documents(cache, {blob.name for blob in blobs})
        for part in (*segments, *aside):
            mark_path(part.path).unlink(missing_ok=True)
            part.path.unlink(missing_ok=True)
        for part in begun:
            with cache.lock(part.path.name):  # who goes on with it meanwhile ends first
                part.path.unlink(missing_ok=True)
        remove_leftovers(cache.root, older_than)
    return (*blobs, *segments, *aside, *begun)


def _verify_blobs(cache: Cache) -> Iterator[tuple[Blob, bool]]:
    for blob in list_blobs(cache):
        with cache.lock(f"{blob.algorithm}-{blob.digest}"):
            path = cache.blob_path(blob.algorithm, blob.digest)
            if not path.is_file():
                continue  # pruned meanwhile
            good = hash_file(path, blob.algorithm) == blob.digest
            if not good:
                cache.quarantine(path, "altered")
        yield blob, good


def _verify_segments(cache: Cache) -> Iterator[tuple[Part, bool]]:
    for path in list_segments(cache):
        part, pin = _describe(path, cache), read_pin(path)
        if part is None or pin is None:
            continue  # gone meanwhile, or never finished: no build uses it
        algorithm, _, digest = pin.partition(":")
        try:
            good = hash_file(path, algorithm) == digest
            if not good:
                cache.quarantine(path, "altered-segment")
        except FileNotFoundError:
            continue
        yield part, good


def _forget_documents(cache: Cache, gone: Collection[str]) -> None:
    """Nothing is known of the URLs that gave what is gone."""
    for folder in (DOCUMENTS, IMPORTED):
        for url, digest in list_names(folder, cache).items():
            if digest in gone:
                forget(folder, url, cache)


def _list_useless_segments(
    cache: Cache, needed: Iterable[Artifact], given: Iterable[str]
) -> Iterator[Part]:
    contents = set(given).union(*(recall_contents(artifact, cache) for artifact in needed))
    for path in list_segments(cache):
        if path.parent.name == COMPRESSOR and path.name in contents:
            continue
        if part := _describe(path, cache):
            yield part


def _list_left(
    cache: Cache, directory: str, older_than: float, but: Collection[str] = ()
) -> Iterator[Part]:
    for path in sorted(cache.directory(directory).iterdir()):
        if path.name in but or path.name.startswith("."):
            continue
        part = _describe(path, cache)
        if part and time.time() - part.changed >= older_than:
            yield part


def _describe(path: Path, cache: Cache) -> Part | None:
    """None where it is gone."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return Part(path, path.relative_to(cache.root).as_posix(), status.st_size, status.st_ctime)
