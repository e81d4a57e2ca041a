"""The cache: upstream files by digest, and the compressed segments that bundles are laid from.

blobs/<algorithm>/<digest>       whole files, verified when they were put there
partial/<algorithm>-<digest>     an interrupted download, to be resumed
quarantine/…                     what was not what its pin says; kept for a look, never used
members/, segments/              see payload.py
"""

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bundler.errors import OutputError
from bundler.files import explain_disk_faults, write_atomically

CHUNK = 1 << 20


class Cache:
    """A directory that several bundlers may use at once."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()  # apt and dnf do not take it from where bundler runs

    def directory(self, *names: str) -> Path:
        """A directory below the root, made on first use."""
        path = self.root.joinpath(*names)
        try:
            with explain_disk_faults(path):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise OutputError(
                f"the cache {self.root} is not a directory", hint="choose another with --cache"
            ) from error
        return path

    def blob_path(self, algorithm: str, digest: str) -> Path:
        """Where the whole file of that digest is, or will be."""
        return self.directory("blobs", algorithm) / digest

    def partial_path(self, algorithm: str, digest: str) -> Path:
        """Where a download of it stands so far."""
        return self.directory("partial") / f"{algorithm}-{digest}"

    def has_blob(self, algorithm: str, digest: str) -> bool:
        """Whether the verified file is there; one that was altered since is put aside."""
        path = self.blob_path(algorithm, digest)
        if not path.is_file():
            return False
        if self._read_mark(path) == _mark_of(path):
            return True
        if hash_file(path, algorithm) == digest:
            self._write_mark(path)
            return True
        self.quarantine(path, "altered")
        return False

    def adopt(self, path: Path, algorithm: str, digest: str) -> Path:
        """Make a verified file the blob of its digest, at once."""
        target = self.blob_path(algorithm, digest)
        with explain_disk_faults(target):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            path.replace(target)
        self._write_mark(target)
        return target

    def remove_blob(self, algorithm: str, digest: str) -> None:
        """Take a file away; the caller holds its lock."""
        path = self.blob_path(algorithm, digest)
        self._mark_path(path).unlink(missing_ok=True)
        path.unlink(missing_ok=True)

    def quarantine(self, path: Path, reason: str) -> Path:
        """Put a file aside, under a name that says why and when."""
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        target = self.directory("quarantine") / f"{path.name}.{reason}.{stamp}"
        path.replace(target)
        return target

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Alone for one digest: a second bundler waits and then finds the file."""
        path = self.directory("locks") / name
        with explain_disk_faults(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _mark_path(self, blob: Path) -> Path:
        return blob.with_name(f".{blob.name}.mark")

    def _read_mark(self, blob: Path) -> list[int] | None:
        try:
            mark: list[int] = json.loads(self._mark_path(blob).read_bytes())
        except (OSError, ValueError):
            return None
        return mark

    def _write_mark(self, blob: Path) -> None:
        write_atomically(self._mark_path(blob), json.dumps(_mark_of(blob)).encode())


def hash_file(path: Path, algorithm: str) -> str:
    """The digest of a file, in bounded memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _mark_of(path: Path) -> list[int]:
    """Size, time and inode: what changes when a file is altered or replaced."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ino]
