"""Deltas: bundles that hold what changed since an earlier build."""

import hashlib
import shutil
import tarfile
from pathlib import Path

import pytest
from support.media import faults_of, files_of
from support.small_builds import SmallSite, read_manifest, unpack

from bundler.bundle.layout import Layout, Media, is_in_base
from bundler.cache.payload import Payload
from bundler.errors import ConfigError, OutputError
from bundler.render.bundle_manifest import (
    parse_manifest,
)
from bundler.render.tree import File


@pytest.mark.slow
def test_a_delta_holds_what_changed_and_names_its_base(built: SmallSite) -> None:
    delta, full, old = (built.directory / name for name in ("changed", "changed-full", "dist"))
    manifest = read_manifest(delta / "small-one.tar.gz")
    assert files_of(manifest) == read_manifest(full / "small-one.tar.gz")
    lines = read_manifest(old / "small-one.tar.gz")
    base = "".join(f"{line}\n" for line in lines if line.split()[1] != "0600")
    assert manifest[0] == f"# base {hashlib.sha256(base.encode()).hexdigest()}"
    bundle = unpack(delta / "small-one.tar.gz", delta / "x")
    large = {p.name for p in bundle.rglob("*") if p.is_file() and p.read_bytes()[:4] == b"\x7fELF"}
    shutil.rmtree(delta / "x")
    assert large == {"etcd", "etcdctl", "etcdutl"}
    layers = [
        line for line in manifest if line.startswith("# from-base rootfs/opt/k8s/images/blobs")
    ]
    assert len(layers) == 2
    assert faults_of(delta) == []


def test_a_delta_leaves_out_packages_of_its_base(tmp_path: Path) -> None:
    def package(digest: str) -> File:
        content = Payload(sha256=digest, size=9, segment=tmp_path)
        return File(path="packages/one_1_amd64.deb", mode=0o644, content=content, origin="")

    base = parse_manifest(f"{64 * 'a'} 0644 9 packages/one_1_amd64.deb\n".encode(), "base")
    assert is_in_base(package(64 * "a"), base)
    assert not is_in_base(package(64 * "b"), base)
    assert not is_in_base(package(64 * "a"), None)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["directory", "bundle", "unpacked", "NODE=MANIFEST", "volumes"])
def test_a_base_can_be_given_in_many_forms(site: SmallSite, tmp_path: Path, form: str) -> None:
    bundle = unpack(site.directory / "dist/small-two.tar.gz", tmp_path)
    given = {
        "directory": site.directory / "dist",
        "bundle": site.directory / "dist/small-two.tar.gz",
        "unpacked": bundle,
        "NODE=MANIFEST": f"two={bundle}/MANIFEST",
        "volumes": site.directory / "volumes/small-two.tar.gz",
    }[form]
    directory = site.build("new", Media(since=(str(given),)))
    assert read_manifest(directory / "small-two.tar.gz")[0].startswith("# base ")
    others = read_manifest(directory / "small-three.tar.gz")[0].startswith("# base ")
    assert others == (form == "directory")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("nowhere", "no such file or directory"),
        ("cache", "holds no bundle"),
        ("pause.tar", "does not name its node"),
        ("two=pause.tar", "not the MANIFEST of a bundle"),
        ("other", "has no node unknown"),
        ("public", "holds no bundle"),
        ("public/small-one.public.tar.gz", "was built with --public-only"),
        ("one=dist/small-two.tar.gz", "is the bundle of two"),
    ],
)
@pytest.mark.slow
def test_a_file_that_is_not_a_base_is_refused(site: SmallSite, given: str, expected: str) -> None:
    (site.directory / "other").mkdir()
    (site.directory / "other/MANIFEST").write_text(f"{'ab' * 32} 0644 1 x\n")
    (site.directory / "other/node.env").write_text("NODE='unknown'\n")
    node, equals, name = given.rpartition("=")
    with pytest.raises((ConfigError, OutputError), match=expected):
        site.build("new", Media(since=(f"{node}{equals}{site.directory / name}",)))
    assert not (site.directory / "new").exists()


@pytest.mark.slow
def test_a_delta_of_a_delta_names_the_base_of_a_delta_of_the_complete_bundle(
    site: SmallSite,
) -> None:
    site.change("kubernetes-server")
    one = site.build("a", Media(since=(str(site.directory / "changed"),)))
    two = site.build("b", Media(since=(str(site.directory / "changed-full"),)))
    assert (one / "SHA256SUMS").read_bytes() == (two / "SHA256SUMS").read_bytes()


@pytest.mark.slow
def test_a_delta_in_the_layout_split_shares_only_what_changed(site: SmallSite) -> None:
    media = Media(layout=Layout.SPLIT, since=(str(site.directory / "dist"),))
    directory = site.build("new", media)
    (payload,) = directory.glob("payload-*.tar")
    with tarfile.open(payload) as tar:
        assert len(tar.getnames()) == 4  # the sums, etcd, etcdctl, etcdutl
    assert faults_of(directory) == []
