"""The desired state of a cluster and its nodes: Cluster → ClusterPlan, with every default set.

Reads and writes no files.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network

from bundler.catalog import default_version
from bundler.cluster.audit_syslog import list_syslog_files
from bundler.cluster.components import (
    API_PORT,
    CGROUP_DRIVERS,
    DOCKER_SHIMS,
    KUBE_ROUTERS,
    PROXY_MODE_DEFAULTS,
    SNAPSHOT_TOOLS,
    minor_of,
    row_for,
)
from bundler.cluster.inputs import Image
from bundler.cluster.node_labels import NodeMark, list_marks, registers_tainted
from bundler.cluster.planned_addons import PlannedAddon
from bundler.cluster.policy import list_policy_features
from bundler.cluster.schema import (
    Cluster,
    Containerd,
    Docker,
    NginxKeepalived,
    Node,
    NodeLocal,
    Role,
)
from bundler.cluster.site_files import PlannedFile, list_site_files
from bundler.cluster.values import Arch

RESERVED_POD_ADDRESSES = 3  # network, gateway and broadcast of a node's pod subnet
MAX_PODS = 220
NODE_LOCAL_ENDPOINT = "127.0.0.1:8443"
DOCKER0_KEYS = frozenset({"bip", "bridge", "default-gateway", "fixed-cidr"})
"""Settings of daemon.json with which the user wants docker0 or another bridge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlan:
    """The desired state of one host; only workers have a pod subnet."""

    name: str
    address: IPv4Address
    roles: tuple[Role, ...]
    arch: Arch
    pod_subnet: IPv4Network | None
    interface: str | None = None  # of the virtual address; None: found on the host
    sans: tuple[IPv4Address | str, ...] = ()  # more names in its certificates
    sysctls: tuple[tuple[str, str], ...] = ()  # kernel settings in addition to those of the tables
    own: Cluster | None = field(default=None, compare=False, repr=False)
    """The cluster as this host has it, if that differs."""
    marks: tuple[NodeMark, ...] = ()  # of its Node object
    files: tuple[PlannedFile, ...] = ()  # of the site

    @property
    def features(self) -> frozenset[str]:
        """The node's own choices, by which tables select rows, next to those of the cluster."""
        return frozenset({"registers-tainted"} if registers_tainted(self.marks) else ())

    def has(self, role: Role) -> bool:
        """Whether the node has the role."""
        return role in self.roles


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterPlan:
    """The desired state of the cluster."""

    cluster: Cluster
    nodes: tuple[NodePlan, ...]
    endpoint_host: str  # an address or a DNS name
    endpoint_port: int
    service_ip: IPv4Address  # the kubernetes Service: first address of the service CIDR
    dns_ip: IPv4Address  # cluster DNS: second address of the service CIDR
    etcd_version: str
    addons: tuple[PlannedAddon, ...] = field(default=(), compare=False)  # in order
    image_digests: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Image → the digest by which pods of add-ons name it, as the lock has it."""

    @property
    def name(self) -> str:
        """The cluster's name."""
        return self.cluster.name

    @property
    def engine(self) -> str:
        """The container runtime of every worker."""
        return self.cluster.runtime.engine

    @property
    def features(self) -> frozenset[str]:
        """The cluster's choices, by which tables select rows."""
        return features_of(self.cluster)

    @property
    def is_node_local(self) -> bool:
        """Whether every node reaches the API through its own nginx."""
        return "node-local" in self.features

    @property
    def endpoint(self) -> str:
        """The URL under which every client reaches the API."""
        return f"https://{self.endpoint_host}:{self.endpoint_port}"

    def having(self, role: Role) -> tuple[NodePlan, ...]:
        """The nodes with a role, in the order of cluster.yaml."""
        return tuple(node for node in self.nodes if node.has(role))

    def on_host(self, node: NodePlan) -> "ClusterPlan":
        """The plan as one host has it: with its own runtime, flags, directories and so on."""
        return replace(self, cluster=node.own) if node.own else self


def features_of(cluster: Cluster) -> frozenset[str]:
    """The cluster's choices, as names by which tables select units, flags and overlays."""
    runtime, network = cluster.runtime, cluster.network
    balancer = cluster.control_plane.load_balancer
    store = f"flannel-{network.flannel.store}" if network.plugin == "flannel" else None
    return frozenset(
        feature
        for feature, is_chosen in {
            runtime.engine: True,
            "dockershim": isinstance(runtime, Docker) and not runtime.cri_dockerd,
            _docker_shim(cluster): True,
            "cri-dockerd": isinstance(runtime, Docker) and runtime.cri_dockerd is not None,
            "no-docker0": _leaves_out_docker0(cluster),
            "crictl": "crictl" in runtime_versions(cluster),
            "network-addon" if network.plugin == "addon" else network.plugin: True,
            "node-subnets": network.plugin == "addon" or store == "flannel-kubernetes",
            store: store is not None,
            "cni": store != "flannel-etcd",  # flannel-etcd configures dockerd's bridge instead
            "kube-router": network.policy.engine == "kube-router",
            "network-policy": network.policy.engine != "none",
            "default-deny": bool(network.policy.default_deny),
            "kube-proxy": network.proxy_mode != "none",
            f"proxy-{choose_proxy_mode(cluster)}": True,
            balancer.kind if balancer else None: balancer is not None,
            "coredns": cluster.dns.provider == "coredns",
            "audit-default": cluster.audit.policy is None,
            "metrics-server": cluster.metrics_server is not None,
            "cis": cluster.profile is not None,
            "stig": cluster.profile == "stig",
            "addons": bool(cluster.addons),
            "registry": cluster.registry is not None,
            "registry-copies": cluster.registry is not None
            and cluster.registry.push is not None
            and len(cluster.registry.nodes) > 1,
            "tls-1.3": cluster.tls.min_version == "TLS1.3",
            "tls-suites": cluster.tls.cipher_suites is not None,
            "handlers": any(
                runtime and runtime.handlers
                for runtime in (cluster.runtime, *(node.runtime for node in cluster.nodes))
            ),
            "own-settings": any(
                node.runtime or node.extra or node.kubernetes for node in cluster.nodes
            ),
            "etcd-wal": cluster.etcd.wal_dir is not None,
            "etcd-backup": cluster.etcd.backup.enabled,
            "etcdutl": row_for(SNAPSHOT_TOOLS, minor_of(choose_etcd(cluster))) == "etcdutl",
        }.items()
        if is_chosen and feature
    ) | frozenset(list_policy_features(cluster))


def _leaves_out_docker0(cluster: Cluster) -> bool:
    """Whether Docker makes no bridge: pods have theirs from CNI, and nothing else needs one."""
    extra = cluster.extra.get("docker")
    is_wanted = extra is not None and not DOCKER0_KEYS.isdisjoint(extra.config)
    has_cni = cluster.network.plugin != "flannel" or cluster.network.flannel.store != "etcd"
    return isinstance(cluster.runtime, Docker) and has_cni and not is_wanted


def _docker_shim(cluster: Cluster) -> str | None:
    """The containerd shim in Docker's archive; None for other runtimes."""
    if not isinstance(cluster.runtime, Docker):
        return None
    return row_for(DOCKER_SHIMS, minor_of(cluster.runtime.version))


def choose_proxy_mode(cluster: Cluster) -> str:
    """The mode of cluster.yaml, or the default of the minor."""
    return cluster.network.proxy_mode or row_for(
        PROXY_MODE_DEFAULTS, minor_of(cluster.kubernetes.version)
    )


def choose_cgroup_driver(cluster: Cluster) -> str:
    """The cgroup driver of runtime and kubelet: of cluster.yaml, or the default of the minor."""
    return cluster.runtime.cgroup_driver or row_for(
        CGROUP_DRIVERS, minor_of(cluster.kubernetes.version)
    )


def make_plan(
    cluster: Cluster,
    addons: tuple[PlannedAddon, ...] = (),
    image_digests: Mapping[str, str] | None = None,
) -> ClusterPlan:
    """The desired state, without the pod subnets, which the state directory assigns."""
    endpoint = cluster.control_plane.endpoint
    is_local = isinstance(cluster.control_plane.load_balancer, NodeLocal)
    if not endpoint and is_local:
        endpoint = NODE_LOCAL_ENDPOINT
    if not endpoint:
        first = next(node for node in cluster.nodes if Role.CONTROL_PLANE in node.roles)
        endpoint = f"{first.address}:{API_PORT}"
    host, _, port = endpoint.rpartition(":")
    service = cluster.network.service_cidr.network_address
    return ClusterPlan(
        cluster=cluster,
        nodes=tuple(
            NodePlan(
                name=node.name,
                address=node.address,
                roles=_decide_roles(cluster, node, is_local=is_local),
                arch=node.arch,
                pod_subnet=None,
                interface=_choose_interface(cluster, node),
                sans=node.sans,
                sysctls=tuple(node.sysctls.items()),
                own=own if (own := cluster.on_host(node)) is not cluster else None,
                marks=list_marks(node),
                files=_list_files(cluster, node),
            )
            for node in cluster.nodes
        ),
        endpoint_host=host,
        endpoint_port=int(port),
        service_ip=service + 1,
        dns_ip=service + 2,
        etcd_version=choose_etcd(cluster),
        addons=addons,
        image_digests=image_digests or {},
    )


def assign_pod_subnets(plan: ClusterPlan, subnets: Mapping[str, IPv4Network]) -> ClusterPlan:
    """Return the plan with the pod subnet of each worker."""
    nodes = tuple(replace(node, pod_subnet=subnets.get(node.name)) for node in plan.nodes)
    return replace(plan, nodes=nodes)


def _decide_roles(cluster: Cluster, node: Node, *, is_local: bool) -> tuple[Role, ...]:
    """In the order of Role; with kind node-local every client of the API is a load balancer."""
    held = set(node.roles)
    if cluster.registry and node.name in cluster.registry.nodes:
        held.add(Role.REGISTRY)
    if is_local and held & {Role.CONTROL_PLANE, Role.WORKER}:
        held.add(Role.LOAD_BALANCER)
    return tuple(role for role in Role if role in held)


def _list_files(cluster: Cluster, node: Node) -> tuple[PlannedFile, ...]:
    files = (*list_site_files(node), *list_syslog_files(cluster, node))
    return tuple(sorted(files, key=lambda file: file.path))


def _choose_interface(cluster: Cluster, node: Node) -> str | None:
    """The interface that cluster.yaml names for the virtual address on this load balancer."""
    balancer = cluster.control_plane.load_balancer
    if Role.LOAD_BALANCER not in node.roles or not isinstance(balancer, NginxKeepalived):
        return None
    return node.interface or balancer.interface


def choose_etcd(cluster: Cluster) -> str:
    """The version of cluster.yaml, or the default of the Kubernetes minor."""
    minor = minor_of(cluster.kubernetes.version)
    return cluster.etcd.version or default_version("etcd", minor)


def runtime_versions(cluster: Cluster) -> dict[str, str]:
    """Component → version of the runtime's components: of cluster.yaml, or the minor's default."""
    runtime, minor = cluster.runtime, minor_of(cluster.kubernetes.version)
    versions: dict[str, str | None] = {"crictl": runtime.crictl}
    if not runtime.crictl and (isinstance(runtime, Containerd) or runtime.cri_dockerd):
        versions["crictl"] = default_version("crictl", minor)
    if isinstance(runtime, Docker):
        versions |= {"docker": runtime.version, "cri-dockerd": runtime.cri_dockerd}
    else:
        versions |= {
            "containerd": runtime.version or default_version("containerd", minor),
            "runc": runtime.runc or default_version("runc", minor),
        }
    return {name: version for name, version in versions.items() if version not in {None, "none"}}


FLANNEL_WITH_ETCD = "0.11.0"
"""Default with `store: etcd`: flannel 0.18 and later cannot use etcd's v2 API."""


def choose_flannel(cluster: Cluster) -> str:
    """The version of cluster.yaml, or the default for the minor and the store."""
    flannel = cluster.network.flannel
    if flannel.version or flannel.store == "etcd":
        return flannel.version or FLANNEL_WITH_ETCD
    return default_version("flanneld", minor_of(cluster.kubernetes.version))


def choose_kube_router(cluster: Cluster) -> str:
    """The version of cluster.yaml, or the default for the minor."""
    return cluster.network.policy.version or row_for(
        KUBE_ROUTERS, minor_of(cluster.kubernetes.version)
    )


def worker_names(cluster: Cluster) -> list[str]:
    """The nodes that need a pod subnet and a bootstrap token."""
    return [node.name for node in cluster.nodes if Role.WORKER in node.roles]


def max_pods(plan: ClusterPlan) -> int:
    """The pods that fit on a node: at most as many as its subnet has addresses."""
    addresses: int = 2 ** (32 - plan.cluster.network.pod_subnet_prefix)
    return min(MAX_PODS, addresses - RESERVED_POD_ADDRESSES)


def kernel_modules(plan: ClusterPlan, node: NodePlan) -> tuple[str, ...]:
    """Kernel modules that the node's programs use; they may be built into the kernel."""
    if not node.has(Role.WORKER):
        return ()
    ipvs = ("ip_vs", "ip_vs_rr", "ip_vs_wrr", "ip_vs_sh")
    wanted = ("br_netfilter", "overlay", "nf_conntrack")
    vxlan = ("vxlan",) if "flannel" in plan.features else ()
    sets = ("ip_set", "ip_set_hash_ip", "xt_set") if "kube-router" in plan.features else ()
    return wanted + (ipvs if "proxy-ipvs" in plan.features else ()) + vxlan + sets


def virtual_router_id(plan: ClusterPlan) -> int:
    """The VRRP id of the cluster: of cluster.yaml, or the last number of the endpoint's address."""
    balancer = plan.cluster.control_plane.load_balancer
    chosen = balancer.virtual_router_id if isinstance(balancer, NginxKeepalived) else None
    return chosen or IPv4Address(plan.endpoint_host).packed[-1] or 1


def images_of(plan: ClusterPlan, node: NodePlan) -> tuple[Image, ...]:
    """The images that a node has before its kubelet starts."""
    return tuple(image for image in pulled_images_of(plan, node) if image.where == "nodes")


def pulled_images_of(plan: ClusterPlan, node: NodePlan) -> tuple[Image, ...]:
    """The images of a node, those among them that it pulls from the cluster's registry."""
    if not node.has(Role.WORKER):
        return ()
    return tuple(image for image in plan.cluster.images if image.arch in {None, node.arch})


def data_paths(plan: ClusterPlan) -> dict[Role, tuple[str, ...]]:
    """Directories that uninstall.sh keeps unless --purge-data is given."""
    etcd = plan.cluster.etcd
    return {
        Role.ETCD: (etcd.data_dir, *([etcd.wal_dir] if etcd.wal_dir else [])),
        Role.REGISTRY: (plan.cluster.registry.storage,) if plan.cluster.registry else (),
        Role.WORKER: (plan.cluster.runtime.data_root,),
    }
