"""Read bundles as tar streams, in bounded memory.

Callers read inside `explain_damage`, because most damage shows when contents are read.
"""

import gzip
import io
import posixpath
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from bundler.errors import OutputError
from bundler.formats.digests import HashingReader
from bundler.formats.tar_safety import (
    SHOWN,
    BadMemberError,
    check_end,
    iter_members,
    open_tar,
    unpack_limit,
)
from bundler.formats.volumes import joined_size, open_joined

CHUNK = 1 << 16
GZIP = b"\x1f\x8b"
GZIP_MEMBER = 16 + zlib.MAX_WBITS
MAX_TEXT = 32 << 20
"""Bytes of a manifest, a list of digests or an SBOM."""


def read_tar_gz(path: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Each regular file of a .tar.gz or of its volumes: path, mode, content.

    The path starts below the archive's top folder.
    """
    with open_joined(path) as file:
        yield from list_files(open_gzip(file), unpack_limit(joined_size(path)))


def read_tar(path: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Each regular file of a .tar or of its volumes, as `read_tar_gz` yields them."""
    with open_joined(path) as file:
        yield from list_files(file, unpack_limit(joined_size(path)))


def open_gzip(file: IO[bytes]) -> io.BufferedReader:
    """The content of a file of gzip members."""
    return io.BufferedReader(_GzipMembers(file), CHUNK)


class _GzipMembers(io.RawIOBase):
    """Reads concatenated gzip members (RFC 1952, 2.2), and accepts nothing else.

    Python's gzip skips zeros between members. gzip(1) stops at them, so that a host would unpack
    another archive than the one that was checked.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._begin = b""  # bytes that are read and not yet decompressed
        self._member: zlib._Decompress | None = None
        self._is_first = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while True:
            compressed = self._begin or self._file.read(CHUNK)
            if not compressed:
                if self._member:
                    raise EOFError("the file ends early")
                return 0
            self._member = self._member or self._open_member(compressed)
            content = self._member.decompress(compressed, len(buffer))
            self._begin = self._member.unconsumed_tail or self._member.unused_data
            if self._member.eof:
                self._member = None
            if content:
                buffer[: len(content)] = content
                return len(content)

    def _open_member(self, compressed: bytes) -> "zlib._Decompress":
        if not GZIP.startswith(compressed[:2]):
            if self._is_first:
                raise gzip.BadGzipFile
            raise BadMemberError("data follows the end of the compressed archive")
        self._is_first = False
        return zlib.decompressobj(GZIP_MEMBER)


def list_files(stream: IO[bytes], limit: int) -> Iterator[tuple[str, int, IO[bytes]]]:
    """The regular files of an open tar stream; read each before you ask for the next.

    A bundle holds only files and directories, all below one folder, of at most `limit` bytes.
    BadMemberError at anything else: with two folders, a file of one could be reported as a file of
    the other.
    """
    folder = ""
    # not "r|gz": tarfile's own reader stops after the first of a file's gzip members
    with open_tar(mode="r|", fileobj=stream) as tar:
        for member in iter_members(tar, limit):
            if not member.isreg() and not member.isdir():
                raise BadMemberError(f"{member.name!r} is a link")
            top, slash, below = posixpath.normpath(member.name).partition("/")
            folder = folder or top
            if top != folder:
                raise BadMemberError(
                    f"{member.name[:SHOWN]!r} is not in the folder {folder[:SHOWN]!r}"
                )
            content = tar.extractfile(member) if member.isreg() else None
            if content is not None:
                yield (below if slash else top), member.mode, content
        check_end(tar)


def read_text(content: IO[bytes] | HashingReader) -> bytes:
    """A small file; OutputError if it is larger than MAX_TEXT."""
    text = content.read(MAX_TEXT + 1)
    if len(text) > MAX_TEXT:
        raise OutputError(f"the bundle's list of files is larger than {MAX_TEXT >> 20} MiB")
    return text


@contextmanager
def explain_damage(path: Path) -> Iterator[None]:
    """Turn the errors of a damaged archive into an OutputError that names the file."""
    try:
        yield
    except BadMemberError as error:
        raise OutputError(
            f"{path}: not a bundle from bundler: {error}",
            hint="do not unpack it; copy it again from where it was built",
        ) from error
    except gzip.BadGzipFile as error:
        raise OutputError(f"{path}: not a gzip file") from error
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}") from error
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise OutputError(f"{path}: damaged or incomplete: {error}") from error
