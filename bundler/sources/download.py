"""One file from one source: streamed, resumed, tried again where that may help, and hashed.

What is written while a download runs is a whole prefix of the file, so a run that was killed is
gone on with. A byte that a source sends is written once, and read once more only to resume.
"""

import hashlib
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import urlsplit

import requests

from bundler import log
from bundler.cache.stamps import hash_file
from bundler.cache.store import CHUNK, Cache
from bundler.catalog import Artifact
from bundler.errors import ArtifactError
from bundler.files import reserve
from bundler.sources.download_errors import (
    AgainError,
    NotHereError,
    StoppedError,
    explained,
)
from bundler.sources.mirrors import WEB, Mirror, show_url
from bundler.sources.transport import Session, make_session, open_url

PARALLEL_DOWNLOADS = 4
ATTEMPTS = 4  # in a row that bring nothing new
NEW = 1 << 20  # bytes that an attempt must add to count as one that brought something
LONGEST_WAIT = 120.0  # seconds that a server may ask to wait
RECEIVED = 1 << 18  # bytes that are taken and written at a time: a kill -9 loses no more
MOST_BYTES = 16 << 30  # of a file whose size nobody has stated


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
    """Where files may come from, and how."""

    cache: Cache
    mirrors: tuple[Mirror, ...] = ()
    offline: bool = False
    jobs: int = PARALLEL_DOWNLOADS  # downloads at a time
    backoff: float = 1.0  # seconds before the second attempt; doubled each time
    progress: Progress = field(default_factory=NoProgress)
    session: Session = field(default_factory=make_session)
    stop: threading.Event = field(default_factory=threading.Event)  # set: give up soon

    def pause(self, seconds: float) -> None:
        """Wait; StoppedError where the run is to end."""
        if self.stop.wait(seconds):
            raise StoppedError("stopped")


def receive(
    artifact: Artifact, source: str, partial: Path, options: FetchOptions, most: int = MOST_BYTES
) -> str:
    """Bring the bytes of a source (URL or path) into `partial`; their digest.

    Raises NotHereError; ArtifactError where the source has more or fewer bytes than the artifact's
    size; OutputError where the disk is full. Without a size it takes at most `most` bytes.
    """
    if source.startswith(WEB):
        return _download(artifact, source, partial, options, most)
    return _copy(artifact, Path(source), partial, most)


def _copy(artifact: Artifact, source: Path, partial: Path, most: int) -> str:
    hasher = hashlib.new(artifact.algorithm)
    try:
        reader = source.open("rb")
        size = source.stat().st_size
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise NotHereError("not there", is_absent=True) from error
    except OSError as error:
        raise NotHereError(f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise NotHereError(f"is no path: {error}") from error
    with reader:
        _check_length(artifact, str(source), size, most)
        with reserve(partial, size), partial.open("wb") as writer:
            while chunk := _read(reader):
                hasher.update(chunk)
                writer.write(chunk)
    return hasher.hexdigest()


def _read(file: BinaryIO) -> bytes:
    """The next bytes of a source, whose faults are not the cache's."""
    try:
        return file.read(CHUNK)
    except OSError as error:
        raise NotHereError(f"cannot be read: {error.strerror}") from error


def _download(artifact: Artifact, url: str, partial: Path, options: FetchOptions, most: int) -> str:
    """Attempts with a growing pause between them; one that brought something new is not counted."""
    wait, failed, best = options.backoff, 0, _size(partial)
    while True:
        if options.stop.is_set():
            raise StoppedError(f"{artifact.label}: stopped")
        try:
            return _attempt(artifact, url, partial, options, most)
        except AgainError as fault:
            failed += 1
            if _size(partial) >= best + NEW:
                wait, failed, best = options.backoff, 0, _size(partial)
            pause = wait if fault.wait is None else fault.wait
            if failed == ATTEMPTS:
                raise NotHereError(str(fault), hint=fault.hint) from fault
            if pause > LONGEST_WAIT:
                raise NotHereError(f"{fault}, which asks to wait {pause:.0f} s") from fault
            log.info(f"  {artifact.label}: {show_url(url)}: {fault}; again in {pause:g} s")
        options.stop.wait(pause)
        wait *= 2


def _attempt(artifact: Artifact, url: str, partial: Path, options: FetchOptions, most: int) -> str:
    """One request for what is missing; the digest of the whole file.

    A file whose digest nobody has said is never put together from two answers.
    """
    done = _size(partial) if artifact.digest else 0
    if done and done == artifact.size:
        if _is_whole(artifact, partial):
            return artifact.digest
        done = 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
    trail: list[str] = []
    with explained(url, trail), open_url(options.session, url, headers, trail) as response:
        _note_other_host(artifact, trail)
        status = response.status_code
        if done and status == 200:  # it knows no ranges, and sends all
            done = 0
        elif done and status == 416 and _is_whole(artifact, partial):
            return artifact.digest
        elif done and not _goes_on(response, done) and status in {206, 416}:
            partial.unlink(missing_ok=True)
            raise AgainError("it sent another part of the file than was asked for", wait=0)
        if status != (206 if done else 200):
            raise requests.HTTPError(response=response)
        return _save(artifact, url, response, partial, done, options, most)


def _save(
    artifact: Artifact,
    url: str,
    response: requests.Response,
    partial: Path,
    done: int,
    options: FetchOptions,
    most: int,
) -> str:
    """Write and hash the body, which begins at byte `done` of the file."""
    length = response.headers.get("Content-Length", "")
    total = done + int(length) if length.isdecimal() else None
    if total is not None:
        _check_length(artifact, url, total, most)
    expected = total if total is not None else artifact.size
    hasher = _hash_prefix(artifact, partial, done)
    options.progress.start(artifact.label, expected, done)
    try:
        with reserve(partial, expected or 0, done), partial.open("r+b" if done else "wb") as file:
            file.seek(done)
            # not decoded: a digest is of the file as it lies there, whatever the server calls it
            while chunk := response.raw.read1(RECEIVED, decode_content=False):
                done += len(chunk)
                _check_not_longer(artifact, url, done, most)
                if options.stop.is_set():
                    raise StoppedError(f"{artifact.label}: stopped")
                hasher.update(chunk)
                file.write(chunk)
                options.progress.advance(artifact.label, len(chunk))
    finally:
        options.progress.finish(artifact.label)
    if expected is not None and done < expected:
        raise AgainError(f"the connection ended after {done} of {expected} bytes")
    return hasher.hexdigest()


def _goes_on(response: requests.Response, done: int) -> bool:
    """Whether it is the part of the file that begins at byte `done`."""
    stated = response.headers.get("Content-Range", "")
    return response.status_code == 206 and stated.startswith(f"bytes {done}-")


def _is_whole(artifact: Artifact, partial: Path) -> bool:
    """Whether an earlier run got all of it; what is as long and is not it goes."""
    if hash_file(partial, artifact.algorithm) == artifact.digest:
        return True
    partial.unlink()
    return False


def _check_length(artifact: Artifact, source: str, length: int, most: int) -> None:
    """Raise where a source says beforehand that it has another file."""
    if artifact.size is None:
        _check_not_longer(artifact, source, length, most)
    elif length != artifact.size:
        raise _wrong_length(artifact, source, f"{length} bytes")


def _check_not_longer(artifact: Artifact, source: str, length: int, most: int) -> None:
    if artifact.size is not None and length > artifact.size:
        raise _wrong_length(artifact, source, "more, and nothing beyond that was taken")
    if artifact.size is None and length > most:
        raise NotHereError(f"it has more than {most} bytes, which is more than such a file has")


def _wrong_length(artifact: Artifact, source: str, found: str) -> ArtifactError:
    return ArtifactError(
        f"{artifact.label} from {show_url(source)} is not what its pin says:\n"
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
    hasher = hashlib.new(artifact.algorithm)
    if length:
        with partial.open("rb") as file:
            while length and (chunk := file.read(min(CHUNK, length))):
                hasher.update(chunk)
                length -= len(chunk)
    return hasher


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
