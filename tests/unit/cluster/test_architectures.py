"""Clusters with two CPU architectures: each node gets its own programs and images only."""

import gzip
import json
import tarfile
from pathlib import Path

import pytest
from support.descriptions import write_archive, write_upstream

from bundler.cache.store import Cache
from bundler.cluster.loader import load_cluster
from bundler.cluster.plan import make_plan
from bundler.errors import ArtifactError, ConfigError
from bundler.formats.program_machine import SCRIPT, read_machine
from bundler.pipeline import build
from bundler.project import Inputs
from bundler.render.completeness import check_images_complete
from bundler.render.tree import File, Tree

MIXED = """\
apiVersion: bundler/v1alpha1
name: mixed
kubernetes: {version: 1.36.2}
runtime: {engine: containerd}
dns: {provider: none}
nodes:
  - {name: one, address: 192.0.2.1, roles: [etcd, control-plane]}
  - {name: two, address: 192.0.2.2, roles: [worker]}
  - {name: three, address: 192.0.2.3, roles: [worker], arch: arm64}
images:
  - {ref: "registry.k8s.io/pause:3.10.2", arch: amd64, file: pause-amd64.tar}
  - {ref: "registry.k8s.io/pause:3.10.2", arch: arm64, file: pause-arm64.tar}
"""


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    for arch in ("amd64", "arm64"):
        write_archive(tmp_path / f"pause-{arch}.tar", "registry.k8s.io/pause:3.10.2", arch)
    (tmp_path / "cluster.yaml").write_text(MIXED)
    return tmp_path / "cluster.yaml"


def make_inputs(directory: Path, pins: Path) -> Inputs:
    return Inputs(
        description=directory / "cluster.yaml", cache=Cache(directory / "cache"), pins=pins,
        mirrors=(str(directory / "mirror"),),
    )  # fmt: skip


def read_members(path: Path) -> dict[str, bytes]:
    with gzip.open(path) as unzipped, tarfile.open(fileobj=unzipped) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar if m.isreg()}  # type: ignore[union-attr]


@pytest.mark.slow
def test_each_node_gets_programs_and_images_of_its_architecture(
    mixed: Path, tmp_path: Path
) -> None:
    pins = write_upstream(tmp_path, mixed)
    bundles = build(make_inputs(tmp_path, pins), tmp_path / "dist")
    expected = {"one": "amd64", "two": "amd64", "three": "arm64"}
    for bundle in (each for each in bundles if each.path.suffix == ".gz"):
        node = bundle.path.name.removesuffix(".tar.gz").rpartition("-")[2]
        members = read_members(bundle.path)
        programs = {read_machine(c) for c in members.values() if c.startswith(b"\x7fELF")}
        assert programs == {expected[node]}
        configs = [content for content in members.values() if b'"architecture"' in content]
        assert len(configs) == (0 if node == "one" else 1)
        for config in configs:
            assert json.loads(config)["architecture"] == expected[node]


@pytest.mark.slow
def test_a_program_of_the_wrong_architecture_fails_the_build(mixed: Path, tmp_path: Path) -> None:
    pins = write_upstream(tmp_path, mixed)
    document = json.loads(pins.read_text())["artifacts"]
    document["runc/amd64"] = document["runc/arm64"]
    pins.write_text(json.dumps({"artifacts": document}))
    with pytest.raises(ArtifactError, match=r"runc .* is arm64, not for amd64"):
        build(make_inputs(tmp_path, pins), tmp_path / "dist")
    assert not list((tmp_path / "dist").glob("*.tar.gz"))


def test_an_image_of_the_wrong_architecture_is_refused(mixed: Path) -> None:
    mixed.write_text(MIXED.replace("pause-arm64.tar", "pause-amd64.tar"))
    with pytest.raises(ConfigError, match=r"is for amd64, but nodes are arm64: give one archive"):
        load_cluster(mixed)


def test_an_architecture_without_a_pause_image_is_an_error(mixed: Path) -> None:
    lines = [line for line in MIXED.splitlines() if "pause-arm64" not in line]
    mixed.write_text("\n".join(lines))
    with pytest.raises(ConfigError, match=r"exactly one pause image for arm64, found 0"):
        load_cluster(mixed)


def add_web(mixed: Path, arch: str, more: str = "") -> None:
    """Add an image for workers of one architecture only."""
    write_archive(mixed.parent / "web.tar", "web.example/web:1", arch)
    image = f'  - {{ref: "web.example/web:1", arch: {arch}, file: web.tar{more}}}\n'
    mixed.write_text(MIXED + image)


@pytest.mark.parametrize(("arch", "missing"), [("amd64", "arm64"), ("arm64", "amd64")])
def test_the_image_for_verify_must_be_for_every_worker(
    mixed: Path, arch: str, missing: str
) -> None:
    add_web(mixed, arch, ", use: verify")
    with pytest.raises(ConfigError, match=f"no image with `use: verify` for {missing}: "):
        load_cluster(mixed)


@pytest.mark.parametrize(
    ("position", "arch", "is_complete"),
    [
        (0, "amd64", False), (0, "arm64", False),  # a control plane: its manifests concern all workers
        (1, "amd64", True), (1, "arm64", False),
        (2, "amd64", False), (2, "arm64", True),
    ],
)  # fmt: skip
def test_a_node_refers_only_to_images_of_its_architecture(
    mixed: Path, position: int, arch: str, *, is_complete: bool
) -> None:
    add_web(mixed, arch)
    plan = make_plan(load_cluster(mixed).cluster)
    text = b"VERIFY_IMAGE='web.example/web:1'\n"
    tree = Tree([File(path="node.env", mode=0o644, content=text, origin="x")])
    if is_complete:
        check_images_complete(plan, plan.nodes[position], tree)
        return
    missing = "arm64" if arch == "amd64" else "amd64"
    expected = f"node.env:1: image web.example/web:1 is missing in `images` for {missing}"
    with pytest.raises(ArtifactError, match=expected):
        check_images_complete(plan, plan.nodes[position], tree)


def test_a_file_that_is_not_a_program_has_no_architecture() -> None:
    assert read_machine(b"#!/bin/sh\n") == SCRIPT
    assert read_machine(b"<html>") == "not a Linux program"
    assert read_machine(b"") == "not a Linux program"
    assert read_machine(b"\x7fELF\x02\x02" + bytes(12) + (22).to_bytes(2, "big")) == "s390x"
