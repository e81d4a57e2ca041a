"""What a node needs of its host: kernel settings and open ports, rendered into node.env."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from bundler.cluster.components import FLANNEL_HEALTH_PORT, PORTS, UNITS, select
from bundler.cluster.plan import ClusterPlan, NodePlan, features_of
from bundler.cluster.problem import Problem
from bundler.cluster.schema import Cluster, Role

LOOPBACK_PORTS = frozenset({10248, 10249, FLANNEL_HEALTH_PORT})
"""Health ports of kubelet and flannel, and kube-proxy's metrics: bound to loopback only."""

VXLAN_PORT = 8472
"""flannel's VXLAN port: the Linux default, not IANA's 4789."""


class SysctlNeed(StrEnum):
    """How much a kernel setting matters."""

    MUST = "must"  # pods or the kubelet fail without it: install.sh refuses the host
    WANTED = "wanted"  # install.sh only warns if the kernel does not have or allow it
    AT_LEAST = "at-least"  # like WANTED, and a higher value of the host stays


@dataclass(frozen=True, slots=True, kw_only=True)
class Sysctl:
    """A kernel setting, and why a node needs it."""

    name: str
    value: str
    need: SysctlNeed
    why: str
    role: Role | None = Role.WORKER  # None: every node
    by_kubelet: bool = False  # with protectKernelDefaults the kubelet refuses other values

    @property
    def setting(self) -> str:
        """The form in node.env: `name=value` or `name>=value`, with + for a space in the value."""
        sign = ">=" if self.need is SysctlNeed.AT_LEAST else "="
        return f"{self.name}{sign}{self.value.replace(' ', '+')}"


SYSCTLS: tuple[Sysctl, ...] = (
    Sysctl(
        name="net.ipv4.ip_forward", value="1", need=SysctlNeed.MUST, role=None,
        why="the node routes its pods' packets",
    ),
    Sysctl(
        name="net.bridge.bridge-nf-call-iptables", value="1", need=SysctlNeed.MUST,
        why="Services work between pods on the same bridge",
    ),
    Sysctl(
        name="net.bridge.bridge-nf-call-ip6tables", value="1", need=SysctlNeed.MUST,
        why="the same for IPv6",
    ),
    Sysctl(
        name="vm.overcommit_memory", value="1", need=SysctlNeed.WANTED, by_kubelet=True,
        why="the kubelet's default: cgroups limit memory; with protectKernelDefaults the kubelet "
        "refuses other values",
    ),
    Sysctl(
        name="vm.panic_on_oom", value="0", need=SysctlNeed.WANTED, by_kubelet=True,
        why="the kubelet's default: a pod that runs out of memory dies, not the node",
    ),
    Sysctl(
        name="kernel.panic", value="10", need=SysctlNeed.WANTED, by_kubelet=True,
        why="the kubelet's default: the host reboots 10 s after a kernel panic",
    ),
    Sysctl(
        name="kernel.panic_on_oops", value="1", need=SysctlNeed.WANTED, by_kubelet=True,
        why="the kubelet's default: a kernel oops becomes a panic, so a damaged kernel stops",
    ),
    Sysctl(
        name="kernel.keys.root_maxkeys", value="1000000", need=SysctlNeed.WANTED, by_kubelet=True,
        why="the kubelet's default: each container uses a keyring of root",
    ),
    Sysctl(
        name="kernel.keys.root_maxbytes", value="25000000", need=SysctlNeed.WANTED, by_kubelet=True,
        why="the kubelet's default: 25 bytes for each of these keys",
    ),
    Sysctl(
        name="vm.swappiness", value="0", need=SysctlNeed.WANTED,
        why="if swap is on against advice, it is the last resort",
    ),
    Sysctl(
        name="fs.file-max", value=str(2**63 - 1), need=SysctlNeed.AT_LEAST, role=None,
        why="units limit open files, not the host: the default of systemd 240 and later",
    ),
    Sysctl(
        name="fs.nr_open", value="1048576", need=SysctlNeed.AT_LEAST,
        why="the kernel's default, and the limit of open files that containers get: with a lower "
        "value Docker starts none",
    ),
    Sysctl(
        name="fs.inotify.max_user_instances", value="8192", need=SysctlNeed.AT_LEAST,
        why="all containers of root share this limit; the kernel's 128 are too few",
    ),
    Sysctl(
        name="fs.inotify.max_user_watches", value="1048576", need=SysctlNeed.AT_LEAST,
        why="kubelet, log collectors and pods watch files",
    ),
    Sysctl(
        name="net.ipv4.neigh.default.gc_thresh1", value="1024", need=SysctlNeed.AT_LEAST,
        why="up to this number of neighbours (pods, nodes) the ARP cache keeps all",
    ),
    Sysctl(
        name="net.ipv4.neigh.default.gc_thresh2", value="4096", need=SysctlNeed.AT_LEAST,
        why="above this number the ARP cache drops entries after 5 s",
    ),
    Sysctl(
        name="net.ipv4.neigh.default.gc_thresh3", value="8192", need=SysctlNeed.AT_LEAST,
        why="the maximum of ARP entries; the kernel's 1024 are too few for a large cluster",
    ),
)  # fmt: skip
"""Kernel settings.

Not set on purpose: net.ipv4.tcp_tw_recycle (removed in Linux 4.12, harmful behind NAT);
net.netfilter.nf_conntrack_max (kube-proxy sets it from conntrack.maxPerCore and min).

No unit has LimitNOFILE=infinity: it means fs.nr_open, which systemd 240 and later raise to 2**30,
and programs that close every possible file descriptor, or allocate memory for each, then hang or
run out of memory (containerd issue 6707, kind issue 760).
"""


FROM_SITE = "`sysctls` in cluster.yaml"
SET_BY_PROGRAMS = {
    "net.netfilter.nf_conntrack_max": "kube-proxy sets it, by conntrack in extra.kube-proxy.config",
    "net.ipv4.tcp_tw_recycle": "Linux 4.12 removed it, and before it broke clients behind NAT",
}
"""Kernel setting that a site cannot set → why."""


def sysctls(node: NodePlan, *, is_kubelet_strict: bool) -> tuple[Sysctl, ...]:
    """The kernel settings of a node: its own in place of those of the table.

    A strict kubelet (protectKernelDefaults) does not run with other values of its settings.
    """
    own = dict(node.sysctls)
    rows = (
        replace(row, need=SysctlNeed.MUST) if is_kubelet_strict and row.by_kubelet else row
        for row in SYSCTLS
        if not row.role or node.has(row.role)
    )
    return (
        *(row for row in rows if row.name not in own),
        *(
            Sysctl(name=name, value=value, need=SysctlNeed.MUST, why=FROM_SITE)
            for name, value in sorted(own.items())
        ),
    )


def check_sysctls(cluster: Cluster) -> Iterator[Problem]:
    """Kernel settings that the cluster or the kubelet needs otherwise, or that a program sets."""
    fixed = {row.name: row for row in SYSCTLS if row.by_kubelet or row.need is SysctlNeed.MUST}
    for index, node in enumerate(cluster.nodes):
        for name, value in node.sysctls.items():
            where = ("nodes", index, "sysctls", name)
            row = fixed.get(name)
            if name in SET_BY_PROGRAMS:
                yield Problem(path=where, text=f"{SET_BY_PROGRAMS[name]}: remove it")
            elif row and row.value != value and (not row.role or row.role in node.roles):
                text = f"must be {row.value}, not {value}: {row.why}; remove it"
                yield Problem(path=where, text=text)


def open_ports(plan: ClusterPlan, node: NodePlan, ports: Iterable[int]) -> tuple[str, ...]:
    """The ports that a firewall must open, such as `6443/tcp`; `ports` are the units' TCP ports."""
    inner = LOOPBACK_PORTS | ({plan.endpoint_port} if plan.is_node_local else set())
    opened = [f"{port}/tcp" for port in ports if port not in inner]
    if node.has(Role.WORKER):
        network = plan.cluster.network
        opened += [f"{network.node_port_range}/tcp", f"{network.node_port_range}/udp"]
        if network.plugin == "flannel" and network.flannel.backend == "vxlan":
            opened.append(f"{VXLAN_PORT}/udp")
    return tuple(opened)


def addon_ports(plan: ClusterPlan, node: NodePlan) -> tuple[str, ...]:
    """The ports that add-ons name in `ports`, each once: pods use them on workers."""
    addons = plan.cluster.addons if node.has(Role.WORKER) else ()
    return tuple(dict.fromkeys(ports for addon in addons for ports in addon.ports))


def check_addon_ports(cluster: Cluster) -> Iterator[Problem]:
    """Ports of an add-on's pods that a unit of a worker listens on."""
    roles = {role for node in cluster.nodes if Role.WORKER in node.roles for role in node.roles}
    units = select(UNITS, roles, features_of(cluster))
    taken = {port: unit for role in roles for port, unit in PORTS[role].items() if unit in units}
    for index, addon in enumerate(cluster.addons):
        for place, ports in enumerate(addon.ports):
            numbers, _, protocol = ports.partition("/")
            low, _, high = numbers.partition("-")
            for port, unit in sorted(taken.items()):
                if protocol == "tcp" and int(low) <= port <= int(high or low):
                    text = f"contains {port}, the port of {unit}: pods of the add-on cannot have it"
                    yield Problem(path=("addons", index, "ports", place), text=text)
