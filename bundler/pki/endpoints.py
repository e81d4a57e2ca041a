"""Every TLS server of the plan, and the certificate that it presents."""

from collections.abc import Iterator
from dataclasses import dataclass

from bundler.cluster.components import API_PORT, ETCD_FLANNEL_PORT, has_feature
from bundler.cluster.plan import ClusterPlan, NodePlan
from bundler.cluster.schema import Role
from bundler.errors import ConfigError
from bundler.pki import declarations
from bundler.pki.live import Endpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A TLS port of every node of a role."""

    role: Role
    port: int
    program: str
    certificate: str | None  # its name in declarations.py; None: the program gets its own
    ca: str
    file: str  # its path on the host
    feature: str | None = None  # only in clusters with this feature
    remote: str | None = None  # other hosts can reach it only in clusters with this feature


SERVERS = (
    Server(
        role=Role.ETCD, port=2379, program="etcd, for clients", certificate="etcd-server",
        ca=declarations.ETCD_CA,
        file="/etc/etcd/pki/server.crt",
    ),
    Server(
        role=Role.ETCD, port=2380, program="etcd, for members", certificate="etcd-peer",
        ca=declarations.ETCD_CA,
        file="/etc/etcd/pki/peer.crt",
    ),
    Server(
        role=Role.ETCD, port=ETCD_FLANNEL_PORT, program="etcd-flannel-proxy",
        certificate="etcd-server", ca=declarations.ETCD_CA,
        file="/etc/etcd/pki/server.crt", feature="flannel-etcd",
    ),
    Server(
        role=Role.CONTROL_PLANE, port=API_PORT, program="kube-apiserver", certificate="apiserver",
        ca=declarations.KUBERNETES_CA,
        file="/etc/kubernetes/pki/apiserver.crt",
    ),
    Server(
        role=Role.CONTROL_PLANE, port=10257, program="kube-controller-manager",
        certificate="controller-manager-server", ca=declarations.KUBERNETES_CA,
        file="/etc/kubernetes/pki/controller-manager.crt", remote="!cis",
    ),
    Server(
        role=Role.CONTROL_PLANE, port=10259, program="kube-scheduler",
        certificate="scheduler-server", ca=declarations.KUBERNETES_CA,
        file="/etc/kubernetes/pki/scheduler.crt", remote="!cis",
    ),
    Server(
        role=Role.WORKER, port=10250, program="kubelet", certificate=None,
        ca=declarations.KUBERNETES_CA,
        file="{kubelet_root}/pki/kubelet-server-current.pem",
    ),
)  # fmt: skip


def list_servers(plan: ClusterPlan) -> tuple[Server, ...]:
    """The table, and the ports of the registry, which cluster.yaml chooses."""
    registry = plan.cluster.registry
    if not registry:
        return SERVERS
    own = Server(
        role=Role.REGISTRY, port=registry.port, program="kube-registry-nginx",
        certificate="registry-server", ca=declarations.KUBERNETES_CA,
        file="/etc/kube-registry/pki/server.crt",
    )  # fmt: skip
    return (*SERVERS, own)


def list_endpoints(plan: ClusterPlan) -> Iterator[Endpoint]:
    """Each server of each node, and the API endpoint if clients reach it over the network."""
    for node in plan.nodes:
        for server in list_servers(plan):
            if _has_server(plan, node, server) and has_feature(server.remote, plan.features):
                yield _make_endpoint(plan, node, server)
    if not plan.is_node_local and not _is_a_node(plan.endpoint_host, plan.endpoint_port, plan):
        yield Endpoint(
            host=plan.endpoint_host,
            port=plan.endpoint_port,
            title="the API's endpoint",
            ca=_get_ca_name(declarations.KUBERNETES_CA, plan),
        )


def list_serving(plan: ClusterPlan, node: NodePlan) -> tuple[str, ...]:
    """The certificate file of each server of a node, as `PORT|FILE` for the host's scripts."""
    root = plan.cluster.kubernetes.kubelet_root
    return tuple(
        f"{server.port}|{server.file.format(kubelet_root=root)}"
        for server in list_servers(plan)
        if _has_server(plan, node, server)
    )


def find_endpoint(text: str, plan: ClusterPlan) -> Endpoint:
    """Parse `HOST:PORT`: a server of the plan, or any other; node names become addresses."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise ConfigError(f"{text}: expected HOST:PORT, such as 192.0.2.10:6443")
    address = next((str(node.address) for node in plan.nodes if node.name == host), host)
    for endpoint in list_endpoints(plan):
        if (endpoint.host, endpoint.port) == (address, int(port)):
            return endpoint
    return Endpoint(host=address, port=int(port))


def _has_server(plan: ClusterPlan, node: NodePlan, server: Server) -> bool:
    return node.has(server.role) and has_feature(server.feature, plan.features)


def _make_endpoint(plan: ClusterPlan, node: NodePlan, server: Server) -> Endpoint:
    return Endpoint(
        host=str(node.address),
        port=server.port,
        title=f"{server.program} on {node.name}",
        ca=_get_ca_name(server.ca, plan),
        certificate=f"pki/nodes/{node.name}/{server.certificate}" if server.certificate else None,
    )


def _is_a_node(host: str, port: int, plan: ClusterPlan) -> bool:
    """Whether the endpoint is the address of a control plane node, which is in the list already."""
    nodes = plan.having(Role.CONTROL_PLANE)
    return port == API_PORT and any(str(node.address) == host for node in nodes)


def _get_ca_name(name: str, plan: ClusterPlan) -> str:
    """The CA of that name; kubernetes-ca if the cluster has a single CA."""
    return name if name in declarations.list_ca_names(plan) else declarations.KUBERNETES_CA
