"""Tables of what runs where: components, units in start order, ports, host commands.

A new component or port is a row here; templates hold the files themselves.
"""

from collections.abc import Collection, Iterable
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
    """A container runtime, and the Kubernetes minors it works with."""

    since: str
    until: str


RUNTIMES = {
    "docker": RuntimeRow(since="1.14", until="1.24"),  # dockershim is gone
    "containerd": RuntimeRow(since="1.14", until="1.37"),
}
"""The engines of `runtime`."""

MINORS = tuple(f"1.{minor}" for minor in range(14, 37))
"""The Kubernetes minors that can be built."""

API_PORT = 6443

Row = tuple[str, Role | None, str | None]
"""What a node has, if it holds the role (None: every node) and the cluster the feature (None: any).

Features are the chosen kinds: of the runtime (`engine`) and of the load balancer (`kind`).
"""

UNITS: tuple[Row, ...] = (
    ("kube-pod-routes.service", None, None),
    ("etcd.service", Role.ETCD, None),
    ("kube-apiserver.service", Role.CONTROL_PLANE, None),
    ("kube-controller-manager.service", Role.CONTROL_PLANE, None),
    ("kube-scheduler.service", Role.CONTROL_PLANE, None),
    ("kube-nginx.service", Role.LOAD_BALANCER, None),
    ("kube-keepalived.service", Role.LOAD_BALANCER, "nginx-keepalived"),
    ("kube-apply.service", Role.CONTROL_PLANE, None),
    ("kube-csr-approver.service", Role.CONTROL_PLANE, None),
    ("docker.service", Role.WORKER, "docker"),
    ("containerd.service", Role.WORKER, "containerd"),
    ("kubelet.service", Role.WORKER, None),
    ("kube-proxy.service", Role.WORKER, None),
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

COMMANDS: tuple[Row, ...] = (
    ("ip:iproute2", None, None),
    ("openssl:openssl", None, None),
    ("nginx:nginx-light", Role.LOAD_BALANCER, None),
    ("keepalived:keepalived", Role.LOAD_BALANCER, "nginx-keepalived"),
    ("iptables:iptables", Role.WORKER, None),
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
    ("/var/lib/kubelet", Role.CONTROL_PLANE, None),
    ("/var/lib/kubelet", Role.WORKER, None),
    ("/var/lib/cni", Role.WORKER, None),
    ("/var/log/pods", Role.WORKER, None),
    ("/var/log/containers", Role.WORKER, None),
    ("/run/cni", Role.WORKER, None),
    ("/etc/kubernetes/kubelet.kubeconfig", Role.WORKER, None),
    ("/opt/containerd", Role.WORKER, None),
    ("/var/lib/dockershim", Role.WORKER, "docker"),
    ("/etc/docker/key.json", Role.WORKER, "docker"),
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
            if (role is None or role in roles) and (feature is None or feature in features)
        )
    )


def minor_of(version: str) -> str:
    """`1.20` of `1.20.2`."""
    return version.rpartition(".")[0]
