"""Messages about wrong values: one fault, one message, with the value to write."""

from pathlib import Path

import pytest
import yaml

from bundler.catalog import list_available
from bundler.cluster.loader import load_cluster, read_cluster_name
from bundler.errors import ConfigError

BASE = """\
apiVersion: bundler/v1alpha1
name: bank
kubernetes: {version: 1.36.2}
runtime: {engine: containerd}
dns: {provider: none}
nodes:
  - {name: one, address: 192.0.2.30, roles: [etcd, control-plane, worker]}
"""


def newest(component: str, minor: str) -> str:
    return [v for v in list_available(component, "amd64") if v.startswith(f"{minor}.")][-1]


def explain(directory: Path, line: str) -> list[str]:
    """The messages without their places, for BASE with one key replaced."""
    key = line.partition(":")[0]
    kept = BASE[: BASE.index("nodes:")] if key == "nodes" else BASE
    lines = [each for each in kept.splitlines() if not each.startswith(f"{key}:")]
    path = directory / "cluster.yaml"
    path.write_text("\n".join([*lines, line, ""]))
    with pytest.raises(ConfigError) as caught:
        load_cluster(path)
    return [message.partition(": ")[2] for message in caught.value.message.splitlines()]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nodes: [{name: One_, address: 192.0.2.1, roles: [etcd]}]", "nodes[0].name: must be a DNS label: lower-case letters, digits and '-', at most 63 characters"),
        ("nodes: [{name: a, address: 192.0.2.300, roles: [etcd]}]", "nodes[0].address: '192.0.2.300' is not a valid IPv4 address"),
        ("nodes: [{name: a, address: 192.0.2.1, roles: [etcdd]}]", "nodes[0].roles[0]: must be 'etcd', 'control-plane', 'load-balancer', 'registry' or 'worker', not 'etcdd'"),
        ("nodes: []", "nodes: must not be empty"),
        ("nodes: [{name: 7, address: 192.0.2.1, roles: [etcd]}]", 'nodes[0].name: must be text, not 7: write "7", in quotes'),
        ("name: 1.10", "name: must be a DNS label: lower-case letters, digits and '-', at most 63 characters"),
        ("name: 123", 'name: must be text, not 123: write "123", in quotes'),
        ("kubernetes: {version: latest}", "kubernetes.version: must be a full version such as 1.20.2, not 'latest'"),
        ("dns: {upstream: 8.8.8.8}", "dns.upstream: must be 'host' or a list, not '8.8.8.8'"),
        ("dns: {upstream: [8.8]}", "dns.upstream[0]: '8.8' is not a valid IPv4 address"),
        ("extra: {kubelet: {flags: {v: [1]}}}", "extra.kubelet.flags.v: must be text, a whole number, a number or true or false, not [1]"),
        ("control_plane: {endpoint: 8443}", "control_plane.endpoint: must be HOST:PORT, such as 172.30.20.250:8443"),
        ("network: {node_port_range: 30000}", "network.node_port_range: must be two ports, low-high, such as 30000-32767"),
        *(
            (f"addons: [{{name: a, manifests: b, ports: ['{ports}']}}]", "addons[0].ports[0]: must be a port or a range and its protocol, such as 4789/udp or 7946-7950/tcp")
            for ports in ("4789", "0/udp", "65536/tcp", "9-8/tcp", "1-2-3/tcp", "80/sctp", "80/tcp ", "http/tcp", "")
        ),
        ("images: [{ref: nginx, file: 3}]", 'images[0].file: must be text, not 3: write "3", in quotes'),
        ("pki: {days: ten}", "pki.days: must be a whole number, not 'ten'"),
        ("etcd: {backup: {keep: 0}}", "etcd.backup.keep: must be greater than or equal to 1, not 0"),
        ("runtime: {engine: docker, registries: []}", "runtime.registries: unknown key here: it belongs to another `engine` or `kind`: remove it, or name that"),
    ],
)  # fmt: skip
def test_one_fault_gives_one_message(tmp_path: Path, line: str, message: str) -> None:
    assert explain(tmp_path, line) == [message]


@pytest.mark.parametrize(
    ("line", "component", "minor"),
    [
        ("kubernetes: {version: 1.29}", "kubernetes-server", "1.29"),
        ("kubernetes: {version: 1.30}", "kubernetes-server", "1.30"),
        ("kubernetes: {version: v1.29}", "kubernetes-server", "1.29"),
        ("kubernetes: {version: '1.29'}", "kubernetes-server", "1.29"),
        ("kubernetes: {version: 1.29.4-rc.1}", "kubernetes-server", "1.29"),
        ("kubernetes: {version: 1.37}", "kubernetes-server", "1.37"),
        ("etcd: {version: 3.5}", "etcd", "3.5"),
        ("runtime: {engine: docker, version: 20.10}", "docker", "20.10"),
        ("runtime: {engine: containerd, version: 1.7}", "containerd", "1.7"),
        ("runtime: {engine: containerd, runc: 1.1}", "runc", "1.1"),
        ("runtime: {engine: containerd, crictl: 1.30}", "crictl", "1.30"),
        ("network: {plugin: flannel, flannel: {version: 0.25}}", "flanneld", "0.25"),
    ],
)
def test_an_incomplete_version_names_the_one_to_write(
    tmp_path: Path, line: str, component: str, minor: str
) -> None:
    """YAML reads 1.30 as 1.3; quotes help neither it nor 1.29."""
    (message,) = explain(tmp_path, line)
    written = newest(component, minor)
    assert f": write {written}" in message
    assert "quotes" not in message
    (value,) = yaml.safe_load(f"[{written}]")
    assert value == written  # as text, without quotes


def test_two_faults_give_two_messages(tmp_path: Path) -> None:
    messages = explain(tmp_path, "nodes: [{name: One_, address: 192.0.2.300, roles: [etcd]}]")
    assert [message.partition(":")[0] for message in messages] == [
        "nodes[0].name", "nodes[0].address",
    ]  # fmt: skip


def test_a_name_without_quotes_is_explained_where_only_the_name_is_read(tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text("name: 123\n")
    with pytest.raises(ConfigError, match='name: must be text, not 123: write "123", in quotes'):
        read_cluster_name(tmp_path / "cluster.yaml")
