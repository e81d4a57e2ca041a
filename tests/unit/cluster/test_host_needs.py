"""Needs of a node: kernel settings and ports of the host, and the limits of its units."""

from ipaddress import IPv4Network
from pathlib import Path

import pytest
import yaml

from bundler.cache.store import Cache
from bundler.cluster.host_needs import (
    SYSCTLS,
    SysctlNeed,
    addon_ports,
    open_ports,
    sysctls,
)
from bundler.cluster.loader import load_cluster
from bundler.cluster.plan import ClusterPlan, assign_pod_subnets, make_plan
from bundler.errors import ConfigError
from bundler.paths import templates_directory
from bundler.pipeline import render
from bundler.project import Inputs

PINS = Path(__file__).parents[2] / "golden" / "pins.yaml"


def plan_of(description: Path, **changes: object) -> ClusterPlan:
    cluster = yaml.safe_load(description.read_text()) | changes
    description.write_text(yaml.safe_dump(cluster))
    subnets = {
        name: IPv4Network(f"10.200.{i}.0/24") for i, name in enumerate(("worker1", "worker2"))
    }
    return assign_pod_subnets(make_plan(load_cluster(description).cluster), subnets)


def test_kernel_settings_that_are_removed_or_set_by_others_are_not_set() -> None:
    names = {row.name for row in SYSCTLS}
    assert len(names) == len(SYSCTLS)
    assert names.isdisjoint({"net.ipv4.tcp_tw_recycle", "net.netfilter.nf_conntrack_max"})
    assert all(row.why for row in SYSCTLS)


def test_only_workers_have_the_settings_that_pods_need(description: Path) -> None:
    plan = plan_of(description)
    nodes = {
        node.name: {row.name for row in sysctls(node, is_kubelet_strict=True)}
        for node in plan.nodes
    }
    assert nodes["master1"] == {"net.ipv4.ip_forward", "fs.file-max"}
    assert nodes["worker1"] == {row.name for row in SYSCTLS}
    must = {row.name for row in SYSCTLS if row.need is SysctlNeed.MUST}
    assert must == {
        "net.ipv4.ip_forward",
        "net.bridge.bridge-nf-call-iptables",
        "net.bridge.bridge-nf-call-ip6tables",
    }


def test_what_a_strict_kubelet_insists_on_is_required(description: Path) -> None:
    """Seen on a machine: after its next boot the kubelet ended with `invalid kernel flag: vm/panic_on_oom`."""
    worker = next(node for node in plan_of(description).nodes if node.name == "worker1")
    for is_strict in (True, False):
        needs = {row.name: row.need for row in sysctls(worker, is_kubelet_strict=is_strict)}
        own = {needs[row.name] for row in SYSCTLS if row.by_kubelet}
        assert own == {SysctlNeed.MUST if is_strict else SysctlNeed.WANTED}
        assert needs["vm.swappiness"] is SysctlNeed.WANTED


@pytest.mark.parametrize("is_strict", [True, False])
def test_the_kubelets_own_configuration_says_whether_it_is_strict(
    description: Path, tmp_path: Path, is_strict: bool
) -> None:
    if not is_strict:
        line = "  kubelet: {config: {protectKernelDefaults: false, "
        text = description.read_text().replace("  kubelet: {config: {", line)
        description.write_text(text)
    inputs = Inputs(
        description=description, cache=Cache(tmp_path / "cache"), offline=True, pins=PINS
    )
    render(inputs, tmp_path / "trees", text_only=True)
    for node in ("worker1", "master1"):
        lines = (tmp_path / "trees" / node / "node.env").read_text().splitlines()
        required = next(line for line in lines if line.startswith("SYSCTLS="))
        assert ("vm.panic_on_oom=0" in required) == (is_strict and node == "worker1")


def test_ports_on_loopback_need_no_firewall_rule(description: Path) -> None:
    plan = plan_of(description)
    node = next(node for node in plan.nodes if node.name == "worker1")
    ports = open_ports(plan, node, [10248, 10249, 10250, 10256, 8443])
    assert ports == ("10250/tcp", "10256/tcp", "8443/tcp", "30000-32767/tcp", "30000-32767/udp")
    flannel = plan_of(description, network={"plugin": "flannel"})
    node = next(node for node in flannel.nodes if node.name == "worker1")
    assert open_ports(flannel, node, [10246])[-1] == "8472/udp"
    assert "10246/tcp" not in open_ports(flannel, node, [10246])
    nodes = yaml.safe_load(description.read_text())["nodes"]
    for each in nodes:
        each["roles"] = [role for role in each["roles"] if role != "load-balancer"]
    balancer = {"load_balancer": {"kind": "node-local"}}
    local = plan_of(description, nodes=nodes, control_plane=balancer)
    node = next(node for node in local.nodes if node.name == "worker1")
    assert "8443/tcp" not in open_ports(local, node, [8443])


def test_ports_of_add_ons_are_opened_on_workers(description: Path) -> None:
    (description.parent / "addon.yaml").write_text(
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}"
    )
    addon = {"manifests": "addon.yaml", "ports": ["4789/udp", "7946-7950/tcp"]}
    plan = plan_of(description, addons=[{"name": "a", **addon}, {"name": "b", **addon}])
    found = {node.name: addon_ports(plan, node) for node in plan.nodes}
    assert (found["worker1"], found["master1"]) == (("4789/udp", "7946-7950/tcp"), ())


@pytest.mark.parametrize(("fail", "expected"), [(True, "SWAP_OFF='yes'"), (False, "SWAP_OFF=''")])
@pytest.mark.slow
def test_swap_stays_on_if_the_kubelet_accepts_it(
    description: Path, tmp_path: Path, fail: bool, expected: str
) -> None:
    cluster = yaml.safe_load(description.read_text())
    cluster.setdefault("extra", {}).setdefault("kubelet", {})["config"] = {"failSwapOn": fail}
    description.write_text(yaml.safe_dump(cluster))
    inputs = Inputs(
        description=description, cache=Cache(tmp_path / "cache"), offline=True, pins=PINS
    )
    render(inputs, tmp_path / "trees", text_only=True)
    assert expected in (tmp_path / "trees/worker1/node.env").read_text().splitlines()


# From the 2019 tutorial, and upstream's for the runtimes. The kubelet sets its own (maxOpenFiles).
LIMITS = {
    "etcd/*/etcd.service.j2": {"LimitNOFILE=65536"},
    "control-plane/*/kube-apiserver.service.j2": {"LimitNOFILE=65536"},
    "load-balancer/*/kube-nginx.service.j2": {"LimitNOFILE=65536"},
    "kube-proxy/*/kube-proxy.service.j2": {"LimitNOFILE=65536"},
    "worker/*/kubelet.service.j2": {"CPUAccounting=yes", "MemoryAccounting=yes"},
    "runtime-*/*/docker.service.j2": {
        "LimitNOFILE=1048576",
        "LimitNPROC=infinity",
        "LimitCORE=infinity",
        "TasksMax=infinity",
        "Delegate=yes",
        "KillMode=process",
    },
}
LIMITS["runtime-*/*/containerd.service.j2"] = LIMITS["runtime-*/*/docker.service.j2"]


@pytest.mark.parametrize("unit", LIMITS)
def test_units_have_the_limits_that_their_programs_need(unit: str) -> None:
    (path,) = templates_directory().glob(unit.replace("/*/", "/rootfs/etc/systemd/system/"))
    assert set(path.read_text().splitlines()) >= LIMITS[unit]


def test_no_unit_has_an_unlimited_number_of_open_files() -> None:
    units = [
        *templates_directory().rglob("*.service"),
        *templates_directory().rglob("*.service.j2"),
    ]
    limits = {
        path.name: line.partition("=")[2]
        for path in units
        for line in path.read_text().splitlines()
        if line.startswith("LimitNOFILE=")
    }
    assert {"docker.service.j2", "containerd.service.j2", "cri-dockerd.service.j2"} <= set(limits)
    assert {name: limit for name, limit in limits.items() if not int(limit) <= 1048576} == {}


OWN = """\
groups:
  search: {sysctls: {vm.max_map_count: 262144, net.ipv4.tcp_rmem: 4096 87380 6291456}}
defaults: {sysctls: {vm.swappiness: 10, fs.nr_open: 2000000}}
"""


def test_settings_of_a_site_replace_and_complete_those_of_the_table(description: Path) -> None:
    text = description.read_text().replace("nodes:\n", f"{OWN}nodes:\n")
    text = text.replace("name: worker1,", "name: worker1, groups: [search],")
    description.write_text(text)
    plan = plan_of(description)
    rows = {
        node.name: {row.name: row for row in sysctls(node, is_kubelet_strict=True)}
        for node in plan.nodes
    }
    assert rows["worker1"]["vm.swappiness"].setting == "vm.swappiness=10"
    assert rows["worker1"]["fs.nr_open"].need is SysctlNeed.MUST
    assert rows["worker1"]["net.ipv4.tcp_rmem"].setting == "net.ipv4.tcp_rmem=4096+87380+6291456"
    assert "vm.max_map_count" not in rows["worker2"]
    assert len(rows["worker1"]) == len(SYSCTLS) + 2


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        (
            "net.ipv4.ip_forward: 0",
            "must be 1, not 0: the node routes its pods' packets; remove it",
        ),
        ("kernel.panic: 0", "must be 10, not 0: the kubelet's default: .*; remove it"),
        (
            "net.netfilter.nf_conntrack_max: 1",
            "kube-proxy sets it, by conntrack in extra.kube-proxy",
        ),
        ("vm.swappiness: true", "must be a number, or words of"),
        ("vm.swappiness: '1; reboot'", "must be a number, or words of"),
        ("swappiness: 1", "must match"),
    ],
)
def test_settings_that_a_node_needs_otherwise_are_refused(
    description: Path, setting: str, expected: str
) -> None:
    text = description.read_text().replace(
        "name: worker1,", f"name: worker1, sysctls: {{{setting}}},"
    )
    description.write_text(text)
    with pytest.raises(ConfigError, match=rf"nodes\[3\].sysctls.*{expected}"):
        load_cluster(description)
