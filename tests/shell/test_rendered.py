"""Scripts that are rendered, not copied: shellcheck reads them as they reach the hosts."""

import subprocess
from pathlib import Path

import pytest
from support.descriptions import write_description
from support.shells import PINS

from bundler.cache.store import Cache
from bundler.pipeline import render
from bundler.project import Inputs

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.slow
def test_shellcheck_accepts_every_script_of_every_example(tmp_path: Path) -> None:
    different: dict[bytes, Path] = {}
    for name in ("tutorial", "production", "single"):
        description = tmp_path / name / "cluster.yaml"
        description.parent.mkdir()
        description.write_bytes((EXAMPLES / f"{name}.yaml").read_bytes())
        inputs = Inputs(description=description, cache=Cache(tmp_path / "cache"))
        scripts = [
            path
            for tree in render(inputs, description.parent / "trees", text_only=True)
            for path in sorted(tree.rglob("libexec/*"))
            if path.read_bytes().startswith(b"#!/bin/sh")
        ]
        assert len(scripts) > 3
        for script in scripts:
            assert script.stat().st_mode & 0o111, f"{script} cannot be run"
        different |= {script.read_bytes(): script for script in scripts}
    done = subprocess.run(
        ["shellcheck", *different.values()], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_a_host_with_etcd_or_an_api_server_has_what_the_rollout_slot_needs(
    tmp_path: Path,
) -> None:
    """rollout-order.sh uses these files for the lock in etcd."""
    description = write_description(tmp_path)
    text = description.read_text()
    whole = "roles: [etcd, control-plane, load-balancer]"
    description.write_text(
        text.replace(whole, "roles: [etcd]", 1).replace(
            whole, "roles: [control-plane, load-balancer]", 1
        )
    )
    inputs = Inputs(
        description=description, cache=Cache(tmp_path / "cache"), offline=True, pins=PINS
    )
    trees = {tree.name: tree for tree in render(inputs, tmp_path / "trees", text_only=True)}
    for node, prefix, files in (
        ("master1", "etc/etcd/pki", ("ca.crt", "healthcheck-client.crt", "healthcheck-client.key")),
        ("master2", "etc/kubernetes/pki", ("etcd-ca.crt", "apiserver-etcd-client.crt", "apiserver-etcd-client.key")),
    ):  # fmt: skip
        assert [
            name for name in files if not (trees[node] / "rootfs" / prefix / name).is_file()
        ] == []
        assert ("etc/etcd" in prefix) != (trees[node] / "rootfs/etc/kubernetes/pki").exists()
    versions = [
        [
            line
            for line in (trees[node] / "node.env").read_text().splitlines()
            if "ETCD_VERSION" in line
        ]
        for node in ("master1", "master2")
    ]
    assert versions == [
        ["ETCD_VERSION='3.4.23'", "CLUSTER_ETCD_VERSION=''"],
        ["ETCD_VERSION=''", "CLUSTER_ETCD_VERSION='3.4.23'"],
    ]
