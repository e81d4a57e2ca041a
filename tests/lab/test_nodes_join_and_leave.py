"""A cluster grows from one control plane and one worker to three of each, loses one, and shrinks."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.lab import (
    FIGURES,
    SOLO,
    Host,
    Kubectl,
    build,
    docker,
    hosts_sh,
    side_by_side,
    wait_for,
)

from bundler.upgrade.rollout import make_upgrade_plan

pytestmark = pytest.mark.long

ADDRESSES = {
    "cp1": "172.30.20.41",
    "cp2": "172.30.20.42",
    "cp3": "172.30.20.43",
    "w1": "172.30.20.51",
    "w2": "172.30.20.52",
    "w3": "172.30.20.53",
}
SMALL, FULL = ("cp1", "w1"), tuple(ADDRESSES)
ONE = "  - {name: solo, address: 172.30.20.31, roles: [etcd, control-plane, worker]}\n"


def describe(names: tuple[str, ...]) -> str:
    roles = {"c": "[etcd, control-plane]", "w": "[worker]"}
    nodes = "".join(
        f"  - {{name: {n}, address: {ADDRESSES[n]}, roles: {roles[n[0]]}}}\n" for n in names
    )
    return SOLO.replace(ONE, nodes).replace("name: solo", "name: grow")


@dataclass
class Site:
    """The hosts, and the directory of cluster.yaml and its builds."""

    directory: Path
    cache: Path
    hosts: dict[str, Host]

    def build(self, name: str, nodes: tuple[str, ...]) -> Path:
        description = self.directory / "examples" / "grow.yaml"
        description.write_text(describe(nodes))
        build(description, self.directory / name, cache=self.cache)
        return self.directory / name

    def boot(self, name: str) -> None:
        hosts_sh("boot", f"{name}={ADDRESSES[name]}")

    def install(self, dist: Path, names: tuple[str, ...]) -> None:
        """Install all hosts side by side; each waits for its rollout slot."""

        def one(name: str) -> str:
            directory = self.hosts[name].unpack(dist / f"grow-{name}.tar.gz")
            return self.hosts[name].run(f"{directory}/install.sh --wait 10m", timeout=900).stdout

        side_by_side(one, names)

    def check(self, *, members: int, nodes: int, on: str = "cp1") -> None:
        """Check that verify.sh is green, and the number of etcd members and nodes."""
        done = self.hosts[on].run("/opt/k8s/bundle/verify.sh", check=False, timeout=400)
        assert done.returncode == 0, done.stdout
        assert f"{members} of {members} members healthy" in done.stdout
        found = json.loads(Kubectl(self.hosts[on])("get nodes -o json"))["items"]
        assert len(found) == nodes


@pytest.fixture(scope="module")
def site(lab_directory: Path, product_cache: Path, network: None) -> Iterator[Site]:
    made = Site(
        directory=lab_directory, cache=product_cache,
        hosts={name: Host(name, address) for name, address in ADDRESSES.items()},
    )  # fmt: skip
    hosts_sh("up", *(f"{name}={ADDRESSES[name]}" for name in SMALL))
    made.install(made.build("grow-small", SMALL), SMALL)
    yield made
    for host in made.hosts.values():
        docker("rm", "-fv", host.container)


def test_a_small_cluster_is_healthy(site: Site) -> None:
    site.check(members=1, nodes=1)


def test_growth_restarts_only_the_units_that_must_know_new_hosts(site: Site) -> None:
    dist = site.build("grow-full", FULL)
    plan = make_upgrade_plan(site.directory / "grow-small", dist)
    steps = {host.name: host for stage in plan.stages for host in stage.hosts}
    assert {name for name, step in steps.items() if step.kind == "install"} == set(FULL) - set(
        SMALL
    )
    assert {restart.unit for restart in steps["w1"].restarts} <= {
        "kube-nginx.service",  # the list of API servers
        "kube-pod-routes.service",  # routes to the new workers
    }
    assert "etcd.service" not in {restart.unit for restart in steps["cp1"].restarts}
    for name in set(FULL) - set(SMALL):
        site.boot(name)
    etcd_start = site.hosts["cp1"].unit_starts()["etcd.service"]
    kubelet_start = site.hosts["w1"].unit_starts()["kubelet.service"]
    site.install(dist, FULL)
    site.check(members=3, nodes=3)
    assert site.hosts["cp1"].unit_starts()["etcd.service"] == etcd_start
    assert site.hosts["w1"].unit_starts()["kubelet.service"] == kubelet_start


def test_a_dead_control_plane_is_replaced_by_a_new_host_of_its_name(site: Site) -> None:
    host = site.hosts["cp3"]
    docker("rm", "-fv", host.container)
    site.boot("cp3")
    site.install(site.directory / "grow-full", ("cp3",))
    site.check(members=3, nodes=3, on="cp3")


THIEF = Host("thief", "172.30.20.61")
STOLEN = "/root/stolen/rootfs"


@pytest.fixture
def thief(site: Site) -> Iterator[Host]:
    """A host of the network with a copy of w3's bundle, and nothing else."""
    hosts_sh("boot", f"{THIEF.name}={THIEF.address}")
    directory = THIEF.unpack(site.directory / "grow-full" / "grow-w3.tar.gz")
    THIEF.run(f"mv {directory} /root/stolen")
    yield THIEF
    docker("rm", "-fv", THIEF.container)


def ask_as_thief(thief: Host, what: str) -> str:
    """kubectl of the stolen bundle with its bootstrap token, at a control plane."""
    return thief.run(
        f"{STOLEN}/opt/k8s/bin/kubectl --kubeconfig {STOLEN}/etc/kubernetes/bootstrap.kubeconfig"
        f" --server https://{ADDRESSES['cp1']}:6443 {what}",
        check=False,
    ).stdout


def test_a_stolen_bundle_of_a_worker_joins_nothing(site: Site, thief: Host) -> None:
    """Neither while the worker lives, nor when it is installed again with a renewed token."""
    assert "You must be logged in" in ask_as_thief(thief, "get certificatesigningrequests")
    host = site.hosts["w3"]
    host.run("/opt/k8s/bundle/uninstall.sh --yes --purge-data")
    former = host.unpack(site.directory / "grow-full" / "grow-w3.tar.gz")
    said = host.run(f"{former}/install.sh --ready-within 60", check=False, timeout=300).stdout
    assert "it was used or revoked" in said, said
    assert "bundler tokens renew w3" in said
    host.run("/opt/k8s/bundle/uninstall.sh --yes --purge-data")

    description = site.directory / "examples" / "grow.yaml"
    subprocess.run(
        [Path(sys.executable).parent / "bundler", "tokens", "renew", "w3", "-c", description],
        check=True,
    )
    dist = site.build("grow-renewed", FULL)
    site.install(dist, ("cp1",))
    assert "You must be logged in" in ask_as_thief(thief, "get certificatesigningrequests")
    site.install(dist, ("w3",))
    site.check(members=3, nodes=3)
    wait_for("the token is deleted", lambda: list_tokens(site) == [], seconds=60)
    assert "You must be logged in" in ask_as_thief(thief, "get certificatesigningrequests")
    site.install(dist, tuple(name for name in FULL if name not in {"cp1", "w3"}))
    FIGURES.append(
        "a stolen bundle of a worker: no certificate; the worker joined again with a renewed token"
    )


def test_the_cluster_keeps_working_while_hosts_leave(site: Site) -> None:
    left = FULL
    for name in ("w3", "w2", "cp3", "cp2"):
        said = site.hosts[name].output("/opt/k8s/bundle/uninstall.sh --leave --yes --purge-data")
        expected = f"removed {name} from etcd" if name[0] == "c" else f"the Node {name} is deleted"
        assert expected in said, said
        left = tuple(other for other in left if other != name)
        site.install(site.build(f"without-{name}", left), left)
        workers = sum(other.startswith("w") for other in left)
        wait_for(
            "no token is left: of the hosts that left, and of those that have joined",
            lambda: list_tokens(site) == [],
            seconds=60,
        )
        site.check(members=len(left) - workers, nodes=workers)
    assert left == SMALL
    FIGURES.append("grown from 1 + 1 to 3 + 3 and back: every step verified")


def list_tokens(site: Site) -> list[str]:
    text = Kubectl(site.hosts["cp1"])(
        "-n kube-system get secrets --field-selector type=bootstrap.kubernetes.io/token -o name"
    )
    return text.split()
