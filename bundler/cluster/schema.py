"""The cluster description: frozen models that are the documented schema of cluster.yaml.

Only what one field can say about itself is checked here (types, ranges, unknown keys); what fields
say about one another is in `checks.py`. YAML and line numbers are `loader.py`'s.
"""

from enum import StrEnum
from ipaddress import IPv4Network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    Discriminator,
    Field,
    Tag,
)

from bundler.cluster.inputs import Image, Packages, Pin, UpstreamKey
from bundler.cluster.values import (
    Address,
    Arch,
    Cidr,
    DnsLabel,
    DnsName,
    FlagValue,
    HostPath,
    HostPort,
    Interface,
    Model,
    PortRange,
    RegistryMirror,
    Version,
)


class Role(StrEnum):
    """What a node does; a node may hold several roles."""

    ETCD = "etcd"
    CONTROL_PLANE = "control-plane"
    LOAD_BALANCER = "load-balancer"
    WORKER = "worker"


class Kubernetes(Model):
    """Which Kubernetes, and where the kubelet keeps pods' volumes and its certificates."""

    version: Version = "1.20.2"
    kubelet_root: HostPath = "/var/lib/kubelet"


Calendar = Annotated[str, Field(pattern=r"^[-A-Za-z0-9*:/,. ~]+$")]
"""When a timer does its work: systemd.time(7), OnCalendar."""


class EtcdBackup(Model):
    """Snapshots of etcd's data, taken on each member by etcd-backup.timer.

    `schedule` is when (systemd.time(7), OnCalendar); `keep` is how many stay in `directory`, each
    as large as the database at the time. `copy_to` is a mount point on another machine or disk,
    where the same snapshots go: while nothing is mounted there the copy fails, and says so.
    """

    enabled: bool = True
    schedule: Calendar = "00/6:30"
    keep: Annotated[int, Field(ge=1, le=1000)] = 8
    directory: HostPath = "/var/backups/etcd"
    copy_to: HostPath | None = None


class Etcd(Model):
    """Which etcd; the default is the version that goes with the Kubernetes minor.

    `defragment` is when each member gives unused space back (systemd.time(7), OnCalendar); members
    follow one another, and only while all are healthy.
    """

    version: Version | None = None
    data_dir: HostPath = "/var/lib/etcd"
    wal_dir: HostPath | None = None
    defragment: Calendar = "Sun 03:00"
    backup: EtcdBackup = EtcdBackup()


CgroupDriver = Literal["cgroupfs", "systemd"]


class Docker(Model):
    """Docker as the container runtime: through the kubelet's dockershim, from 1.24 cri-dockerd.

    The cgroup driver, the kubelet's too, is cgroupfs by default, and systemd from Kubernetes 1.30.
    """

    engine: Literal["docker"] = "docker"
    version: Version = "20.10.23"
    cri_dockerd: Version | None = None
    crictl: Version | Literal["none"] | None = None
    cgroup_driver: CgroupDriver | None = None
    registry_mirrors: tuple[RegistryMirror, ...] = ()
    data_root: HostPath = "/var/lib/docker"
    log_max_size: Annotated[str, Field(pattern=r"^\d+[kmg]$")] = "100m"
    log_max_file: Annotated[int, Field(ge=1, le=100)] = 5


class Registry(Model):
    """How containerd reaches the registry `host` (or Docker Hub: docker.io), once there is one.

    Mirrors are tried in order, then the registry itself. `ca` is a PEM file that signs for them.
    """

    host: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?(:\d{1,5})?$")]
    mirrors: tuple[RegistryMirror, ...] = ()
    ca: Path | None = None
    insecure: bool = False


class Containerd(Model):
    """containerd as the container runtime, through CRI; no Docker on the host.

    Versions are by default those that go with the Kubernetes minor; crictl comes along unless
    `crictl: none`. The cgroup driver is cgroupfs by default, and systemd from Kubernetes 1.30.
    """

    engine: Literal["containerd"]
    version: Version | None = None
    runc: Version | None = None
    crictl: Version | Literal["none"] | None = None
    cgroup_driver: CgroupDriver | None = None
    registries: tuple[Registry, ...] = ()
    data_root: HostPath = "/var/lib/containerd"


def _engine_of(value: object) -> object:
    """Docker, unless another engine is named."""
    return (
        value.get("engine", "docker") if isinstance(value, dict) else getattr(value, "engine", "")
    )


Runtime = Annotated[
    Annotated[Docker, Tag("docker")] | Annotated[Containerd, Tag("containerd")],
    Discriminator(_engine_of),
]


class Flannel(Model):
    """flannel, run as a unit on every worker.

    `store: kubernetes` keeps subnets in Node objects and feeds a CNI chain; `store: etcd` keeps
    them in etcd's v2 API and feeds dockerd's bridge, as Kubernetes was set up by hand in 2019.
    """

    version: Version | None = None
    backend: Literal["vxlan", "host-gw"] = "vxlan"
    store: Literal["kubernetes", "etcd"] = "kubernetes"
    etcd_prefix: HostPath = "/kubernetes/network"


class Network(Model):
    """Addresses inside the cluster, and how pods reach one another.

    `proxy_mode` is ipvs by default, and nftables from Kubernetes 1.33.
    """

    plugin: Literal["static", "flannel"] = "static"
    flannel: Flannel = Flannel()
    pod_cidr: Cidr = IPv4Network("10.200.0.0/16")
    pod_subnet_prefix: Annotated[int, Field(ge=20, le=28)] = 24
    service_cidr: Cidr = IPv4Network("10.254.0.0/16")
    node_port_range: PortRange = "30000-32767"
    proxy_mode: Literal["ipvs", "iptables", "nftables"] | None = None
    dns_domain: DnsName = "cluster.local"


class Dns(Model):
    """Cluster DNS. `upstream` answers what lies outside: addresses, or the nodes' own resolvers.

    Without upstream nothing outside the cluster has a name.
    """

    provider: Literal["coredns", "none"] = "coredns"
    version: Version | None = None
    replicas: Annotated[int, Field(ge=1, le=20)] = 2
    upstream: Literal["host"] | tuple[Address, ...] = "host"


class MetricsServer(Model):
    """What `kubectl top` and autoscalers read: `metrics_server: {}` adds it."""

    version: Version | None = None


class NginxKeepalived(Model):
    """nginx as a TCP proxy on every load-balancer node; keepalived moves the endpoint's address."""

    kind: Literal["nginx-keepalived"]
    interface: Interface
    virtual_router_id: Annotated[int, Field(ge=1, le=255)] | None = None


class NodeLocal(Model):
    """nginx on every node, on loopback: no virtual address that the network must know."""

    kind: Literal["node-local"]


class ExternalLoadBalancer(Model):
    """The endpoint is somebody else's load balancer, in front of every control-plane node."""

    kind: Literal["external"]


LoadBalancer = Annotated[
    NginxKeepalived | NodeLocal | ExternalLoadBalancer, Field(discriminator="kind")
]


class ControlPlane(Model):
    """Where clients reach the API: by default the only control-plane node, on port 6443.

    With a node-local load balancer the endpoint is 127.0.0.1:8443 on every node.
    """

    endpoint: HostPort | None = None
    load_balancer: LoadBalancer | None = None


class Node(Model):
    """One host."""

    name: DnsLabel
    address: Address
    roles: Annotated[tuple[Role, ...], Field(min_length=1)]
    arch: Arch = Arch.AMD64


class Extra(Model):
    """Flags and configuration fields of one component, added to or replacing what bundler sets."""

    flags: dict[Annotated[str, Field(pattern=r"^[a-z][-a-z0-9]*$")], FlagValue] = Field(
        default_factory=dict
    )
    config: dict[str, object] = Field(default_factory=dict)


class PkiSettings(Model):
    """How keys are made, who signs them, and how long certificates last (days).

    `single` signs for Kubernetes, etcd and the front proxy with one authority.
    """

    authorities: Literal["separate", "single"] = "separate"
    key: Literal["ecdsa-p256", "rsa-2048"] = "ecdsa-p256"
    ca_days: Annotated[int, Field(ge=30, le=36500)] = 3650
    days: Annotated[int, Field(ge=1, le=3650)] = 365


class Upgrade(Model):
    """How workers follow one another when what runs their pods is replaced.

    No more than `max_unavailable` of them are away at a time. Each is drained first: its pods have
    `drain_minutes` to go to other nodes, disruption budgets observed; if they do not, nothing is
    changed on that host.
    """

    max_unavailable: Annotated[int, Field(ge=1, le=1000)] = 1
    drain_minutes: Annotated[int, Field(ge=1, le=240)] = 10


class Monitoring(Model):
    """What hosts write for your monitoring.

    `textfile_dir` is where node_exporter's textfile collector looks (its flag
    --collector.textfile.directory; the default is Debian's). If it is there, kube-certs.timer
    writes to it when each certificate of the host ends.
    """

    textfile_dir: HostPath = "/var/lib/prometheus/node-exporter"


class Cluster(Model):
    """The whole of cluster.yaml."""

    api_version: Literal["bundler/v1alpha1"] = Field(alias="apiVersion")
    name: DnsLabel
    kubernetes: Kubernetes = Kubernetes()
    etcd: Etcd = Etcd()
    runtime: Runtime = Docker()
    network: Network = Network()
    dns: Dns = Dns()
    metrics_server: MetricsServer | None = None
    pki: PkiSettings = PkiSettings()
    upgrade: Upgrade = Upgrade()
    monitoring: Monitoring = Monitoring()
    control_plane: ControlPlane = ControlPlane()
    nodes: Annotated[tuple[Node, ...], Field(min_length=1)]
    images: tuple[Image, ...] = ()
    artifacts: dict[str, Pin] = Field(default_factory=dict)
    upstream_keys: dict[str, UpstreamKey] = Field(default_factory=dict)
    packages: Packages | None = None
    extra: dict[str, Extra] = Field(default_factory=dict)

    def having(self, role: Role) -> tuple[Node, ...]:
        """The nodes with a role, in the order of the file."""
        return tuple(node for node in self.nodes if role in node.roles)
