"""Read bundles as tar streams, in bounded memory.

Callers read inside `explain_damage`, because most damage shows when contents are read.
"""

import gzip
import posixpath
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from bundler.errors import OutputError
from bundler.formats.digests import HashingReader
from bundler.formats.tar_safety import SHOWN, BadMemberError, iter_members, open_tar
from bundler.formats.volumes import open_joined

MAX_TEXT = 4 << 20
"""Bytes of a manifest or a list of digests."""


def read_tar_gz(path: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Each regular file of a .tar.gz or of its volumes: path, mode, content.

    The path starts below the archive's top folder.
    """
    with open_joined(path) as file, gzip.open(file) as unzipped:
        yield from list_files(cast("IO[bytes]", unzipped))


def read_tar(path: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Each regular file of a .tar or of its volumes, as `read_tar_gz` yields them."""
    with open_joined(path) as file:
        yield from list_files(file)


def list_files(stream: IO[bytes]) -> Iterator[tuple[str, int, IO[bytes]]]:
    """The regular files of an open tar stream; read each before you ask for the next.

    A bundle holds only files and directories, all below one folder. BadMemberError at anything
    else: with two folders, a file of one could be reported as a file of the other.
    """
    folder = ""
    # not "r|gz": tarfile's own reader stops after the first of a file's gzip members
    with open_tar(mode="r|", fileobj=stream) as tar:
        for member in iter_members(tar):
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
