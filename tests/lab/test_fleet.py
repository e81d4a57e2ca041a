"""Two groups of workers on the running cluster: what a group says comes, changes, and goes again."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.lab import Cluster, Host, build, wait_for
from support.paths import LAB_CACHE

pytestmark = pytest.mark.long

AGENT = "site-rack.service"
UNIT = """\
[Service]
ExecStart=/bin/sh -c '. /etc/site/rack.conf; while :; do sleep "$interval" & wait; done'
[Install]
WantedBy=multi-user.target
"""
RACKS = {"worker1": "rack1", "worker2": "rack2"}
PODS = {"rack1": 42, "rack2": 43}
HALL = "node-restriction.kubernetes.io/hall"
TAINT = "example.com/rack"


def describe(rack: str, interval: int) -> dict[str, Any]:
    """Everything that a group of one rack says about its hosts."""
    return {
        "labels": {"rack": rack, HALL: rack},
        "annotations": {"example.com/rack": rack},
        "taints": [f"{TAINT}={rack}:PreferNoSchedule"],
        "extra": {"kubelet": {"config": {"maxPods": PODS[rack]}}},
        "files": {
            "/etc/site/rack.conf": {
                "content": f"interval={interval}\n", "mode": "0640", "restart": [AGENT]
            },
            f"/etc/systemd/system/{AGENT}": {"content": UNIT, "restart": [AGENT]},
        },
    }  # fmt: skip


@dataclass(frozen=True)
class Fleet:
    """The five hosts, and bundles for them in which the workers are in groups."""

    cluster: Cluster
    pods_before: dict[str, int] = field(default_factory=dict)  # host → pods that it takes

    @property
    def workers(self) -> dict[str, Host]:
        return {RACKS[host.name]: host for host in self.cluster.workers}

    def build(self, name: str, intervals: dict[str, int]) -> Path:
        """Make bundles where each rack's file has its interval; return their directory."""
        examples = self.cluster.directory / "examples"
        document = yaml.safe_load((examples / "lab.yaml").read_text())
        document["groups"] = {rack: describe(rack, number) for rack, number in intervals.items()}
        for node in document["nodes"]:
            if node["name"] in RACKS:
                node["groups"] = [RACKS[node["name"]]]
        (examples / f"{name}.yaml").write_text(yaml.safe_dump(document))
        build(
            examples / f"{name}.yaml", self.cluster.directory / name, cache=LAB_CACHE / "product-cache",
            arguments=("--state", str(examples / "lab.state")),
        )  # fmt: skip
        return self.cluster.directory / name

    def read_node(self, host: Host) -> dict[str, Any]:
        return dict(json.loads(self.cluster.kubectl(f"get node {host.name} -o json")))

    def read_taints(self, host: Host) -> list[tuple[str, str]]:
        taints = self.read_node(host)["spec"].get("taints", [])
        return [(taint["key"], taint["value"]) for taint in taints if taint["key"] == TAINT]

    def read_pods(self, host: Host) -> int:
        return int(self.read_node(host)["status"]["capacity"]["pods"])

    def check(self) -> None:
        done = self.cluster.verify()
        assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def fleet(running: Cluster) -> Fleet:
    fleet = Fleet(running)
    fleet.pods_before.update({host.name: fleet.read_pods(host) for host in running.workers})
    running.kubectl("label node worker1 set-by-hand=yes")
    fleet.cluster.install(fleet.build("fleet", {"rack1": 60, "rack2": 61}))
    return fleet


def test_each_worker_gets_what_its_group_says(fleet: Fleet) -> None:
    for rack, host in fleet.workers.items():
        wait_for(f"labels of {rack}", lambda host=host: HALL in fleet.read_node(host)["metadata"]["labels"], seconds=60)  # fmt: skip
        metadata = fleet.read_node(host)["metadata"]
        assert metadata["labels"][HALL] == rack
        # worker2 has a label `rack` of its own, which wins over its group's
        assert metadata["labels"]["rack"] == {"rack1": "rack1", "rack2": "4"}[rack]
        assert metadata["annotations"]["example.com/rack"] == rack
        assert fleet.read_taints(host) == [(TAINT, rack)]
        wait_for(f"pods of {rack}", lambda rack=rack, host=host: fleet.read_pods(host) == PODS[rack], seconds=60)  # fmt: skip
        assert host.output("stat -c '%a %U:%G' /etc/site/rack.conf").strip() == "640 root:root"
        assert host.output(f"systemctl is-active {AGENT}").strip() == "active"
    for host in fleet.cluster.masters:
        assert "absent" in host.output(f"test -e /etc/systemd/system/{AGENT} || echo absent")
    fleet.check()


def test_a_changed_file_restarts_its_unit_on_the_hosts_of_its_group_only(fleet: Fleet) -> None:
    def started(host: Host) -> str:
        return host.output(f"systemctl show -p ExecMainStartTimestampMonotonic {AGENT}")

    before = {rack: started(host) for rack, host in fleet.workers.items()}
    kubelets = {rack: host.unit_starts()["kubelet.service"] for rack, host in fleet.workers.items()}
    fleet.cluster.install(fleet.build("fleet-changed", {"rack1": 30, "rack2": 61}))
    after = {rack: started(host) for rack, host in fleet.workers.items()}
    assert after["rack1"] != before["rack1"]
    assert after["rack2"] == before["rack2"]
    assert fleet.workers["rack1"].output("cat /etc/site/rack.conf") == "interval=30\n"
    for rack, host in fleet.workers.items():
        assert host.unit_starts()["kubelet.service"] == kubelets[rack]


def test_what_leaves_cluster_yaml_leaves_hosts_and_nodes(fleet: Fleet) -> None:
    fleet.cluster.install(fleet.cluster.dist)
    for rack, host in fleet.workers.items():
        wait_for(f"labels of {rack}", lambda host=host: HALL not in fleet.read_node(host)["metadata"]["labels"], seconds=60)  # fmt: skip
        metadata = fleet.read_node(host)["metadata"]
        assert "example.com/rack" not in metadata["annotations"]
        assert metadata["labels"].get("rack") == {"rack1": None, "rack2": "4"}[rack]
        assert fleet.read_taints(host) == []
        wait_for(f"pods of {rack}", lambda host=host: fleet.read_pods(host) == fleet.pods_before[host.name], seconds=60)  # fmt: skip
        assert host.run(f"test -e /etc/systemd/system/{AGENT}", check=False).returncode == 1
        assert host.run("test -e /etc/site/rack.conf", check=False).returncode == 1
        assert host.run(f"systemctl is-active {AGENT}", check=False).stdout.strip() == "inactive"
    assert fleet.read_node(fleet.cluster.hosts["worker1"])["metadata"]["labels"]["set-by-hand"] == "yes"  # fmt: skip
    fleet.cluster.kubectl("label node worker1 set-by-hand-")
    fleet.check()
