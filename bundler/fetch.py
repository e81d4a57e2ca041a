"""Upstream files into the cache: mirrors in order, then upstream; verified while streaming."""

import dataclasses
import errno
import hashlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import requests

from bundler.cache import CHUNK, Cache
from bundler.catalog import Artifact, closest_versions
from bundler.errors import ArtifactError, BundlerError
from bundler.files import explain_disk_faults

PARALLEL = 4
ATTEMPTS = 4
RECEIVED = 1 << 17  # bytes that are written at a time, and so lost at most by a kill -9
MAX_DOCUMENT = 1 << 20  # bytes of a digest file
TIMEOUT = (15, 60)  # seconds: to connect, and between two chunks
AGAIN = {408, 425, 429, 500, 502, 503, 504}
"""HTTP statuses that may pass; every other 4xx is final."""


class Progress(Protocol):
    """Where the bytes of running downloads are shown."""

    def start(self, name: str, total: int | None, done: int) -> None:
        """A download of `total` bytes, `done` of them already here."""

    def advance(self, name: str, count: int) -> None:
        """`count` more bytes."""

    def finish(self, name: str) -> None:
        """It ended, well or not."""


class NoProgress:
    """Shows nothing."""

    def start(self, name: str, total: int | None, done: int) -> None:
        """Nothing."""

    def advance(self, name: str, count: int) -> None:
        """Nothing."""

    def finish(self, name: str) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchOptions:
    """Where files may come from."""

    cache: Cache
    mirrors: tuple[str, ...] = ()
    offline: bool = False
    backoff: float = 1.0  # seconds before the second attempt; doubled each time
    progress: Progress = field(default_factory=NoProgress)


class _NotHereError(Exception):
    """This source does not have the file, or cannot be reached: the next may."""


def ensure_artifacts(artifacts: Sequence[Artifact], options: FetchOptions) -> dict[Artifact, Path]:
    """Every file, verified, in the cache; all failures in one ArtifactError."""
    wanted = list(dict.fromkeys(artifacts))
    failures: list[str] = []
    hints: list[str] = []
    paths: dict[Artifact, Path] = {}
    with ThreadPoolExecutor(PARALLEL) as pool:
        futures = {artifact: pool.submit(ensure_artifact, artifact, options) for artifact in wanted}
        for artifact, future in futures.items():
            try:
                paths[artifact] = future.result()
            except ArtifactError as error:
                failures.append(error.message)
                hints += [error.hint] if error.hint else []
    if failures:
        raise ArtifactError("\n".join(failures), hint="; ".join(dict.fromkeys(hints)) or None)
    return paths


def ensure_artifact(artifact: Artifact, options: FetchOptions) -> Path:
    """One file: from the cache, or the first source that has it.

    A source that serves other bytes than the pin says stops everything: that must be seen.
    """
    cache = options.cache
    with cache.lock(f"{artifact.algorithm}-{artifact.digest}"):
        if cache.has_blob(artifact.algorithm, artifact.digest):
            return cache.blob_path(artifact.algorithm, artifact.digest)
        tried = []
        for source in _sources(artifact, options):
            try:
                return _take(artifact, source, options)
            except _NotHereError as reason:
                tried.append(f"{source}: {reason}")
    raise _cannot_be_had(artifact, tried, options)


def fetch_unpinned(artifact: Artifact, options: FetchOptions) -> tuple[Artifact, Path]:
    """A file whose digest nobody has said, and what it turned out to be: for `bundler lock`."""
    name = hashlib.sha256(artifact.url.encode()).hexdigest()
    tried = []
    with options.cache.lock(f"unpinned-{name}"):
        partial = options.cache.partial_path("unpinned", name)
        for source in _sources(artifact, options):
            partial.unlink(missing_ok=True)  # of which version, nobody knows
            try:
                digest = _receive(artifact, source, partial, options)
            except _NotHereError as reason:
                tried.append(f"{source}: {reason}")
                continue
            found = dataclasses.replace(artifact, digest=digest, source=source)
            return found, options.cache.adopt(partial, artifact.algorithm, digest)
    raise _cannot_be_had(artifact, tried, options)


def fetch_document(artifact: Artifact, options: FetchOptions) -> bytes | None:
    """A small file beside an upstream file, such as its digest; None where no source has it."""
    try:
        _, path = fetch_unpinned(artifact, options)
    except ArtifactError:
        return None
    with path.open("rb") as file:
        return file.read(MAX_DOCUMENT)


def _cannot_be_had(
    artifact: Artifact, tried: Sequence[str], options: FetchOptions
) -> ArtifactError:
    lines = "\n".join(f"  {line}" for line in tried or ["no source"])
    return ArtifactError(f"{artifact.label} cannot be had:\n{lines}", hint=_hint(artifact, options))


def _sources(artifact: Artifact, options: FetchOptions) -> Iterator[str]:
    """Mirrors hold each file at <mirror>/<upstream host>/<upstream path>."""
    parts = urlsplit(artifact.url)
    for mirror in options.mirrors:
        tail = f"{parts.netloc}{parts.path}" if parts.netloc else parts.path.lstrip("/")
        is_url = mirror.startswith(("http://", "https://"))
        if is_url and options.offline:
            continue
        yield f"{mirror.rstrip('/')}/{tail if is_url else unquote(tail)}"
    if parts.scheme == "file":
        yield unquote(parts.path)
    elif not options.offline:
        yield artifact.url


def _hint(artifact: Artifact, options: FetchOptions) -> str:
    if options.offline:
        return "give a directory that holds it with --mirror DIR, or build once without --offline"
    close = closest_versions(artifact.component, artifact.version, artifact.arch)
    near = f"; pinned versions near it: {', '.join(close)}" if close else ""
    return f"check the version and the network, or give --mirror DIR or URL{near}"


def _take(artifact: Artifact, source: str, options: FetchOptions) -> Path:
    partial = options.cache.partial_path(artifact.algorithm, artifact.digest)
    found = _receive(artifact, source, partial, options)
    if found != artifact.digest:
        aside = options.cache.quarantine(partial, "wrong-digest")
        raise ArtifactError(
            f"{artifact.label} from {source} is not what its pin says:\n"
            f"  expected {artifact.algorithm} {artifact.digest} ({artifact.source})\n"
            f"  found    {artifact.algorithm} {found}\n"
            f"  the file is kept aside, and not used: {aside}",
            hint="find out who changed it before you trust the source or change the pin",
        )
    return options.cache.adopt(partial, artifact.algorithm, artifact.digest)


def _receive(artifact: Artifact, source: str, partial: Path, options: FetchOptions) -> str:
    """Bring the bytes of a source into `partial`; their digest."""
    with explain_disk_faults(partial):
        if source.startswith(("http://", "https://")):
            return _download(artifact, source, partial, options)
        return _copy(artifact, Path(source), partial)


def _copy(artifact: Artifact, source: Path, partial: Path) -> str:
    """Copy from a directory; the digest of what was read."""
    hasher = hashlib.new(artifact.algorithm)
    try:
        with source.open("rb") as reader, partial.open("wb") as writer:
            while chunk := reader.read(CHUNK):
                hasher.update(chunk)
                writer.write(chunk)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise _NotHereError("not there") from error
    return hasher.hexdigest()


def _download(artifact: Artifact, url: str, partial: Path, options: FetchOptions) -> str:
    """Download with resume and backoff; the digest of the whole file."""
    wait = options.backoff
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _stream(artifact, url, partial, options)
        except requests.HTTPError as error:
            status = error.response.status_code
            if status not in AGAIN or attempt == ATTEMPTS:
                raise _NotHereError(f"HTTP {status} {error.response.reason}") from error
        except requests.exceptions.SSLError as error:
            raise _NotHereError(
                f"TLS failed ({_reason(error)}); certificates are always checked"
            ) from error
        except (requests.RequestException, ConnectionError) as error:
            if attempt == ATTEMPTS:
                raise _NotHereError(_reason(error)) from error
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
            raise _NotHereError(str(error)) from error
        time.sleep(wait)
        wait *= 2
    raise AssertionError("unreachable")


def _stream(artifact: Artifact, url: str, partial: Path, options: FetchOptions) -> str:
    """One request: only the bytes that are missing, if the server can do that."""
    done = partial.stat().st_size if partial.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416:  # the partial file is as long as the whole, or longer
            partial.unlink()
            return _stream(artifact, url, partial, options)
        response.raise_for_status()
        resumed = response.status_code == 206 and response.headers.get(
            "Content-Range", ""
        ).startswith(f"bytes {done}-")
        if not resumed:
            done = 0
        hasher = _hash_prefix(artifact, partial, done)
        length = response.headers.get("Content-Length")
        total = done + int(length) if length and length.isdigit() else None
        options.progress.start(artifact.label, total, done)
        try:
            with partial.open("r+b" if resumed else "wb") as file:
                file.seek(done)
                for chunk in response.iter_content(RECEIVED):
                    hasher.update(chunk)
                    file.write(chunk)
                    done += len(chunk)
                    options.progress.advance(artifact.label, len(chunk))
        finally:
            options.progress.finish(artifact.label)
    if total is not None and done < total:
        raise requests.ConnectionError(f"the connection ended after {done} of {total} bytes")
    return hasher.hexdigest()


def _hash_prefix(artifact: Artifact, partial: Path, length: int) -> "hashlib._Hash":
    """A hasher that has already read the first `length` bytes on disk."""
    hasher = hashlib.new(artifact.algorithm)
    if length:
        with partial.open("rb") as file:
            while length and (chunk := file.read(min(CHUNK, length))):
                hasher.update(chunk)
                length -= len(chunk)
    return hasher


def _reason(error: BaseException) -> str:
    """The innermost cause, without the library's wrapping."""
    while error.__context__ is not None and not isinstance(error.__context__, BundlerError):
        error = error.__context__
    text = str(error) or type(error).__name__
    return text if len(text) < 200 else f"{text[:197]}..."
