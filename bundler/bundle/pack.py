"""Write a tree as a tarball: tar members in a fixed order, from segments compressed before."""

import tarfile
from collections.abc import Iterator
from pathlib import Path

from bundler.cache.payload import Payload, read_segment
from bundler.cache.segments import compress, padding
from bundler.formats.volumes import Written, write_pieces
from bundler.render.tree import File, Tree

FIRST = (
    "install.sh",
    "uninstall.sh",
    "verify.sh",
    "diagnose.sh",
    "backup.sh",
    "restore.sh",
    "node.env",
    "state.env",
    "MANIFEST",
    "MANIFEST.sig",
)
"""The first members of a tarball, so that `tar -tzf … | head` shows them."""

END = bytes(2 * tarfile.BLOCKSIZE)


def pack(
    tree: Tree, name: str, target: Path, mtime: int, *, split: int | None = None, mode: int = 0o600
) -> tuple[Written, ...]:
    """Write the tarball of `tree`, with all members below `name`/; return the files.

    The same tree gives the same bytes: sorted members, owner 0, no names, one time, and gzip
    headers without name and time. The target is written completely or not at all, in
    volumes if it is larger than `split` bytes. Only its owner can read it: it holds private keys.
    """
    return write_pieces(_pieces(tree, name, mtime), target, limit=split, mode=mode)


def _pieces(tree: Tree, name: str, mtime: int) -> Iterator[bytes]:
    """Yield the small files as one gzip member, then the segment of each large file."""
    small = [file for file in tree if isinstance(file.content, bytes)]
    large = [file for file in tree if isinstance(file.content, Payload)]
    front = [_directory_header(name, mtime)]
    for file in sorted(small, key=_order):
        assert isinstance(file.content, bytes)  # noqa: S101 - narrows the type
        front += [_header(file, name, mtime), file.content, padding(file.size)]
    yield compress(b"".join(front))
    for file in large:
        assert isinstance(file.content, Payload)  # noqa: S101 - narrows the type
        yield compress(_header(file, name, mtime))
        yield from read_segment(file.content)
    yield compress(END)


def _order(file: File) -> tuple[int, str]:
    rank = FIRST.index(file.path) if file.path in FIRST else len(FIRST)
    return rank, file.path


def _header(file: File, name: str, mtime: int) -> bytes:
    info = tarfile.TarInfo(f"{name}/{file.path}")
    info.size, info.mode, info.mtime = file.size, file.mode, mtime
    return info.tobuf(tarfile.GNU_FORMAT)


def _directory_header(name: str, mtime: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o700, mtime
    return info.tobuf(tarfile.GNU_FORMAT)
