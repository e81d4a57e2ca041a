"""bundler fetch and bundler cache: fill, export, import, verify and prune the cache."""

import hashlib
import io
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.descriptions import write_description, write_upstream
from typer.testing import CliRunner, Result

from bundler.cache.archive import (
    Blob,
    export_blobs,
    import_blobs,
    list_blobs,
)
from bundler.cache.store import Cache
from bundler.cli.app import app
from bundler.errors import ArtifactError, BundlerError, OutputError

CONTENTS = (b"one", b"two" * 1000, b"")


def fill(cache: Cache) -> None:
    """Add a sha256 blob for each content, and a sha512 blob of the first."""
    for algorithm, content in [*(("sha256", c) for c in CONTENTS), ("sha512", CONTENTS[0])]:
        digest = hashlib.new(algorithm, content).hexdigest()
        partial = cache.partial_path(algorithm, digest)
        partial.write_bytes(content)
        cache.adopt(partial, algorithm, digest)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    found = Cache(tmp_path / "cache")
    fill(found)
    return found


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_two_exports_are_identical_and_an_import_has_every_file(
    cache: Cache, tmp_path: Path
) -> None:
    export_blobs(cache, tmp_path / "a.tar", None)
    export_blobs(cache, tmp_path / "b.tar", None)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    other = Cache(tmp_path / "other")
    assert sorted(import_blobs(other, tmp_path / "a.tar")) == list(list_blobs(cache))
    assert list_blobs(other) == list_blobs(cache)
    assert all(other.has_blob(blob.algorithm, blob.digest) for blob in list_blobs(cache))
    assert list(import_blobs(other, tmp_path / "a.tar"))  # a second import changes nothing


def test_an_export_of_an_altered_file_is_refused_and_leaves_nothing(
    cache: Cache, tmp_path: Path
) -> None:
    digest = hashlib.sha256(CONTENTS[0]).hexdigest()
    cache.blob_path("sha256", digest).write_bytes(b"eno")
    with pytest.raises(ArtifactError, match="does not have the digest in its name"):
        export_blobs(cache, tmp_path / "a.tar", None)
    assert not list(tmp_path.glob("*.tar*")) + list(tmp_path.glob(".tmp*"))


def write_tar(path: Path, *members: tuple[str, bytes, bytes]) -> None:
    index = f"sha256:{ONE.rpartition('/')[2]}\n".encode()
    with tarfile.open(path, "w") as archive:
        for name, content, kind in (("bundler-cache/INDEX", index, tarfile.REGTYPE), *members):
            member = tarfile.TarInfo(name)
            member.type = kind
            member.size = len(content)
            member.linkname = "/etc/passwd"
            archive.addfile(member, io.BytesIO(content))


ONE = f"bundler-cache/sha256/{hashlib.sha256(b'one').hexdigest()}"


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ([(f"../{ONE}", b"one", tarfile.REGTYPE)], "a path with .."),
        ([(f"/{ONE}", b"one", tarfile.REGTYPE)], "an absolute path"),
        ([(ONE, b"", tarfile.SYMTYPE)], "a link that leads out"),
        ([(ONE, b"", tarfile.LNKTYPE)], "a link that leads out"),
        ([(ONE, b"", tarfile.CHRTYPE)], "a device"),
        ([(ONE, b"", tarfile.DIRTYPE)], "not a file of a cache"),
        ([(ONE[:-1], b"one", tarfile.REGTYPE)], "not a file of a cache"),
        ([(f"{ONE}/x", b"one", tarfile.REGTYPE)], "not a file of a cache"),
        ([(ONE, b"one", tarfile.REGTYPE)] * 2, "in the archive twice"),
        ([(ONE, b"eno", tarfile.REGTYPE)], "does not have that digest; quarantined"),
        ([(ONE.replace("256", "512") + ONE[-64:], b"", tarfile.REGTYPE)], "not in its index"),
        ([], "1 files of its index are missing"),
    ],
    ids=[
        "dots",
        "absolute",
        "symlink",
        "hardlink",
        "device",
        "directory",
        "short",
        "below",
        "twice",
        "altered",
        "unknown",
        "missing",
    ],
)
def test_an_import_refuses_members_that_an_export_does_not_write(
    tmp_path: Path, members: list[tuple[str, bytes, bytes]], expected: str
) -> None:
    write_tar(tmp_path / "x.tar", *members)
    cache = Cache(tmp_path / "cache")
    with pytest.raises(ArtifactError, match=expected):
        list(import_blobs(cache, tmp_path / "x.tar"))
    assert len(list_blobs(cache)) == (1 if "twice" in expected else 0)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"[]", tarfile.REGTYPE),
        (b"{", tarfile.REGTYPE),
        (b'{"https://x.example/": "sha256:../../x"}', tarfile.REGTYPE),
        (b"", tarfile.DIRTYPE),
    ],
)
def test_an_import_with_invalid_documents_is_refused(
    tmp_path: Path, content: bytes, kind: bytes
) -> None:
    documents = ("bundler-cache/DOCUMENTS", content, kind)
    write_tar(tmp_path / "x.tar", documents, (ONE, b"one", tarfile.REGTYPE))
    with pytest.raises(ArtifactError, match="DOCUMENTS cannot be read"):
        list(import_blobs(Cache(tmp_path / "cache"), tmp_path / "x.tar"))


@pytest.mark.parametrize("cut", [0, 100, 700, 1024, 2048, 3000, 6000])
def test_an_import_of_an_incomplete_export_is_refused(
    cache: Cache, tmp_path: Path, cut: int
) -> None:
    export_blobs(cache, tmp_path / "a.tar", None)
    (tmp_path / "a.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:cut])
    other = Cache(tmp_path / "other")
    with pytest.raises(
        BundlerError, match=r"not a complete|does not have that digest|not an exported cache"
    ):
        list(import_blobs(other, tmp_path / "a.tar"))
    assert all(other.has_blob(blob.algorithm, blob.digest) for blob in list_blobs(other))


@pytest.mark.parametrize(
    ("size", "fault"),
    [(1 << 50, "more than the largest file of a cache"), (15 << 30, "No space left on device")],
)
def test_an_import_refuses_a_file_that_is_too_large_before_it_is_written(
    tmp_path: Path, size: int, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10 << 30))
    member = tarfile.TarInfo(ONE)
    member.size = size
    write_tar(tmp_path / "a.tar")
    packed = (tmp_path / "a.tar").read_bytes()[:1024]  # the index
    (tmp_path / "a.tar").write_bytes(packed + member.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20))
    with pytest.raises(BundlerError, match=fault):
        list(import_blobs(Cache(tmp_path / "cache"), tmp_path / "a.tar"))
    assert not list((tmp_path / "cache/partial").glob("*"))


def test_an_import_of_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"x\.tar: No such file"):
        list(import_blobs(Cache(tmp_path / "cache"), tmp_path / "x.tar"))


def test_an_import_of_a_directory_or_from_bad_media_is_reported(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    with pytest.raises(ArtifactError, match="Is a directory"):
        list(import_blobs(cache, tmp_path))
    bad = Path("/proc/self/mem")  # reading it fails
    with pytest.raises(ArtifactError, match="mem cannot be read: Input/output error"):
        list(import_blobs(cache, bad))


@pytest.mark.parametrize(
    ("target", "expected"), [("no/x.tar", "not a directory"), ("", "directory")]
)
def test_an_export_to_an_invalid_path_is_refused(
    cache: Cache, tmp_path: Path, target: str, expected: str
) -> None:
    with pytest.raises(OutputError, match=expected):
        export_blobs(cache, tmp_path / target, None)


def test_an_export_from_bad_media_is_reported(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = cache.blob_path("sha256", hashlib.sha256(CONTENTS[1]).hexdigest())
    blob.unlink()
    blob.symlink_to("/proc/self/mem")
    listed = (Blob("sha256", blob.name, len(CONTENTS[1])),)
    monkeypatch.setattr("bundler.cache.archive.list_blobs", lambda _: listed)
    with pytest.raises(ArtifactError, match=f"{blob.name} cannot be read"):
        export_blobs(cache, tmp_path / "a.tar", None)
    assert not list(tmp_path.glob("*.tar*")) + list(tmp_path.glob(".tmp*"))


def test_verify_quarantines_an_altered_file(cache: Cache) -> None:
    assert run("cache", "verify", "--cache", cache.root).exit_code == 0
    digest = hashlib.sha256(CONTENTS[0]).hexdigest()
    cache.blob_path("sha256", digest).write_bytes(b"eno")
    result = run("cache", "verify", "--cache", cache.root)
    assert result.exit_code == 3
    assert [line.split()[-1] for line in result.stdout.splitlines() if "ALTERED" in line] == [
        f"sha256:{digest}"
    ]
    assert run("cache", "verify", "--cache", cache.root).exit_code == 0
    assert len(list_blobs(cache)) == 3


def test_a_cache_is_exported_imported_and_pruned_for_a_cluster(tmp_path: Path) -> None:
    description = write_description(tmp_path)
    pins = write_upstream(tmp_path, description)
    common = ("-c", description, "--pins", pins)
    here, there = tmp_path / "here", tmp_path / "there"
    fetched = run(
        "fetch", "-q", *common, "--mirror", tmp_path / "mirror", "--offline", "--cache", here
    )
    assert fetched.exit_code == 0
    names = sorted(line.split()[0] for line in fetched.stdout.splitlines())
    assert len(names) >= 4
    assert not list(description.parent.glob("*.state"))  # no keys were made
    fill(Cache(here))

    exported = run("cache", "export", tmp_path / "x.tar", *common, "--cache", here)
    assert sorted(line.split()[1] for line in exported.stdout.splitlines()) == names
    assert run("cache", "import", tmp_path / "x.tar", "--cache", there).exit_code == 0
    again = run("fetch", "-q", *common, "--offline", "--cache", there)
    assert sorted(line.split()[0] for line in again.stdout.splitlines()) == names

    dry = run("cache", "prune", *common, "--dry-run", "--cache", here)
    assert len(dry.stdout.splitlines()) == 4
    assert len(list_blobs(Cache(here))) == len(names) + 4
    assert run("cache", "prune", *common, "--cache", here).stdout == dry.stdout
    listed = run("cache", "list", "--cache", here)
    assert sorted(line.split()[1] for line in listed.stdout.splitlines()) == names


def test_an_export_lists_missing_files(tmp_path: Path) -> None:
    description = write_description(tmp_path)
    pins = write_upstream(tmp_path, description)
    result = run(
        "cache", "export", tmp_path / "x.tar", "-c", description, "--pins", pins, "--cache",
        tmp_path / "empty",
    )  # fmt: skip
    assert isinstance(result.exception, ArtifactError)
    assert "etcd" in result.exception.message
    assert not (tmp_path / "x.tar").exists()


def test_prune_without_a_configuration_removes_nothing(cache: Cache) -> None:
    result = run("cache", "prune", "--cache", cache.root)
    assert isinstance(result.exception, BundlerError)
    assert len(list_blobs(cache)) == 4
