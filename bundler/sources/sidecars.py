"""What upstream publishes beside a file: digests and signatures, small, and pinned by nobody.

The cache remembers what their URLs gave, for when these cannot be asked.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from bundler import log
from bundler.cache.refs import (
    DOCUMENTS,
    IMPORTED,
    recall,
    remember,
)
from bundler.cache.store import Cache
from bundler.catalog import Artifact
from bundler.errors import ArtifactError
from bundler.sources.download import FetchOptions
from bundler.sources.download_errors import NowhereError, StoppedError
from bundler.sources.fetch import fetch_unpinned

MOST = 1 << 20  # bytes
ALGORITHM = "sha256"


@dataclass(frozen=True, slots=True, kw_only=True)
class SidecarKind:
    """What a document is of its file."""

    name: str
    instead: str  # what users can do where it cannot be had
    folders: tuple[str, ...]  # of the memories that it may be taken from


DIGEST = SidecarKind(
    name="the digest",
    instead="pin the file's digest under `artifacts` in cluster.yaml",
    folders=(DOCUMENTS,),  # it proves nothing by itself: not on the word of who carried it
)
SIGNATURE = SidecarKind(
    name="the signature",
    instead="say where it is with `signature:` beside the key",
    folders=(DOCUMENTS, IMPORTED),
)
CERTIFICATE = SidecarKind(
    name="the certificate",
    instead="say where it is with `certificate:` beside the key",
    folders=(DOCUMENTS, IMPORTED),
)


def fetch_beside(
    artifact: Artifact, kind: SidecarKind, url: str, options: FetchOptions
) -> bytes | None:
    """The document of an artifact that is at `url`; None where there is none.

    Offline, or where sources fail, as the cache remembers it. That there is none, only sources that
    work can say. Any other fault is an ArtifactError: whoever can cause one would otherwise choose
    what is believed.
    """
    named = replace(artifact, component=f"{kind.name} of {artifact.component}")
    document = replace(named, url=url, algorithm=ALGORITHM, digest="", size=None)
    fault: ArtifactError | None = None
    try:
        found, path = fetch_unpinned(document, options, MOST)
    except StoppedError:
        raise
    except NowhereError:
        if not options.offline:
            return None
    except ArtifactError as error:
        fault = error
    else:
        remember(DOCUMENTS, url, found.pin, options.cache)
        return path.read_bytes()
    for known in _recall(document, kind.folders, options.cache):
        log.info(f"  {document.label}: taken as the cache remembers it")
        return options.cache.blob_path(ALGORITHM, known.digest).read_bytes()
    if fault is None:
        return None
    raise ArtifactError(
        fault.message,
        hint=f"{fault.hint}; only 404 and 410 say that upstream has none: try again later,"
        f" or {kind.instead}",
    ) from fault


def recall_beside(artifact: Artifact, url: str, cache: Cache) -> tuple[Artifact, ...]:
    """The files of the cache that `url`, beside the artifact, was seen to give."""
    document = replace(artifact, url=url, algorithm=ALGORITHM, size=None)
    return tuple(_recall(document, (DOCUMENTS, IMPORTED), cache))


def _recall(document: Artifact, folders: tuple[str, ...], cache: Cache) -> Iterator[Artifact]:
    for folder in folders:
        algorithm, _, digest = (recall(folder, document.url, cache) or "").partition(":")
        if algorithm == ALGORITHM and cache.has_blob(algorithm, digest):
            yield replace(document, digest=digest, source=document.url)
