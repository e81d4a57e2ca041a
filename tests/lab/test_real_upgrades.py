"""Five hosts are upgraded through real versions of Kubernetes, which somebody obtained elsewhere.

BUNDLER_LAB_UPGRADE   cluster.yaml files in their order, separated by `:`; the first is installed
BUNDLER_LAB_MIRROR    the directory of their upstream files (default: that of the lab)

docs/development/testing.md says what the files need.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from support.lab import (
    FIGURES,
    Cluster,
    Host,
    boot_cluster,
    build,
    make_lab_directory,
    side_by_side,
)
from support.paths import LAB_CACHE
from support.upgrades import deploy_web, upgrade_side_by_side, versions

pytestmark = pytest.mark.long

FILES = [Path(name) for name in os.environ.get("BUNDLER_LAB_UPGRADE", "").split(":") if name]
MIRROR = os.environ.get("BUNDLER_LAB_MIRROR", str(LAB_CACHE / "mirror"))


@dataclass
class Chain:
    """The hosts, and the directory of bundles of each version, in order."""

    cluster: Cluster
    dists: dict[str, Path] = field(default_factory=dict)

    def unpack(self, version: str) -> None:
        """Put the bundles of a version on the hosts."""
        dist = self.dists[version]
        hosts = self.cluster.hosts.values()
        side_by_side(lambda host: host.unpack(dist / f"lab-{host.name}.tar.gz"), hosts)

    def verify(self) -> None:
        """Run verify.sh of the whole cluster on every control plane, and of the host on every worker."""
        for host in self.cluster.masters:
            done = self.cluster.verify(host)
            assert done.returncode == 0, f"{host.name}: {done.stdout}"
        for host in self.cluster.workers:
            done = host.run("/opt/k8s/bundle/verify.sh --node", check=False, timeout=400)
            assert done.returncode == 0, f"{host.name}: {done.stdout}"


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory, network: None) -> Iterator[Chain]:
    """Bundles of every version, built with one state; the hosts are booted with nothing installed."""
    if len(FILES) < 2:
        pytest.skip(
            "real versions cannot follow each other: BUNDLER_LAB_UPGRADE does not name two or more files"
        )
    directory = make_lab_directory(tmp_path_factory.mktemp("chain"))
    dists = {}
    for file in FILES:
        shutil.copy(file, directory / "examples" / "lab.yaml")
        version = yaml.safe_load(file.read_text())["kubernetes"]["version"]
        dists[version] = directory / f"dist-{version}"
        build(
            directory / "examples" / "lab.yaml", dists[version], cache=directory / "cache",
            sources=("--mirror", MIRROR),
        )  # fmt: skip
    made = Chain(cluster=boot_cluster(directory), dists=dists)
    yield made
    shutil.rmtree(directory / "cache")


def describe(host: Host) -> str:
    """The versions of what runs on a host."""
    commands = ("etcd --version", "containerd --version", "runc --version", "kubelet --version")
    said = host.run(
        f"cd /opt/k8s/bin; for c in {' '.join(repr(c) for c in commands)}; do"
        " p=${c%% *}; [ ! -x $p ] || ./$c | head -1; done"
    )
    return ", ".join(said.stdout.split("\n")).strip(", ")


def test_each_version_is_installed_over_the_one_before_under_load(chain: Chain) -> None:
    cluster = chain.cluster
    first = next(iter(chain.dists))
    chain.unpack(first)
    cluster.install_first()
    assert versions(cluster) == {worker.name: f"v{first}" for worker in cluster.workers}
    chain.verify()
    deploy_web(cluster, "v1")
    FIGURES.extend(f"{host.name}: {describe(host)}" for host in cluster.hosts.values())
    for old, new in pairwise(chain.dists):
        chain.unpack(new)
        upgrade_side_by_side(cluster, old, new)
        chain.verify()
        FIGURES.append(f"{new}: verify.sh is green on every host")
    FIGURES.extend(f"{host.name}: {describe(host)}" for host in cluster.hosts.values())
