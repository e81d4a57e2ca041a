"""Schema of cluster.yaml: nodes, their roles, the files of a site, and `extra`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from bundler.cluster.inputs import Packages
from bundler.cluster.schema_runtime import Runtime
from bundler.cluster.schema_settings import Etcd, Kubernetes, Monitoring
from bundler.cluster.taints import TaintText
from bundler.cluster.values import (
    Address,
    AnnotationKey,
    Arch,
    DnsLabel,
    FileMode,
    FileOwner,
    FlagValue,
    HostPath,
    Interface,
    Joins,
    LabelKey,
    LabelValue,
    Model,
    SameAs,
    San,
    SysctlName,
    SysctlValue,
    UnitName,
)


class Role(StrEnum):
    """What a node runs; a node may have several roles."""

    ETCD = "etcd"
    CONTROL_PLANE = "control-plane"
    LOAD_BALANCER = "load-balancer"
    REGISTRY = "registry"
    WORKER = "worker"


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


class SiteFile(Model):
    """One file of a site on a host."""

    content: str | None = Field(
        default=None,
        description="The text of the file, in place of a `source`; it may have several lines."
        " Example: `server 192.0.2.1 iburst`.",
    )
    source: Path | None = Field(
        default=None,
        description="The file on the builder; the path is relative to the file that names it. At"
        " most 4 MiB. Example: `site/chrony.conf`.",
    )
    mode: FileMode | None = Field(
        default=None,
        description="The mode of the file in quotes, without write access for group and others."
        " Default: `0644`; of a secret `0600`, and no other.",
    )
    owner: FileOwner = Field(
        default="root:root",
        description="USER:GROUP of the host, names or numbers. Example: `root:chrony`.",
    )
    secret: bool = Field(
        default=False,
        description="Only the owner may read the file (0600). It needs `source`; its content is in"
        " no diff, no log and no document, and a sealed bundle seals it.",
    )
    restart: tuple[UnitName, ...] = Field(
        default=(),
        description="Units that install.sh restarts when the file changes, comes or goes: of"
        " bundler or of the host. Example: `[chrony.service]`.",
    )
    reload: tuple[UnitName, ...] = Field(
        default=(),
        description="Units of the host that are reloaded in the same way, if they run.",
    )
    roles: tuple[Role, ...] = Field(
        default=(),
        description="Only hosts with one of these roles get the file: for `defaults` and groups."
        " Default: every host. Example: `[worker]`.",
    )

    @model_validator(mode="after")
    def _check_whole(self) -> "SiteFile":
        if (self.source is None) == (self.content is None):
            raise ValueError("give source or content")
        if self.secret and self.source is None:
            raise ValueError("a secret needs source: cluster.yaml is for version control")
        if self.secret and self.mode not in {None, "0600"}:
            raise ValueError("a secret has the mode 0600: remove mode")
        if not self.secret and self.mode == "0600":
            raise ValueError("0600 is the mode of secrets: add secret: true, or use 0640")
        return self


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
        " `kind: nginx-keepalived`. Hosts that `registry.nodes` names get the role registry; one"
        " that is nothing else has `[registry]` here. Example: `[etcd, control-plane]`."
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
    labels: dict[LabelKey, LabelValue] = Field(
        default_factory=dict,
        description="Labels of the Node object. A control plane sets them, so that `node-role`"
        " and `node-restriction.kubernetes.io/` labels work; one that is removed here is removed"
        " there, and labels that others set stay. A host without the role worker has no Node."
        ' Example: `{rack: "4", node-role.kubernetes.io/gpu: ""}`.',
    )
    annotations: dict[AnnotationKey, str] = Field(
        default_factory=dict,
        description="Annotations of the Node object, set in the same way; at most 32 KiB."
        " Example: `{example.com/owner: storage team}`.",
    )
    taints: Annotated[tuple[TaintText, ...], Joins()] = Field(
        default=(),
        description="Taints of the Node object, KEY=VALUE:EFFECT or KEY:EFFECT, set in the same"
        " way. A node with labels or taints registers with the taint"
        " `bundler/uninitialized:NoSchedule`, which a control plane removes when all are set: no"
        ' pod starts there before. Example: `["nvidia.com/gpu=:NoSchedule"]`.',
    )
    files: dict[HostPath, SiteFile] = Field(
        default_factory=dict,
        description="Files of the site for this host, by path: in the manifest, in diffs, in"
        " generations and in rollbacks like bundler's own; removed from here they are removed from"
        " the host, and what was there before comes back."
        " Example: `{/etc/chrony/conf.d/site.conf: {source: chrony.conf}}`.",
    )
    groups: tuple[DnsLabel, ...] = Field(
        default=(),
        description="The groups that the node is in, of `groups` at the top. A later group wins"
        " over an earlier one, and the node itself over all. Example: `[gpu, rack4]`.",
    )
    sans: Annotated[tuple[San, ...], Joins()] = Field(
        default=(),
        description="More DNS names and addresses under which clients reach this control plane or"
        " etcd member: they are in its certificates. Example: `[api.example, 198.51.100.7]`.",
    )
    sysctls: dict[SysctlName, SysctlValue] = Field(
        default_factory=dict,
        description="Kernel settings of the host, in addition to those that the node needs, for"
        " `/etc/sysctl.d/99-kubernetes.conf`. install.sh refuses a host whose kernel does not have"
        " them. Example: `{vm.max_map_count: 262144}`.",
    )
    runtime: Annotated[Runtime | None, SameAs()] = Field(
        default=None,
        description="What of the container runtime is different on this host."
        " Example: `{data_root: /data/containerd}`.",
    )
    packages: Annotated[Packages | None, SameAs()] = Field(
        default=None,
        description="The distribution of this host, and its packages. Hosts of one distribution get"
        " them from the same repositories; `names` and `add` may differ."
        " Example: `{os: ubuntu-24.04, add: [nvidia-container-toolkit]}`.",
    )
    extra: Annotated[dict[str, Extra] | None, SameAs()] = Field(
        default=None,
        description="More flags and configuration fields of programs on this host: of the kubelet,"
        " kube-proxy, the container runtime and flannel."
        " Example: `{kubelet: {config: {maxPods: 50}}}`.",
    )
    etcd: Annotated[Etcd | None, SameAs()] = Field(
        default=None,
        description="Where this etcd member has its data and snapshots."
        " Example: `{wal_dir: /nvme/etcd-wal}`.",
    )
    kubernetes: Annotated[Kubernetes | None, SameAs()] = Field(
        default=None, description="The kubelet's directory on this host."
    )
    monitoring: Annotated[Monitoring | None, SameAs()] = Field(
        default=None, description="What this host writes for a monitoring system."
    )
