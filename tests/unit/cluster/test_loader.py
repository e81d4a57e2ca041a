"""Loading cluster.yaml: valid files load; every error has its place and its fix."""

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from bundler.cluster.loader import load_cluster
from bundler.cluster.schema import Role
from bundler.errors import ConfigError

MASTER2 = (
    "  - {name: master2, address: 172.30.20.12, roles: [etcd, control-plane, load-balancer]}\n"
)


def test_the_example_loads_with_every_field_as_written(description: Path) -> None:
    loaded = load_cluster(description)
    cluster = loaded.cluster
    assert len(loaded.warnings) == 1
    assert "dns.provider: with provider none" in loaded.warnings[0]
    assert cluster.name == "lab"
    assert cluster.kubernetes.version == "1.20.2"
    assert str(cluster.network.pod_cidr) == "10.200.0.0/16"
    assert [node.name for node in cluster.nodes if Role.ETCD in node.roles] == [
        "master1",
        "master2",
        "master3",
    ]
    assert cluster.images[0].file.is_absolute()
    assert cluster.extra["kube-proxy"].config == {"conntrack": {"maxPerCore": 0}}


def test_one_host_is_enough_and_everything_else_has_defaults(
    description: Path, make_archive: Callable[[Path, str], str]
) -> None:
    images = description.parents[1] / ".lab" / "images"
    make_archive(images / "coredns.tar", "registry.k8s.io/coredns:1.7.0")
    description.write_text(
        "apiVersion: bundler/v1alpha1\nname: solo\n"
        "nodes:\n  - {name: one, address: 192.0.2.1, roles: [etcd, control-plane, worker]}\n"
        'images:\n  - {ref: "registry.k8s.io/pause:3.2", file: ../.lab/images/pause.tar}\n'
        '  - {ref: "registry.k8s.io/coredns:1.7.0", file: ../.lab/images/coredns.tar}\n'
    )
    loaded = load_cluster(description)
    assert loaded.cluster.control_plane.endpoint is None
    assert any("use: verify" in warning for warning in loaded.warnings)


ERRORS = [
    # what is replaced, by what, and the line that is expected: LINE:COL: PATH: TEXT
    ("name: lab\n", "name: lab\nnode: []\n", r":5:1: node: unknown key; did you mean 'nodes'\?"),
    ("proxy_mode: ipvs", "proxy_mod: ipvs", r":\d+:3: network.proxy_mod: unknown key; did you mean 'proxy_mode'\?"),
    ("proxy_mode: ipvs", "proxy_mode: userspace", r"network.proxy_mode: must be 'ipvs', 'iptables', 'nftables' or 'none', not 'userspace'"),
    ("  service_cidr: 10.254.0.0/16", "  service_cidr: 10.200.128.0/17", r"network.service_cidr: 10.200.128.0/17 overlaps network.pod_cidr"),
    ("pod_cidr: 10.200.0.0/16", "pod_cidr: 172.30.0.0/16", r"nodes\[0\].address: 172.30.20.11 is inside network.pod_cidr"),
    ("service_cidr: 10.254.0.0/16", "service_cidr: 172.30.16.0/20", r"nodes\[0\].address: 172.30.20.11 is inside network.service_cidr"),
    ("pod_cidr: 10.200.0.0/16", "pod_cidr: 10.200.0.0/24", r"network.pod_cidr: 10.200.0.0/24 has too few /24 subnets for 2 workers"),
    ("name: master2", "name: master1", r"nodes\[1\].name: master1 is also the name of nodes\[0\]"),
    ("address: 172.30.20.12", "address: 172.30.20.11", r"nodes\[1\].address: 172.30.20.11 is also the address of master1"),
    ("endpoint: 172.30.20.250:8443", "endpoint: 172.30.20.11:8443", r"control_plane.endpoint: 172.30.20.11 is the address of master1"),
    ("endpoint: 172.30.20.250:8443", "endpoint: 172.30.20.250:6443", r"control_plane.endpoint: port 6443 is used by kube-apiserver.service"),
    ("endpoint: 172.30.20.250:8443", "endpoint: 172.30.20.250", r"control_plane.endpoint: must be HOST:PORT"),
    ("kind: nginx-keepalived, interface: eth0", "interface: eth0", r"control_plane.load_balancer.kind: is missing"),
    ("kind: nginx-keepalived, interface: eth0", "kind: haproxy", r"control_plane.load_balancer.kind: must be one of"),
    ("kind: nginx-keepalived, interface: eth0", "kind: external", r"roles: remove load-balancer: load_balancer is external"),
    ("kind: nginx-keepalived, interface: eth0", "kind: node-local", r"control_plane.endpoint: must be 127.0.0.1:PORT with a node-local load balancer"),
    ("kind: nginx-keepalived, interface: eth0", "kind: node-local", r"nodes\[0\].roles: remove load-balancer: node-local runs on every node"),
    ("kind: nginx-keepalived, interface: eth0", "kind: nginx-keepalived, interface: eth 0", r"load_balancer.interface: must be the name of a network interface, such as eth0"),
    ("name: worker1,", "name: worker1, interface: eth1,", r"nodes\[3\].interface: remove it: only load balancers of kind nginx-keepalived have a virtual address"),
    ("version: 1.20.2", "version: 1.13.1", r"kubernetes.version: Kubernetes 1.13 is not supported: choose 1.14 to 1.37"),
    ("version: 1.20.2", "version: 1.24.1", r"runtime.engine: docker works before Kubernetes 1.24, not with 1.24: use containerd, or add runtime.cri_dockerd"),
    ("engine: docker, version: 20.10.24", "engine: podman", r"runtime.engine: must be one of 'docker', 'containerd'"),
    ("extra:\n", "extra:\n  containerd: {config: {}}\n", r"extra.containerd: the cluster does not use containerd: remove this key"),
    ("version: 1.20.2", "version: 1.2", r"kubernetes.version: must be a full version such as 1.20.2"),
    ("node_port_range: 30000-32767", "node_port_range: 10000-32767", r"network.node_port_range: contains 10250"),
    ("node_port_range: 30000-32767", "node_port_range: 40000-30000", r"network.node_port_range: must be two ports"),
    ("dns_domain: cluster.local", "dns_domain: Cluster.local.", r"network.dns_domain: must be a DNS name"),
    ("name: master2", "name: Master_2", r"nodes\[1\].name: must be a DNS label"),
    ("address: 172.30.20.12", "address: 172.30.20.300", r"nodes\[1\].address: '172.30.20.300' is not a valid IPv4 address"),
    ("roles: [worker]", "roles: [slave]", r"nodes\[3\].roles\[0\]: must be 'etcd'.* not 'slave'"),
    ("roles: [worker]", "roles: []", r"nodes\[3\].roles: must not be empty"),
    ("name: lab\n", "name: lab\nname: lab2\n", r":5:1: duplicate key name, first in line 4"),
    ("nginx.tar, use: verify", "pause.tar, use: verify", r"images\[1\].file: .*does not hold nginx:1.22; it holds registry.k8s.io/pause:3.2"),
    ("images/nginx.tar", "images/none.tar", r"images\[1\].file: .*No such file"),
    ("nginx:1.22", "nginx", r"images\[1\].ref: nginx has no fixed tag"),
    ("extra:\n", "extra:\n  kube-apiserver: {flags: {etcd-servers: x}}\n", r"extra.kube-apiserver.flags.etcd-servers: bundler sets this itself"),
    ("extra:\n", "extra:\n  kube-apiserver: {flags: {event-tll: 24h}}\n", r"extra.kube-apiserver.flags.event-tll: kube-apiserver 1.20 has no flag --event-tll; did you mean 'event-ttl'"),
    ("  kubelet: {config: {", "  kubelet: {config: {clusterDNS: [10.0.0.1], ", r"extra.kubelet.config.clusterDNS: bundler sets this itself"),
    ("extra:\n", "extra:\n  kube-dns: {}\n", r"extra.kube-dns: unknown component"),
    ("extra:\n", "artifacts: {etcd: {}}\nextra:\n", r"artifacts.etcd: needs a url, a sha256 or a sha512"),
    ("extra:\n", "artifacts: {etcd: {sha256: abc}}\nextra:\n", r"artifacts.etcd: sha256 must be 64 lower-case hexadecimal digits"),
    ("extra:\n", "artifacts: {etdc: {sha256: %s}}\nextra:\n" % ("a" * 64), r"artifacts.etdc: unknown artifact"),
    ("extra:\n", "artifacts: {etcd: {url: 'https://[bad/x'}}\nextra:\n", r":\d+:20: artifacts.etcd.url: must be a valid URL: Invalid IPv6 URL"),
    ("extra:\n", "artifacts: {etcd: {url: 'https://a:b/x'}}\nextra:\n", r"artifacts.etcd.url: must be a valid URL: .*Port could not be cast"),
    ("extra:\n", "artifacts: {etcd: {url: 'https://a/%00'}}\nextra:\n", r"artifacts.etcd.url: must be a valid URL: .*contains %00"),
    ("extra:\n", "upstream_keys: {etcd: {openpgp: x, signature: '{file}.asc'}}\nextra:\n", r"upstream_keys.etcd.signature: must be a URL, in which"),
    ("extra:\n", "upstream_keys: {etcd: {openpgp: x, signature: 'https://[bad'}}\nextra:\n", r"upstream_keys.etcd.signature: must be a URL, in which"),
    ("extra:\n", "packages: {os: debian-12, mirror: ['http://[bad']}\nextra:\n", r"packages.mirror\[0\]: must be a valid URL"),
    ("version: 20.10.24", "version: 2.1.0", r"runtime.version: docker 2.1.0 is too old: use 17.03 or later"),
    ("version: 3.4.23", "version: 2.3.8", r"etcd.version: etcd 2.3.8 is too old: use 3.2 or later"),
    ("  dns_domain: cluster.local", "\tdns_domain: cluster.local", r"a tab cannot indent YAML"),
    ("nodes:\n", "nodes: none\nnot_nodes:\n", r"nodes: must be a list"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "expected"), ERRORS, ids=[e[2][:60] for e in ERRORS])
def test_an_error_has_its_place_and_the_fix(
    description: Path, old: str, new: str, expected: str
) -> None:
    text = description.read_text()
    assert old in text
    description.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        load_cluster(description)
    lines = caught.value.message.splitlines()
    assert any(re.search(expected, line) for line in lines), caught.value.message
    assert all(re.match(rf"{re.escape(str(description))}:\d+:\d+: ", line) for line in lines)


def test_versions_that_are_too_old_are_named_beside_what_depends_on_them(description: Path) -> None:
    text = description.read_text().replace("version: 20.10.24", "version: 2.1.0")
    text = text.replace("version: 3.4.23", "version: 2.3.8")
    description.write_text(
        text.replace("extra:\n", "extra:\n  docker: {config: {bip: 10.0.0.1/24}}\n")
        + "addons: [{name: a, manifests: a.yaml, ports: [10250/tcp]}]\n"
    )
    (description.parent / "a.yaml").write_text(
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}"
    )
    with pytest.raises(ConfigError) as caught:
        load_cluster(description)
    for fault in (
        "etcd.version: etcd 2.3.8 is too old",
        "runtime.version: docker 2.1.0 is too old",
        "addons[0].ports[0]: contains 10250",
    ):
        assert fault in caught.value.message


def test_the_place_is_the_line_and_column_of_the_value(description: Path) -> None:
    text = description.read_text().replace("name: master2", "name: MASTER2")
    description.write_text(text)
    line = next(i for i, row in enumerate(text.splitlines(), 1) if "MASTER2" in row)
    column = text.splitlines()[line - 1].index("name:") + 1
    with pytest.raises(ConfigError, match=f":{line}:{column}: nodes\\[1\\].name: "):
        load_cluster(description)


def test_all_errors_are_reported_at_once_in_the_order_of_the_file(description: Path) -> None:
    text = (
        description.read_text()
        .replace("name: master1", "name: M1")
        .replace("roles: [worker]", "roles: [x]")
    )
    description.write_text(text.replace("cluster.local", "cluster_local"))
    with pytest.raises(ConfigError) as caught:
        load_cluster(description)
    lines = [int(line.split(":")[1]) for line in caught.value.message.splitlines()]
    assert len(set(lines)) == 4
    assert lines == sorted(lines)


def test_a_cluster_without_a_control_plane_is_an_error(description: Path) -> None:
    text = description.read_text().replace(
        "[etcd, control-plane, load-balancer]", "[etcd, load-balancer]"
    )
    description.write_text(text)
    with pytest.raises(
        ConfigError, match="no node has the role control-plane: give it to one or three"
    ):
        load_cluster(description)


def test_an_even_number_of_etcd_members_is_a_warning(description: Path) -> None:
    description.write_text(description.read_text().replace(MASTER2, ""))
    loaded = load_cluster(description)
    assert any("2 etcd members tolerate no more failures than 1" in w for w in loaded.warnings)


def test_pins_from_a_file_replace_those_of_cluster_yaml(description: Path, tmp_path: Path) -> None:
    pins = tmp_path / "pins.yaml"
    pins.write_text("artifacts:\n  etcd: {sha256: %s}\n" % ("a" * 64))
    assert load_cluster(description, pins).cluster.artifacts["etcd"].sha256 == "a" * 64
    pins.write_text("artefacts: {}\n")
    with pytest.raises(ConfigError, match="a pins file must have one key, artifacts"):
        load_cluster(description, pins)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "must be a mapping"),
        (b"[]", "must be a mapping"),
        (b"\xff\xfe", "not UTF-8"),
        (b"a: [", "not valid YAML"),
        (b"a: &x {b: *x}\n", r":1:11: \*x is inside of &x"),
        (b"{1: 2}\n", "is not text: write it in quotes"),
        (b"? [a]\n: b\n", "a key must be text"),
        (
            b"a: !!python/object:os.system {}\n",
            "a: the tag !!python/object:os.system is not supported",
        ),
        (b"a: 1\n---\nb: 2\n", "several documents"),
        (b"a: " + b"[" * 500, "nested deeper than 40 levels"),
        (b"a: 2020-01-01\n", "a: 2020-01-01: YAML reads a date here: write it in quotes"),
        (b"a: 0x" + b"f" * 5000, "a: .*not a number of 64 bits"),
        (b"a: .inf\n", "a: .inf: not a finite number"),
        (b"# " + b"x" * (5 << 20), "larger than 4 MiB"),
    ],
)
def test_a_file_that_is_not_a_cluster_yaml_is_refused(
    description: Path, content: bytes, expected: str
) -> None:
    description.write_bytes(content)
    with pytest.raises(ConfigError, match=expected):
        load_cluster(description)


HIDDEN = [
    # YAML that is put below extra, the key that is expected, and the character
    ('kube-apiserver: {flags: {event-ttl: "1h\\nUser=nobody"}}', r"kube-apiserver.flags.event-ttl", "U+000A"),
    ("kube-apiserver: {flags: {event-ttl: '1h\n\n      User=nobody'}}", r"kube-apiserver.flags.event-ttl", "U+000A"),
    ('kube-apiserver: {flags: {"event-ttl\\rx": 1h}}', r"kube-apiserver.flags", "U+000D"),
    ('kubelet: {config: {evictionHard: {"a\\tb": 1}}}', r"kubelet.config.evictionHard", "U+0009"),
    ('kubelet: {config: {reservedMemory: [{limits: {memory: ["x", "\\x1b[31m"]}}]}}', r"kubelet.config.reservedMemory\[0\].limits.memory\[1\]", "U+001B"),
    ('kubelet: {config: {resolvConf: "/x\\0"}}', r"kubelet.config.resolvConf", "U+0000"),
    ('kubelet: {config: {resolvConf: "/x\\x7f"}}', r"kubelet.config.resolvConf", "U+007F"),
    ('kubelet: {config: {resolvConf: "/x\\N"}}', r"kubelet.config.resolvConf", "U+0085"),
    ('kubelet: {config: {resolvConf: "/x\\L"}}', r"kubelet.config.resolvConf", "U+2028"),
    ('kubelet: {config: {resolvConf: "/x\\u202e"}}', r"kubelet.config.resolvConf", "U+202E"),
    ('kubelet: {config: {resolvConf: "/x\\u200b"}}', r"kubelet.config.resolvConf", "U+200B"),
]  # fmt: skip


@pytest.mark.parametrize(("yaml_text", "key", "character"), HIDDEN)
def test_a_hidden_character_is_refused_at_any_depth_with_its_key(
    description: Path, yaml_text: str, key: str, character: str
) -> None:
    text = description.read_text()
    start = text.index("extra:\n")
    description.write_text(f"{text[:start]}extra:\n  {yaml_text}\n")
    with pytest.raises(ConfigError) as caught:
        load_cluster(description)
    message = caught.value.message
    assert re.search(rf":\d+:\d+: extra.{key}: .*{re.escape(character)} ", message), message
    assert message.isprintable()


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\r", "\u202e", "\x00"])
def test_a_comment_cannot_hide_what_yaml_reads(description: Path, character: str) -> None:
    text = description.read_text()
    comment = f"# a comment{character}artifacts: {{}}\n"
    description.write_bytes((comment + text).encode())
    with pytest.raises(ConfigError, match=f":1:12: has the character U\\+{ord(character):04X} "):
        load_cluster(description)


def test_pins_have_no_hidden_character_either(description: Path, tmp_path: Path) -> None:
    pins = tmp_path / "pins.yaml"
    pins.write_text('artifacts:\n  etcd: {url: "https://a.example/x\\n"}\n')
    with pytest.raises(ConfigError, match=r"pins.yaml:2:15: artifacts.etcd.url: .*U\+000A"):
        load_cluster(description, pins)


def test_aliases_and_merge_keys_load_like_the_text_that_they_stand_for(description: Path) -> None:
    plain = load_cluster(description).cluster
    text = description.read_text()
    nodes = text.index("nodes:\n")
    head, tail = text[:nodes], text[nodes:]
    master = "roles: [etcd, control-plane, load-balancer]"
    assert tail.count(master) == 3
    tail = tail.replace(
        f", {master}}}", ", <<: &master {roles: &roles [etcd, control-plane, load-balancer]}}", 1
    )
    tail = tail.replace(f", {master}}}", ", <<: [*master]}", 1)
    tail = tail.replace(f", {master}}}", ", roles: *roles}", 1)
    description.write_text(head + tail)
    assert load_cluster(description).cluster == plain


def test_an_error_in_a_merged_key_has_the_place_where_it_is_written(description: Path) -> None:
    text = description.read_text().replace(
        "nodes:\n",
        "nodes:\n  - &n {name: w9, address: 172.30.20.99, roles: [slave]}\n  - {<<: *n, name: w8}\n",
    )
    description.write_text(text)
    line = next(i for i, row in enumerate(text.splitlines(), 1) if "&n" in row)
    with pytest.raises(ConfigError) as caught:
        load_cluster(description)
    assert f":{line}:50: nodes[1].roles[0]: must be" in caught.value.message


def test_a_missing_file_is_an_error_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file") as caught:
        load_cluster(tmp_path / "none.yaml")
    assert "bundler init" in (caught.value.hint or "")


def damage(value: Any, chance: random.Random) -> Any:
    """Replace one value somewhere below by one that does not belong there."""
    wrong = [
        None,
        True,
        -1,
        3.5,
        "",
        "x" * 300,
        [],
        {},
        [1],
        {"a": {"b": 1}},
        "10.0.0.0/99",
        "1e400",
        "é",
    ]
    if isinstance(value, dict) and value and chance.random() < 0.8:
        key = chance.choice(list(value))
        return {**value, key: damage(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.8:
        index = chance.randrange(len(value))
        return [*value[:index], damage(value[index], chance), *value[index + 1 :]]
    return chance.choice(wrong)


@pytest.mark.slow
def test_no_damaged_cluster_yaml_causes_a_traceback(description: Path) -> None:
    valid = yaml.safe_load(description.read_text())
    for seed in range(300):
        description.write_text(
            yaml.safe_dump(damage(valid, random.Random(seed)), allow_unicode=True)
        )
        try:
            load_cluster(description)
        except ConfigError as error:
            assert error.message  # noqa: PT017 - the damaged file may still be valid
