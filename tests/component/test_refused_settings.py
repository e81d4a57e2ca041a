"""What `bundler check` refuses because programs do not start with it: the real programs agree."""

import subprocess
from pathlib import Path

import pytest
import yaml
from support.paths import LAB_CACHE

from bundler.cluster.loader import load_cluster
from bundler.errors import ConfigError

PROGRAMS = LAB_CACHE / "build/kubernetes-1.20.2"
KUBELET = {"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration"}
KUBECONFIG = {
    "apiVersion": "v1", "kind": "Config", "current-context": "c",
    "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
    "contexts": [{"name": "c", "context": {"cluster": "c", "user": ""}}],
}  # fmt: skip

pytestmark = pytest.mark.skipif(
    not PROGRAMS.exists(),
    reason="programs cannot refuse settings: there is no Kubernetes in the lab's cache (make lab)",
)


def refuse(directory: Path, component: str, config: dict[str, object]) -> str:
    """bundler's message about the setting under `extra`."""
    description = {
        "apiVersion": "bundler/v1alpha1", "name": "x", "kubernetes": {"version": "1.20.2"},
        "nodes": [{"name": "one", "address": "192.0.2.1", "roles": ["etcd", "control-plane"]}],
        "extra": {component: config},
    }  # fmt: skip
    (directory / "cluster.yaml").write_text(yaml.safe_dump(description))
    with pytest.raises(ConfigError) as caught:
        load_cluster(directory / "cluster.yaml")
    return caught.value.message


def start(directory: Path, program: Path, *options: str) -> str:
    """The output of a program that ends by itself; without a network."""
    done = subprocess.run(
        ["unshare", "--net", program, *options],
        cwd=directory, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"imageGCHighThresholdPercent": 70}, "80 must be less than imageGCHighThresholdPercent"),
        ({"systemCgroups": "/system"}, "cgroupRoot (--cgroup-root) was not specified"),
        ({"topologyManagerPolicy": "numa"}, "topologyManagerPolicy non-allowable value: numa"),
        ({"enforceNodeAllocatable": ["pods", "kube-reserved"]}, "kubeReservedCgroup"),
    ],
)
def test_the_kubelet_refuses_the_setting(
    tmp_path: Path, config: dict[str, object], said: str
) -> None:
    (setting,) = config
    assert f"extra.kubelet.config.{setting}" in refuse(tmp_path, "kubelet", {"config": config})
    (tmp_path / "kubelet.yaml").write_text(yaml.safe_dump(KUBELET | config))
    output = start(tmp_path, PROGRAMS / "kubelet", "--config=kubelet.yaml")
    assert said in output


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("leader-elect-lease-duration=10s", "leaseDuration must be greater than renewDeadline"),
        ("leader-elect-retry-period=9s", "renewDeadline must be greater than retryPeriod"),
    ],
)
def test_the_controller_manager_refuses_the_setting(tmp_path: Path, flag: str, said: str) -> None:
    name, _, value = flag.partition("=")
    found = refuse(tmp_path, "kube-controller-manager", {"flags": {name: value}})
    assert f"extra.kube-controller-manager.flags.{name}: " in found
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(KUBECONFIG))
    options = ["--kubeconfig=kubeconfig", "--cert-dir=certs", f"--{flag}"]
    assert said in start(tmp_path, PROGRAMS / "kube-controller-manager", *options)


def test_etcd_refuses_the_setting(tmp_path: Path, programs: Path) -> None:
    said = refuse(tmp_path, "etcd", {"flags": {"heartbeat-interval": 500}})
    assert "5 times --heartbeat-interval (500) must be at most --election-timeout (2000)" in said
    options = ["--heartbeat-interval=500", "--election-timeout=2000", f"--data-dir={tmp_path}/data"]
    output = start(tmp_path, programs / "etcd", *options)
    assert "should be at least as 5 times as --heartbeat-interval" in output
