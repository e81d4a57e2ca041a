"""Real etcd and Kubernetes: what the bundle of one worker gives its owner, and a thief."""

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.external_ca_cluster import find_programs
from support.join_cluster import Build, Builder, ControlPlane, wait_until

NUMBERS = itertools.count(os.getpid() * 31 % 60000)
WORKERS = ("w1", "w2", "w3")


@dataclass
class Site:
    """A control plane with the first build, and the builder for more."""

    builder: Builder
    first: Build
    control_plane: ControlPlane


@pytest.fixture(scope="module")
def binaries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return find_programs(tmp_path_factory.mktemp("programs") / "bin")


@pytest.fixture
def site(binaries: Path, tmp_path: Path) -> Iterator[Site]:
    number = next(NUMBERS)
    network = f"127.{32 + number // 250 % 200}.{1 + number % 250}"
    builder = Builder(tmp_path, network, binaries, WORKERS)
    first = builder.build()
    control_plane = ControlPlane(first.host)
    try:
        control_plane.start()
        first.apply()
        yield Site(builder, first, control_plane)
    finally:
        control_plane.host.stop()


def join(build: Build, node: str) -> None:
    """Start a worker's kubelet from its bundle, until it has registered its Node."""
    process = build.start_kubelet(node)
    wait_until(f"{node} has a certificate", lambda: process.poll() is not None)
    assert process.returncode == 0, build.log(node)
    build.register(node)


def test_a_worker_joins_with_its_bundle(site: Site) -> None:
    with site.first.approving():
        join(site.first, "w1")
        join(site.first, "w3")
