"""The digest algorithms that pins, locks and the cache use, and how files are hashed."""

import hashlib
from io import BufferedReader
from pathlib import Path
from typing import IO

DIGEST_LENGTHS = {"sha256": 64, "sha512": 128}
"""Algorithm → hexadecimal digits."""
CHUNK = 1 << 20


class HashingReader:
    """A stream that is hashed while it is read."""

    def __init__(self, content: IO[bytes], algorithm: str = "sha256") -> None:
        self._content = content
        self._hasher = hashlib.new(algorithm)
        self.size = 0

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes."""
        data = self._content.read(size)
        self._hasher.update(data)
        self.size += len(data)
        return data

    def finish(self) -> str:
        """Read the rest; the digest of the complete stream."""
        while self.read(CHUNK):
            pass
        return self._hasher.hexdigest()


def hash_file(path: Path, algorithm: str) -> str:
    """The digest of a file, in bounded memory."""
    with path.open("rb") as file:
        return hash_stream(file, algorithm)


def hash_stream(file: BufferedReader, algorithm: str) -> str:
    """The digest of the rest of an open file, in bounded memory."""
    return hashlib.file_digest(file, algorithm).hexdigest()


def hash_next(file: IO[bytes], size: int, algorithm: str = "sha256") -> "hashlib._Hash":
    """A hasher that has read the next `size` bytes of a file, or fewer if the file ends."""
    hasher = hashlib.new(algorithm)
    while size and (chunk := file.read(min(CHUNK, size))):
        hasher.update(chunk)
        size -= len(chunk)
    return hasher
