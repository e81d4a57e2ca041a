"""Trees and tarballs: the same tree gives the same bytes, and reads back the same."""

import gzip
import hashlib
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from bundler.bundle.inspect import inspect
from bundler.bundle.pack import pack
from bundler.cache import segments
from bundler.cache.payload import ensure_file, ensure_members, read_payload
from bundler.cache.store import Cache
from bundler.catalog import MAX_SIZES, Artifact
from bundler.errors import ArtifactError, OutputError, TemplateError
from bundler.render.tree import (
    File,
    Tree,
    make_manifest,
    write_tree,
)

BIG = os.urandom(64) * 200_000  # 12.8 MB: several chunks


def make_file(path: str, content: bytes, mode: int = 0o644) -> File:
    return File(path=path, mode=mode, content=content, origin="a test")


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def tree(tmp_path: Path, cache: Cache) -> Tree:
    """Small files, an empty one, one that fills a block, and two large ones."""
    big, empty = tmp_path / "big", tmp_path / "empty"
    big.write_bytes(BIG)
    empty.write_bytes(b"")
    made = Tree(
        [
            make_file("node.env", b"NODE='one'\nCLUSTER='lab'\n"),
            make_file("rootfs/etc/a.key", b"k" * 512, 0o600),
            make_file("rootfs/etc/empty", b""),
            File(path="rootfs/opt/big", mode=0o755, content=ensure_file(big, cache), origin="big"),
            File(
                path="images/00.tar", mode=0o644, content=ensure_file(empty, cache), origin="empty"
            ),
        ]
    )
    made.add(make_manifest(made))
    return made


def test_tar_reads_back_every_file_with_its_mode(tree: Tree, tmp_path: Path) -> None:
    target = tmp_path / "lab-one.tar.gz"
    (written,) = pack(tree, "lab-one", target, mtime=1_000_000_000)
    assert written.sha256 == hashlib.sha256(target.read_bytes()).hexdigest()
    subprocess.run(["tar", "-xzf", target, "-C", tmp_path], check=True)
    for file in tree:
        out = tmp_path / "lab-one" / file.path
        assert hashlib.sha256(out.read_bytes()).hexdigest() == file.sha256
        assert out.stat().st_mode & 0o777 == file.mode
        assert out.stat().st_mtime == 1_000_000_000
    assert (tmp_path / "lab-one").stat().st_mode & 0o777 == 0o700


def test_the_scripts_and_the_manifest_come_first(tree: Tree, tmp_path: Path) -> None:
    target = tmp_path / "x.tar.gz"
    pack(tree, "x", target, mtime=0)
    listed = subprocess.run(
        ["tar", "-tzf", target], check=True, capture_output=True, text=True
    ).stdout
    assert listed.splitlines()[:3] == ["x/", "x/node.env", "x/MANIFEST"]


def test_the_same_tree_gives_the_same_bytes_in_any_order_and_under_any_umask(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = pack(tree, "x", tmp_path / "1.tar.gz", mtime=5)
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    before = os.umask(0o077)
    try:
        (second,) = pack(Tree(reversed(list(tree))), "x", tmp_path / "2.tar.gz", mtime=5)
    finally:
        os.umask(before)
    assert first.sha256 == second.sha256
    assert (tmp_path / "1.tar.gz").read_bytes() == (tmp_path / "2.tar.gz").read_bytes()


def test_only_its_owner_can_read_a_tarball(tree: Tree, tmp_path: Path) -> None:
    pack(tree, "x", tmp_path / "x.tar.gz", mtime=0)
    assert (tmp_path / "x.tar.gz").stat().st_mode & 0o777 == 0o600


def test_a_large_file_is_compressed_once(
    tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "big"
    path.write_bytes(BIG)
    first = ensure_file(path, cache)

    def refuse(_: bytes) -> bytes:
        raise AssertionError("compressed again")

    monkeypatch.setattr(segments, "compress", refuse)
    assert ensure_file(path, cache) == first
    assert b"".join(read_payload(first)) == BIG


def test_a_failed_pack_leaves_no_file(tree: Tree, tmp_path: Path) -> None:
    big = tree["rootfs/opt/big"].content
    assert not isinstance(big, bytes)
    big.segment.unlink()
    with pytest.raises(ArtifactError, match="was removed during the build"):
        pack(tree, "x", tmp_path / "out.tar.gz", mtime=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["big", "cache", "empty"]


def test_two_owners_of_one_path_are_refused() -> None:
    tree = Tree([make_file("a", b"1")])
    with pytest.raises(TemplateError, match="a: two sources, a test and a test"):
        tree.add(make_file("a", b"2"))


def test_a_tree_written_out_has_the_modes_of_the_bundle(tree: Tree, tmp_path: Path) -> None:
    write_tree(tree, tmp_path / "out")
    assert (tmp_path / "out/rootfs/opt/big").read_bytes() == BIG
    assert (tmp_path / "out/rootfs/etc/a.key").stat().st_mode & 0o777 == 0o600
    write_tree(tree, tmp_path / "out")


def make_upstream(path: Path, members: dict[str, bytes]) -> Artifact:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return Artifact(
        component="etcd", version="1", arch="amd64", url="https://example.com/x", algorithm="sha256",
        digest=hashlib.sha256(path.read_bytes()).hexdigest(), source="a test",
        most=MAX_SIZES["etcd"],
    )  # fmt: skip


def test_members_of_an_upstream_archive_become_payloads(tmp_path: Path, cache: Cache) -> None:
    archive = tmp_path / "up.tar.gz"
    artifact = make_upstream(
        archive, {"./etcd/etcd": BIG, "etcd/etcdctl": b"small", "other": b"no"}
    )
    found = ensure_members(artifact, archive, ["etcd/etcd", "etcd/etcdctl"], cache)
    assert {name: b"".join(read_payload(p)) for name, p in found.items()} == {
        "etcd/etcd": BIG,
        "etcd/etcdctl": b"small",
    }
    archive.unlink()
    assert (
        ensure_members(artifact, archive, ["etcd/etcd"], cache)["etcd/etcd"] == found["etcd/etcd"]
    )


def test_a_missing_member_is_named(tmp_path: Path, cache: Cache) -> None:
    archive = tmp_path / "up.tar.gz"
    artifact = make_upstream(archive, {"a": b"1"})
    for names in (["a", "c", "b"], ["a", "c", "b"]):  # the second build knows no more
        with pytest.raises(ArtifactError, match=r"does not contain b, c"):
            ensure_members(artifact, archive, names, cache)
    assert not list(cache.root.glob("members/*/*"))


def test_a_damaged_upstream_archive_is_reported(tmp_path: Path, cache: Cache) -> None:
    archive = tmp_path / "up.tar.gz"
    artifact = make_upstream(archive, {"a": BIG})
    archive.write_bytes(archive.read_bytes()[:1000])
    with pytest.raises(ArtifactError, match="damaged"):
        ensure_members(artifact, archive, ["a"], cache)


def test_inspect_finds_no_fault_in_an_intact_bundle(tree: Tree, tmp_path: Path) -> None:
    pack(tree, "x", tmp_path / "x.tar.gz", mtime=0)
    report = inspect(tmp_path / "x.tar.gz")
    assert report.faults == ()
    assert report.facts == {"NODE": "one", "CLUSTER": "lab"}
    assert len(report.entries) == 5


def test_inspect_names_every_altered_file(tree: Tree, tmp_path: Path) -> None:
    pack(tree, "x", tmp_path / "x.tar.gz", mtime=0)
    subprocess.run(["tar", "-xzf", tmp_path / "x.tar.gz", "-C", tmp_path], check=True)
    (tmp_path / "x/node.env").write_text("NODE='two'\n")
    (tmp_path / "x/rootfs/etc/empty").unlink()
    (tmp_path / "x/unknown").write_text("")
    subprocess.run(["tar", "-czf", tmp_path / "y.tar.gz", "-C", tmp_path, "x"], check=True)
    assert inspect(tmp_path / "y.tar.gz").faults == (
        "node.env: differs from the manifest",
        "rootfs/etc/empty: missing",
        "unknown: not in the manifest",
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"no gzip", "not a gzip file"),
        (gzip.compress(b"no tar" * 200), "damaged"),
        (b"", "damaged|no bundle"),
    ],
    ids=["no-gzip", "no-tar", "empty"],  # gzip writes the time: an id of it differs between workers
)
def test_inspect_refuses_a_file_that_is_not_a_bundle(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(OutputError, match=expected):
        inspect(tmp_path / "x")


def test_inspect_notices_a_truncated_bundle(tree: Tree, tmp_path: Path) -> None:
    pack(tree, "x", tmp_path / "x.tar.gz", mtime=0)
    content = (tmp_path / "x.tar.gz").read_bytes()
    (tmp_path / "x.tar.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(OutputError, match="damaged or incomplete"):
        inspect(tmp_path / "x.tar.gz")
