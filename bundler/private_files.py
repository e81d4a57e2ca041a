"""Directories and files that only this user and root can change.

What an earlier run made, and its notes about it, count only there: another user could otherwise
replace a program in the cache and write the note that it was checked.
"""

import errno
import os
import pwd
import shlex
import shutil
import stat
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from bundler.errors import OutputError
from bundler.files import SECRET_MODE, explain_disk_faults

DIRECTORY_MODE = 0o700
FILE_MODE = 0o644
"""Mode of other files than notes and secrets, so that none of them can become a note."""
WRITERS = {0o020: "its group", 0o002: "every user", 0o022: "every user"}
"""Bits of a mode that let others write → who they are."""
MAX_LINKS = 40  # as the kernel


def ensure_private_directory(path: Path, *, option: str, top: Path | None = None) -> None:
    """Create the directory and its parents, 0700 whatever the umask.

    Raises OutputError if another user owns or can write any directory on the way, or can rename
    one. Links are followed. `top` is the directory that bundler owns with all that is in it, and
    `option` the one that chooses it.
    """
    place, left, links = Path("/"), [*reversed(path.absolute().parts[1:])], 0
    with explain_disk_faults(path):
        while left:
            name = left.pop()
            if name == "..":  # after links are followed, it is the directory above
                place = place.parent
                continue
            entry = place / name
            status = _stat_or_create(entry)
            fault = _find_fault(status, is_last=not left)
            if fault:
                raise _refuse(entry, status, fault, top or path, option)
            if not stat.S_ISLNK(status.st_mode):
                place = entry
                continue
            links += 1
            if links > MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
            target = entry.readlink()
            if target.is_absolute():
                place = Path("/")
            left += reversed(target.parts[target.is_absolute() :])


def check_private_directories(top: Path, *, option: str) -> None:
    """OutputError if another user owns or can write a directory below `top`.

    Directories that another run removes or renames meanwhile are passed over.
    """
    for here, folders, _ in os.walk(top):
        for entry in (Path(here, name) for name in folders):
            try:
                status = entry.lstat()
            except FileNotFoundError:
                continue
            if fault := _find_fault(status, is_last=True):
                raise _refuse(entry, status, fault, top, option)


def make_private_directory(path: Path) -> None:
    """Create one directory, 0700 whatever the umask, if it does not exist."""
    with suppress(FileExistsError):
        path.mkdir(mode=DIRECTORY_MODE)
        path.chmod(DIRECTORY_MODE)


def is_private(status: os.stat_result) -> bool:
    """Whether a regular file can be written only by this user and root."""
    return (
        stat.S_ISREG(status.st_mode) and status.st_uid in _owners() and not status.st_mode & 0o022
    )


def open_private(path: Path) -> BufferedReader | None:
    """Open a file to read it; None for a link, and if others own it or can write it.

    Raises FileNotFoundError.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO}:  # a link, a socket
            return None
        raise
    if is_private(os.fstat(descriptor)):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    return None


def read_note(path: Path) -> bytes | None:
    """The content of a file that bundler itself wrote under this name; else None."""
    try:
        file = open_private(path)
    except OSError:
        return None
    if not file:
        return None
    with file:
        status = os.fstat(file.fileno())
        is_own = stat.S_IMODE(status.st_mode) == SECRET_MODE and status.st_nlink == 1
        return file.read() if is_own else None


def open_for_writing(path: Path, mode: str) -> BinaryIO:
    """Open a file (`wb` or `r+b`) that others cannot write, whatever the umask; follow no link."""
    return open(path, mode, opener=_open_without_link)  # type: ignore[return-value]


def remove_unless_private(directory: Path) -> None:
    """Remove a directory of bundler's with all that is in it, if others wrote any of it."""
    for here, folders, files in os.walk(directory):
        for name in (*folders, *files):
            try:
                status = Path(here, name).lstat()
            except FileNotFoundError:  # another run removed it
                continue
            if _find_fault(status, is_last=True):
                shutil.rmtree(directory)
                return


def _open_without_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)


def _owners() -> set[int]:
    return {0, os.geteuid()}


def _stat_or_create(entry: Path) -> os.stat_result:
    try:
        return entry.lstat()
    except FileNotFoundError:
        make_private_directory(entry)
        return entry.lstat()


def _find_fault(status: os.stat_result, *, is_last: bool) -> str:
    """Why others could change what is in a directory or where a link leads; empty if not.

    In a sticky directory, such as /tmp, others cannot rename what is not theirs.
    """
    if status.st_uid not in _owners():
        return f"belongs to {_name_user(status.st_uid)}, not to {_name_user(os.geteuid())}"
    writers = WRITERS.get(status.st_mode & 0o022, "")
    if stat.S_ISLNK(status.st_mode) or not writers:
        return ""
    if status.st_mode & stat.S_ISVTX and not is_last:
        return ""
    return f"can be written by {writers} (mode {stat.S_IMODE(status.st_mode):04o})"


def _refuse(entry: Path, status: os.stat_result, fault: str, top: Path, option: str) -> OutputError:
    all_of, path = ("-R ", top) if entry.is_relative_to(top) else ("", entry)
    target = shlex.quote(str(path))
    if status.st_uid not in _owners():
        fix = f"remove it, or if you trust what is in it: chown {all_of}{os.geteuid()} {target}"
    elif status.st_mode & stat.S_ISVTX:
        fix = "choose a directory in it"
    else:
        fix = f"chmod {all_of}go-w {target}"
    return OutputError(
        f"{entry} {fault}: another user could replace what bundler uses",
        hint=f"{fix}; or choose another directory with {option}",
    )


def _name_user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
