"""Which change of which certificate restarts what: every file that a program reads has its row."""

import re
from pathlib import Path

import pytest

from bundler.cluster.schema import Cluster
from bundler.cluster.settings import list_fields, list_flags
from bundler.pki.hot_reload import list_read_once, list_rereads

SECRET = re.compile(r"/etc/\S*(?:/pki/\S+|\.kubeconfig)")
WRITTEN_BY_ITSELF = "/etc/kubernetes/kubelet.kubeconfig"


def make_cluster(version: str, etcd: str | None = None) -> Cluster:
    node = {"name": "a", "address": "192.0.2.1", "roles": ["etcd", "control-plane", "worker"]}
    return Cluster.model_validate(
        {
            "apiVersion": "bundler/v1alpha1", "name": "lab", "nodes": [node],
            "kubernetes": {"version": version}, "etcd": {"version": etcd} if etcd else {},
            "network": {"plugin": "flannel", "flannel": {"version": "0.20.2"}},
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    "component",
    ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "flanneld"],
)
def test_every_certificate_and_kubeconfig_of_the_flags_has_a_row(component: str) -> None:
    named = {path for row in list_flags(component) for path in SECRET.findall(row.value)}
    rows = tuple(row.path for row in list_rereads() if row.component == component)
    assert named - {WRITTEN_BY_ITSELF} == {
        path for path in named if any(path.startswith(row) for row in rows)
    }
    assert named


def test_those_of_configuration_files_have_one_too() -> None:
    for component, path in (
        ("kubelet", "/etc/kubernetes/pki/ca.crt"),
        ("kube-proxy", "/etc/kubernetes/kube-proxy.kubeconfig"),
    ):
        named = SECRET.findall(str(list_fields(component, "1.20")).replace("'", " "))
        assert set(named) == {path}
        assert path in list_read_once(make_cluster("1.20.2"), component)


@pytest.mark.parametrize(
    ("component", "last_that_does_not", "first", "path"),
    [
        ("kube-apiserver", "1.16.15", "1.17.0", "/etc/kubernetes/pki/apiserver.crt"),
        ("kube-apiserver", "1.17.17", "1.18.0", "/etc/kubernetes/pki/apiserver-kubelet-client.key"),
        ("kube-apiserver", "1.18.20", "1.19.0", "/etc/kubernetes/pki/front-proxy-client.crt"),
        ("kube-controller-manager", "1.16.15", "1.17.0", "/etc/kubernetes/pki/controller-manager.crt"),
        ("kube-scheduler", "1.16.15", "1.17.0", "/etc/kubernetes/pki/scheduler.key"),
    ],
)  # fmt: skip
def test_a_restart_is_due_until_the_minor_that_rereads(
    component: str, last_that_does_not: str, first: str, path: str
) -> None:
    assert path in list_read_once(make_cluster(last_that_does_not), component)
    assert path not in list_read_once(make_cluster(first), component)


def test_etcds_own_version_counts_for_etcd() -> None:
    for version, is_read_once in (("3.3.3", True), ("3.3.4", False), ("3.4.23", False)):
        once = list_read_once(make_cluster("1.14.2", version), "etcd")
        assert ("/etc/etcd/pki/server.crt" in once) is is_read_once
        assert "/etc/etcd/pki/ca.crt" in once


@pytest.mark.parametrize("minor", range(14, 37))
def test_authorities_tokens_and_embedded_certificates_are_always_read_once(minor: int) -> None:
    cluster = make_cluster(f"1.{minor}.0")
    for row in list_rereads():
        if re.search(
            r"ca(-signing|-servers)?\.crt$|/sa\.|ca\.key$|(manager|scheduler|proxy|flannel)\.kubeconfig$",
            row.path,
        ):
            assert row.path in list_read_once(cluster, row.component), row.path


def test_every_row_says_where_that_is_to_be_seen() -> None:
    assert all(len(row.source) > 10 for row in list_rereads())
    assert len({(row.component, row.path) for row in list_rereads()}) == len(list_rereads())


def test_no_unit_file_names_a_certificate_beside_the_table() -> None:
    for unit in (Path(__file__).parents[3] / "templates").rglob("etc/systemd/system/*.service*"):
        for line in unit.read_text().splitlines():
            if line.startswith("RestartOn="):
                assert not SECRET.search(line), f"{unit.name}: {line}"
