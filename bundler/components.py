"""Tables of what runs where: components, units in start order, ports, host commands.

A new component or port is a row here; templates hold the files themselves.
"""

from dataclasses import dataclass

from bundler.config import Role


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
    "docker": ExtraTarget(has_flags=False, has_config=True),
    "containerd": ExtraTarget(has_flags=False, has_config=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeRow:
    """A container runtime: its unit, the Kubernetes minors it works with, and what it leaves."""

    unit: str
    since: str
    until: str
    paths: tuple[str, ...]


RUNTIMES = {
    "docker": RuntimeRow(
        unit="docker.service",
        since="1.14",
        until="1.24",  # dockershim is gone
        paths=("/var/lib/dockershim", "/etc/docker/key.json", "/opt/containerd"),
    ),
    "containerd": RuntimeRow(
        unit="containerd.service", since="1.14", until="1.37", paths=("/opt/containerd",)
    ),
}
"""The engines of `runtime`."""

MINORS = tuple(f"1.{minor}" for minor in range(14, 37))
"""The Kubernetes minors that can be built."""

API_PORT = 6443

UNITS: tuple[tuple[str, Role | None], ...] = (
    ("kube-pod-routes.service", None),  # every node
    ("etcd.service", Role.ETCD),
    ("kube-apiserver.service", Role.CONTROL_PLANE),
    ("kube-controller-manager.service", Role.CONTROL_PLANE),
    ("kube-scheduler.service", Role.CONTROL_PLANE),
    ("kube-nginx.service", Role.LOAD_BALANCER),
    ("kube-keepalived.service", Role.LOAD_BALANCER),
    ("kube-apply.service", Role.CONTROL_PLANE),
    ("kube-csr-approver.service", Role.CONTROL_PLANE),
    ("kubelet.service", Role.WORKER),
    ("kube-proxy.service", Role.WORKER),
)
"""Every unit in start order, and the role whose nodes run it; the runtime's is in RUNTIMES."""

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

COMMANDS: dict[Role | None, tuple[str, ...]] = {
    None: ("ip:iproute2", "openssl:openssl"),
    Role.ETCD: (),
    Role.CONTROL_PLANE: (),
    Role.LOAD_BALANCER: ("nginx:nginx-light", "keepalived:keepalived"),
    Role.WORKER: (
        "iptables:iptables",
        "conntrack:conntrack",
        "ipset:ipset",
        "mount:mount",
        "nsenter:util-linux",
    ),
}
"""Host commands that each role cannot do without, with Debian's package for each."""

COMMANDS_WANTED: dict[Role | None, tuple[str, ...]] = {
    None: (),
    Role.ETCD: (),
    Role.CONTROL_PLANE: (),
    Role.LOAD_BALANCER: (),
    Role.WORKER: ("curl:curl", "ping:iputils-ping", "socat:socat", "ethtool:ethtool"),
}
"""Host commands without which something smaller fails: verify.sh's probes, kubectl port-forward."""


RUNTIME_PATHS: dict[Role, tuple[str, ...]] = {
    Role.CONTROL_PLANE: ("/var/log/kubernetes", "/var/lib/kubelet"),
    Role.WORKER: (
        "/var/lib/kubelet",
        "/var/lib/cni",
        "/var/log/pods",
        "/var/log/containers",
        "/run/cni",
        "/etc/kubernetes/kubelet.kubeconfig",
    ),
}
"""What programs make while they run, and uninstall.sh removes unless it was there before."""


def minor_of(version: str) -> str:
    """`1.20` of `1.20.2`."""
    return version.rpartition(".")[0]
