"""rpm's database in SQLite: made by the test, and by a real rpm where there is one."""

import sqlite3
import struct
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from support.rpm_packages import needs_rpm

from bundler.formats.image_packages import ImagePackage, is_package_file, read_packages
from bundler.formats.rpm_database import (
    ARCH,
    EPOCH,
    INT32,
    NAME,
    RELEASE,
    SOURCE,
    STRING,
    VERSION,
    RpmPackage,
    read_rpm_database,
)

RHEL = b'ID="rhel"\nVERSION_ID="9.4"\n'
BASH = {
    NAME: "bash",
    VERSION: "5.1.8",
    RELEASE: "9.el9",
    ARCH: "x86_64",
    SOURCE: "bash-5.1.8-9.el9.src.rpm",
}
BIND = {
    NAME: "bind-libs",
    VERSION: "9.16.23",
    RELEASE: "18.el9",
    EPOCH: 32,
    ARCH: "x86_64",
    SOURCE: "bind-9.16.23-18.el9.src.rpm",
}
KEY = {NAME: "gpg-pubkey", VERSION: "fd431d51", RELEASE: "4ae0493b"}


def make_header(tags: dict[int, str | int]) -> bytes:
    entries, data = b"", b""
    for tag, value in tags.items():
        is_text = isinstance(value, str)
        data += b"" if is_text else b"\0" * (-len(data) % 4)
        entries += struct.pack(">IIII", tag, STRING if is_text else INT32, len(data), 1)
        data += f"{value}\0".encode() if is_text else struct.pack(">I", value)
    return struct.pack(">II", len(tags), len(data)) + entries + data


def make_database(
    *headers: object, table: str = "CREATE TABLE Packages (hnum INTEGER, blob BLOB)"
) -> bytes:
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute(table)
        if table.startswith("CREATE TABLE"):
            database.executemany("INSERT INTO Packages VALUES (?, ?)", enumerate(headers))
        database.commit()
        content = database.serialize()
    return content[:18] + b"\x02\x02" + content[20:]  # with a write-ahead log, as rpm makes it


def test_packages_have_epoch_version_release_and_source() -> None:
    found = list(read_rpm_database(make_database(*map(make_header, (BASH, BIND, KEY)))))
    assert found == [
        RpmPackage(name="bash", version="5.1.8-9.el9", arch="x86_64", source="bash-5.1.8-9.el9.src.rpm"),
        RpmPackage(name="bind-libs", version="32:9.16.23-18.el9", arch="x86_64", source="bind-9.16.23-18.el9.src.rpm"),
    ]  # fmt: skip


@pytest.mark.parametrize("path", ["var/lib/rpm/rpmdb.sqlite", "usr/lib/sysimage/rpm/rpmdb.sqlite"])
def test_packages_of_rpm_inside_an_image_are_read(path: str) -> None:
    assert is_package_file(path)
    older = BASH | {VERSION: "5.1.7"}
    content = make_database(*map(make_header, (BASH, older)))
    found = read_packages({path: content, "etc/os-release": RHEL})
    assert (found.release, found.unread) == ("rhel-9.4", "")
    assert found.packages == (  # rpm keeps several versions of a name, such as kernels
        ImagePackage(kind="rpm", name="bash", version="5.1.7-9.el9", arch="x86_64", source=str(BASH[SOURCE])),
        ImagePackage(kind="rpm", name="bash", version="5.1.8-9.el9", arch="x86_64", source=str(BASH[SOURCE])),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"var/lib/rpm/Packages": b"x"}, "older than SQLite's"),
        ({"usr/lib/sysimage/rpm/Packages.db": b"x"}, "older than SQLite's"),
        ({"var/lib/rpm/rpmdb.sqlite": b"x", "var/lib/rpm/rpmdb.sqlite-wal": b"y"}, "while it was written"),
        ({"var/lib/rpm/rpmdb.sqlite": b"x"}, "not in SQLite's format"),
    ],
)  # fmt: skip
def test_a_database_that_cannot_be_read_says_why(files: dict[str, bytes], reason: str) -> None:
    assert reason in read_packages(files).unread


def test_an_empty_write_ahead_log_hides_nothing() -> None:
    content = make_database(make_header(BASH))
    files = {"var/lib/rpm/rpmdb.sqlite": content, "var/lib/rpm/rpmdb.sqlite-wal": b""}
    assert [one.name for one in read_packages(files).packages] == ["bash"]


@pytest.mark.parametrize(
    "content",
    [
        make_database(make_header(BASH))[:3000],
        make_database(b"\0\0\0\x01"),
        make_database(b"\xff" * 64),
        make_database(
            struct.pack(">II", 1, 4) + struct.pack(">IIII", NAME, STRING, 90, 1) + b"abc\0"
        ),
        make_database(make_header({NAME: "x"})),
        make_database("text"),
        make_database(None),
        make_database(make_header(BASH | {NAME: "a b"})),
        make_database(
            table="CREATE VIEW Packages AS WITH RECURSIVE n(blob) AS (SELECT 1 UNION ALL SELECT blob FROM n) SELECT blob FROM n"
        ),
        b"SQLite format 3\0" + b"\xff" * 4096,
    ],
)
def test_a_damaged_or_hostile_database_is_an_error_with_its_reason(content: bytes) -> None:
    found = read_packages({"var/lib/rpm/rpmdb.sqlite": content})
    assert found.packages == ()
    assert found.unread.startswith("its list of packages is damaged")


@needs_rpm
def test_a_database_of_a_real_rpm_is_read(tmp_path: Path) -> None:
    spec = tmp_path / "x.spec"
    spec.write_text(
        "Name: small\nEpoch: 2\nVersion: 1.0\nRelease: 3\nSummary: x\nLicense: x\nBuildArch: noarch\n%description\nx\n%files\n"
    )
    subprocess.run(
        ["rpmbuild", "-bb", "--quiet", "--define", f"_topdir {tmp_path}/build", spec],
        check=True,
        capture_output=True,
    )
    (package,) = (tmp_path / "build").rglob("*.rpm")
    backend = ["--define", "_db_backend sqlite", "--dbpath", str(tmp_path / "db")]
    subprocess.run(["rpm", *backend, "--initdb"], check=True)
    subprocess.run(
        ["rpm", *backend, "-i", "--justdb", "--nodeps", "--noscripts", "--ignorearch", package],
        check=True,
        capture_output=True,
    )
    found = list(read_rpm_database((tmp_path / "db" / "rpmdb.sqlite").read_bytes()))
    assert found == [
        RpmPackage(name="small", version="2:1.0-3", arch="noarch", source="small-1.0-3.src.rpm")
    ]
