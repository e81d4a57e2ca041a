"""`audit.syslog`: the files for rsyslog on control planes, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from support.ca import CertificateAuthority
from support.external_ca_cluster import describe
from support.projects import open_plan

from bundler.cache.store import Cache
from bundler.cluster.loader import load_cluster
from bundler.errors import ConfigError
from bundler.project import Inputs
from bundler.render.node import render_node
from bundler.render.tree import Tree

CONFIG = "rootfs/etc/rsyslog.d/60-kubernetes-audit.conf"
CLIENT = "rootfs/etc/kubernetes/policy/audit-syslog"
TLS = {"host": "logs.example", "ca": "ca.crt"}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    ca = CertificateAuthority(tmp_path, "ca")
    for name in ("client", "other"):
        ca.issue(name, [x509.DNSName(name)])
    return tmp_path


def write(directory: Path, syslog: dict[str, Any], **keys: Any) -> Path:
    nodes = [
        {"name": "one", "address": "192.0.2.1", "roles": ["etcd", "control-plane"], **keys},
        {"name": "two", "address": "192.0.2.2", "roles": ["worker"]},
    ]
    data = describe("192.0.2.1") | {"nodes": nodes, "audit": {"syslog": syslog}}
    path = directory / "cluster.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


def render(directory: Path, syslog: dict[str, Any], node: int = 0) -> Tree:
    path = write(directory, syslog)
    cluster = load_cluster(path).cluster
    inputs = Inputs(description=path, cache=Cache(directory / "cache"))
    with open_plan(cluster, inputs) as (plan, secrets):
        return render_node(plan, plan.nodes[node], secrets)


def read(tree: Tree, path: str) -> str:
    content = tree[path].content
    assert isinstance(content, bytes)
    return content.decode()


def test_control_planes_follow_the_audit_log_and_restart_rsyslog(site: Path) -> None:
    tree = render(site, TLS | {"certificate": "client.crt", "key": "client.key"})
    config = read(tree, CONFIG)
    assert 'target="logs.example" port="6514"' in config
    assert 'StreamDriverAuthMode="x509/name" StreamDriverPermittedPeers="logs.example"' in config
    assert 'StreamDriver.KeyFile="/etc/kubernetes/policy/audit-syslog.key"' in config
    modes = {name: tree[CLIENT + name].mode for name in ("-ca.crt", ".crt", ".key")}
    assert modes == {"-ca.crt": 0o644, ".crt": 0o644, ".key": 0o600}
    rows = read(tree, "lib/site-files.tsv").splitlines()[1:]
    assert [row.split("\t")[2] for row in rows] == ["rsyslog.service"] * 4
    worker = render(site, TLS, node=1)
    assert not [file.path for file in worker if "syslog" in file.path]


@pytest.mark.parametrize(
    ("syslog", "said"),
    [
        ({"protocol": "tcp"}, 'port="514" template="kubernetes-audit"'),
        ({"protocol": "udp", "port": 1514}, 'port="1514"'),
        ({"protocol": "udp"}, 'protocol="udp"'),
        ({"protocol": "tcp", "facility": "authpriv"}, 'facility="authpriv"'),
        ({"protocol": "tcp", "queue_megabytes": 64}, 'queue.maxDiskSpace="64m"'),
    ],
)
def test_keys_are_in_the_configuration(site: Path, syslog: dict[str, Any], said: str) -> None:
    config = read(render(site, {"host": "192.0.2.9", **syslog}), CONFIG)
    assert said in config
    assert "StreamDriver" not in config


@pytest.mark.parametrize(
    ("syslog", "said"),
    [
        ({"host": "logs.example"}, "audit.syslog: tls needs ca"),
        ({"host": "192.0.2.9", "ca": "ca.crt"}, "audit.syslog.host: is an address"),
        ({"host": 'x" action="', "ca": "ca.crt"}, "audit.syslog.host"),
        (TLS | {"protocol": "tcp"}, "audit.syslog.ca: is of no use with tcp"),
        (TLS | {"certificate": "client.crt"}, "has one of certificate and key: add key"),
        (TLS | {"certificate": "client.crt", "key": "other.key"}, "audit.syslog.key"),
        (TLS | {"ca": "missing.crt"}, "audit.syslog.ca"),
        (TLS | {"port": 70000}, "audit.syslog.port"),
        (TLS | {"facility": "mail"}, "audit.syslog.facility"),
    ],
)
def test_what_rsyslog_could_not_use_is_refused(
    site: Path, syslog: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_cluster(write(site, syslog))
    assert said in caught.value.message


def test_a_file_of_the_site_cannot_take_its_place(site: Path) -> None:
    files = {"/etc/rsyslog.d/60-kubernetes-audit.conf": {"content": "mine"}}
    with pytest.raises(ConfigError, match="is the file that audit.syslog makes"):
        load_cluster(write(site, TLS, files=files))
