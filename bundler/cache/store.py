"""The cache: upstream files by digest, and the compressed segments that bundles are laid from.

blobs/<algorithm>/<digest>       whole files, verified when they were put there
partial/<algorithm>-<digest>     an interrupted download, to be resumed
quarantine/…                     what was not what its pin says; kept for a look, never used
members/                         which content each member of an archive is, see payload.py
segments/                        see segments.py
references/, documents…/         see memory.py
"""

import fcntl
import itertools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bundler import log
from bundler.cache.stamps import is_unaltered, mark_path, write_mark
from bundler.files import explain_disk_faults

CHUNK = 1 << 20
POLL = 0.1  # seconds between two looks at a lock that is held


class Cache:
    """A directory that several bundlers may use at once."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()  # apt and dnf do not take it from where bundler runs
        self._held: set[str] = set()  # locks of this run

    def directory(self, *names: str) -> Path:
        """A directory below the root, made on first use."""
        path = self.root.joinpath(*names)
        with explain_disk_faults(path):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
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
        try:
            if is_unaltered(path, f"{algorithm}:{digest}"):
                return True
            self.quarantine(path, "altered")
        except FileNotFoundError:
            pass  # another run put it aside, or took it away
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
        write_mark(target, f"{algorithm}:{digest}")
        return target

    def remove_blob(self, algorithm: str, digest: str) -> None:
        """Take a file away; the caller holds its lock."""
        path = self.blob_path(algorithm, digest)
        mark_path(path).unlink(missing_ok=True)
        path.unlink(missing_ok=True)

    def quarantine(self, path: Path, reason: str) -> Path:
        """Put a file aside, under a name that says why and when."""
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        target = self.directory("quarantine") / f"{path.name}.{reason}.{stamp}"
        mark_path(path).unlink(missing_ok=True)
        path.replace(target)
        return target

    @contextmanager
    def lock(
        self, name: str, *, label: str = "", pause: Callable[[float], None] = time.sleep
    ) -> Iterator[None]:
        """Alone for one digest: a second bundler waits and then finds the file.

        `label` is what the user knows it by. `pause` waits some seconds, or raises to give up.
        """
        path = self.directory("locks") / name
        with explain_disk_faults(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
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
                log.info(f"  {label or name}: another run is at it, and is waited for")
            pause(POLL)
