"""Schema of cluster.yaml: frozen models, with a description of each key.

A model checks single fields: types, ranges, unknown keys. `checks.py` checks fields against one
another; `loader.py` reads YAML and finds line numbers. `bundler explain KEY` and the reference page
(docs/reference/cluster-yaml.md) show the descriptions.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from bundler.cluster.inputs import Image, Packages, Pin, UpstreamKey
from bundler.cluster.schema_network import (
    ControlPlane,
    ExternalLoadBalancer,
    Network,
    NginxKeepalived,
    NodeLocal,
)
from bundler.cluster.schema_runtime import Containerd, Docker, Registry, Runtime
from bundler.cluster.values import (
    Address,
    Arch,
    Calendar,
    DnsLabel,
    FlagValue,
    HostPath,
    Interface,
    Model,
    Version,
)

__all__ = [
    "Cluster",
    "Containerd",
    "Docker",
    "Etcd",
    "EtcdBackup",
    "ExternalLoadBalancer",
    "NginxKeepalived",
    "Node",
    "NodeLocal",
    "Registry",
    "Role",
]


class Role(StrEnum):
    """What a node runs; a node may have several roles."""

    ETCD = "etcd"
    CONTROL_PLANE = "control-plane"
    LOAD_BALANCER = "load-balancer"
    WORKER = "worker"


class Kubernetes(Model):
    """The Kubernetes version, and the kubelet's directory."""

    version: Version = Field(
        default="1.20.2",
        description="The version of Kubernetes, 1.14 to 1.36. Most other components get the version"
        " that belongs to this minor unless their own key says otherwise. Example: `1.36.2`.",
    )
    kubelet_root: HostPath = Field(
        default="/var/lib/kubelet",
        description="The kubelet's directory: pod volumes, and its own certificates.",
    )


class EtcdBackup(Model):
    """Snapshots of etcd, taken on each member by etcd-backup.timer."""

    enabled: bool = Field(default=True, description="Take snapshots on every etcd member.")
    schedule: Calendar = Field(
        default="00/6:30",
        description="When snapshots are taken: OnCalendar of systemd.time(7). The default is 00:30,"
        " 06:30, 12:30 and 18:30.",
    )
    keep: int = Field(
        default=8,
        ge=1,
        le=1000,
        description="How many snapshots are kept in `directory`, the oldest being deleted first."
        " Each is as large as the database was.",
    )
    directory: HostPath = Field(
        default="/var/backups/etcd",
        description="Where snapshots are stored on each member. It must not be in etcd's own"
        " directories.",
    )
    copy_to: HostPath | None = Field(
        default=None,
        description="A mount point of another machine or disk, to which snapshots are also copied."
        " While nothing is mounted there the copy fails with an error. Example: `/mnt/backup`.",
    )


class Etcd(Model):
    """The etcd version, its directories and its maintenance."""

    version: Version | None = Field(
        default=None,
        description="The version of etcd. Default: the version that belongs to the Kubernetes"
        " minor.",
    )
    data_dir: HostPath = Field(
        default="/var/lib/etcd",
        description="The directory of etcd's data. uninstall.sh removes it only with --purge-data.",
    )
    wal_dir: HostPath | None = Field(
        default=None,
        description="A directory on another disk for the write-ahead log. Default: inside"
        " `data_dir`. Example: `/data/etcd-wal`.",
    )
    defragment: Calendar = Field(
        default="Sun 03:00",
        description="When each member returns unused space to the disk: OnCalendar of"
        " systemd.time(7). Members do it one after another, and only while all are healthy.",
    )
    backup: EtcdBackup = Field(
        default=EtcdBackup(), description="Snapshots of etcd that each member takes by itself."
    )


class Dns(Model):
    """Cluster DNS."""

    provider: Literal["coredns", "none"] = Field(
        default="coredns",
        description="The DNS server of the cluster. With `none` pods cannot find Services by name.",
    )
    version: Version | None = Field(
        default=None,
        description="The version of CoreDNS. Default: the version that belongs to the Kubernetes"
        " minor.",
    )
    replicas: int = Field(default=2, ge=1, le=20, description="How many CoreDNS pods run.")
    upstream: Literal["host"] | tuple[Address, ...] = Field(
        default="host",
        description="The DNS servers for names outside the cluster: `host` for the resolvers of the"
        " node, or a list of addresses. With `[]` pods can resolve only names of the cluster."
        " Example: `[192.0.2.53]`.",
    )


class MetricsServer(Model):
    """metrics-server, which `kubectl top` and autoscalers read."""

    version: Version | None = Field(
        default=None,
        description="The version of metrics-server. Default: the version that belongs to the"
        " Kubernetes minor.",
    )


class Node(Model):
    """One host of the cluster."""

    name: DnsLabel = Field(
        description="The name of the node: a DNS label that is unique in the cluster. The host may"
        " have another hostname. Example: `worker1`."
    )
    address: Address = Field(
        description="The IPv4 address under which the other hosts reach this one, unique in the"
        " cluster. Example: `192.0.2.21`."
    )
    roles: Annotated[tuple[Role, ...], Field(min_length=1)] = Field(
        description="What the host runs. `load-balancer` is used only with"
        " `kind: nginx-keepalived`. Example: `[etcd, control-plane]`."
    )
    arch: Arch = Field(
        default=Arch.AMD64,
        description="The CPU architecture of the host. A cluster may mix both.",
    )
    interface: Interface | None = Field(
        default=None,
        description="The network interface of this load balancer that gets the virtual address;"
        " only with `kind: nginx-keepalived`. Default: `control_plane.load_balancer.interface`, or"
        " the interface that has the node's address. Example: `ens3`.",
    )


class Extra(Model):
    """Flags and configuration fields of one component, in addition to what bundler sets."""

    flags: dict[Annotated[str, Field(pattern=r"^[a-z][-a-z0-9]*$")], FlagValue] = Field(
        default_factory=dict,
        description="Command-line flags without `--`. They replace bundler's value, except for"
        " flags that `bundler explain COMPONENT --version MINOR` marks with `*`. Flags that the"
        " program does not have in that version are refused. Example: `{v: 4}`.",
    )
    config: dict[str, object] = Field(
        default_factory=dict,
        description="Fields of the component's configuration file, merged over bundler's. Fields"
        " that the program does not have in that version are refused."
        " Example: `{maxPods: 110}` of the kubelet.",
    )


class PkiSettings(Model):
    """CAs, key type and lifetimes of certificates."""

    authorities: Literal["separate", "single"] = Field(
        default="separate",
        description="`separate`: Kubernetes, etcd and the front proxy each have their own CA."
        " `single`: one CA signs everything, and etcd accepts every client certificate of the"
        " cluster; only for compatibility.",
    )
    key: Literal["ecdsa-p256", "rsa-2048"] = Field(
        default="ecdsa-p256",
        description="The key type of CAs and certificates. `rsa-2048` is for clients that cannot"
        " use ECDSA.",
    )
    ca_days: int = Field(
        default=3650, ge=30, le=36500, description="How many days a new CA certificate is valid."
    )
    days: int = Field(
        default=365,
        ge=1,
        le=3650,
        description="How many days other new certificates are valid. `bundler certs renew` issues"
        " new ones.",
    )
    token_days: int = Field(
        default=30,
        ge=1,
        le=365,
        description="How many days after its creation a worker can join with its bootstrap token."
        " A build replaces tokens that have ended. A token is used once: a host that is installed"
        " again needs a new one from `bundler tokens renew`.",
    )


class Audit(Model):
    """What API servers record in their audit log."""

    policy: Path | None = Field(
        default=None,
        description="A file with an audit policy (`audit.k8s.io/v1`) that replaces bundler's. The"
        " path is relative to cluster.yaml; rules that log secrets are warnings. Default: who"
        " changed what, without the content of anything that can hold a secret.",
    )


class Security(Model):
    """Weak settings that this cluster needs."""

    accept: tuple[DnsLabel, ...] = Field(
        default=(),
        description="The names of settings that weaken the cluster and are wanted. `bundler check`"
        " names each that it finds; without its name here `--strict` refuses it. RUNBOOK.md and"
        " verify.sh list what is accepted. Example: `[apiserver-profiling]`.",
    )


class Upgrade(Model):
    """How workers are upgraded one after another."""

    max_unavailable: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="How many workers may be drained or not Ready at the same time. Other workers"
        " wait.",
    )
    drain_minutes: int = Field(
        default=10,
        ge=1,
        le=240,
        description="How many minutes a drain may take. Pod disruption budgets are respected; if"
        " pods are still there after that time, the installation stops and changes nothing.",
    )


class Monitoring(Model):
    """What hosts write for a monitoring system."""

    textfile_dir: HostPath = Field(
        default="/var/lib/prometheus/node-exporter",
        description="The directory of node_exporter's textfile collector (its flag"
        " --collector.textfile.directory). If it exists, kube-certs.timer writes there when each"
        " certificate of the host expires. The default is Debian's.",
    )


class Cluster(Model):
    """The complete cluster.yaml."""

    api_version: Literal["bundler/v1alpha1"] = Field(
        alias="apiVersion", description="The version of this file format."
    )
    name: DnsLabel = Field(
        description="The name of the cluster, a DNS label. It is part of the bundles' file names."
        " Example: `production`."
    )
    kubernetes: Kubernetes = Field(
        default=Kubernetes(), description="The Kubernetes version, and the kubelet's directory."
    )
    etcd: Etcd = Field(
        default=Etcd(), description="The etcd version, its directories, maintenance and backup."
    )
    runtime: Runtime = Field(
        default=Docker(),
        description="The container runtime of the workers: Docker by default. Its other keys depend"
        " on `engine`. Example: `{engine: containerd}`.",
    )
    network: Network = Field(
        default=Network(), description="Addresses inside the cluster, and the pod network."
    )
    dns: Dns = Field(default=Dns(), description="Cluster DNS.")
    metrics_server: MetricsServer | None = Field(
        default=None,
        description="Adds metrics-server, which `kubectl top` and autoscalers read:"
        " `metrics_server: {}`. Default: not installed.",
    )
    pki: PkiSettings = Field(
        default=PkiSettings(), description="CAs, key type and lifetimes of certificates."
    )
    audit: Audit = Field(default=Audit(), description="What API servers record in their audit log.")
    security: Security = Field(
        default=Security(), description="Settings that weaken the cluster and are accepted."
    )
    upgrade: Upgrade = Field(
        default=Upgrade(), description="How workers are drained and upgraded one after another."
    )
    monitoring: Monitoring = Field(
        default=Monitoring(), description="What hosts write for a monitoring system."
    )
    control_plane: ControlPlane = Field(
        default=ControlPlane(), description="Where clients reach the API, and its load balancer."
    )
    nodes: Annotated[tuple[Node, ...], Field(min_length=1)] = Field(
        description="The hosts of the cluster. At least one must have the role control-plane and"
        " one the role etcd; take an odd number of etcd members.",
    )
    images: tuple[Image, ...] = Field(
        default=(),
        description="Container images that every worker gets. Images that the cluster itself needs"
        " (pause, CoreDNS, metrics-server) are added from their upstream registry unless they are"
        " listed here.",
    )
    artifacts: dict[str, Pin] = Field(
        default_factory=dict,
        description="URLs or digests of upstream files, in place of the built-in ones. A key is a"
        " component, or COMPONENT/ARCH in a cluster with two architectures. `bundler versions`"
        " lists the components. Example: `{etcd: {url: https://mirror.example/etcd.tar.gz}}`.",
    )
    upstream_keys: dict[str, UpstreamKey] = Field(
        default_factory=dict,
        description="The keys that must have signed a component's files. `bundler lock` verifies"
        " the signatures and records them; `bundler build` refuses a file without that record."
        " Example: `{runc: {openpgp: keys/runc.keyring}}`.",
    )
    packages: Packages | None = Field(
        default=None,
        description="Packages of the hosts' operating system that the bundles carry, with their"
        " dependencies. Default: none; the hosts must have them. Example: `{os: debian-12}`.",
    )
    extra: dict[str, Extra] = Field(
        default_factory=dict,
        description="More flags and configuration fields, by component. They are checked against"
        " the flags and fields of the program's version."
        " Example: `{kubelet: {config: {maxPods: 110}}}`.",
    )

    def having(self, role: Role) -> tuple[Node, ...]:
        """The nodes with a role, in the order of the file."""
        return tuple(node for node in self.nodes if role in node.roles)
