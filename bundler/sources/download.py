"""Download one file from one source: stream, hash, resume and retry.

The partial file is always a prefix of the complete one, so a run resumes the download of a run
that was killed. A byte is written once, and read again only to resume.
"""

import hashlib
import os
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import urlsplit

import requests

from bundler import log
from bundler.cache.store import CHUNK, Cache
from bundler.catalog import Artifact
from bundler.errors import ArtifactError
from bundler.files import reserve
from bundler.formats.digests import hash_file, hash_next
from bundler.private_files import open_for_writing
from bundler.sources.limits import PARALLEL_DOWNLOADS
from bundler.sources.mirrors import WEB, Mirror
from bundler.sources.retries import (
    FIRST_WAIT,
    Answer,
    RetryableError,
    SourceError,
    StoppedError,
    classify_errors,
    retry,
)
from bundler.sources.transport import Session, make_session, open_url
from bundler.urls import show_url

PROGRESS = 1 << 20  # bytes that an attempt must add so that the count of attempts starts again
LONG_WAIT = 10.0  # seconds; a retry after such a wait is always shown
RECEIVED = 1 << 18  # bytes that are received and written at a time: a kill -9 loses no more


class Progress(Protocol):
    """Shows the progress of running downloads."""

    def start(self, name: str, total: int | None, done: int) -> None:
        """Show a new download of `total` bytes; an earlier run downloaded `done` of them."""

    def advance(self, name: str, count: int) -> None:
        """Add `count` received bytes."""

    def finish(self, name: str) -> None:
        """End the download, successful or not."""


class NoProgress:
    """Shows nothing."""

    def start(self, name: str, total: int | None, done: int) -> None:
        """Do nothing."""

    def advance(self, name: str, count: int) -> None:
        """Do nothing."""

    def finish(self, name: str) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchOptions:
    """Where to download files from, and how."""

    cache: Cache
    mirrors: tuple[Mirror, ...] = ()
    offline: bool = False
    jobs: int = PARALLEL_DOWNLOADS
    backoff: float = FIRST_WAIT  # seconds before the second attempt
    progress: Progress = field(default_factory=NoProgress)
    session: Session = field(default_factory=make_session)
    reported: set[tuple[str, str]] = field(default_factory=set)  # host and reason of retries
    stop: threading.Event = field(default_factory=threading.Event)  # set: every download stops soon

    def pause(self, seconds: float) -> None:
        """Wait; StoppedError if the run ends."""
        if self.stop.wait(seconds):
            raise StoppedError("stopped")

    def retry(self, attempt: Callable[[], Answer]) -> Answer:
        """What `attempt` returns, retried as retries.py decides; SourceError if it fails."""
        return retry(attempt, first_wait=self.backoff, pause=self.pause)


def receive(artifact: Artifact, source: str, partial: Path, options: FetchOptions) -> str:
    """Write the bytes of a source (URL or path) into `partial`; return their digest.

    Raises SourceError; ArtifactError if the source has more or fewer bytes than the artifact's
    size, or that is more than `artifact.most`; OutputError if the disk is full.
    """
    if (artifact.size or 0) > artifact.most:
        raise ArtifactError(
            f"{artifact.label}: {artifact.source} states {artifact.size} bytes, and such a file has"
            f" at most {artifact.most}",
            hint="find out who changed it, and use its original",
        )
    if source.startswith(WEB):
        return _download(artifact, source, partial, options)
    return _copy(artifact, Path(source), partial)


def _copy(artifact: Artifact, source: Path, partial: Path) -> str:
    hasher = hashlib.new(artifact.algorithm)
    try:
        # a pipe would wait for its writer, a device may have no end
        reader = open(source, "rb", opener=_open_without_waiting)  # noqa: SIM115
        status = os.fstat(reader.fileno())
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise SourceError("no such file", is_absent=True) from error
    except OSError as error:
        raise SourceError(f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SourceError(f"not a path: {error}") from error
    with reader:
        if not stat.S_ISREG(status.st_mode):
            raise SourceError("not a regular file")
        _check_length(artifact, str(source), status.st_size)
        with reserve(partial, status.st_size), open_for_writing(partial, "wb") as writer:
            while chunk := _read(reader):
                _check_received(artifact, str(source), reader.tell(), partial)
                hasher.update(chunk)
                writer.write(chunk)
    return hasher.hexdigest()


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _read(file: BinaryIO) -> bytes:
    """The next bytes of a source; SourceError tells its errors from errors of the cache."""
    try:
        return file.read(CHUNK)
    except OSError as error:
        raise SourceError(f"cannot be read: {error.strerror}") from error


def _download(artifact: Artifact, url: str, partial: Path, options: FetchOptions) -> str:
    """Attempt the download and retry it; an attempt that adds PROGRESS bytes is not counted."""
    best = _size(partial)

    def attempt() -> str:
        if options.stop.is_set():
            raise StoppedError(f"{artifact.label}: stopped")
        return _attempt(artifact, url, partial, options)

    def has_progress() -> bool:
        nonlocal best
        if _size(partial) < best + PROGRESS:
            return False
        best = _size(partial)
        return True

    def report(error: RetryableError, seconds: float) -> None:
        reason = (urlsplit(show_url(url)).netloc, str(error))
        if reason in options.reported and seconds < LONG_WAIT:
            return  # many files of one host fail in the same way
        options.reported.add(reason)
        log.info(f"  {artifact.label}: {show_url(url)}: {error}; retry in {seconds:g} s")

    return retry(
        attempt,
        first_wait=options.backoff,
        pause=options.pause,
        has_progress=has_progress,
        report=report,
    )


def _attempt(artifact: Artifact, url: str, partial: Path, options: FetchOptions) -> str:
    """One request for the missing bytes; the digest of the complete file.

    A file without a known digest is never assembled from two answers.
    """
    done = _size(partial) if artifact.digest else 0
    if done and done == artifact.size:
        if _is_complete(artifact, partial):
            return artifact.digest
        done = 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
    trail: list[str] = []
    with classify_errors(url, trail), open_url(options.session, url, headers, trail) as response:
        _note_other_host(artifact, trail)
        status = response.status_code
        if done and status == 200:  # a server without ranges sends all
            done = 0
        elif done and status == 416 and _is_complete(artifact, partial):
            return artifact.digest
        elif done and not _resumes(response, done) and status in {206, 416}:
            partial.unlink(missing_ok=True)
            raise RetryableError("the server sent another part of the file than requested", wait=0)
        if status != (206 if done else 200):
            raise requests.HTTPError(response=response)
        return _save(artifact, url, response, partial, done, options)


def _save(
    artifact: Artifact,
    url: str,
    response: requests.Response,
    partial: Path,
    done: int,
    options: FetchOptions,
) -> str:
    """Write and hash the body, which starts at byte `done` of the file."""
    length = response.headers.get("Content-Length", "")
    total = done + int(length) if length.isdecimal() else None
    if total is not None:
        _check_length(artifact, url, total)
    expected = total if total is not None else artifact.size
    hasher = _hash_prefix(artifact, partial, done)
    options.progress.start(artifact.label, expected, done)
    try:
        how = "r+b" if done else "wb"
        with reserve(partial, expected or 0, done), open_for_writing(partial, how) as file:
            file.seek(done)
            # not decoded: the pin is of the file as published, even with Content-Encoding
            while chunk := response.raw.read1(RECEIVED, decode_content=False):
                done += len(chunk)
                _check_received(artifact, url, done, partial)
                if options.stop.is_set():
                    raise StoppedError(f"{artifact.label}: stopped")
                hasher.update(chunk)
                file.write(chunk)
                options.progress.advance(artifact.label, len(chunk))
    finally:
        options.progress.finish(artifact.label)
    if expected is not None and done < expected:
        raise RetryableError(f"the connection ended after {done} of {expected} bytes")
    return hasher.hexdigest()


def _resumes(response: requests.Response, done: int) -> bool:
    """Whether the answer is the part of the file that starts at byte `done`."""
    stated = response.headers.get("Content-Range", "")
    return response.status_code == 206 and stated.startswith(f"bytes {done}-")


def _is_complete(artifact: Artifact, partial: Path) -> bool:
    """Whether an earlier run downloaded all of the file; a wrong file is removed."""
    if hash_file(partial, artifact.algorithm) == artifact.digest:
        return True
    partial.unlink()
    return False


def _check_length(artifact: Artifact, source: str, length: int) -> None:
    """Raise if a source announces another size than the pin."""
    if artifact.size is None:
        _check_not_longer(artifact, source, length)
    elif length != artifact.size:
        raise _wrong_length(artifact, source, f"{length} bytes")


def _check_received(artifact: Artifact, source: str, length: int, partial: Path) -> None:
    """Raise if a source sends too much; the partial file is then of no use."""
    try:
        _check_not_longer(artifact, source, length)
    except (ArtifactError, SourceError):
        partial.unlink(missing_ok=True)
        raise


def _check_not_longer(artifact: Artifact, source: str, length: int) -> None:
    if artifact.size is not None and length > artifact.size:
        raise _wrong_length(artifact, source, "more bytes; they were not read")
    if length > artifact.most:
        raise SourceError(f"it has more than {artifact.most} bytes, which is too large")


def _wrong_length(artifact: Artifact, source: str, found: str) -> ArtifactError:
    return ArtifactError(
        f"{artifact.label} from {show_url(source)} does not match its pin:\n"
        f"  expected {artifact.size} bytes ({artifact.source})\n"
        f"  found    {found}",
        hint="find out who changed it before you trust the source or change the pin",
    )


def _note_other_host(artifact: Artifact, trail: list[str]) -> None:
    first, last = (urlsplit(show_url(url)).netloc for url in (trail[0], trail[-1]))
    if first != last:
        log.info(f"  {artifact.label}: {first} redirects to {last}")


def _hash_prefix(artifact: Artifact, partial: Path, length: int) -> "hashlib._Hash":
    """A hasher that has already read the first `length` bytes on disk."""
    if not length:
        return hashlib.new(artifact.algorithm)
    with partial.open("rb") as file:
        return hash_next(file, length, artifact.algorithm)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
