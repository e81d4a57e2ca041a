"""What a file of the cache was when it was last read whole, so that a warm build reads none again.

`.NAME.mark` beside NAME holds its digest, and what changes when a file is altered or replaced. The
change time is among that: nobody sets it back, as copying tools do with the time of the content.
"""

import hashlib
import json
from pathlib import Path

from bundler.files import write_atomically


def mark_path(path: Path) -> Path:
    """Where the mark of a file is."""
    return path.with_name(f".{path.name}.mark")


def write_mark(path: Path, pin: str) -> None:
    """Note that a file is what its pin (`sha256:…`) says."""
    _write(path, pin, look(path))


def read_pin(path: Path) -> str | None:
    """The pin that a file had when it was last read; None where nobody noted it."""
    return _read(path)[0]


def is_unaltered(path: Path, pin: str) -> bool:
    """Whether a file is what its pin says; it is read where its mark does not vouch for it.

    Raises FileNotFoundError.
    """
    seen = look(path)  # before it is read: what is altered meanwhile is not vouched for
    if _read(path) == (pin, seen):
        return True
    algorithm, _, digest = pin.partition(":")
    if hash_file(path, algorithm) != digest:
        return False
    _write(path, pin, seen)
    return True


def hash_file(path: Path, algorithm: str) -> str:
    """The digest of a file, in bounded memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def look(path: Path) -> list[int]:
    """What changes when a file is altered or replaced; raises OSError."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _read(path: Path) -> tuple[str | None, object]:
    try:
        mark = json.loads(mark_path(path).read_bytes())
        return str(mark["pin"]), mark["seen"]
    except (OSError, ValueError, KeyError, TypeError):
        return None, None


def _write(path: Path, pin: str, seen: list[int]) -> None:
    write_atomically(mark_path(path), json.dumps({"pin": pin, "seen": seen}).encode())
