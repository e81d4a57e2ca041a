"""Settings of `extra` and addresses that contradict the rest of cluster.yaml."""

from pathlib import Path

import pytest

from bundler.cluster.loader import load_cluster
from bundler.cluster.settings import make_config
from bundler.errors import ConfigError

ONE = "nodes: [{name: one, address: 192.0.2.10, roles: [etcd, control-plane, worker]}]\n"


def write(directory: Path, text: str, minor: str = "1.36.2", nodes: str = ONE) -> Path:
    path = directory / "cluster.yaml"
    path.write_text(
        f"apiVersion: bundler/v1alpha1\nname: bank\nkubernetes: {{version: {minor}}}\n{nodes}{text}"
    )
    return path


CONTAINERD = "runtime: {engine: containerd}\n"
DOCKER = "runtime: {engine: docker}\n"


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("kubelet: {config: {maxPods: 500}}", r"extra.kubelet.config.maxPods: 500 pods do not fit into a worker's /24.*253.*use 220, or network.pod_subnet_prefix 23"),
        ("kubelet: {flags: {max-pods: 254}}", r"extra.kubelet.flags.max-pods: 254 pods do not fit"),
        ("kubelet: {config: {cpuManagerPolicy: static}}", r"cpuManagerPolicy static needs systemReserved.cpu or kubeReserved.cpu or reservedSystemCPUs"),
        ("kubelet: {config: {cpuManagerPolicy: Static}}", r"must be one of none, static, not 'Static'"),
        ("kubelet: {config: {memoryManagerPolicy: Static}}", r"memoryManagerPolicy Static needs reservedMemory"),
        ("kubelet: {config: {memoryManagerPolicy: Static, kubeReserved: {memory: 1Gi}, reservedMemory: [{numaNode: 0, limits: {memory: 1Gi}}]}}", r"reservedMemory: the memory of all entries is 1073741824 bytes, and kubeReserved.memory .* are 1178599424"),
        ("kubelet: {config: {topologyManagerPolicy: numa}}", r"must be one of none, best-effort, restricted, single-numa-node"),
        ("kubelet: {config: {enforceNodeAllocatable: [pods, kube-reserved]}}", r"enforceNodeAllocatable kube-reserved needs kubeReservedCgroup"),
        ("kubelet: {config: {systemCgroups: /system}}", r"systemCgroups /system needs cgroupRoot"),
        ("kubelet: {config: {imageGCHighThresholdPercent: 70}}", r"imageGCLowThresholdPercent \(80\) must be less than imageGCHighThresholdPercent \(70\)"),
        ("kubelet: {config: {shutdownGracePeriodCriticalPods: 10s}}", r"must be at most shutdownGracePeriod \(0s\)"),
        ("kubelet: {config: {nodeStatusUpdateFrequency: 1m}}", r"\(1m\) must be less than --node-monitor-grace-period \(40s\) of kube-controller-manager"),
        ("etcd: {flags: {heartbeat-interval: 500}}", r"5 times --heartbeat-interval \(500\) must be at most --election-timeout \(2000\) of etcd"),
        ("kube-controller-manager: {flags: {leader-elect-lease-duration: 10s}}", r"--leader-elect-renew-deadline \(10s\) must be less than --leader-elect-lease-duration \(10s\)"),
        ("kube-scheduler: {config: {leaderElection: {retryPeriod: 9s}}}", r"1.2 times leaderElection.retryPeriod \(9s\) must be less than leaderElection.renewDeadline \(10s\)"),
    ],
)  # fmt: skip
def test_a_setting_that_the_program_refuses_beside_the_others_is_an_error(
    tmp_path: Path, extra: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_cluster(write(tmp_path, f"{CONTAINERD}extra:\n  {extra}\n"))


@pytest.mark.parametrize(
    "extra",
    [
        "kubelet: {config: {maxPods: 253}}",
        "kubelet: {config: {cpuManagerPolicy: static, reservedSystemCPUs: '0'}}",
        "kubelet: {config: {cpuManagerPolicy: static, kubeReserved: {cpu: 500m}}}",
        "kubelet: {config: {cpuManagerPolicy: static}, flags: {system-reserved: 'cpu=1'}}",
        "kubelet: {config: {memoryManagerPolicy: Static, reservedMemory: [{numaNode: 0, limits: {memory: 100Mi}}]}}",
        "kubelet: {config: {memoryManagerPolicy: Static, kubeReserved: {memory: 924Mi}, reservedMemory: [{numaNode: 0, limits: {memory: 512Mi}}, {numaNode: 1, limits: {memory: 512Mi}}]}}",
        "kubelet: {config: {shutdownGracePeriod: 30s, shutdownGracePeriodCriticalPods: 30s}}",
        "kubelet: {config: {imageGCHighThresholdPercent: 70, imageGCLowThresholdPercent: 60}}",
        "etcd: {flags: {heartbeat-interval: 400}}",
        "kube-controller-manager: {flags: {leader-elect-lease-duration: 1m0s, leader-elect-renew-deadline: 40s}}",
    ],
)
def test_settings_that_fit_together_are_accepted(tmp_path: Path, extra: str) -> None:
    load_cluster(write(tmp_path, f"{CONTAINERD}extra:\n  {extra}\n"))


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("10.254.0.2", r"dns.upstream\[1\]: 10.254.0.2 is inside network.service_cidr"),
        ("10.200.7.7", r"dns.upstream\[1\]: 10.200.7.7 is inside network.pod_cidr"),
        ("127.0.0.53", r"127.0.0.53 is no DNS server that a pod can reach"),
    ],
)
def test_coredns_does_not_forward_to_the_cluster_itself(
    tmp_path: Path, address: str, message: str
) -> None:
    """kops 710 and others: a loop, or names of the Internet that nobody resolves."""
    text = f"{CONTAINERD}dns: {{upstream: [192.0.2.53, {address}]}}\n"
    with pytest.raises(ConfigError, match=message):
        load_cluster(write(tmp_path, text))


def daemon_settings(directory: Path, text: str) -> dict[str, object]:
    cluster = load_cluster(write(directory, f"{DOCKER}{text}", minor="1.20.2")).cluster
    return make_config(cluster, "docker", lambda _: "null")


OVER_DOCKER0 = "network: {pod_cidr: 172.18.0.0/16, service_cidr: 172.17.0.0/16}\n"
ETCD_FLANNEL = "network: {plugin: flannel, flannel: {store: etcd}}\n"


def test_docker_makes_no_bridge_that_nothing_needs(tmp_path: Path) -> None:
    assert daemon_settings(tmp_path, OVER_DOCKER0)["bridge"] == "none"


@pytest.mark.parametrize(
    "text",
    [
        ETCD_FLANNEL,
        "extra: {docker: {config: {bip: 172.26.0.1/16}}}\n",
        "extra: {docker: {config: {bridge: br0}}}\n",
    ],
)
def test_docker_has_a_bridge_where_it_is_needed_or_wanted(tmp_path: Path, text: str) -> None:
    config = daemon_settings(tmp_path, text)
    assert config.get("bridge") in ({"br0"} if "br0" in text else {None})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{OVER_DOCKER0}extra: {{docker: {{config: {{bridge: docker0}}}}}}\n", r"extra.docker.config.bridge: docker0 has 172.17.0.0/16, which overlaps network.service_cidr 172.17.0.0/16"),
        ("extra: {docker: {config: {bip: 10.200.1.1/24}}}\n", r"docker0 has 10.200.1.0/24, which overlaps network.pod_cidr"),
        ("extra: {docker: {config: {bip: 192.0.2.1/24}}}\n", r"overlaps the address of one"),
        ("dns: {upstream: [172.17.1.1]}\nextra: {docker: {config: {fixed-cidr: 172.17.0.0/24}}}\n", r"overlaps dns.upstream 172.17.1.1"),
        ("extra: {docker: {config: {bip: yes-please}}}\n", r"must be the bridge's address with its prefix length"),
        ("extra: {docker: {config: {bip: 172.26.0.1/16, bridge: none}}}\n", r"dockerd refuses bip with bridge none"),
        (f"{ETCD_FLANNEL}extra: {{docker: {{config: {{bip: 172.26.0.1/16}}}}}}\n", r"extra.docker.config.bip: flannel gives it to dockerd"),
    ],
)  # fmt: skip
def test_docker0_over_other_addresses_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_cluster(write(tmp_path, f"{DOCKER}{text}", minor="1.20.2"))
