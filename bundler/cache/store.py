"""The cache directory: upstream files by digest, and the compressed segments of bundles.

blobs/<algorithm>/<digest>       complete files, verified when they are added
partial/<algorithm>-<digest>     an interrupted download, which the next run resumes
quarantine/…                     files with a wrong digest: kept for inspection, never used
members/                         the digest of each member of an archive, see payload.py
layer-packages/                  what a layer of an image records of packages
segments/                        see segments.py
references/, documents…/         see refs.py

Only this user can change the directory. Files in it that others could have written, because it was
not always so, are read and checked again, and notes of others do not count.
"""

import fcntl
import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkstemp

from bundler import log
from bundler.cache.stamps import is_unaltered, stamp_path, write_stamp
from bundler.files import TEMPORARY, explain_disk_faults
from bundler.formats.digests import HashingReader
from bundler.private_files import FILE_MODE, ensure_private_directory, is_private

CHUNK = 1 << 20
POLL = 0.1  # seconds between two attempts to get a lock that is held


class Cache:
    """A directory that several runs of bundler may use at the same time."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()  # apt and dnf run in another directory
        self._held: set[str] = set()  # names of the locks that this run holds
        self._checked: set[Path] = set()  # directories that only this user can change

    def directory(self, *names: str) -> Path:
        """A directory below the root, made on first use; OutputError if others can change it."""
        path = self.root
        for name in ("", *names):
            path /= name
            if path not in self._checked or not path.is_dir():
                ensure_private_directory(path, top=self.root, option="--cache")
                self._checked.add(path)
        return path

    def blob_path(self, algorithm: str, digest: str) -> Path:
        """Where the complete file with that digest is, or will be."""
        return self.directory("blobs", algorithm) / digest

    def partial_path(self, algorithm: str, digest: str) -> Path:
        """Where the bytes of an unfinished download are; those that others wrote are removed."""
        path = self.directory("partial") / f"{algorithm}-{digest}"
        with suppress(FileNotFoundError):
            if not is_private(path.lstat()):
                path.unlink()
        return path

    def has_blob(self, algorithm: str, digest: str) -> bool:
        """Whether the verified file is there; a file that was altered since is quarantined."""
        path = self.blob_path(algorithm, digest)
        with suppress(FileNotFoundError):  # also if another run quarantines or removes it
            if not is_private(path.lstat()):
                return self._take_over(path, algorithm, digest)
            if is_unaltered(path, f"{algorithm}:{digest}"):
                return True
            self.quarantine(path, "altered")
        return False

    def adopt(self, path: Path, algorithm: str, digest: str) -> Path:
        """Move a verified file to its place among the blobs, atomically."""
        target = self.blob_path(algorithm, digest)
        with explain_disk_faults(target):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fchmod(descriptor, FILE_MODE)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            path.replace(target)
        write_stamp(target, f"{algorithm}:{digest}")
        return target

    def _take_over(self, path: Path, algorithm: str, digest: str) -> bool:
        """Replace a file that others may write, or a link, by a copy; whether its digest is right.

        Another user may have it open, and can change it after it was checked.
        """
        if not path.is_file():
            self.quarantine(path, "not-a-file")
            return False
        with explain_disk_faults(path), path.open("rb") as file:
            descriptor, name = mkstemp(prefix=TEMPORARY, dir=path.parent)
            with os.fdopen(descriptor, "wb") as copy:
                reader = HashingReader(file, algorithm)
                shutil.copyfileobj(reader, copy, CHUNK)
            found = reader.finish()
        if found != digest:
            Path(name).unlink()
            self.quarantine(path, "altered")
            return False
        self.adopt(Path(name), algorithm, digest)
        return True

    def remove_blob(self, algorithm: str, digest: str) -> None:
        """Remove a file; the caller holds its lock."""
        path = self.blob_path(algorithm, digest)
        stamp_path(path).unlink(missing_ok=True)
        path.unlink(missing_ok=True)

    def quarantine(self, path: Path, reason: str) -> Path:
        """Move a file to the quarantine; its new name has the reason and the time."""
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        target = self.directory("quarantine") / f"{path.name}.{reason}.{stamp}"
        stamp_path(path).unlink(missing_ok=True)
        path.replace(target)
        return target

    @contextmanager
    def lock(
        self, name: str, *, label: str = "", pause: Callable[[float], None] = time.sleep
    ) -> Iterator[None]:
        """Hold the lock for one digest: a second run waits for it and then finds the file.

        `label` is the name in messages. `pause` waits some seconds, or raises to give up.
        """
        path = self.directory("locks") / name
        with explain_disk_faults(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            self._acquire(descriptor, name, label, pause)
            self._held.add(name)
            yield
        finally:
            self._held.discard(name)
            os.close(descriptor)

    def _acquire(
        self, descriptor: int, name: str, label: str, pause: Callable[[float], None]
    ) -> None:
        for attempt in itertools.count():
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass
            else:
                return
            if attempt == 1 and name not in self._held:
                log.info(f"  {label or name}: waiting for another run of bundler")
            pause(POLL)
