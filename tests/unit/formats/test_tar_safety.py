"""Archives from others: bad members and false sizes are refused."""

import gzip
import hashlib
import io
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support.archive_program import read_program
from support.misbehaving_server import make_artifact
from support.paths import TESTS

from bundler.cache.payload import ensure_members
from bundler.cache.store import Cache
from bundler.errors import ArtifactError, OutputError
from bundler.formats import tar_safety
from bundler.formats.bundle_archives import explain_damage, read_tar_gz
from bundler.formats.tar_safety import BadMemberError, open_tar

Member = tuple[str, bytes, str]  # name, type, link target or content

BAD: dict[str, tuple[Member, ...]] = {
    "a path with ..": (("top/../../etc/passwd", tarfile.REGTYPE, "x"),),
    "an absolute path": (("/etc/passwd", tarfile.REGTYPE, "x"),),
    "leads out of the archive, to '../../etc'": (("top/link", tarfile.SYMTYPE, "../../etc"),),
    "leads out of the archive, to '/etc/passwd'": (("top/link", tarfile.SYMTYPE, "/etc/passwd"),),
    "leads out of the archive, to '../passwd'": (("top/hard", tarfile.LNKTYPE, "../passwd"),),
    "a device": (("top/null", tarfile.CHRTYPE, ""),),
    "a pipe": (("top/pipe", tarfile.FIFOTYPE, ""),),
    "in the archive twice": (("./top/a", tarfile.REGTYPE, "1"), ("top//a", tarfile.REGTYPE, "2")),
}


def write_tar(path: Path, *entries: Member) -> Path:
    """Write a .tar.gz with one good program, followed by these members."""
    with tarfile.open(path, "w:gz") as archive:
        for name, kind, text in (("top/program", tarfile.REGTYPE, "good"), *entries):
            member = tarfile.TarInfo(name)
            member.type = kind
            member.linkname = text
            content = text.encode() if kind == tarfile.REGTYPE else b""
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.mark.parametrize("fault", BAD)
def test_an_upstream_archive_with_a_bad_member_is_refused(
    tmp_path: Path, cache: Cache, fault: str
) -> None:
    archive = write_tar(tmp_path / "up.tar.gz", *BAD[fault])
    with pytest.raises(ArtifactError, match="is refused") as caught:
        read_program(archive, cache)
    assert fault in caught.value.message
    assert "https://a.example/up.tar.gz" in caught.value.message


@pytest.mark.parametrize("fault", BAD)
def test_a_bundle_with_a_bad_member_is_refused(tmp_path: Path, fault: str) -> None:
    archive = write_tar(tmp_path / "bundle.tar.gz", *BAD[fault])
    with pytest.raises(OutputError, match="not a bundle from bundler") as caught:
        list_names(archive)
    assert fault in caught.value.message


def list_names(archive: Path) -> list[str]:
    with explain_damage(archive):
        return [name for name, _, _ in read_tar_gz(archive)]


TARSAFE_REFUSES = ("path with", "absolute", "leads out", "a device")
"""The members of BAD that tarsafe refuses; bundler adds the other limits."""


@pytest.mark.parametrize(
    "fault", [fault for fault in BAD if any(map(fault.__contains__, TARSAFE_REFUSES))]
)
def test_tarsafe_alone_refuses_a_member_that_reaches_out(
    tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    archive = write_tar(tmp_path / "up.tar.gz", *BAD[fault])
    monkeypatch.setattr(tar_safety, "_find_own_fault", lambda member: "")
    with pytest.raises(ArtifactError, match="refused by tarsafe"):
        read_program(archive, cache)
    with pytest.raises(OutputError, match="refused by tarsafe"):
        list_names(archive)


@pytest.mark.parametrize("fault", BAD)
def test_bundlers_own_checks_refuse_a_bad_member_without_tarsafe(
    tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    archive = write_tar(tmp_path / "up.tar.gz", *BAD[fault])
    monkeypatch.setattr(tar_safety, "_ask_tarsafe", lambda member: "")
    with pytest.raises(ArtifactError, match="is refused"):
        read_program(archive, cache)


@pytest.mark.parametrize("name", ["getmembers", "getnames", "next_all"])
def test_every_way_to_list_an_archive_checks_its_members(tmp_path: Path, name: str) -> None:
    archive = write_tar(tmp_path / "up.tar.gz", ("top/../../etc/passwd", tarfile.REGTYPE, "x"))
    with open_tar(archive) as tar, pytest.raises(BadMemberError, match=r"path with \.\."):
        {"getmembers": tar.getmembers, "getnames": tar.getnames, "next_all": lambda: list(tar)}[
            name
        ]()


def test_a_first_member_that_is_bad_is_refused_when_the_archive_is_opened(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("/etc/passwd"))
    with pytest.raises(BadMemberError, match="an absolute path"):
        open_tar(tmp_path / "x.tar")


class CountingReader(io.FileIO):
    """A file that counts the bytes that are read from it."""

    count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size) or b""
        self.count += len(data)
        return data


def test_an_archive_is_read_once_from_a_stream(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for number in range(50):
            member = tarfile.TarInfo(f"top/{number}")
            member.size = 100_000
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    with CountingReader(tmp_path / "x.tar") as file, open_tar(mode="r|", fileobj=file) as tar:
        contents = [tar.extractfile(member) for member in tar_safety.iter_members(tar)]
        assert len(contents) == 50
        assert file.count == (tmp_path / "x.tar").stat().st_size


def test_only_one_module_opens_tar_archives() -> None:
    package = Path(tar_safety.__file__).parents[1]
    opens = re.compile(r"tarfile\.open|TarFile\(|tarsafe\.open")
    found = [path.name for path in package.rglob("*.py") if opens.search(path.read_text())]
    assert found == ["tar_safety.py"]


def test_a_bundle_with_any_link_is_refused(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "bundle.tar.gz", ("top/link", tarfile.SYMTYPE, "program"))
    with pytest.raises(OutputError, match="'top/link' is a link"):
        list_names(archive)


def test_links_and_directories_inside_an_archive_are_allowed(tmp_path: Path, cache: Cache) -> None:
    archive = write_tar(
        tmp_path / "up.tar.gz",
        ("./", tarfile.DIRTYPE, ""), ("top/", tarfile.DIRTYPE, ""), ("top/", tarfile.DIRTYPE, ""),
        ("top/bin/link", tarfile.SYMTYPE, "../program"), ("top/hard", tarfile.LNKTYPE, "top/program"),
        ("top/..data", tarfile.REGTYPE, "x"),
    )  # fmt: skip
    assert read_program(archive, cache) == b"good"


def test_a_sparse_file_is_refused(tmp_path: Path, cache: Cache) -> None:
    with (tmp_path / "program").open("wb") as file:
        file.truncate(1 << 40)
    subprocess.run(
        ["tar", "-C", tmp_path, "--sparse", "-czf", tmp_path / "up.tgz", "program"], check=True
    )
    with pytest.raises(ArtifactError, match="'program' is a sparse file"):
        read_program(tmp_path / "up.tgz", cache)


BEFORE_SPARSE = {
    "nothing": [],
    "every plain type": [*"0123456"],
    "a long name": ["long"],
    "a file of the first tar": ["\0"],
    "a header with a wrong checksum": ["wrong"],
}


@pytest.mark.parametrize("kinds", BEFORE_SPARSE.values(), ids=list(BEFORE_SPARSE))
@pytest.mark.parametrize("has_sparse", [True, False])
def test_a_sparse_file_of_a_layer_is_found_behind_any_header(
    tmp_path: Path, kinds: list[str], has_sparse: bool
) -> None:
    """Plain headers are passed over without tarfile; what it says counts for all others."""
    content = b"before"
    for kind in kinds:
        member = tarfile.TarInfo("x" * 200 if kind == "long" else "some")
        member.type = kind.encode() if len(kind) == 1 else tarfile.REGTYPE
        member.size = 700 if member.type in {b"0", b"\0"} else 0
        header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
        if kind == "wrong":
            header[0] ^= 1
        content += bytes(header) + bytes(-(-member.size // 512) * 512)
    if has_sparse:
        member = tarfile.TarInfo("holes")
        member.type = tarfile.GNUTYPE_SPARSE
        content += member.tobuf(tarfile.GNU_FORMAT)
    path = tmp_path / "layers"
    path.write_bytes(content + bytes(1024) + b"after")
    found = tar_safety.find_sparse_file(path, 6, len(content) - 6 + 1024)
    assert found == ("holes" if has_sparse and kinds != ["wrong"] else "")


def write_bomb(path: Path, size: int, make_header: Callable[[tarfile.TarInfo], None]) -> Path:
    """Write a small file that unpacks to one member of `size` zeros."""
    member = tarfile.TarInfo("top/program")
    member.size = size
    make_header(member)
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(member.tobuf(tarfile.GNU_FORMAT))
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))
        file.write(bytes(1024))
    return path


def test_a_gzip_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar_safety, "UNPACK_MINIMUM", 1 << 20)
    bomb = write_bomb(tmp_path / "bomb.tgz", 64 << 20, lambda member: None)
    assert bomb.stat().st_size * tar_safety.UNPACK_RATIO < 64 << 20
    with pytest.raises(ArtifactError, match="would unpack to more than"):
        read_program(bomb, cache)
    assert not list((tmp_path / "cache").glob("segments/*/*"))


def test_an_archive_below_the_ratio_is_unpacked(tmp_path: Path, cache: Cache) -> None:
    archive = write_bomb(tmp_path / "zeros.tgz", 64 << 20, lambda member: None)
    digest = hashlib.sha256(bytes(64 << 20)).hexdigest()
    artifact = make_artifact("https://a.example/up.tar.gz", archive.read_bytes())
    assert ensure_members(artifact, archive, ["top/program"], cache)["top/program"].sha256 == digest


@pytest.mark.slow
@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_huge_header_is_refused_without_reading_it(tmp_path: Path, kind: bytes) -> None:
    """Runs in a process of its own, to measure the peak of its memory."""
    bomb = write_bomb(tmp_path / "up.tgz", 400 << 20, lambda member: setattr(member, "type", kind))
    code = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from support.archive_program import read_program\n"
        "from bundler.cache.store import Cache\n"
        "from bundler.errors import ArtifactError\n"
        "from pathlib import Path\n"
        "try: read_program(Path(sys.argv[1]), Cache(Path(sys.argv[1]).parent / 'cache'))\n"
        "except ArtifactError as error: print(error.message)\n"
        # not getrusage: it includes the process that this one was forked from
        "import re; status = open('/proc/self/status').read()\n"
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', status)[1]) >> 10)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, bomb, TESTS],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    *said, peak = done.stdout.splitlines()
    assert "a header of 419430400 bytes" in "".join(said)
    assert int(peak) < 200


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["bz2", "xz"])
def test_a_damaged_archive_is_reported_for_every_compression(
    tmp_path: Path, cache: Cache, ending: str
) -> None:
    archive = tmp_path / f"up.tar.{ending}"
    with tarfile.open(archive, f"w:{ending}") as tar:  # type: ignore[call-overload]
        member = tarfile.TarInfo("top/program")
        content = bytes(range(256)) * 40_000
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 0xFF
    archive.write_bytes(data)
    with pytest.raises(ArtifactError, match="the archive is damaged"):
        read_program(archive, cache)
