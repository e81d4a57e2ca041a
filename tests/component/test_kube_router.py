"""NetworkPolicies by the real kube-router with the units of a bundle: flows, restarts, the first packet of a new pod.

BUNDLER_KUBE_ROUTER names the program. Pods are network namespaces with Pod objects of a real API server.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.external_ca_cluster import find_programs, read_command
from support.join_cluster import Build, Builder, Client, run_control_plane, wait_until
from support.networks import own_network, take_network
from support.pod_networks import Space, Spaces, run, spaces

PROGRAM = os.environ.get("BUNDLER_KUBE_ROUTER", "")
pytestmark = [
    pytest.mark.skipif(
        not PROGRAM or not shutil.which("ipset") or not shutil.which("iptables"),
        reason="kube-router cannot run: BUNDLER_KUBE_ROUTER does not name the program, or there is no ipset or iptables",
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="networks cannot be made: only root may"),
]
SERVICE = "10.254.0.50"
PODS = {
    "db": ("payments", "10.200.0.10"),
    "api": ("payments", "10.200.0.11"),
    "other": ("payments", "10.200.0.12"),
    "front": ("shop", "10.200.0.13"),
    "open": ("shop", "10.200.0.14"),
}
FLOWS = (
    ("api", "db", 80, True, "the policy admits the pod"),
    ("api", "db", 81, False, "on that port only"),
    ("other", "db", 80, False, "no other pod of the namespace"),
    ("front", "db", 81, True, "the policy admits the namespace"),
    ("front", "db", 80, False, "on that port only"),
    ("away", "db", 81, True, "from a pod of that namespace on another node too"),
    ("away", "db", 80, False, "on that port only"),
    ("node", "db", 80, True, "a node reaches its own pods"),
    ("w2", "db", 80, False, "another node is admitted by no policy"),
    ("w2", "open", 80, True, "no policy, no limits"),
    ("api", "open", 80, False, "egress: default_deny, and no policy that allows this"),
    ("other", "node", 80, False, "egress to the node itself"),
    ("front", "open", 80, True, "no policy, no limits"),
    ("open", "node", 80, True, "no policy, no limits"),
    ("open", "w2", 80, True, "no policy, no limits"),
    ("api", "service", 80, True, "through a Service, the policy of the pod behind it"),
    ("front", "service", 80, False, "the same"),
    ("node", "service", 80, True, "the same"),
)
"""Client, target, port, whether it is admitted, why."""


@dataclass
class Site:
    build: Build
    admin: Client
    net: Spaces
    router: subprocess.Popen[bytes] | None = None
    guard: subprocess.Popen[bytes] | None = None

    @property
    def root(self) -> Path:
        return self.build.root("w1")

    @property
    def node_address(self) -> str:
        return f"{self.build.network}.11"

    def run_guard(self, action: str) -> None:
        script = self.root / "opt/k8s/libexec/pod-guard.sh"
        subprocess.run(
            ["sh", script, action], check=True, env={**os.environ, "DESTDIR": str(self.root)}
        )

    def start_guard(self) -> None:
        self.run_guard("up")
        (self.root / "run/kube-pod-guard").mkdir(parents=True, exist_ok=True)
        self.guard = subprocess.Popen(
            ["sh", self.root / "opt/k8s/libexec/pod-guard.sh", "watch"],
            env={**os.environ, "DESTDIR": str(self.root)},
        )

    def start_router(self) -> None:
        with (self.root / "kube-router.log").open("ab") as log:
            command = read_command(self.root, "kube-router")
            self.router = subprocess.Popen(command, stdout=log, stderr=log)

    def create(self, path: str, **body: Any) -> None:
        answer = self.admin.send("POST", path, body)
        assert answer.status == 201, answer

    def create_pod(self, name: str, namespace: str, address: str, host: str, node: str) -> None:
        place = f"/api/v1/namespaces/{namespace}/pods"
        spec = {"nodeName": node, "containers": [{"name": "web", "image": "web"}]}
        self.create(place, metadata={"name": name, "labels": {"app": name}}, spec=spec)
        status = {
            "phase": "Running", "hostIP": host, "podIP": address, "podIPs": [{"ip": address}], "hostIPs": [{"ip": host}],
        }  # fmt: skip
        answer = self.admin.send(
            "PATCH", f"{place}/{name}/status", {"status": status},
            kind="strategic-merge-patch+json",
        )  # fmt: skip
        assert answer.status == 200, answer

    def create_policy(self, name: str, spec: dict[str, Any]) -> None:
        place = "/apis/networking.k8s.io/v1/namespaces/payments/networkpolicies"
        self.create(place, metadata={"name": name}, spec=spec)

    def client(self, name: str) -> Space:
        return self.net.made["w2" if name == "away" else name]

    def address(self, name: str) -> str:
        return SERVICE if name == "service" else self.net.made[name].address

    def reaches(self, client: str, target: str, port: int = 80) -> bool:
        return self.client(client).reaches(self.address(target), port)

    def known(self) -> set[str]:
        """The pods whose packets pass the guard."""
        lines = run("ipset", "list", "kube-pod-guard").partition("Members:\n")[2]
        return set(lines.split())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    programs = find_programs(tmp_path_factory.mktemp("programs") / "bin")
    (programs / "kube-router").symlink_to(PROGRAM)
    network = take_network()
    more = {"network": {"policy": {"engine": "kube-router", "default_deny": ["payments"]}}}
    build = Builder(tmp_path_factory.mktemp("site"), network, programs, ("w1", "w2"), more).build()
    with own_network(f"{network}.0/24"), spaces() as net, run_control_plane(build):
        admin = Client.read(build.root("cp1") / "etc/kubernetes/admin.kubeconfig")
        made = Site(build, admin, net)
        try:
            fill(made)
            yield made
        finally:
            for process in (made.guard, made.router):
                if process:
                    process.kill()
                    process.wait()


def fill(site: Site) -> None:
    """Nodes, namespaces, policies, the rules of a Service as kube-proxy has them, then guard, kube-router and pods."""
    run(
        "ip", "address", "add", f"{site.node_address}/32", "dev", "lo"
    )  # kube-router 2 looks for it
    for name, last in (("w1", 11), ("w2", 12)):
        address = {"type": "InternalIP", "address": f"{site.build.network}.{last}"}
        site.create("/api/v1/nodes", metadata={"name": name}, status={"addresses": [address]})
    site.create("/api/v1/namespaces", metadata={"name": "shop", "labels": {"team": "shop"}})
    for name in ("payments", "shop"):
        account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
        wait_until(
            f"{name} has an account", lambda a=account: site.admin.send("GET", a).status == 200
        )
    admitted = [
        {"from": [{"podSelector": {"matchLabels": {"app": "api"}}}], "ports": [{"port": 80}]},
        {"from": [{"namespaceSelector": {"matchLabels": {"team": "shop"}}}], "ports": [{"port": 81}]},
    ]  # fmt: skip
    to_db = [{"to": [{"podSelector": {"matchLabels": {"app": "db"}}}]}]
    site.create_policy("db", {
        "podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"], "ingress": admitted,
    })  # fmt: skip
    site.create_policy("api", {
        "podSelector": {"matchLabels": {"app": "api"}}, "policyTypes": ["Egress"], "egress": to_db,
    })  # fmt: skip
    for chain in ("PREROUTING", "OUTPUT"):
        run("iptables", "-t", "nat", "-A", chain, "-d", f"{SERVICE}/32", "-p", "tcp", "-j", "DNAT",
            "--to-destination", PODS["db"][1])  # fmt: skip
    run("ip", "route", "add", f"{SERVICE}/32", "dev", "cni0")
    site.start_guard()
    for name, (namespace, address) in PODS.items():
        site.net.add_pod(name, address)
        site.create_pod(name, namespace, address, site.node_address, "w1")
    site.create_pod("away", "shop", "10.200.1.5", f"{site.build.network}.12", "w2")
    site.net.made["w2"].ip(f"route add {SERVICE}/32 via 192.0.2.11")


def await_router(site: Site) -> None:
    site.start_router()
    addresses = {address for _, address in PODS.values()}
    try:
        wait_until("the guard knows all pods", lambda: addresses <= site.known(), seconds=120)
    except AssertionError as error:
        raise AssertionError((site.root / "kube-router.log").read_text()[-3000:]) from error


def test_before_kube_router_has_rules_pods_have_no_network_but_their_node_reaches_them(
    site: Site,
) -> None:
    assert site.known() == set()
    for client, target in (("front", "open"), ("w2", "open"), ("open", "node"), ("open", "w2")):
        assert not site.reaches(client, target), f"{client} to {target}"
    assert site.reaches("node", "open")
    await_router(site)


@pytest.mark.parametrize(("client", "target", "port", "admitted", "why"), FLOWS, ids=str)
def test_each_flow_is_as_the_policies_say(
    site: Site, client: str, target: str, port: int, admitted: bool, why: str
) -> None:
    source = site.client(client)
    if client == "away":
        source.ip("route replace 10.200.0.0/24 via 192.0.2.11 src 10.200.1.5")
    try:
        assert site.reaches(client, target, port) is admitted, why
    finally:
        if client == "away":
            source.ip("route replace 10.200.0.0/24 via 192.0.2.11 src 192.0.2.12")


def test_what_is_denied_stays_denied_while_kube_router_is_killed_and_starts_again(
    site: Site,
) -> None:
    calls = [site.client("other").call(site.address("db"), 80, seconds=20)]
    calls.append(site.client("w2").call(site.address("db"), 80, seconds=20))
    admitted = site.client("api").call(site.address("db"), 80, seconds=20)
    assert site.router
    time.sleep(2)
    site.router.send_signal(signal.SIGKILL)
    site.router.wait()
    time.sleep(2)
    site.start_router()
    for call in calls:
        tried, answered = call.counts
        assert tried > 10
        assert answered == 0
    tried, answered = admitted.counts
    assert answered == tried, "admitted connections go on"


def add_late_pod(
    site: Site, name: str, last: int, namespace: str = "payments"
) -> tuple[int, int, int]:
    """A new pod; how often another one reached it, how often it reached another one, and a node outside."""
    space = site.net.add_pod(name, f"10.200.0.{last}")
    to_it = site.client("other").call(space.address, 80, seconds=12)
    from_front = site.client("front").call(space.address, 80, seconds=12)
    to_open = space.call(site.address("open"), 80, seconds=12)
    to_node = space.call(site.address("node"), 80, seconds=12)
    time.sleep(2)
    site.create_pod(name, namespace, space.address, site.node_address, "w1")
    return (
        to_it.answers + from_front.answers, to_open.answers, to_node.answers,
    )  # fmt: skip


def test_no_packet_of_a_new_pod_passes_before_its_policies_are_there(site: Site) -> None:
    assert add_late_pod(site, "late", 20) == (0, 0, 0)
    wait_until("the guard knows it", lambda: "10.200.0.20" in site.known(), seconds=60)


def test_a_new_pod_without_policies_gets_its_network(site: Site) -> None:
    space = site.net.add_pod("free", "10.200.0.21")
    assert not space.reaches(site.address("open"))
    site.create_pod("free", "shop", space.address, site.node_address, "w1")
    wait_until(
        "the new pod reaches others", lambda: space.reaches(site.address("open")), seconds=60
    )


def test_a_pod_that_starts_while_kube_router_is_down_has_no_network(site: Site) -> None:
    assert site.router
    site.router.kill()
    site.router.wait()
    assert add_late_pod(site, "down", 22) == (0, 0, 0)
    assert not site.reaches("front", "down")
    site.start_router()
    wait_until("the guard knows it", lambda: "10.200.0.22" in site.known(), seconds=60)
    assert not site.reaches("other", "down")


def test_a_rule_that_another_program_puts_first_does_not_stay_first(site: Site) -> None:
    run("iptables", "-I", "FORWARD", "-s", "10.200.0.0/16", "-j", "ACCEPT")
    wait_until(
        "kube-router's chain is the first",
        lambda: run("iptables", "-S", "FORWARD", "1").rstrip().endswith("-j KUBE-ROUTER-FORWARD"),
    )
    assert not site.reaches("other", "db")


def test_the_guard_comes_back_when_somebody_flushes_the_table(site: Site) -> None:
    run("iptables", "-t", "mangle", "-F")
    hook = ("iptables", "-w", "-t", "mangle", "-S", "FORWARD")
    wait_until("the guard is back", lambda: "KUBE-POD-GUARD" in run(*hook), seconds=60)
    space = site.net.add_pod("flushed", "10.200.0.23")
    assert not space.reaches(site.address("open"))


def test_without_the_guard_the_first_packets_of_a_new_pod_pass(site: Site) -> None:
    """What kube-router alone does, so that the tests above show something."""
    assert site.guard
    site.guard.kill()
    site.guard.wait()
    run("iptables", "-t", "mangle", "-F")
    to_it, to_open, to_node = add_late_pod(site, "early", 24)
    assert 0 not in {to_it, to_open, to_node}
    site.start_guard()


def test_the_rules_go_when_the_units_are_disabled(site: Site, tmp_path: Path) -> None:
    for process in (site.router, site.guard):
        assert process
        process.kill()
        process.wait()
    (tmp_path / "systemctl").write_text("#!/bin/sh\necho disabled\n")
    (tmp_path / "systemctl").chmod(0o755)
    script = site.root / "opt/k8s/libexec/pod-guard.sh"
    for action in ("release", "release-policies"):
        subprocess.run(
            ["sh", script, action], check=True, env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        )  # fmt: skip
    rules = run("iptables-save")
    assert not [word for word in ("KUBE-ROUTER", "KUBE-POD", "KUBE-NWPLCY") if word in rules]
    assert run("ipset", "list", "-n") == ""
    assert site.reaches("other", "db")
