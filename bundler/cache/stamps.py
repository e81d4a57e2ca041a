"""The state of a cached file when it was last read and checked, so that a warm build skips that.

The stamp of NAME is the file `.NAME.mark` in the same directory. It holds the name, the digest, and
the fields of stat(2) that change when a file is altered or replaced. The change time is one of
them: copying tools restore the modification time, but nothing can set the change time. A stamp
counts only if no other user could have written it, and never for a file that others can write.
"""

import json
import os
from pathlib import Path

from bundler.files import write_atomically
from bundler.formats.digests import hash_stream
from bundler.private_files import open_private, read_note


def stamp_path(path: Path) -> Path:
    """Where the stamp of a file is."""
    return path.with_name(f".{path.name}.mark")


def write_stamp(path: Path, pin: str) -> None:
    """Record that a file has the digest of its pin (`sha256:…`)."""
    _write(path, pin, read_stat(path))


def read_pin(path: Path) -> str | None:
    """The pin that a file had when it was last read, or None if there is no stamp."""
    return _read(path)[0]


def is_unaltered(path: Path, pin: str) -> bool:
    """Whether a file has the digest of its pin; the file is read only if its stamp is outdated.

    Not if it is a link, or others can write it. Raises FileNotFoundError.
    """
    file = open_private(path)
    if not file:
        return False
    with file:
        # before the file is read: a change during that must not be recorded
        seen = _describe(os.fstat(file.fileno()))
        if _read(path) == (pin, seen):
            return True
        algorithm, _, digest = pin.partition(":")
        if hash_stream(file, algorithm) != digest:
            return False
    _write(path, pin, seen)
    return True


def read_stat(path: Path) -> list[int]:
    """The fields that change when a file is altered or replaced; raises OSError."""
    return _describe(path.stat())


def _describe(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _read(path: Path) -> tuple[str | None, object]:
    try:
        stamp = json.loads(read_note(stamp_path(path)) or b"null")
        is_own = stamp["name"] == path.name
        return (str(stamp["pin"]), stamp["seen"]) if is_own else (None, None)
    except (ValueError, KeyError, TypeError):
        return None, None


def _write(path: Path, pin: str, seen: list[int]) -> None:
    stamp = {"name": path.name, "pin": pin, "seen": seen}
    write_atomically(stamp_path(path), json.dumps(stamp).encode())
