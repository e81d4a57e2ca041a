"""Schema of `network` and `control_plane`: addresses, the pod network and the API's endpoint."""

from ipaddress import IPv4Network
from typing import Annotated, Literal

from pydantic import Field

from bundler.cluster.values import (
    Cidr,
    DnsLabel,
    DnsName,
    HostPath,
    HostPort,
    Interface,
    Model,
    PortRange,
    Version,
)


class Flannel(Model):
    """Settings of flannel, which runs as a systemd unit on every worker."""

    version: Version | None = Field(
        default=None,
        description="The version of flannel. Default: the version that belongs to the Kubernetes"
        " minor; with `store: etcd` 0.11.0, because flannel 0.18 and later cannot use etcd's v2"
        " API. With `store: kubernetes` 0.14 or later, which reloads the kubelet's certificate.",
    )
    backend: Literal["vxlan", "host-gw"] = Field(
        default="vxlan",
        description="How packets get from node to node: `vxlan` encapsulates them (UDP port 8472),"
        " `host-gw` sets routes and needs all workers in one layer-2 network.",
    )
    store: Literal["kubernetes", "etcd"] = Field(
        default="kubernetes",
        description="Where subnets are stored. `kubernetes`: in the Node objects; pods get their"
        " addresses through CNI. `etcd`: in etcd's v2 API, for dockerd's bridge, as clusters were"
        " set up by hand in 2019; each worker can then change all subnets, through a proxy on the"
        " etcd hosts, which need nginx.",
    )
    etcd_prefix: HostPath = Field(
        default="/kubernetes/network",
        description="With `store: etcd`: the key in etcd under which flannel stores its"
        " configuration and subnets.",
    )


class NetworkPolicy(Model):
    """What enforces NetworkPolicies; without an engine they have no effect."""

    engine: Literal["kube-router", "addon", "none"] = Field(
        default="none",
        description="`kube-router`: its firewall runs as a systemd unit on every worker, and a new"
        " pod has no network until its rules are there. `addon`: an add-on enforces them, that of"
        " the pod network or another one, and verify.sh proves it. `none`: NetworkPolicies have no"
        " effect.",
    )
    version: Version | None = Field(
        default=None,
        description="The version of kube-router. Default: 1.6.1, from Kubernetes 1.21 on 2.11.1."
        " bundler has no digest of it: pin the file under `artifacts`.",
    )
    default_deny: tuple[DnsLabel, ...] = Field(
        default=(),
        description="Namespaces that get a NetworkPolicy `bundler-default-deny`: their pods may"
        " send and receive only what other policies allow. A missing namespace is created."
        " Example: `[payments]`.",
    )


class Network(Model):
    """Addresses inside the cluster, and how pods reach one another."""

    plugin: Literal["static", "flannel", "addon"] = Field(
        default="static",
        description="The pod network. `static` sets routes between hosts of one layer-2 network and"
        " runs no daemon. `flannel` also works across routed networks, and with `addon` one of"
        " `addons` makes it, such as Calico.",
    )
    addon: DnsLabel | None = Field(
        default=None,
        description="The add-on that makes the pod network; only with `plugin: addon`. It is"
        " applied before all others but those that it needs. Example: `calico`.",
    )
    flannel: Flannel = Field(
        default=Flannel(), description="Settings of flannel; only with `plugin: flannel`."
    )
    policy: NetworkPolicy = Field(
        default=NetworkPolicy(), description="What enforces NetworkPolicies, if anything does."
    )
    pod_cidr: Cidr = Field(
        default=IPv4Network("10.200.0.0/16"),
        description="The range of the pods' addresses. It must not overlap `service_cidr` or hold a"
        " node's address.",
    )
    pod_subnet_prefix: int = Field(
        default=24,
        ge=20,
        le=28,
        description="The prefix length of each worker's part of `pod_cidr`. `24` gives a worker"
        " room for 220 pods, and a /16 room for 256 workers.",
    )
    service_cidr: Cidr = Field(
        default=IPv4Network("10.254.0.0/16"),
        description="The range of the Services' addresses, /12 to /28. The API is its first"
        " address, cluster DNS its second.",
    )
    node_port_range: PortRange = Field(
        default="30000-32767", description="The ports of NodePort Services: LOW-HIGH."
    )
    proxy_mode: Literal["ipvs", "iptables", "nftables", "none"] | None = Field(
        default=None,
        description="How kube-proxy forwards Services. Default: `ipvs`, from Kubernetes 1.33"
        " `nftables`, which needs 1.31; `ipvs` is deprecated from 1.35. With `none` hosts have no"
        " kube-proxy, because the add-on of `plugin: addon` forwards Services.",
    )
    dns_domain: DnsName = Field(
        default="cluster.local", description="The DNS domain of Services and pods."
    )


class NginxKeepalived(Model):
    """A virtual address that keepalived moves, with nginx as TCP proxy behind it."""

    kind: Literal["nginx-keepalived"] = Field(
        description="`nginx-keepalived`: nginx on every node with the role load-balancer forwards"
        " to the API servers, and keepalived keeps the endpoint's address on one of these nodes."
    )
    interface: Interface | None = Field(
        default=None,
        description="The network interface that gets the virtual address, if it has the same name"
        " on every load-balancer node. Default: on each host the interface that has the node's"
        " address. A node may name its own (`nodes.interface`). Example: `eth0`.",
    )
    virtual_router_id: int | None = Field(
        default=None,
        ge=1,
        le=255,
        description="The VRRP router id, which must be unique in the layer-2 network. Default: the"
        " last number of the endpoint's address.",
    )


class NodeLocal(Model):
    """nginx on the loopback address of every node; no virtual address."""

    kind: Literal["node-local"] = Field(
        description="`node-local`: nginx on the loopback address of every control-plane node and"
        " worker forwards to the API servers. The network needs no virtual address."
    )


class ExternalLoadBalancer(Model):
    """A load balancer that you run outside the cluster."""

    kind: Literal["external"] = Field(
        description="`external`: `endpoint` is a load balancer that you run. It must forward to"
        " port 6443 of every control-plane node."
    )


LoadBalancer = Annotated[
    NginxKeepalived | NodeLocal | ExternalLoadBalancer, Field(discriminator="kind")
]


class ControlPlane(Model):
    """Where clients reach the API."""

    endpoint: HostPort | None = Field(
        default=None,
        description="HOST:PORT under which all clients reach the API; required with a load balancer"
        " other than `kind: node-local`. Default: port 6443 of the only control-plane node; with"
        " `kind: node-local` 127.0.0.1:8443. Example: `192.0.2.100:8443`.",
    )
    load_balancer: LoadBalancer | None = Field(
        default=None,
        description="What distributes API connections over the control-plane nodes. Required with"
        " two or more of them.",
    )
