"""Reading tarballs as streams, in bounded memory.

Whoever reads does so inside `explain_damage`, since most damage shows when contents are read.
"""

import gzip
import hashlib
import posixpath
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from bundler.errors import OutputError
from bundler.formats.tar_safety import BadMemberError, iter_members, open_tar
from bundler.formats.volumes import open_whole

CHUNK = 1 << 20
MOST_TEXT = 4 << 20
"""Bytes of a manifest or list of digests; a larger one is none."""


def read_zipped(path: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Each plain file of a .tar.gz or of its volumes: path, mode, content.

    The path is the one below the first folder.
    """
    with open_whole(path) as file, gzip.open(file) as unzipped:
        yield from list_files(cast("IO[bytes]", unzipped))


def read_plain(path: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """The same of a .tar."""
    with open_whole(path) as file:
        yield from list_files(file)


def list_files(stream: IO[bytes]) -> Iterator[tuple[str, int, IO[bytes]]]:
    """The plain files of an opened tarball; each is to be read before the next.

    Bundles hold nothing else but directories, all below one folder: BadMemberError at anything
    else. (With two folders a file of the one would be told for that of the other.)
    """
    folder = ""
    # not "r|gz": tarfile's own reader ends with the first of a file's gzip members
    with open_tar(mode="r|", fileobj=stream) as tar:
        for member in iter_members(tar):
            if not member.isreg() and not member.isdir():
                raise BadMemberError(f"{member.name!r} is a link")
            top, slash, below = posixpath.normpath(member.name).partition("/")
            folder = folder or top
            if top != folder:
                raise BadMemberError(f"{member.name[:200]!r} is beside {folder[:200]!r}, not below")
            content = tar.extractfile(member) if member.isreg() else None
            if content is not None:
                yield (below if slash else top), member.mode, content


def read_text(content: "IO[bytes] | Hashing") -> bytes:
    """A small file whole; OutputError where it is not small."""
    text = content.read(MOST_TEXT + 1)
    if len(text) > MOST_TEXT:
        raise OutputError("it holds a list of more than 4 MiB")
    return text


class Hashing:
    """A stream that is hashed while it is read."""

    def __init__(self, content: IO[bytes]) -> None:
        self._content = content
        self._hasher = hashlib.sha256()
        self.size = 0

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes."""
        data = self._content.read(size)
        self._hasher.update(data)
        self.size += len(data)
        return data

    def finish(self) -> str:
        """The digest of the whole stream, whatever of it was asked for."""
        while self.read(CHUNK):
            pass
        return self._hasher.hexdigest()


@contextmanager
def explain_damage(path: Path) -> Iterator[None]:
    """Turn what a damaged file raises into an OutputError that names it."""
    try:
        yield
    except BadMemberError as error:
        raise OutputError(
            f"{path}: no bundle of bundler's: {error}",
            hint="do not unpack it; copy it anew from where it was built",
        ) from error
    except gzip.BadGzipFile as error:
        raise OutputError(f"{path}: not a gzip file") from error
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}") from error
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise OutputError(f"{path}: damaged or cut off: {error}") from error
