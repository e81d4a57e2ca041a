"""Cluster → Plan: every default made explicit, every address and name decided, nothing on disk touched."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from bundler.config import Arch, Cluster, Image, Role


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlan:
    """One host: who it is, what it runs, and its own pod subnet (workers only)."""

    name: str
    address: IPv4Address
    roles: tuple[Role, ...]
    arch: Arch
    pod_subnet: IPv4Network | None

    def has(self, role: Role) -> bool:
        """Whether the node holds the role."""
        return role in self.roles


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The whole cluster, decided."""

    cluster: Cluster
    nodes: tuple[NodePlan, ...]
    endpoint_host: str  # an address or a DNS name
    endpoint_port: int
    service_ip: IPv4Address  # the kubernetes Service: first address of the service CIDR
    dns_ip: IPv4Address  # cluster DNS: second address of the service CIDR
    etcd_version: str

    @property
    def name(self) -> str:
        """The cluster's name."""
        return self.cluster.name

    @property
    def endpoint(self) -> str:
        """The URL under which every client reaches the API."""
        return f"https://{self.endpoint_host}:{self.endpoint_port}"

    def having(self, role: Role) -> tuple[NodePlan, ...]:
        """The nodes that hold the role, in the order of cluster.yaml."""
        return tuple(node for node in self.nodes if node.has(role))
