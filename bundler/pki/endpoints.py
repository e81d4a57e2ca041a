"""Every TLS server of the plan, and which certificate it shows."""

from collections.abc import Iterator
from dataclasses import dataclass

from bundler.cluster.components import API_PORT
from bundler.cluster.plan import ClusterPlan, NodePlan
from bundler.cluster.schema import Role
from bundler.errors import ConfigError
from bundler.pki import declarations
from bundler.pki.live import Endpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A port that every node of a role serves over TLS."""

    role: Role
    port: int
    program: str
    certificate: str | None  # by its name in the table of certificates; None: the program's own
    authority: str
    file: str  # its path on the host


SERVERS = (
    Server(
        role=Role.ETCD, port=2379, program="etcd, for clients", certificate="etcd-server",
        authority=declarations.ETCD_CA,
        file="/etc/etcd/pki/server.crt",
    ),
    Server(
        role=Role.ETCD, port=2380, program="etcd, for members", certificate="etcd-peer",
        authority=declarations.ETCD_CA,
        file="/etc/etcd/pki/peer.crt",
    ),
    Server(
        role=Role.CONTROL_PLANE, port=API_PORT, program="kube-apiserver", certificate="apiserver",
        authority=declarations.KUBERNETES_CA,
        file="/etc/kubernetes/pki/apiserver.crt",
    ),
    Server(
        role=Role.CONTROL_PLANE, port=10257, program="kube-controller-manager",
        certificate="controller-manager-server", authority=declarations.KUBERNETES_CA,
        file="/etc/kubernetes/pki/controller-manager.crt",
    ),
    Server(
        role=Role.CONTROL_PLANE, port=10259, program="kube-scheduler",
        certificate="scheduler-server", authority=declarations.KUBERNETES_CA,
        file="/etc/kubernetes/pki/scheduler.crt",
    ),
    Server(
        role=Role.WORKER, port=10250, program="kubelet", certificate=None,
        authority=declarations.KUBERNETES_CA,
        file="{kubelet_root}/pki/kubelet-server-current.pem",
    ),
)  # fmt: skip


def list_endpoints(plan: ClusterPlan) -> Iterator[Endpoint]:
    """Each server of each node, and the endpoint where it can be asked from afar."""
    for node in plan.nodes:
        for server in SERVERS:
            if node.has(server.role):
                yield _make_endpoint(plan, node, server)
    if not plan.is_node_local and not _is_a_node(plan.endpoint_host, plan.endpoint_port, plan):
        yield Endpoint(
            host=plan.endpoint_host,
            port=plan.endpoint_port,
            title="the API's endpoint",
            authority=_authority(declarations.KUBERNETES_CA, plan),
        )


def list_serving(plan: ClusterPlan, node: NodePlan) -> tuple[str, ...]:
    """What each server of a node should show, as its scripts read it: `PORT|FILE`."""
    root = plan.cluster.kubernetes.kubelet_root
    return tuple(
        f"{server.port}|{server.file.format(kubelet_root=root)}"
        for server in SERVERS
        if node.has(server.role)
    )


def find_endpoint(text: str, plan: ClusterPlan) -> Endpoint:
    """`HOST:PORT` as what the plan says of it, else as any server; a node's name is its address."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise ConfigError(f"{text}: must be HOST:PORT, such as 192.0.2.10:6443")
    address = next((str(node.address) for node in plan.nodes if node.name == host), host)
    for endpoint in list_endpoints(plan):
        if (endpoint.host, endpoint.port) == (address, int(port)):
            return endpoint
    return Endpoint(host=address, port=int(port))


def _make_endpoint(plan: ClusterPlan, node: NodePlan, server: Server) -> Endpoint:
    return Endpoint(
        host=str(node.address),
        port=server.port,
        title=f"{server.program} on {node.name}",
        authority=_authority(server.authority, plan),
        certificate=f"pki/nodes/{node.name}/{server.certificate}" if server.certificate else None,
    )


def _is_a_node(host: str, port: int, plan: ClusterPlan) -> bool:
    """Whether the endpoint is an API server itself, which is in the list by its own name."""
    nodes = plan.having(Role.CONTROL_PLANE)
    return port == API_PORT and any(str(node.address) == host for node in nodes)


def _authority(name: str, plan: ClusterPlan) -> str:
    """Who signs in this cluster, which may have one authority for all."""
    return name if name in declarations.list_authorities(plan) else declarations.KUBERNETES_CA
