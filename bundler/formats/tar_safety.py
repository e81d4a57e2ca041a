"""Members of tarballs that others made: what no honest archive holds is refused.

Nothing here is ever unpacked by name, so a path cannot lead astray on the builder; but a bundle is
unpacked on its host, and an archive that tries is not what its publisher meant.
"""

import posixpath
import tarfile
from collections.abc import Iterator

RATIO = 64
"""An archive may unpack to this many times its size. Programs: 3 to 5; gzip's most: 1032."""
SMALL = 256 << 20
"""Bytes that every archive may unpack to, however small it is."""
MOST_HEADER = 1 << 20
"""Bytes of a long name or of a pax header, which tarfile reads into memory."""
MOST_MEMBERS = 200_000
HEADERS = {
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
}


class BadMemberError(tarfile.TarError):
    """An archive with a member that it should not have; which, and why."""


class BoundedInfo(tarfile.TarInfo):
    """What tarfile makes of a header; one that claims to be huge is refused before it is read."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "BoundedInfo":
        """As the base class."""
        member = super().frombuf(buf, encoding, errors)
        if member.type in HEADERS and member.size > MOST_HEADER:
            raise BadMemberError(f"a header of {member.size} bytes")
        return member


def walk(tar: tarfile.TarFile, most: int | None = None) -> Iterator[tarfile.TarInfo]:
    """Each member in turn; BadMemberError at the first that must not be.

    That is one with an absolute path or `..`, a link that leads out, a device, pipe or sparse file,
    a second file of one name, and the one with which more than `most` bytes would be unpacked.
    """
    seen = set()
    for count, member in enumerate(tar):
        name = posixpath.normpath(member.name)
        if fault := _find_fault(member):
            raise BadMemberError(f"{member.name[:200]!r} is {fault}")
        if not member.isdir() and name in seen:
            raise BadMemberError(f"{member.name[:200]!r} is in it twice")
        if count >= MOST_MEMBERS:
            raise BadMemberError(f"more than {MOST_MEMBERS} members")
        if most is not None and member.offset_data + member.size > most:
            raise BadMemberError(
                f"with {member.name[:200]!r} it would unpack to more than {most} bytes, which is"
                " more than such an archive holds"
            )
        seen.add(name)
        yield member


def unpacked_limit(size: int) -> int:
    """The bytes that an archive of `size` bytes may unpack to."""
    return max(SMALL, RATIO * size)


def _find_fault(member: tarfile.TarInfo) -> str:
    name = member.name
    if name.startswith("/"):
        return "an absolute path"
    if ".." in name.split("/"):
        return "a path with .."
    if member.issym() or member.islnk():
        # a symbolic link starts from its own directory, a hard link from the archive's top
        start = posixpath.dirname(name) if member.issym() else ""
        target = posixpath.normpath(posixpath.join(start, member.linkname))
        leads_out = target.startswith("/") or target.split("/")[0] == ".."
        return f"a link that leads out of the archive, to {member.linkname[:200]!r}" * leads_out
    if member.issparse():
        return "a sparse file"
    return "" if member.isreg() or member.isdir() else "a device, a pipe or of no known kind"
