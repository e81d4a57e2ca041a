"""Write files so that a crash at any moment leaves either the old file or the new one, complete."""

import errno
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from bundler.errors import OutputError

SECRET_MODE = 0o600
"""Mode of files with secrets: only the owner reads them."""
CLOSED_MODE = 0o400
"""Mode of files that only root may read although they have no secret."""
LEFTOVER_AGE = 24 * 3600.0  # seconds
"""Unfinished files of another run that are younger may still be in use."""
TEMPORARY = ".tmp-"
"""Prefix of unfinished files; the next run removes those of a killed run."""
KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def write_atomically(path: Path, content: bytes, mode: int = SECRET_MODE) -> None:
    """Write `content` to a temporary file, flush it to disk, and rename it to `path`."""
    with open_atomically(path, mode) as file:
        file.write(content)


@contextmanager
def open_atomically(path: Path, mode: int = SECRET_MODE) -> Iterator[BinaryIO]:
    """Yield a temporary file, which is flushed and renamed to `path` if nothing fails.

    Raises OutputError if `path` exists and is not a regular file.
    """
    with explain_disk_faults(path):
        check_replaceable(path)
        descriptor, temporary = tempfile.mkstemp(prefix=TEMPORARY, dir=path.absolute().parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(file.fileno(), mode)
                yield file
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        sync_directory(path.absolute().parent)


def check_replaceable(path: Path) -> None:
    """Raise OutputError if `path` exists and is not a regular file, such as /dev/null.

    Symbolic links are refused too, because /dev/stdout is one.
    """
    try:
        kind = stat.S_IFMT(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return
    if kind != stat.S_IFREG:
        raise OutputError(
            f"{path} is {KINDS.get(kind, 'not a regular file')}: bundler does not replace it",
            hint="choose a regular file, or a path that does not exist",
        )


def ensure_directory(path: Path) -> None:
    """Create the directory and its parents; OutputError if that is impossible."""
    with explain_disk_faults(path):
        path.mkdir(parents=True, exist_ok=True)


def write_directory_atomically(path: Path, files: Mapping[str, bytes]) -> None:
    """Create the directory `path` with these files (0600): all at once, or not at all."""
    with explain_disk_faults(path):
        temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=path.parent))
        temporary.chmod(0o700)  # the umask may leave less
        try:
            for name, content in files.items():
                write_atomically(temporary / name, content)
            temporary.rename(path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_directory(path.parent)


def remove_leftovers(directory: Path, older_than: float = 0) -> None:
    """Remove the unfinished files of killed runs below `directory`.

    `older_than` (seconds) protects the files of other runs that may still be working.
    """
    for leftover in _list_leftovers(directory):
        try:
            age = time.time() - leftover.lstat().st_mtime
        except FileNotFoundError:  # another run finished it
            continue
        if age < older_than:
            continue
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _list_leftovers(directory: Path) -> Iterator[Path]:
    # os.walk passes over directories that another run removes meanwhile; Path.rglob raises
    for here, folders, files in os.walk(directory):
        found = [name for name in (*folders, *files) if name.startswith(TEMPORARY)]
        folders[:] = [name for name in folders if not name.startswith(TEMPORARY)]
        yield from (Path(here, name) for name in found)


def sync_directory(path: Path) -> None:
    """Flush a directory to disk, so that a rename in it survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_space(directory: Path, needed: int) -> None:
    """Raise OutputError if fewer bytes are free in the directory than are needed."""
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise OutputError(
            f"{directory}: {needed >> 20} MiB are needed, {free >> 20} MiB are free; nothing was"
            " written",
            hint="free some space, or choose another directory with -o",
        )


@contextmanager
def reserve(path: Path, size: int, done: int = 0) -> Iterator[None]:
    """Raise OutputError if the disk is too full for a file of `size` bytes, `done` of them written.

    Checks before the body runs, and again if writing fails. The error has the space that is needed
    and the space that is free.
    """
    if size - done > shutil.disk_usage(path.parent).free:
        raise _disk_full(path, size - done)
    with explain_disk_faults(path):
        try:
            yield
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise _disk_full(path, size - path.stat().st_size) from error


def _disk_full(path: Path, needed: int) -> OutputError:
    free = shutil.disk_usage(path.parent).free
    need = f"{needed} more bytes are needed" if needed > 0 else "more space is needed"
    return OutputError(
        f"cannot write {path}: {os.strerror(errno.ENOSPC)}: {need}, {free} are free",
        hint="free some space, or choose another directory with --cache; the download resumes",
    )


@contextmanager
def explain_disk_faults(path: Path) -> Iterator[None]:
    """Turn an OSError from the disk or its permissions into an OutputError that names the path."""
    hints = {
        errno.ENOENT: "create its directory first",
        errno.ENOTDIR: "a parent is a file, not a directory: choose another path",
        errno.ENAMETOOLONG: "choose a shorter name",
        errno.EISDIR: "the path is a directory: choose another path",
        errno.EEXIST: "a file has this name: choose another path",
        errno.ENOSPC: "free some space, or choose another directory",
        errno.EDQUOT: "your quota is used up: free some space, or choose another directory",
        errno.EFBIG: "the file size limit (ulimit -f) is too small",
        errno.EACCES: "check the directory's owner and mode",
        errno.EPERM: "check the directory's owner and mode",
        errno.EROFS: "the file system is mounted read-only",
    }
    try:
        yield
    except OSError as error:
        if error.errno not in hints:
            raise
        raise OutputError(
            f"cannot write {path}: {os.strerror(error.errno or 0)}", hint=hints[error.errno]
        ) from error
