"""What a node asks of its host's kernel and firewall: tables, from which node.env is rendered."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from bundler.cluster.components import FLANNEL_HEALTH_PORT
from bundler.cluster.plan import ClusterPlan, NodePlan
from bundler.cluster.schema import Role

LOOPBACK_PORTS = frozenset({10248, 10249, FLANNEL_HEALTH_PORT})
"""The kubelet's and flannel's health, and kube-proxy's metrics: no other host needs them."""

VXLAN_PORT = 8472
"""flannel's, which is Linux' own and not the IANA's 4789."""


class SysctlNeed(StrEnum):
    """How much a kernel setting matters."""

    MUST = "must"  # pods' packets go astray without it: the installation fails
    WANTED = "wanted"  # a warning where the kernel does not have it, or forbids it
    AT_LEAST = "at-least"  # the same, and what the host has set higher stays


@dataclass(frozen=True, slots=True, kw_only=True)
class Sysctl:
    """A kernel setting, and why a node wants it."""

    name: str
    value: str
    need: SysctlNeed
    why: str
    role: Role | None = Role.WORKER  # None: every node

    @property
    def setting(self) -> str:
        """As install.sh reads it: `name=value`, or `name>=value`."""
        return f"{self.name}{'>=' if self.need is SysctlNeed.AT_LEAST else '='}{self.value}"


SYSCTLS: tuple[Sysctl, ...] = (
    Sysctl(
        name="net.ipv4.ip_forward", value="1", need=SysctlNeed.MUST, role=None,
        why="packets of pods are routed through their node",
    ),
    Sysctl(
        name="net.bridge.bridge-nf-call-iptables", value="1", need=SysctlNeed.MUST,
        why="services hold between pods on one bridge",
    ),
    Sysctl(
        name="net.bridge.bridge-nf-call-ip6tables", value="1", need=SysctlNeed.MUST,
        why="the same, over IPv6",
    ),
    Sysctl(
        name="vm.overcommit_memory", value="1", need=SysctlNeed.WANTED,
        why="the kubelet's own: memory is limited by cgroups; it refuses others when "
        "protectKernelDefaults is on",
    ),
    Sysctl(
        name="vm.panic_on_oom", value="0", need=SysctlNeed.WANTED,
        why="the kubelet's own: a pod without memory dies, and not the node",
    ),
    Sysctl(
        name="kernel.panic", value="10", need=SysctlNeed.WANTED,
        why="the kubelet's own: a kernel that panicked boots again after 10 s",
    ),
    Sysctl(
        name="kernel.panic_on_oops", value="1", need=SysctlNeed.WANTED,
        why="the kubelet's own: a kernel that is damaged does not go on",
    ),
    Sysctl(
        name="kernel.keys.root_maxkeys", value="1000000", need=SysctlNeed.WANTED,
        why="the kubelet's own: each container has a keyring of root's",
    ),
    Sysctl(
        name="kernel.keys.root_maxbytes", value="25000000", need=SysctlNeed.WANTED,
        why="the kubelet's own: 25 bytes for each of those keys",
    ),
    Sysctl(
        name="vm.swappiness", value="0", need=SysctlNeed.WANTED,
        why="where swap is left on against advice, it is the last resort",
    ),
    Sysctl(
        name="fs.file-max", value=str(2**63 - 1), need=SysctlNeed.AT_LEAST, role=None,
        why="open files are limited by unit, not for the host as a whole: as systemd 240 has it",
    ),
    Sysctl(
        name="fs.inotify.max_user_instances", value="8192", need=SysctlNeed.AT_LEAST,
        why="every container of root's counts against the same user; the kernel's 128 are few",
    ),
    Sysctl(
        name="fs.inotify.max_user_watches", value="1048576", need=SysctlNeed.AT_LEAST,
        why="the same: kubelets, log collectors and pods watch files",
    ),
    Sysctl(
        name="net.ipv4.neigh.default.gc_thresh1", value="1024", need=SysctlNeed.AT_LEAST,
        why="neighbours (pods, nodes) up to this number are never forgotten",
    ),
    Sysctl(
        name="net.ipv4.neigh.default.gc_thresh2", value="4096", need=SysctlNeed.AT_LEAST,
        why="above this number, neighbours are forgotten after 5 s",
    ),
    Sysctl(
        name="net.ipv4.neigh.default.gc_thresh3", value="8192", need=SysctlNeed.AT_LEAST,
        why="more neighbours than this are refused; the kernel's 1024 are few for a large cluster",
    ),
)  # fmt: skip
"""Kernel settings.

Left out on purpose: net.ipv4.tcp_tw_recycle (gone from Linux 4.12, and harmful behind NAT);
net.netfilter.nf_conntrack_max (kube-proxy sets it, from its conntrack.maxPerCore and min);
fs.nr_open (the kernel's 1048576 is above every unit's limit, and LimitNOFILE=infinity means it).
"""


def sysctls(node: NodePlan) -> tuple[Sysctl, ...]:
    """The rows that concern the node."""
    return tuple(row for row in SYSCTLS if row.role is None or node.has(row.role))


def open_ports(plan: ClusterPlan, node: NodePlan, ports: Iterable[int]) -> tuple[str, ...]:
    """What a firewall must let in, as `6443/tcp`, of the TCP ports that the node's units have."""
    inner = LOOPBACK_PORTS | ({plan.endpoint_port} if plan.is_node_local else set())
    opened = [f"{port}/tcp" for port in ports if port not in inner]
    if node.has(Role.WORKER):
        network = plan.cluster.network
        opened += [f"{network.node_port_range}/tcp", f"{network.node_port_range}/udp"]
        if network.plugin == "flannel" and network.flannel.backend == "vxlan":
            opened.append(f"{VXLAN_PORT}/udp")
    return tuple(opened)
