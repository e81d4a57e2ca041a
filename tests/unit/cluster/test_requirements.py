"""What versions need of hosts: compared with the distribution of `packages.os`."""

from pathlib import Path

import pytest

from bundler.cluster.components import MINORS
from bundler.cluster.loader import load_cluster
from bundler.cluster.os_packages import RELEASES
from bundler.cluster.requirements import FACTS, list_host_rows
from bundler.cluster.schema import Cluster, Role
from bundler.errors import ConfigError

CLUSTER = """
apiVersion: bundler/v1alpha1
name: bank
kubernetes: {{version: {version}}}
runtime: {runtime}
dns: {{provider: none}}
packages: {{os: {os}}}
nodes:
  - {{name: one, address: 192.0.2.10, roles: [etcd, control-plane, worker]}}
{more}
"""
CONTAINERD = "{engine: containerd}"
STATIC = (
    "artifacts: {containerd: {url: https://m.example/containerd-static-2.3.6-linux-amd64.tar.gz}}"
)
ACCEPTS_V1 = "extra: {kubelet: {config: {failCgroupV1: false}}}"
IPTABLES = "network: {proxy_mode: iptables}"
GLIBC = "containerd 2.3.6 needs glibc 2.34 or newer, and {} has glibc {}: use the static build"


def describe(
    directory: Path, version: str, os: str, more: str = "", runtime: str = CONTAINERD
) -> Path:
    path = directory / "cluster.yaml"
    path.write_text(CLUSTER.format(version=version, os=os, more=more, runtime=runtime))
    return path


def test_every_release_has_its_facts() -> None:
    assert set(FACTS) == set(RELEASES)


@pytest.mark.parametrize(("os", "glibc"), [("debian-11", "2.31"), ("rocky-8", "2.28")])
def test_a_dynamic_containerd_is_refused_where_glibc_is_too_old(
    tmp_path: Path, os: str, glibc: str
) -> None:
    with pytest.raises(ConfigError, match=GLIBC.format(os, glibc)) as raised:
        load_cluster(describe(tmp_path, "1.36.2", os, IPTABLES))
    assert str(raised.value).count("packages.os") == 1
    assert "/v2.3.6/containerd-static-2.3.6-linux-ARCH.tar.gz" in str(raised.value)
    load_cluster(describe(tmp_path, "1.36.2", os, f"{IPTABLES}\n{STATIC}"))
    load_cluster(describe(tmp_path, "1.32.1", os, IPTABLES))  # containerd 2.0


@pytest.mark.parametrize(("patch", "is_refused"), [("1.6.6", False), ("1.6.7", True), ("1.6.8", False)])  # fmt: skip
def test_the_one_patch_that_was_built_for_a_newer_glibc_is_refused(
    tmp_path: Path, patch: str, is_refused: bool
) -> None:
    path = describe(
        tmp_path, "1.24.1", "debian-11", runtime=f"{{engine: containerd, version: {patch}}}"
    )
    if is_refused:
        with pytest.raises(ConfigError, match=r"containerd 1.6.7 needs glibc 2.34 or newer"):
            load_cluster(path)
    else:
        load_cluster(path)


@pytest.mark.parametrize(
    ("version", "os", "more", "runtime", "warning"),
    [
        ("1.35.1", "rocky-8", f"{STATIC}\n{IPTABLES}", CONTAINERD, "kubelet 1.35.1 needs cgroup v2, and rocky-8 has cgroup v1 by default"),
        ("1.35.1", "rocky-8", f"{STATIC}\n{IPTABLES}\n{ACCEPTS_V1}", CONTAINERD, ""),
        ("1.34.1", "rocky-8", f"{STATIC}\n{IPTABLES}", CONTAINERD, ""),
        ("1.18.20", "debian-12", "", CONTAINERD, "kubelet 1.18.20 needs cgroup v1, and debian-12 has cgroup v2 by default"),
        ("1.19.16", "debian-12", "", CONTAINERD, ""),
        ("1.20.2", "debian-12", "", "{engine: docker, version: 19.03.15}", "docker 19.03.15 needs cgroup v1"),
        ("1.36.2", "debian-11", STATIC, CONTAINERD, "kube-proxy in nftables mode needs Linux 5.13 or newer, and debian-11 has Linux 5.10 by default"),
        ("1.36.2", "debian-11", f"{STATIC}\n{IPTABLES}", CONTAINERD, ""),
        ("1.36.2", "rocky-9", "", CONTAINERD, "needs by its release notes glibc 2.35 or newer, and install.sh tries whether it runs, and rocky-9 has glibc 2.34"),
        ("1.36.2", "debian-12", "", CONTAINERD, ""),
    ],
)  # fmt: skip
def test_what_a_release_has_only_by_default_is_a_warning(
    tmp_path: Path, version: str, os: str, more: str, runtime: str, warning: str
) -> None:
    loaded = load_cluster(describe(tmp_path, version, os, more, runtime))
    warnings = [text for text in loaded.warnings if "packages.os" in text]
    assert [warning in text for text in warnings] == ([True] if warning else [])


@pytest.mark.parametrize("minor", MINORS)
def test_a_host_is_told_what_it_needs(minor: str) -> None:
    text = {
        "apiVersion": "bundler/v1alpha1",
        "name": "bank",
        "kubernetes": {"version": f"{minor}.1"},
        "runtime": {"engine": "containerd"},
        "nodes": [{"name": "one", "address": "192.0.2.1", "roles": ["worker", "etcd"]}],
    }
    rows = list_host_rows(Cluster.model_validate(text), (Role.WORKER,))
    facts = {row["fact"]: (row["least"], row["below"]) for row in rows}
    number = int(minor.partition(".")[2])
    assert facts.get("cgroup") == (
        ("2", "-") if number >= 35 else ("-", "2") if number < 19 else None
    )
    assert ("kernel" in facts) == (number >= 33)  # nftables by default
    assert facts["systemd"] == ("235", "-")
    assert {row["fact"] for row in list_host_rows(Cluster.model_validate(text), (Role.ETCD,))} == {
        "systemd"
    }
