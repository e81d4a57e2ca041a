"""Schema of cluster.yaml: frozen models, with a description of each key.

A model checks single fields: types, ranges, unknown keys. `checks.py` checks fields against one
another; `loader.py` reads YAML and finds line numbers. `bundler explain KEY` and the reference page
(docs/reference/cluster-yaml.md) show the descriptions.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from bundler.cluster.inputs import Image, Packages, Pin, UpstreamKey
from bundler.cluster.schema_addons import Addon
from bundler.cluster.schema_audit import Audit
from bundler.cluster.schema_encryption import Encryption
from bundler.cluster.schema_network import (
    ControlPlane,
    ExternalLoadBalancer,
    Network,
    NginxKeepalived,
    NodeLocal,
)
from bundler.cluster.schema_nodes import Extra, Node, Role, SiteFile
from bundler.cluster.schema_policy import (
    Admission,
    Authentication,
    Authorization,
    Tls,
)
from bundler.cluster.schema_registry import RegistryService
from bundler.cluster.schema_runtime import Containerd, Docker, Registry, Runtime
from bundler.cluster.schema_settings import (
    Dns,
    Etcd,
    EtcdBackup,
    Kubernetes,
    Lifecycle,
    MetricsServer,
    Monitoring,
    PkiSettings,
    Security,
    Upgrade,
)
from bundler.cluster.values import (
    Acknowledged,
    DnsLabel,
    Joins,
    Model,
    PartPath,
    PerHost,
    SameAs,
    find_mark,
)

__all__ = [
    "Cluster",
    "Containerd",
    "Docker",
    "Etcd",
    "EtcdBackup",
    "ExternalLoadBalancer",
    "Extra",
    "NginxKeepalived",
    "Node",
    "NodeLocal",
    "Registry",
    "Role",
    "SiteFile",
]


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
        default_factory=Kubernetes,
        description="The Kubernetes version, and the kubelet's directory.",
    )
    etcd: Etcd = Field(
        default=Etcd(), description="The etcd version, its directories, maintenance and backup."
    )
    runtime: Runtime = Field(
        default=Containerd(),
        description="The container runtime of the workers: containerd by default. Its other keys"
        " depend on `engine`. Example: `{engine: docker}`.",
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
    tls: Tls = Field(
        default=Tls(), description="The TLS versions and cipher suites that every server accepts."
    )
    admission: Admission | None = Field(
        default=None, description="What API servers check before they store an object."
    )
    authentication: Authentication | None = Field(
        default=None,
        description="Whom API servers know, in addition to certificates, service accounts and"
        " bootstrap tokens.",
    )
    authorization: Authorization | None = Field(
        default=None,
        description="Who may do what, in addition to Node and RBAC, which are always in force.",
    )
    audit: Audit = Field(
        default=Audit(),
        description="What API servers record in their audit log, and where events go.",
    )
    encryption: Encryption = Field(
        default=Encryption(), description="How Secrets are encrypted in etcd."
    )
    profile: Literal["cis", "stig"] | None = Field(
        default=None,
        description="A benchmark that the cluster meets, from Kubernetes 1.20 on: `cis`, the CIS"
        " Kubernetes Benchmark, or `stig`, which is the same with what DISA's STIG adds. It sets"
        " `tls.cipher_suites`, `admission.pod_security` and `admission.plugins` where the file does"
        " not have them, and `bundler check` refuses what contradicts it. Default: none.",
    )
    security: Security = Field(
        default=Security(),
        description="Settings that weaken the cluster and are accepted; UIDs of units.",
    )
    lifecycle: Lifecycle = Field(
        default=Lifecycle(),
        description="Release lines that upstream no longer maintains and that are accepted.",
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
    include: tuple[PartPath, ...] = Field(
        default=(),
        description="Files with keys of cluster.yaml that this one is merged over: later files win"
        " over earlier ones, and this file over all. Paths are relative to the file that names"
        " them; one file needs no list. Example: `[../base.yaml]`.",
    )
    defaults: dict[str, object] = Field(
        default_factory=dict,
        description="Keys of `nodes` that every node has unless a group or the node itself says"
        " otherwise; not `name`, `address` and `groups`. Example: `{arch: arm64}`.",
    )
    groups: dict[DnsLabel, dict[str, object]] = Field(
        default_factory=dict,
        description="Keys of `nodes` that all nodes have which name the group in their own"
        " `groups`; not `name`, `address` and `groups`."
        " Example: `{ssd: {runtime: {data_root: /ssd/containerd}}}`.",
    )
    nodes_from: tuple[PartPath, ...] = Field(
        default=(),
        description="Files with more nodes, after those of `nodes`: a YAML file with a list, or a"
        " CSV file whose first line names columns: keys of a node, or paths such as"
        " `runtime.data_root`. Items of a list are separated by spaces. Paths are relative to the"
        " file that names them; one file needs no list. Example: `[racks.csv]`.",
    )
    nodes: Annotated[tuple[Node, ...], Field(min_length=1), Joins()] = Field(
        description="The hosts of the cluster. At least one must have the role control-plane and"
        " one the role etcd; take an odd number of etcd members.",
    )
    images: Annotated[tuple[Image, ...], Joins("ref")] = Field(
        default=(),
        description="Container images that every worker gets, or the registry. Images that the"
        " cluster itself needs (pause, CoreDNS, metrics-server) and those that `addons` name are"
        " added from their registry unless they are listed here.",
    )
    registry: RegistryService | None = Field(
        default=None,
        description="An image registry on hosts of the cluster: every worker pulls images with"
        " `where: registry` from it, and named users may push. Example: `{nodes: [master1]}`."
        " Default: none.",
    )
    images_not_needed: Annotated[tuple[Acknowledged, ...], Joins()] = Field(
        default=(),
        description="What looks like an image in `addons` and is not one, or is not needed; and"
        " workloads that start pods of their own, whose images you have added to `images`."
        " `bundler images` lists what cannot be proved."
        " Example: `[quay.example/tools/debug:1.0, Deployment/cert-manager/cert-manager]`.",
    )
    addons: Annotated[tuple[Addon, ...], Joins("name")] = Field(
        default=(),
        description="What the control planes apply to the cluster: manifests with the images that"
        " they name. Example: `[{name: policies, manifests: addons/policies/}]`.",
    )
    artifacts: dict[str, Pin] = Field(
        default_factory=dict,
        description="URLs or digests of upstream files, in place of the built-in ones. A key is a"
        " component, or COMPONENT/ARCH in a cluster with two architectures. `bundler versions`"
        " lists the components; `kubelet` and other programs of Kubernetes can be pinned alone."
        " Example: `{etcd: {url: https://mirror.example/etcd.tar.gz}}`.",
    )
    upstream_keys: dict[str, UpstreamKey] = Field(
        default_factory=dict,
        description="The keys that must have signed a component's files. `bundler lock` verifies"
        " the signatures and records them; `bundler build` refuses a file without that record."
        " Example: `{runc: {openpgp: keys/runc.keyring}}`.",
    )
    packages: Annotated[Packages | None, PerHost()] = Field(
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

    def list_pinned(self, arch: str) -> frozenset[str]:
        """The components that `artifacts` pins for an architecture."""
        names = (name.partition("/") for name in self.artifacts)
        return frozenset(component for component, _, machine in names if machine in {"", arch})

    def on_host(self, node: Node) -> "Cluster":
        """The cluster as one host has it: with what the node has of its own in place."""
        own: dict[str, object] = {}
        for name, field in Node.model_fields.items():
            if find_mark(field, SameAs) and name in node.model_fields_set:
                value = getattr(node, name)
                theirs = type(self).model_fields[name]
                is_dropped = value is None
                own[name] = theirs.get_default(call_default_factory=True) if is_dropped else value
        return self.model_copy(update=own) if own else self

    def list_packages(self) -> dict[str, Packages]:
        """Distribution → `packages` of its first host; `names` and `add` of others may differ."""
        found: dict[str, Packages] = {}
        for node in self.nodes:
            own = node.packages if "packages" in node.model_fields_set else self.packages
            if own:
                found.setdefault(own.os, own)
        return found

    def list_extra(self) -> Iterator[tuple[str, Extra]]:
        """Component and what `extra` has for it: of all hosts, then of single ones."""
        yield from self.extra.items()
        for node in self.nodes:
            yield from (node.extra or {}).items()

    def having(self, role: Role) -> tuple[Node, ...]:
        """The nodes with a role, in the order of the file."""
        return tuple(node for node in self.nodes if role in node.roles)
