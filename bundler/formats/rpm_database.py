"""The packages in a database of rpm, as rpm 4.16 and later keep it in SQLite.

Sources: rpm's lib/backend/sqlite.c (table Packages: hnum, blob), and the pages hregions and
format_header of its manual (a header: number of entries, bytes of data, entries of tag, type,
offset and count, data). Berkeley DB and ndb, which rpm had before, are not read.
"""

import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

MAGIC = b"SQLite format 3\0"
NAME, VERSION, RELEASE, EPOCH, ARCH, SOURCE = 1000, 1001, 1002, 1003, 1022, 1044
INT32, STRING = 4, 6
MOST_PACKAGES = 100_000
MOST_HEADER = 64 << 20
"""Bytes of one package's header."""
KEYS = "gpg-pubkey"
"""Keys for signatures, which rpm keeps as packages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RpmPackage:
    """A package that is installed; `source` is the file name of its source package."""

    name: str
    version: str  # EPOCH:VERSION-RELEASE, without an epoch of 0
    arch: str
    source: str


def read_rpm_database(content: bytes) -> Iterator[RpmPackage]:
    """Yield the packages of a database; ValueError if it is damaged or of another kind."""
    if not content.startswith(MAGIC):
        raise ValueError("it is not in SQLite's format")
    # 1 and 1: no write-ahead log, which a database in memory cannot have
    content = content[:18] + b"\x01\x01" + content[20:]
    try:
        with closing(sqlite3.connect(":memory:")) as database:
            database.deserialize(content)
            database.execute("PRAGMA trusted_schema = OFF")
            database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_HEADER)
            kinds = "SELECT type FROM sqlite_master WHERE name = 'Packages'"
            if database.execute(kinds).fetchone() != ("table",):
                raise ValueError("it has no table Packages")
            rows = database.execute("SELECT blob FROM Packages LIMIT ?", (MOST_PACKAGES + 1,))
            headers = [row[0] for row in rows]
    except (sqlite3.Error, OverflowError) as error:
        raise ValueError(f"SQLite cannot read it: {error}") from error
    if len(headers) > MOST_PACKAGES:
        raise ValueError(f"it has more than {MOST_PACKAGES} packages")
    for header in headers:
        package = _read_header(header)
        if package.name != KEYS:
            yield package


def _read_header(header: object) -> RpmPackage:
    if not isinstance(header, bytes):
        raise ValueError("a header of a package is no blob")  # noqa: TRY004
    try:
        count, size = struct.unpack_from(">II", header)
        begin = 8 + 16 * count
        data = header[begin : begin + size]
        found: dict[int, str] = {}
        for tag, kind, offset, _ in struct.iter_unpack(">IIII", header[8:begin]):
            if kind == STRING and tag in {NAME, VERSION, RELEASE, ARCH, SOURCE}:
                found[tag] = data[offset : data.index(b"\0", offset)].decode()
            elif kind == INT32 and tag == EPOCH:
                found[tag] = str(struct.unpack_from(">I", data, offset)[0])
        version = f"{found[VERSION]}-{found[RELEASE]}"
    except (struct.error, KeyError, ValueError) as error:
        raise ValueError(f"a header of a package is damaged ({error})") from error
    epoch = found.get(EPOCH, "0")
    return RpmPackage(
        name=found.get(NAME, ""),
        version=version if epoch == "0" else f"{epoch}:{version}",
        arch=found.get(ARCH, ""),
        source=found.get(SOURCE, ""),
    )
