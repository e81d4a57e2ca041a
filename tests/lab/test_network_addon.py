"""An add-on makes the pod network, forwards Services and enforces NetworkPolicies: hosts without kube-proxy.

The add-on is a DaemonSet with a script for the bridge and the routes, kube-router's firewall, and Kubernetes' kube-proxy.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.charts import write_folder
from support.lab import (
    Cluster,
    Host,
    boot_cluster,
    build,
    docker,
    make_image,
    make_lab_directory,
    wait_for,
)
from support.paths import LAB_CACHE

PROGRAM = os.environ.get("BUNDLER_KUBE_ROUTER", "")
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        not PROGRAM,
        reason="kube-router cannot run in a pod: BUNDLER_KUBE_ROUTER does not name the program",
    ),
]
IMAGE = "example.com/network:1"
START = """\
set -e
account=/var/run/secrets/kubernetes.io/serviceaccount
mkdir -p /host/opt/cni/$PROGRAM /host/etc/cni/net.d
[ ! -f /$PROGRAM ] || cp /$PROGRAM /host/opt/cni/$PROGRAM/
cp $account/ca.crt /host/opt/cni/$PROGRAM/
cat >/host/opt/cni/$PROGRAM/kubeconfig <<END
apiVersion: v1
kind: Config
clusters: [{name: a, cluster: {server: "$ENDPOINT", certificate-authority: /opt/cni/$PROGRAM/ca.crt}}]
users: [{name: a, user: {token: "$(cat $account/token)"}}]
contexts: [{name: a, context: {cluster: a, user: a}}]
current-context: a
END
"""
ROUTES = """\
exec chroot /host sh -c '
while :; do
    /opt/k8s/bin/kubectl --kubeconfig=/opt/cni/routes/kubeconfig get nodes -o \\
        "jsonpath={range .items[*]}{.metadata.name} {.status.addresses[0].address} {.spec.podCIDR}{\\"\\n\\"}{end}" >/run/nodes
    while read -r name address subnet; do
        if [ "$name" != "$NODE" ]; then
            ip route replace "$subnet" via "$address"
        elif [ ! -f /etc/cni/net.d/10-network.conflist ]; then
            printf "%s" "$CONFLIST" | sed "s|SUBNET|$subnet|" >/etc/cni/net.d/10-network.conflist
        fi
    done </run/nodes
    sleep 3
done'
"""
CONFLIST = """\
{"cniVersion": "0.3.1", "name": "pods", "plugins": [{"type": "bridge", "bridge": "kube-bridge", "isDefaultGateway": true,
"hairpinMode": true, "ipam": {"type": "host-local", "ranges": [[{"subnet": "SUBNET"}]]}}]}
"""
FIREWALL = """\
exec chroot /host /opt/cni/kube-router/kube-router --kubeconfig=/opt/cni/kube-router/kubeconfig --hostname-override="$NODE" \
    --run-firewall --run-router=false --run-service-proxy=false --service-cluster-ip-range=10.254.0.0/16
"""
PROXY = """\
exec chroot /host /opt/cni/kube-proxy/kube-proxy --kubeconfig=/opt/cni/kube-proxy/kubeconfig --hostname-override="$NODE" \
    --proxy-mode=iptables --cluster-cidr=10.200.0.0/16 --conntrack-max-per-core=0
"""
COMMANDS = {"routes": ROUTES, "kube-router": FIREWALL, "kube-proxy": PROXY}
RULES = [
    {"apiGroups": [group], "resources": resources, "verbs": ["get", "list", "watch"]}
    for group, resources in (
        ("", ["namespaces", "pods", "services", "nodes", "endpoints"]),
        ("networking.k8s.io", ["networkpolicies"]),
        ("discovery.k8s.io", ["endpointslices"]),
    )
]
NAME = {"name": "network", "namespace": "kube-system"}


def make_objects(endpoint: str) -> list[dict[str, Any]]:
    """The add-on, with the rights of upstream's DaemonSet of kube-router."""

    def make_container(name: str, command: str) -> dict[str, Any]:
        return {
            "name": name,
            "image": IMAGE,
            "command": ["sh", "-c", START + command],
            "env": [
                {"name": "ENDPOINT", "value": endpoint},
                {"name": "PROGRAM", "value": name},
                {"name": "CONFLIST", "value": CONFLIST},
                {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            ],
            "securityContext": {"capabilities": {"add": ["NET_ADMIN", "NET_RAW"]}},
            "volumeMounts": [{"name": "host", "mountPath": "/host"}],
        }

    pod = {
        "serviceAccountName": "network",
        "hostNetwork": True,
        "priorityClassName": "system-node-critical",
        "tolerations": [{"operator": "Exists"}],
        "containers": [make_container(name, command) for name, command in COMMANDS.items()],
        "volumes": [{"name": "host", "hostPath": {"path": "/"}}],
    }
    labels = {"app": "network"}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "network"}
    account = {"kind": "ServiceAccount", **NAME}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": NAME},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": "network"}, "rules": RULES,
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": "network"}, "roleRef": role, "subjects": [account],
        },
        {
            "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": NAME,
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        },
    ]  # fmt: skip


@dataclass(frozen=True)
class Site:
    """The five hosts, and what install.sh printed on each."""

    cluster: Cluster
    said: dict[str, str]

    def is_ready(self) -> bool:
        nodes = json.loads(self.cluster.kubectl("get nodes -o json", check=False) or "{}")
        return [
            condition["status"]
            for node in nodes.get("items", [])
            for condition in node["status"]["conditions"]
            if condition["type"] == "Ready"
        ] == ["True"] * len(self.cluster.workers)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, network: None) -> Site:
    """The hosts after their first boot, and the first build installed on them."""
    directory = make_lab_directory(tmp_path_factory.mktemp("network-addon"))
    examples = directory / "examples"
    document = yaml.safe_load((examples / "lab.yaml").read_text())
    document["network"] |= {
        "plugin": "addon", "addon": "network", "proxy_mode": "none", "policy": {"engine": "addon"},
    }  # fmt: skip
    del document["extra"]["kube-proxy"]
    endpoint = f"https://{document['control_plane']['endpoint']}"
    write_folder(examples / "network", {"all.yaml": yaml.safe_dump_all(make_objects(endpoint))})
    proxy = LAB_CACHE / "build" / "kubernetes-1.20.2" / "kube-proxy"
    programs = {"kube-router": Path(PROGRAM), "kube-proxy": proxy}
    make_image(examples / "network.tar", IMAGE, programs)
    document["images"].append({"ref": IMAGE, "file": "network.tar"})
    document["addons"] = [{"name": "network", "manifests": "network", "wait": {"timeout": "5m"}}]
    (examples / "lab.yaml").write_text(yaml.safe_dump(document))
    build(examples / "lab.yaml", directory / "dist", cache=LAB_CACHE / "product-cache")
    cluster = boot_cluster(directory)
    said = cluster.install(directory / "dist")
    return Site(cluster, dict(zip(cluster.hosts, said, strict=True)))


def has_program(host: Host, name: str) -> bool:
    return host.run(f"ls /opt/k8s/bin/{name}", check=False).returncode == 0


def test_nodes_are_ready_once_the_add_on_has_made_their_network(site: Site) -> None:
    assert site.is_ready()
    for host in site.cluster.workers:
        assert "kubelet.service" in site.said[host.name]
        assert not has_program(host, "kube-proxy")
        assert host.run("systemctl cat kube-proxy.service", check=False).returncode != 0
    for host in site.cluster.masters:
        assert "add-on network: " in site.said[host.name]
    inventory = "-n kube-system get configmap bundler-addon-network -o jsonpath={.data.state}"
    wait_for("the add-on is ready", lambda: site.cluster.kubectl(inventory) == "ready", seconds=120)


def test_verify_proves_network_services_and_policies_of_the_add_on(site: Site) -> None:
    done = site.cluster.verify()
    assert done.returncode == 0, done.stdout
    for check in ("pod-network", "service-ip", "node-ports", "network-policy", "addons"):
        assert f" {check} " in done.stdout, done.stdout
    for check in ("proxy-rules", "pod-bridge"):
        assert f" {check} " not in done.stdout, done.stdout


def test_a_second_installation_leaves_what_the_add_on_put_on_the_host(site: Site) -> None:
    conflist = "cat /etc/cni/net.d/10-network.conflist"
    before = [host.output(conflist) for host in site.cluster.workers]
    for said in site.cluster.install(site.cluster.dist):
        assert "nothing to do" in said, said
    assert [host.output(conflist) for host in site.cluster.workers] == before
    assert all('"subnet"' in text for text in before)


def test_after_a_reboot_the_network_comes_back_by_itself(site: Site) -> None:
    worker = site.cluster.workers[0]
    docker("restart", worker.container)
    wait_for("the nodes are ready", site.is_ready, seconds=240)
    done = site.cluster.verify()
    assert done.returncode == 0, done.stdout


def test_a_host_that_is_uninstalled_keeps_no_file_of_the_add_on(site: Site) -> None:
    worker = site.cluster.workers[-1]
    done = worker.run("/opt/k8s/bundle/uninstall.sh --yes", check=False, timeout=600)
    assert done.returncode == 0, done.stdout
    assert "the add-on network made stay until this host is rebooted" in done.stdout
    assert worker.run("ls /etc/cni /opt/cni", check=False).returncode != 0
