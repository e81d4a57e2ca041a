"""The hot reload table: every certificate file that a program reads has a row."""

import re
from pathlib import Path

import pytest

from bundler.cluster.schema import Cluster
from bundler.cluster.settings import list_fields, list_flags
from bundler.pki.hot_reload import list_files_read_at_start, list_hot_reload_rows

SECRET = re.compile(r"/etc/\S*(?:/pki/\S+|\.kubeconfig)")
WRITTEN_BY_KUBELET = "/etc/kubernetes/kubelet.kubeconfig"


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
    rows = tuple(row.path for row in list_hot_reload_rows() if row.component == component)
    assert named - {WRITTEN_BY_KUBELET} == {
        path for path in named if any(path.startswith(row) for row in rows)
    }
    assert named


def test_every_certificate_and_kubeconfig_of_configuration_files_has_a_row() -> None:
    for component, path in (
        ("kubelet", "/etc/kubernetes/pki/ca.crt"),
        ("kube-proxy", "/etc/kubernetes/kube-proxy.kubeconfig"),
    ):
        named = SECRET.findall(str(list_fields(component, "1.20")).replace("'", " "))
        assert set(named) == {path}
        assert path in list_files_read_at_start(make_cluster("1.20.2"), component)


@pytest.mark.parametrize(
    ("component", "last_without", "first", "path"),
    [
        ("kube-apiserver", "1.16.15", "1.17.0", "/etc/kubernetes/pki/apiserver.crt"),
        ("kube-apiserver", "1.17.17", "1.18.0", "/etc/kubernetes/pki/apiserver-kubelet-client.key"),
        ("kube-apiserver", "1.18.20", "1.19.0", "/etc/kubernetes/pki/front-proxy-client.crt"),
        ("kube-controller-manager", "1.16.15", "1.17.0", "/etc/kubernetes/pki/controller-manager.crt"),
        ("kube-scheduler", "1.16.15", "1.17.0", "/etc/kubernetes/pki/scheduler.key"),
    ],
)  # fmt: skip
def test_a_restart_is_needed_before_the_minor_that_reloads(
    component: str, last_without: str, first: str, path: str
) -> None:
    assert path in list_files_read_at_start(make_cluster(last_without), component)
    assert path not in list_files_read_at_start(make_cluster(first), component)


def test_etcd_rows_use_the_etcd_version() -> None:
    for version, only_at_start in (("3.3.3", True), ("3.3.4", False), ("3.4.23", False)):
        once = list_files_read_at_start(make_cluster("1.14.2", version), "etcd")
        assert ("/etc/etcd/pki/server.crt" in once) is only_at_start
        assert "/etc/etcd/pki/ca.crt" in once


@pytest.mark.parametrize("minor", range(14, 37))
def test_cas_token_keys_and_kubeconfigs_are_read_only_at_start(minor: int) -> None:
    cluster = make_cluster(f"1.{minor}.0")
    for row in list_hot_reload_rows():
        if re.search(
            r"ca(-signing|-servers)?\.crt$|/sa\.|ca\.key$|(manager|scheduler|proxy|flannel)\.kubeconfig$",
            row.path,
        ):
            assert row.path in list_files_read_at_start(cluster, row.component), row.path


def test_every_row_has_a_source_and_is_unique() -> None:
    assert all(len(row.source) > 10 for row in list_hot_reload_rows())
    assert len({(row.component, row.path) for row in list_hot_reload_rows()}) == len(
        list_hot_reload_rows()
    )


def test_no_unit_file_lists_a_certificate_instead_of_the_table() -> None:
    for unit in (Path(__file__).parents[3] / "templates").rglob("etc/systemd/system/*.service*"):
        for line in unit.read_text().splitlines():
            if line.startswith("RestartOn="):
                assert not SECRET.search(line), f"{unit.name}: {line}"
