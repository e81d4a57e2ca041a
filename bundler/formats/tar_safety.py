"""Open tar archives safely: the only place where bundler opens one, for reading or writing.

tarsafe and the limits below check every member while the archive is read, in one pass. bundler
never extracts by name, so a bad path cannot reach the builder's disk. But a host extracts its
bundle, and an archive with such a member is not what its publisher intended.
"""

import copy
import posixpath
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from tarfile import InvalidHeaderError, TruncatedHeaderError  # type: ignore[attr-defined]
from typing import IO, cast

from tarsafe.tarsafe import TarSafe, TarSafeException

UNPACK_RATIO = 64
"""An archive may unpack to this many times its size. Programs: 3 to 5; gzip's maximum: 1032."""
UNPACK_MINIMUM = 256 << 20
"""Bytes that every archive may unpack to, even a small one."""
MAX_HEADER = 1 << 20
"""Bytes of a long name or of a pax header, which tarfile reads into memory."""
MAX_MEMBERS = 200_000
MAX_WANTED = 64 << 20
"""Bytes of a file that is read from an image's layer, such as a list of packages."""
HEADERS = {
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
}
SPARSE_KEYS = ("GNU.sparse.", "SCHILY.realsize", "SUN.holesdata")
"""Beginnings of pax keywords of sparse files; tarfile does not know all of them."""
PLAIN_TYPES = {
    tarfile.REGTYPE,
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
}
ROOT = "/archive"
"""Where tarsafe pretends to extract. Nothing is extracted, so it need not exist."""
SHOWN = 200  # characters of a member's name in a message


class BadMemberError(tarfile.TarError):
    """A member that no archive should have; the message names it and says why."""


class BoundedInfo(tarfile.TarInfo):
    """A tar header; one that states a huge size is refused before its content is read."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "BoundedInfo":
        """As the base class; BadMemberError if the header is larger than MAX_HEADER."""
        member = super().frombuf(buf, encoding, errors)
        if member.type in HEADERS and member.size > MAX_HEADER:
            raise BadMemberError(f"a header of {member.size} bytes")
        return member

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> "BoundedInfo":
        """As the base class; BadMemberError for a header that tarfile would take for the end."""
        try:
            return super().fromtarfile(tarfile)
        except (InvalidHeaderError, TruncatedHeaderError) as error:
            if not tarfile.offset:  # the file is not a tar archive
                raise
            raise BadMemberError(f"there is no valid header at byte {tarfile.offset}") from error


class SafeTarFile(TarSafe):
    """A tar archive whose members are checked when their headers are read.

    TarSafe checks only in extract() and extractall(), and reads all members first. A stream cannot
    be read twice, and bundler reads contents with extractfile(), so the check is in next(), which
    every way to read an archive goes through.
    """

    tarinfo = BoundedInfo

    def next(self) -> tarfile.TarInfo | None:
        """The next member; BadMemberError if bundler accepts no such member."""
        member = super().next()
        if member is not None and (fault := find_fault(member)):
            raise BadMemberError(f"{member.name[:SHOWN]!r} is {fault}")
        return member


class LayerFile(TarSafe):
    """An image's layer, or an archive of one, of which bundler reads headers and a few files.

    A layer may have what no other archive may: absolute links, devices, a file twice. Nothing of it
    is unpacked here; extract() would check it as tarsafe does.
    """

    tarinfo = BoundedInfo


def _open_layer(stream: IO[bytes], mode: str) -> LayerFile:
    tar = LayerFile.open(None, mode, stream)  # type: ignore[no-untyped-call]
    return cast("LayerFile", tar)


def open_tar(
    path: Path | None = None, mode: str = "r:*", *, fileobj: IO[bytes] | None = None
) -> SafeTarFile:
    """Open an archive by its path or as an open file; `mode` is a mode of tarfile.

    Raises BadMemberError already if the first member is bad.
    """
    tar = SafeTarFile.open(path, mode, fileobj, format=tarfile.GNU_FORMAT)  # type: ignore[no-untyped-call]
    return cast("SafeTarFile", tar)


def iter_members(tar: SafeTarFile, limit: int | None = None) -> Iterator[tarfile.TarInfo]:
    """Each member in order; BadMemberError at the first bad one.

    In addition to what `next` refuses: two members with the same name (but two directories), a
    member below a file or a link, more than MAX_MEMBERS members, and a member with which the
    archive unpacks to more than `limit` bytes.
    """
    files: set[str] = set()  # and links
    directories: set[str] = set()
    for count, member in enumerate(tar):
        name = posixpath.normpath(member.name)
        above = list(_list_parents(name))
        if name in files or (not member.isdir() and name in directories):
            raise BadMemberError(f"{member.name[:SHOWN]!r} is in the archive twice")
        if not files.isdisjoint(above):
            raise BadMemberError(f"{member.name[:SHOWN]!r} is below a file or a link")
        if count >= MAX_MEMBERS:
            raise BadMemberError(f"more than {MAX_MEMBERS} members")
        if limit is not None and member.offset_data + member.size > limit:
            raise BadMemberError(
                f"with {member.name[:SHOWN]!r} it would unpack to more than {limit} bytes, which is"
                " too much for an archive of its size"
            )
        directories.update(above)
        (directories if member.isdir() else files).add(name)
        yield member


def _list_parents(name: str) -> Iterator[str]:
    """`a/b` and `a` for `a/b/c`."""
    while name := posixpath.dirname(name):
        yield name


def check_end(tar: SafeTarFile) -> None:
    """BadMemberError if anything but padding follows the last member of a stream.

    Some programs, such as busybox tar, extract what follows.
    """
    size = 0
    while rest := tar.fileobj.read(tarfile.BLOCKSIZE):
        size += len(rest)
        if any(rest) or size > tarfile.RECORDSIZE:
            raise BadMemberError("data follows the end of the archive")


def unpack_limit(size: int) -> int:
    """The bytes that an archive of `size` bytes may unpack to."""
    return max(UNPACK_MINIMUM, UNPACK_RATIO * size)


def find_fault(member: tarfile.TarInfo) -> str:
    """What is wrong with a member, by tarsafe's rules and by ours; empty if nothing is."""
    refusal = _ask_tarsafe(member)  # always: its rules hold even where ours miss something
    return _find_own_fault(member) or refusal


def _ask_tarsafe(member: tarfile.TarInfo) -> str:
    try:
        _OneMember(member).check()
    except TarSafeException as error:
        return f"refused by tarsafe: {error}"
    return ""


class _OneMember(TarSafe):
    """One member, shown to tarsafe's check as if it were the complete archive."""

    def __init__(self, member: tarfile.TarInfo) -> None:
        self._member = member

    def __iter__(self) -> Iterator[tarfile.TarInfo]:
        yield _relative_to_root(self._member)

    def check(self) -> None:
        """TarSafeException if tarsafe would not extract this member."""
        self._safetar_check(ROOT)  # type: ignore[no-untyped-call]


def _relative_to_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """The member with a link target that starts at the archive's top, as tarsafe expects it.

    A symbolic link starts at its own directory. tarsafe ignores that, and would refuse the link
    `ID/layer.tar -> ../OTHER/layer.tar` of docker save.
    """
    if not member.issym():
        return member
    changed = copy.copy(member)
    changed.linkname = _link_target(member)
    return changed


def _link_target(member: tarfile.TarInfo) -> str:
    """The path from the archive's top that a link leads to."""
    start = posixpath.dirname(member.name) if member.issym() else ""
    return posixpath.normpath(posixpath.join(start, member.linkname))


def find_sparse_file(path: Path, offset: int, size: int) -> str:
    """The first GNU sparse file in a tar archive inside a file; empty if there is none.

    Everything else in the archive is left to those who unpack it.
    """
    with path.open("rb") as file:
        if _has_plain_headers(file, offset, size):
            return ""
        file.seek(offset)
        try:
            with _open_layer(file, "r:") as tar:
                while (member := tar.next()) and member.offset < offset + size:
                    if member.type == tarfile.GNUTYPE_SPARSE:
                        return member.name[:SHOWN]
                    tar.members.clear()  # type: ignore[attr-defined] # of thousands of files
        except tarfile.TarError:
            return ""
    return ""


def _has_plain_headers(file: IO[bytes], offset: int, size: int) -> bool:
    """Whether every header is of a type that cannot be sparse; False if it takes tarfile to know.

    Ten times as fast as tarfile: an image's layer has thousands of headers.
    """
    place = offset
    while place < offset + size:
        file.seek(place)
        header = file.read(tarfile.BLOCKSIZE)
        kind = header[156:157]
        if len(header) == tarfile.BLOCKSIZE and not header.strip(b"\0"):
            return True
        try:
            length = int(header[124:136].rstrip(b"\0 ") or b"0", 8)
        except ValueError:
            return False
        if kind not in PLAIN_TYPES or length < 0:
            return False
        blocks = -(-length // tarfile.BLOCKSIZE) if kind == tarfile.REGTYPE else 0
        place += tarfile.BLOCKSIZE * (1 + blocks)
    return False


def read_files(stream: IO[bytes], wanted: Callable[[str], bool], limit: int) -> dict[str, bytes]:
    """The content of the wanted regular files of an image's layer, by path; links are not followed.

    BadMemberError if it unpacks to more than `limit` bytes, or a wanted file has more than
    MAX_WANTED.
    """
    found = {}
    with _open_layer(stream, "r|") as tar:
        for member in tar:
            if member.offset_data + member.size > limit:
                raise BadMemberError(f"it unpacks to more than {limit} bytes")
            name = posixpath.normpath(member.name).lstrip("/")
            if member.isreg() and wanted(name):
                if member.size > MAX_WANTED:
                    raise BadMemberError(f"{name[:SHOWN]!r} has {member.size} bytes")
                content = tar.extractfile(member)
                found[name] = content.read() if content else b""
            tar.members.clear()  # type: ignore[attr-defined] # of thousands of files
    return found


def _find_own_fault(member: tarfile.TarInfo) -> str:
    name = member.name
    if not (name + member.linkname).isprintable():
        return "a name with control characters, or one that is not UTF-8"
    if name.startswith("/"):
        return "an absolute path"
    if ".." in name.split("/"):
        return "a path with .."
    if member.issym() or member.islnk():
        target = _link_target(member)
        leads_out = target.startswith("/") or target.split("/")[0] == ".."
        return f"a link that leads out of the archive, to {member.linkname[:SHOWN]!r}" * leads_out
    if member.issparse() or any(key.startswith(SPARSE_KEYS) for key in member.pax_headers):
        return "a sparse file (made by tar --sparse)"
    return "" if member.isreg() or member.isdir() else "a device, a pipe or an unknown kind of file"
