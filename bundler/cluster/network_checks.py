"""Checks of cluster.yaml's addresses, networks and ports against one another."""

from collections.abc import Iterator
from ipaddress import IPv4Address

from bundler.cluster.components import API_PORT, PORTS
from bundler.cluster.problem import Problem
from bundler.cluster.schema import (
    Cluster,
    ExternalLoadBalancer,
    NginxKeepalived,
    Node,
    NodeLocal,
    Role,
)
from bundler.cluster.values import DNS_NAME


def is_host_address(address: IPv4Address) -> bool:
    """Whether a host can have the address."""
    return not (
        address.is_unspecified
        or address.is_loopback
        or address.is_multicast
        or address.is_link_local
        or address.is_reserved
    )


def check_networks(cluster: Cluster) -> Iterator[Problem]:
    """Pod and service ranges that overlap, hold a host, or are too small."""
    network = cluster.network
    ranges = {"pod_cidr": network.pod_cidr, "service_cidr": network.service_cidr}
    if network.pod_cidr.overlaps(network.service_cidr):
        yield Problem(
            path=("network", "service_cidr"),
            text=f"{network.service_cidr} overlaps network.pod_cidr {network.pod_cidr}:"
            " choose ranges that do not overlap",
        )
    for key, cidr in ranges.items():
        for index, node in enumerate(cluster.nodes):
            if node.address in cidr:
                yield Problem(
                    path=("nodes", index, "address"),
                    text=f"{node.address} is inside network.{key} {cidr}: choose another range",
                )
    # kube-apiserver refuses ranges with more than 20 bits for hosts (its validation.go)
    if not 12 <= network.service_cidr.prefixlen <= 28:
        yield Problem(
            path=("network", "service_cidr"),
            text="must be a /12 to a /28: the API server accepts no other size",
        )
    workers = len(cluster.having(Role.WORKER))
    if network.pod_subnet_prefix < network.pod_cidr.prefixlen:
        text = f"a worker's /{network.pod_subnet_prefix} does not fit into {network.pod_cidr}"
        yield Problem(path=("network", "pod_cidr"), text=text)
    elif workers > 2 ** (network.pod_subnet_prefix - network.pod_cidr.prefixlen):
        text = (
            f"{network.pod_cidr} has too few /{network.pod_subnet_prefix} subnets for {workers}"
            " workers: choose a larger range"
        )
        yield Problem(path=("network", "pod_cidr"), text=text)


def check_endpoint(cluster: Cluster) -> Iterator[Problem]:
    """An endpoint that clients could not reach with this load balancer."""
    planes = cluster.having(Role.CONTROL_PLANE)
    balancer = cluster.control_plane.load_balancer
    endpoint = cluster.control_plane.endpoint
    where = ("control_plane", "endpoint")
    if isinstance(balancer, NodeLocal):
        yield from _check_node_local(cluster)
        return
    if not endpoint:
        if len(planes) > 1 or balancer is not None:
            text = "endpoint is missing: give HOST:PORT under which clients reach the API"
            yield Problem(path=("control_plane",), text=text)
        return
    host, _, port = endpoint.rpartition(":")
    address = _address(host)
    if not address and not _looks_like_name(host):
        yield Problem(path=where, text=f"{host} is not an IPv4 address or DNS name")
        return
    if address is not None:
        yield from _check_endpoint_ranges(cluster, address)
    if isinstance(balancer, NginxKeepalived):
        yield from _check_virtual_address(cluster, address, int(port))
    elif isinstance(balancer, ExternalLoadBalancer):
        yield from _refuse_balancer_role(cluster, "load_balancer is external")
    else:
        yield from _check_direct_endpoint(planes, host, address, int(port))
        yield from _refuse_balancer_role(cluster, "control_plane.load_balancer is not set")


def check_interfaces(cluster: Cluster) -> Iterator[Problem]:
    """Interfaces for the virtual address on nodes that never have it."""
    has_address = isinstance(cluster.control_plane.load_balancer, NginxKeepalived)
    for index, node in enumerate(cluster.nodes):
        if node.interface and not (has_address and Role.LOAD_BALANCER in node.roles):
            text = "remove it: only load balancers of kind nginx-keepalived have a virtual address"
            yield Problem(path=("nodes", index, "interface"), text=text)


def _check_node_local(cluster: Cluster) -> Iterator[Problem]:
    endpoint = cluster.control_plane.endpoint
    if endpoint is not None and not endpoint.startswith("127.0.0.1:"):
        text = "must be 127.0.0.1:PORT with a node-local load balancer: remove this key"
        yield Problem(path=("control_plane", "endpoint"), text=text)
    yield from _refuse_balancer_role(cluster, "node-local runs on every node")


def _check_endpoint_ranges(cluster: Cluster, address: IPv4Address) -> Iterator[Problem]:
    network = cluster.network
    ranges = {"pod_cidr": network.pod_cidr, "service_cidr": network.service_cidr}
    for key, cidr in ranges.items():
        if address in cidr:
            text = f"{address} is inside network.{key} {cidr}: choose another address"
            yield Problem(path=("control_plane", "endpoint"), text=text)


def _check_direct_endpoint(
    planes: tuple[Node, ...], host: str, address: IPv4Address | None, port: int
) -> Iterator[Problem]:
    """Without a load balancer the endpoint must be the only control-plane node."""
    where = ("control_plane", "endpoint")
    if len(planes) > 1:
        text = (
            "two or more control-plane nodes need a load_balancer: nginx-keepalived, node-local or"
            " external"
        )
        yield Problem(path=("control_plane",), text=text)
    if address is not None and address not in {node.address for node in planes}:
        text = f"{host} is not the address of a control-plane node, and no load balancer serves it"
        yield Problem(path=where, text=text)
    if len(planes) == 1 and port != API_PORT:
        yield Problem(path=where, text=f"must have port {API_PORT} without a load balancer")


def _check_virtual_address(
    cluster: Cluster, address: IPv4Address | None, port: int
) -> Iterator[Problem]:
    where = ("control_plane", "endpoint")
    balancers = cluster.having(Role.LOAD_BALANCER)
    if not address:
        text = "must be an IPv4 address: keepalived cannot move a name"
        yield Problem(path=where, text=text)
    for node in cluster.nodes:
        if node.address == address:
            text = f"{address} is the address of {node.name}: the virtual address must be unused"
            yield Problem(path=where, text=text)
    if not balancers:
        yield Problem(
            path=("control_plane", "load_balancer"),
            text="no node has the role load-balancer: give it to the control-plane nodes",
        )
    shared = {
        port_: unit for n in balancers for role in n.roles for port_, unit in PORTS[role].items()
    }
    if port in shared:
        yield Problem(
            path=where,
            text=f"port {port} is used by {shared[port]} on the same host: use 8443",
        )


def _refuse_balancer_role(cluster: Cluster, reason: str) -> Iterator[Problem]:
    for index, node in enumerate(cluster.nodes):
        if Role.LOAD_BALANCER in node.roles:
            text = f"remove load-balancer: {reason}"
            yield Problem(path=("nodes", index, "roles"), text=text)


def check_node_ports(cluster: Cluster) -> Iterator[Problem]:
    """A port range for NodePorts that holds a port in use."""
    low, high = (int(part) for part in cluster.network.node_port_range.split("-"))
    fixed = {port: unit for ports in PORTS.values() for port, unit in ports.items()}
    if cluster.control_plane.endpoint:
        fixed[int(cluster.control_plane.endpoint.rpartition(":")[2])] = "the endpoint"
    for port, unit in sorted(fixed.items()):
        if low <= port <= high:
            text = f"contains {port}, the port of {unit}: choose another range"
            yield Problem(path=("network", "node_port_range"), text=text)


def _address(host: str) -> IPv4Address | None:
    try:
        return IPv4Address(host)
    except ValueError:
        return None


def _looks_like_name(host: str) -> bool:
    return not host.replace(".", "").isdigit() and bool(DNS_NAME.fullmatch(host))
