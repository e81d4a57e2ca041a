"""Tables of what runs where: components, units in start order, ports, host commands.

A new component or port is a row here; templates hold the files themselves.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from bundler.cluster.schema import Role

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtraTarget:
    """A component that `extra:` may change, and by what."""

    has_flags: bool
    has_config: bool


EXTRA_COMPONENTS = {
    "kube-apiserver": ExtraTarget(has_flags=True, has_config=False),
    "kube-controller-manager": ExtraTarget(has_flags=True, has_config=False),
    "kube-scheduler": ExtraTarget(has_flags=True, has_config=True),
    "kubelet": ExtraTarget(has_flags=True, has_config=True),
    "kube-proxy": ExtraTarget(has_flags=True, has_config=True),
    "etcd": ExtraTarget(has_flags=True, has_config=False),
    "flanneld": ExtraTarget(has_flags=True, has_config=False),
    "docker": ExtraTarget(has_flags=False, has_config=True),
    "cri-dockerd": ExtraTarget(has_flags=True, has_config=False),
    "containerd": ExtraTarget(has_flags=False, has_config=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The Kubernetes minors that a choice works with, and what to take outside them."""

    since: str = "1.14"
    until: str = "99.0"
    deprecated: str = "99.0"
    instead: str

    def holds_for(self, minor: str) -> bool:
        """Whether a minor takes it."""
        return key_of(self.since) <= key_of(minor) < key_of(self.until)


RUNTIMES = {
    "docker": Span(until="1.24", instead="take containerd, or add runtime.cri_dockerd"),
    "containerd": Span(instead="take docker"),
}
"""The engines of `runtime`; dockershim left the kubelet with 1.24."""

PROXY_MODES = {
    "ipvs": Span(deprecated="1.35", until="1.40", instead="take nftables or iptables"),
    "iptables": Span(instead="take ipvs"),
    "nftables": Span(since="1.31", instead="take ipvs or iptables"),
}

MINORS = tuple(f"1.{minor}" for minor in range(14, 37))
"""The Kubernetes minors that can be built."""

PROXY_MODE_DEFAULTS = {"1.14": "ipvs", "1.33": "nftables"}
DOCKER_SHIMS = {"17.03": "docker-shim-v1", "20.10": "docker-shim-v2"}
CGROUP_DRIVERS = {"1.14": "cgroupfs", "1.30": "systemd"}
ENCRYPTION_PROVIDERS = {"1.14": ("aescbc",), "1.30": ("secretbox", "aescbc")}
EVICTION_API = {"1.14": "policy/v1beta1", "1.22": "policy/v1"}
"""Since which minor what is the default (shims: Docker's minor). The first provider writes."""

SNAPSHOT_TOOLS = {"3.2": "etcdctl", "3.6": "etcdutl"}
"""Which of etcd's programs reads and restores snapshots: etcdctl does no more from etcd 3.6 on."""

RESTORE_FLAGS = {
    "3.2": "",
    "3.4.27": "--bump-revision=1000000000 --mark-compacted",
    "3.5.0": "",
    "3.5.10": "--bump-revision=1000000000 --mark-compacted",
}
"""Since which etcd a restored database goes on at a revision that nobody has seen before: what was
written after the snapshot had revisions too, and clients that watch would take new ones for old."""

LOOPBACK_DAYS = {"1.14": 365, "1.33": 3 * 365 + 1}
"""Since which minor how many days the certificate lasts with which an API server talks to itself.

It is made when the server starts, and never again: kubernetes/kubernetes issue 86552. The days are
in client-go's util/cert (maxAge), from 1.33 on in apiserver's options/serving_with_loopback.go.
"""

LOOPBACK_MARGIN = 65
"""Days before that end from which on the server is restarted."""

IMAGE_NAMES = {
    "pause": {"1.14": "registry.k8s.io/pause:{version}"},
    "coredns": {
        "1.14": "registry.k8s.io/coredns:{version}",
        "1.21": "registry.k8s.io/coredns/coredns:v{version}",
    },
    "metrics-server": {"1.14": "registry.k8s.io/metrics-server/metrics-server:v{version}"},
}
"""Where upstream publishes the images that a cluster needs."""

API_PORT = 6443
FLANNEL_HEALTH_PORT = 10246

Row = tuple[str, Role | None, str | None]
"""What a node has, if it holds the role (None: every node) and the cluster the feature (None: any).

Features are what the cluster has chosen (plan.py, `features_of`); `a+b` asks for both.
"""

UNITS: tuple[Row, ...] = (
    ("kube-pod-routes.service", None, "static"),
    ("etcd.service", Role.ETCD, None),
    ("etcd-health.timer", Role.ETCD, None),
    ("etcd-defrag.timer", Role.ETCD, None),
    ("etcd-backup.timer", Role.ETCD, "etcd-backup"),
    ("kube-apiserver.service", Role.CONTROL_PLANE, None),
    ("kube-controller-manager.service", Role.CONTROL_PLANE, None),
    ("kube-scheduler.service", Role.CONTROL_PLANE, None),
    ("kube-nginx.service", Role.LOAD_BALANCER, None),
    ("kube-keepalived.service", Role.LOAD_BALANCER, "nginx-keepalived"),
    ("kube-apply.service", Role.CONTROL_PLANE, None),
    ("kube-csr-approver.service", Role.CONTROL_PLANE, None),
    ("docker.service", Role.WORKER, "docker"),
    ("cri-dockerd.service", Role.WORKER, "cri-dockerd"),
    ("containerd.service", Role.WORKER, "containerd"),
    ("flannel.service", Role.WORKER, "flannel"),
    ("kubelet.service", Role.WORKER, None),
    ("kube-proxy.service", Role.WORKER, None),
    ("kube-images.timer", Role.WORKER, None),
    ("kube-certs.timer", Role.ETCD, None),
    ("kube-certs.timer", Role.CONTROL_PLANE, None),
    ("kube-certs.timer", Role.WORKER, None),
)
"""Every unit, in start order."""

PORTS: dict[Role, dict[int, str]] = {
    Role.ETCD: {2379: "etcd.service", 2380: "etcd.service"},
    Role.CONTROL_PLANE: {
        6443: "kube-apiserver.service",
        10257: "kube-controller-manager.service",
        10259: "kube-scheduler.service",
    },
    Role.LOAD_BALANCER: {},  # and the endpoint's port
    Role.WORKER: {
        10248: "kubelet.service",
        10249: "kube-proxy.service",
        10250: "kubelet.service",
        10256: "kube-proxy.service",
    },
}
"""TCP ports that each role's units listen on."""

CLOSED_PORTS = {
    8080: "kube-apiserver without TLS",
    10251: "kube-scheduler without TLS",
    10252: "kube-controller-manager without TLS",
    10255: "the kubelet's read-only port",
}
"""What nothing may open to others, unless `extra` asks for it."""

COMMANDS: tuple[Row, ...] = (
    ("ip:iproute2", None, None),
    ("openssl:openssl", None, None),
    ("nginx:nginx-light", Role.LOAD_BALANCER, None),
    ("keepalived:keepalived", Role.LOAD_BALANCER, "nginx-keepalived"),
    ("iptables:iptables", Role.WORKER, None),
    ("nft:nftables", Role.WORKER, "proxy-nftables"),
    ("conntrack:conntrack", Role.WORKER, None),
    ("ipset:ipset", Role.WORKER, None),
    ("mount:mount", Role.WORKER, None),
    ("nsenter:util-linux", Role.WORKER, None),
)
"""Host commands that nodes cannot do without, with Debian's package for each."""

COMMANDS_WANTED: tuple[Row, ...] = (
    ("curl:curl", Role.WORKER, None),
    ("ping:iputils-ping", Role.WORKER, None),
    ("socat:socat", Role.WORKER, None),
    ("ethtool:ethtool", Role.WORKER, None),
)
"""Host commands without which something smaller fails: verify.sh's probes, kubectl port-forward."""

RUNTIME_PATHS: tuple[Row, ...] = (
    ("/var/log/kubernetes", Role.CONTROL_PLANE, None),
    ("{kubelet_root}", Role.CONTROL_PLANE, None),
    ("{kubelet_root}", Role.WORKER, None),
    ("/var/lib/cni", Role.WORKER, None),
    ("/var/log/pods", Role.WORKER, None),
    ("/var/log/containers", Role.WORKER, None),
    ("/run/cni", Role.WORKER, None),
    ("/etc/kubernetes/kubelet.kubeconfig", Role.WORKER, None),
    ("/opt/containerd", Role.WORKER, None),
    ("/var/lib/dockershim", Role.WORKER, "docker"),
    ("/var/lib/cri-dockerd", Role.WORKER, "cri-dockerd"),
    ("/run/cri-dockerd.sock", Role.WORKER, "cri-dockerd"),
    ("/etc/docker/key.json", Role.WORKER, "docker"),
    ("/run/flannel", Role.WORKER, "flannel"),
    ("/etc/cni/net.d/10-flannel.conflist", Role.WORKER, "flannel"),
)
"""What programs make while they run, and uninstall.sh removes unless it was there before."""


def select(
    rows: Iterable[Row], roles: Collection[Role], features: Collection[str]
) -> tuple[str, ...]:
    """The names of the rows that a node has, in the table's order, each once."""
    return tuple(
        dict.fromkeys(
            name
            for name, role, feature in rows
            if (role is None or role in roles) and has_feature(feature, features)
        )
    )


def has_feature(wanted: str | None, features: Collection[str]) -> bool:
    """Whether every part of `a+b` is among the features; None asks for nothing."""
    return wanted is None or all(part in features for part in wanted.split("+"))


def row_for(rows: Mapping[str, Value], minor: str) -> Value:
    """The value of the newest row that is not newer than the minor."""
    return rows[max((since for since in rows if key_of(since) <= key_of(minor)), key=key_of)]


def key_of(minor: str) -> tuple[int, ...]:
    """`1.9` before `1.20`."""
    return tuple(int(part) for part in minor.split("."))


def minor_of(version: str) -> str:
    """`1.20` of `1.20.2`."""
    return version.rpartition(".")[0]
