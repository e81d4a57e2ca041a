"""Small files that upstream publishes next to a file: digests, signatures, certificates.

They have no pins. The cache stores what their URLs served, for offline use and for failing servers.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from bundler import log
from bundler.cache.refs import (
    DOCUMENTS,
    IMPORTED,
    read_ref,
    write_ref,
)
from bundler.cache.store import Cache
from bundler.catalog import Artifact
from bundler.errors import ArtifactError
from bundler.sources.download import FetchOptions
from bundler.sources.fetch import fetch_unpinned
from bundler.sources.limits import MAX_SIDECAR
from bundler.sources.retries import NotFoundError, StoppedError
from bundler.urls import show_url

ALGORITHM = "sha256"


@dataclass(frozen=True, slots=True, kw_only=True)
class SidecarKind:
    """The kind of a sidecar file."""

    name: str
    instead: str  # what users can do if it is missing
    folders: tuple[str, ...]  # of cache refs that may be used for it
    most: int = MAX_SIDECAR  # bytes


DIGEST = SidecarKind(
    name="the digest",
    instead="pin the file's digest under `artifacts` in cluster.yaml",
    folders=(DOCUMENTS,),  # it proves nothing by itself, so an import is not a trust source
)
SIGNATURE = SidecarKind(
    name="the signature",
    instead="give its URL with `signature:` next to the key",
    folders=(DOCUMENTS, IMPORTED),
)
CERTIFICATE = SidecarKind(
    name="the certificate",
    instead="give its URL with `certificate:` next to the key",
    folders=(DOCUMENTS, IMPORTED),
)


def fetch_sidecar(
    artifact: Artifact, kind: SidecarKind, url: str, options: FetchOptions
) -> bytes | None:
    """The content of an artifact's sidecar at `url`; None if upstream publishes none.

    If bundler is offline or all sources fail, the content is from the cache. Only HTTP 404 and 410
    mean that upstream publishes none. Any other error is an ArtifactError: otherwise an attacker
    could suppress a signature by causing errors.
    """
    named = replace(artifact, component=f"{kind.name} of {artifact.component}")
    document = replace(named, url=url, algorithm=ALGORITHM, digest="", size=None, most=kind.most)
    fault: ArtifactError | None = None
    try:
        found, path = fetch_unpinned(document, options)
    except StoppedError:
        raise
    except NotFoundError:
        if not options.offline:
            return None
    except ArtifactError as error:
        fault = error
    else:
        write_ref(DOCUMENTS, show_url(url), found.pin, options.cache)
        return path.read_bytes()
    for known in _find_cached(document, kind.folders, options.cache):
        log.info(f"  {document.label}: from the cache")
        return options.cache.blob_path(ALGORITHM, known.digest).read_bytes()
    if not fault:
        return None
    fault.hint = (
        f"{fault.hint}; only HTTP 404 and 410 mean that upstream has none: try again later, or"
        f" {kind.instead}"
    )
    raise fault


def find_cached_sidecars(artifact: Artifact, url: str, cache: Cache) -> tuple[Artifact, ...]:
    """The files in the cache that the artifact's sidecar URL served."""
    document = replace(artifact, url=url, algorithm=ALGORITHM, size=None, most=MAX_SIDECAR)
    return tuple(_find_cached(document, (DOCUMENTS, IMPORTED), cache))


def _find_cached(document: Artifact, folders: tuple[str, ...], cache: Cache) -> Iterator[Artifact]:
    name = show_url(document.url)
    for folder in folders:
        algorithm, _, digest = (read_ref(folder, name, cache) or "").partition(":")
        if algorithm == ALGORITHM and cache.has_blob(algorithm, digest):
            yield replace(document, digest=digest, source=name)
