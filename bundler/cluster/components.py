"""Tables: components, units in start order, ports, host commands, defaults by minor.

A new component or port is a row here. Its files are in templates/.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from bundler.cluster.schema import Role

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtraTarget:
    """Whether `extra` may change a component's flags and its configuration file."""

    has_flags: bool
    has_config: bool
    per_host: bool = False  # hosts may have different settings


EXTRA_COMPONENTS = {
    "kube-apiserver": ExtraTarget(has_flags=True, has_config=False),
    "kube-controller-manager": ExtraTarget(has_flags=True, has_config=False),
    "kube-scheduler": ExtraTarget(has_flags=True, has_config=True),
    "kubelet": ExtraTarget(has_flags=True, has_config=True, per_host=True),
    "kube-proxy": ExtraTarget(has_flags=True, has_config=True, per_host=True),
    "etcd": ExtraTarget(has_flags=True, has_config=False),
    "flanneld": ExtraTarget(has_flags=True, has_config=False, per_host=True),
    "kube-router": ExtraTarget(has_flags=True, has_config=False, per_host=True),
    "docker": ExtraTarget(has_flags=False, has_config=True, per_host=True),
    "cri-dockerd": ExtraTarget(has_flags=True, has_config=False, per_host=True),
    "containerd": ExtraTarget(has_flags=False, has_config=True, per_host=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The Kubernetes minors that a choice works with, and what to use with others."""

    since: str = "1.14"
    until: str = "99.0"
    deprecated: str = "99.0"
    instead: str

    def holds_for(self, minor: str) -> bool:
        """Whether the choice works with a minor."""
        return key_of(self.since) <= key_of(minor) < key_of(self.until)


RUNTIMES = {
    "docker": Span(until="1.24", instead="use containerd, or add runtime.cri_dockerd"),
    "containerd": Span(instead="use docker"),
}
"""The engines of `runtime`. Kubernetes 1.24 removed dockershim from the kubelet."""

PROXY_MODES = {
    "ipvs": Span(
        deprecated="1.35",
        until="1.40",
        instead="use network.proxy_mode nftables (Linux 5.13 and Kubernetes 1.31 or newer) or"
        " iptables; kube-proxy warns from 1.37 on, has ipvs off by default from 1.40 on, and loses"
        " it in 1.43. Workers can change one after another: kube-proxy in nftables mode removes the"
        " rules of ipvs",
    ),
    "iptables": Span(instead="use ipvs"),
    "nftables": Span(since="1.31", instead="use ipvs or iptables"),
}

MINORS = tuple(f"1.{minor}" for minor in range(14, 38))
"""The supported Kubernetes minors."""

COREDNS_NEEDS = {"0.0": "1.14", "1.11": "1.21"}
"""First CoreDNS minor → first Kubernetes minor that it works with.

From 1.11 on it reads EndpointSlices of discovery.k8s.io/v1 only (coredns/coredns 6147): an API
server before 1.21 has none, and CoreDNS never becomes ready.
"""

KUBE_ROUTERS = {"1.14": "1.6.1", "1.21": "2.11.1"}
"""First Kubernetes minor → kube-router.

From 2.0 on it lists EndpointSlices of discovery.k8s.io/v1 when it starts (pkg/cmd/kube-router.go),
and ends when an API server before 1.21 has none.
"""

KUBE_ROUTER_NEEDS = {"0.0": "1.14", "2.0": "1.21"}
"""First kube-router minor → first Kubernetes minor that it works with."""

PROXY_MODE_DEFAULTS = {"1.14": "ipvs", "1.33": "nftables"}
DOCKER_SHIMS = {"17.03": "docker-shim-v1", "20.10": "docker-shim-v2"}
CGROUP_DRIVERS = {"1.14": "cgroupfs", "1.30": "systemd"}
ENCRYPTION_PROVIDERS = {"1.14": ("aescbc", "secretbox"), "1.30": ("secretbox", "aescbc")}
EVICTION_API = {"1.14": "policy/v1beta1", "1.22": "policy/v1"}
RUNTIME_CLASS_API = {"1.14": "node.k8s.io/v1beta1", "1.20": "node.k8s.io/v1"}
CSR_API = {"1.14": "certificates.k8s.io/v1beta1", "1.19": "certificates.k8s.io/v1"}
SECCOMP = {"1.14": "annotation", "1.19": "field"}
"""First minor → default from that minor on (DOCKER_SHIMS: Docker's own minors).

The first of the encryption providers encrypts; all of them decrypt, in every minor: while 1.29 is
upgraded to 1.30, API servers of both read what both write.
"""

APPLY_FLAGS = {
    "1.14": "--validate=false",
    "1.22": "--validate=false --server-side --force-conflicts --field-manager=bundler",
}
"""First minor → how kubectl applies add-ons.

Server-side apply is GA from 1.22 on. As beta it refuses ports without `protocol` (seen with 1.20:
"omits key field"), so before a client compares with an annotation of the object.
"""

DIFF_FLAGS = {"1.14": "", "1.22": "--server-side --force-conflicts --field-manager=bundler"}
"""The same for kubectl diff."""

SNAPSHOT_TOOLS = {"3.2": "etcdctl", "3.6": "etcdutl"}
"""etcd's program that reads and restores snapshots: etcdctl, from etcd 3.6 on only etcdutl."""

ETCD_STEPS = {"3.2": "", "3.6": "3.5.26", "3.7": "3.6.11"}
"""First etcd minor → oldest version of the minor before that every member must have first.

From etcd's upgrade guides: 3.5.24 to 3.5.26 repair members that 3.6 counts wrongly, and 3.6 before
3.6.11 may not be compatible with 3.7. The guides of 3.3, 3.4 and 3.5 ask for no patch.
"""

RESTORE_FLAGS = {
    "3.2": "",
    "3.4.27": "--bump-revision=1000000000 --mark-compacted",
    "3.5.0": "",
    "3.5.10": "--bump-revision=1000000000 --mark-compacted",
}
"""First etcd version → flags that make a restored database continue at a revision never used.

Writes after the snapshot had revisions too. Without a higher start, clients that watch would take
new objects for ones that they have already seen.
"""

SERVICE_WATCHES_HANG = {
    "1.14": False,
    "1.20.0": True,
    "1.20.10": False,
    "1.21.0": True,
    "1.21.4": False,
}
"""First Kubernetes version → whether watches of Services can stay open without events.

When etcd ends a watch of the API server, the API server ends those of its clients. In these
versions it forgets those of Services (kubernetes pull request 102539), so that for up to ten
minutes kube-proxy and the controllers do not see new Services.
"""

API_SERVER_STOP = {"1.14": 4, "1.27": 10}
"""First minor → seconds from SIGTERM to SIGKILL of an API server.

It closes its port at once, lets requests end, and then waits up to a minute for open watches, which
always exist: every stop takes this long. From 1.27 on it ends them after 3 s
(--shutdown-watch-termination-grace-period), so only a long request makes it wait.
"""

LOOPBACK_DAYS = {"1.14": 365, "1.33": 3 * 365 + 1}
"""First minor → lifetime in days of the certificate that an API server uses to talk to itself.

The server makes it at its start and does not renew it: kubernetes/kubernetes issue 86552. Sources:
client-go's util/cert (maxAge); from 1.33 apiserver's options/serving_with_loopback.go.
"""

LOOPBACK_MARGIN = 65
"""The server is restarted this many days before that certificate expires."""

IMAGE_NAMES = {
    "pause": {"1.14": "registry.k8s.io/pause:{version}"},
    "coredns": {
        "1.14": "registry.k8s.io/coredns:{version}",
        "1.21": "registry.k8s.io/coredns/coredns:v{version}",
    },
    "metrics-server": {"1.14": "registry.k8s.io/metrics-server/metrics-server:v{version}"},
}
"""Image → first minor → where upstream publishes it."""

API_PORT = 6443
ETCD_FLANNEL_PORT = 2382
FLANNEL_HEALTH_PORT = 10246

Row = tuple[str, Role | None, str | None]
"""A name, the role that needs it (None: every node) and the feature (None: every cluster).

Features are the cluster's choices (plan.py, `features_of`); `a+b` means both.
"""

UNITS: tuple[Row, ...] = (
    ("kube-pod-routes.service", None, "static"),
    ("etcd.service", Role.ETCD, None),
    ("etcd-health.timer", Role.ETCD, None),
    ("etcd-defrag.timer", Role.ETCD, None),
    ("etcd-backup.timer", Role.ETCD, "etcd-backup"),
    ("etcd-flannel-proxy.service", Role.ETCD, "flannel-etcd"),
    ("kube-kms-plugin.service", Role.CONTROL_PLANE, "kms-plugin"),
    ("kube-apiserver.service", Role.CONTROL_PLANE, None),
    ("kube-controller-manager.service", Role.CONTROL_PLANE, None),
    ("kube-scheduler.service", Role.CONTROL_PLANE, None),
    ("kube-nginx.service", Role.LOAD_BALANCER, None),
    ("kube-keepalived.service", Role.LOAD_BALANCER, "nginx-keepalived"),
    ("kube-apply.service", Role.CONTROL_PLANE, None),
    ("kube-addons.service", Role.CONTROL_PLANE, None),
    ("kube-rotation.service", Role.CONTROL_PLANE, None),
    ("kube-csr-approver.service", Role.CONTROL_PLANE, None),
    ("kube-node-remover.service", Role.CONTROL_PLANE, None),
    ("kube-node-labeler.service", Role.CONTROL_PLANE, None),
    ("kube-registry.service", Role.REGISTRY, None),
    ("kube-registry-nginx.service", Role.REGISTRY, None),
    ("kube-registry-seed.timer", Role.REGISTRY, None),
    ("kube-registry-copy.timer", Role.REGISTRY, "registry-copies"),
    ("kube-registry-gc.timer", Role.REGISTRY, None),
    ("docker.service", Role.WORKER, "docker"),
    ("cri-dockerd.service", Role.WORKER, "cri-dockerd"),
    ("containerd.service", Role.WORKER, "containerd"),
    ("flannel.service", Role.WORKER, "flannel-etcd"),  # the kubelet waits for it
    ("kube-pod-guard.service", Role.WORKER, "kube-router"),  # before the first pod
    ("kubelet.service", Role.WORKER, None),
    (
        "flannel.service",
        Role.WORKER,
        "flannel-kubernetes",
    ),  # it waits for the kubelet's certificate
    ("kube-proxy.service", Role.WORKER, "kube-proxy"),
    ("kube-router.service", Role.WORKER, "kube-router"),
    ("kube-images.timer", Role.WORKER, None),
    ("kube-uncordon.path", Role.WORKER, None),
    ("kube-certs.timer", Role.ETCD, None),
    ("kube-certs.timer", Role.CONTROL_PLANE, None),
    ("kube-certs.timer", Role.WORKER, None),
    ("kube-certs.timer", Role.REGISTRY, None),
)
"""Every unit, in start order."""

PORTS: dict[Role, dict[int, str]] = {
    Role.ETCD: {
        2379: "etcd.service",
        2380: "etcd.service",
        ETCD_FLANNEL_PORT: "etcd-flannel-proxy.service",
    },
    Role.CONTROL_PLANE: {
        6443: "kube-apiserver.service",
        10257: "kube-controller-manager.service",
        10259: "kube-scheduler.service",
    },
    Role.LOAD_BALANCER: {},  # and the endpoint's port
    Role.REGISTRY: {},  # and those of `registry`
    Role.WORKER: {
        10248: "kubelet.service",
        10249: "kube-proxy.service",
        10250: "kubelet.service",
        10256: "kube-proxy.service",
    },
}
"""TCP ports that each role's units listen on; of a cluster without the unit they stay free."""

CLOSED_PORTS = {
    8080: "kube-apiserver without TLS",
    10251: "kube-scheduler without TLS",
    10252: "kube-controller-manager without TLS",
    10255: "the kubelet's read-only port",
}
"""Ports that must not be open to other hosts, unless `extra` opens them."""

COMMANDS: tuple[Row, ...] = (
    ("ip:iproute2", None, None),
    ("openssl:openssl", None, None),
    ("nginx:nginx-light", Role.LOAD_BALANCER, None),
    ("nginx:nginx-light", Role.ETCD, "flannel-etcd"),
    ("nginx:nginx-light", Role.REGISTRY, None),
    ("keepalived:keepalived", Role.LOAD_BALANCER, "nginx-keepalived"),
    ("iptables:iptables", Role.WORKER, None),
    ("nft:nftables", Role.WORKER, "proxy-nftables"),
    ("conntrack:conntrack", Role.WORKER, "kube-proxy"),
    ("ipset:ipset", Role.WORKER, "kube-proxy"),
    ("mount:mount", Role.WORKER, None),
    ("nsenter:util-linux", Role.WORKER, None),
)
"""Host commands that nodes require, each with Debian's package."""

COMMANDS_WANTED: tuple[Row, ...] = (
    ("curl:curl", Role.WORKER, None),
    ("ping:iputils-ping", Role.WORKER, None),
    ("socat:socat", Role.WORKER, None),
    ("ethtool:ethtool", Role.WORKER, None),
)
"""Host commands for lesser needs: probes of verify.sh, kubectl port-forward."""

RUNTIME_PATHS: tuple[Row, ...] = (
    ("/var/log/kubernetes", Role.CONTROL_PLANE, None),
    ("/var/lib/kube-controller-manager", Role.CONTROL_PLANE, None),
    ("/var/lib/kube-csr-approver", Role.CONTROL_PLANE, None),
    ("/var/lib/kube-node-labeler", Role.CONTROL_PLANE, None),
    ("/var/lib/kube-addons", Role.CONTROL_PLANE, None),
    ("/var/lib/kube-apply", Role.CONTROL_PLANE, None),
    ("{kubelet_root}", Role.CONTROL_PLANE, None),
    ("{kubelet_root}", Role.WORKER, None),
    ("/var/lib/cni", Role.WORKER, None),
    ("/var/log/pods", Role.WORKER, None),
    ("/var/log/containers", Role.WORKER, None),
    ("/run/bundler", Role.ETCD, None),
    ("/run/bundler", Role.CONTROL_PLANE, None),
    ("/run/bundler", Role.LOAD_BALANCER, None),
    ("/run/bundler", Role.REGISTRY, None),
    ("/run/cni", Role.WORKER, None),
    ("/etc/kubernetes/kubelet.kubeconfig", Role.WORKER, None),
    ("/opt/containerd", Role.WORKER, None),
    ("/var/lib/dockershim", Role.WORKER, "docker"),
    ("/var/lib/cri-dockerd", Role.WORKER, "cri-dockerd"),
    ("/run/cri-dockerd.sock", Role.WORKER, "cri-dockerd"),
    ("/etc/docker/certs.d", Role.WORKER, "docker+registry"),
    ("/etc/docker/key.json", Role.WORKER, "docker"),
    ("/run/flannel", Role.WORKER, "flannel"),
    ("/etc/cni/net.d/10-flannel.conflist", Role.WORKER, "flannel"),
    ("/etc/cni", Role.WORKER, "network-addon"),
    ("/opt/cni", Role.WORKER, "network-addon"),
)
"""Paths that programs create at run time; uninstall.sh removes those created after install."""


def select(
    rows: Iterable[Row], roles: Collection[Role], features: Collection[str]
) -> tuple[str, ...]:
    """The names that apply to a node, in the table's order, each once."""
    return tuple(
        dict.fromkeys(
            name
            for name, role, feature in rows
            if (not role or role in roles) and has_feature(feature, features)
        )
    )


def has_feature(wanted: str | None, features: Collection[str]) -> bool:
    """Whether every part of `a+b` is among the features, and none of `!c`; always for None."""
    return not wanted or all(
        (part.removeprefix("!") in features) is not part.startswith("!")
        for part in wanted.split("+")
    )


def row_for(rows: Mapping[str, Value], minor: str) -> Value:
    """The value for a minor: of the newest row that is not newer.

    Of the oldest row for a still older version, which `check_cluster` refuses beside other faults.
    """
    not_newer = [since for since in rows if key_of(since) <= key_of(minor)]
    return rows[max(not_newer, key=key_of) if not_newer else min(rows, key=key_of)]


def key_of(minor: str) -> tuple[int, ...]:
    """Sort key: `1.9` before `1.20`."""
    return tuple(int(part) for part in minor.split("."))


def minor_of(version: str) -> str:
    """`1.20.2` → `1.20`."""
    return version.rpartition(".")[0]
