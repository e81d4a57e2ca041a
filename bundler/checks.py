"""What the fields of a cluster description say about one another."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from bundler.catalog import COMPONENTS, default_version
from bundler.catalog.signatures import Scheme
from bundler.components import (
    API_PORT,
    EXTRA_COMPONENTS,
    MINORS,
    PORTS,
    PROXY_MODES,
    RUNTIMES,
    Span,
    key_of,
    minor_of,
)
from bundler.config import (
    Arch,
    Cluster,
    Containerd,
    Docker,
    ExternalLoadBalancer,
    NginxKeepalived,
    Node,
    NodeLocal,
    Role,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something wrong at `path` of cluster.yaml; a warning does not stop a build."""

    path: tuple[str | int, ...]
    text: str
    is_error: bool = True


def check_cluster(cluster: Cluster) -> Iterator[Problem]:
    """Every problem of the whole description; touches neither disk nor network."""
    yield from _check_versions(cluster)
    yield from _check_runtime(cluster)
    if minor_of(cluster.kubernetes.version) in MINORS:
        yield from _check_proxy_mode(cluster)
        yield from _check_flannel(cluster)
        yield from _check_weak(cluster)
    yield from _check_nodes(cluster)
    yield from _check_roles(cluster)
    yield from _check_backup(cluster)
    yield from _check_networks(cluster)
    yield from _check_endpoint(cluster)
    yield from _check_node_ports(cluster)
    yield from _check_names(cluster)
    yield from _check_upstream_keys(cluster)


def _check_versions(cluster: Cluster) -> Iterator[Problem]:
    minor = minor_of(cluster.kubernetes.version)
    if minor not in MINORS:
        yield Problem(
            path=("kubernetes", "version"),
            text=f"no table knows Kubernetes {minor}: choose {MINORS[0]} to {MINORS[-1]}",
        )


def _check_runtime(cluster: Cluster) -> Iterator[Problem]:
    minor, runtime = minor_of(cluster.kubernetes.version), cluster.runtime
    where = ("runtime", "engine")
    if minor not in MINORS:
        return
    if isinstance(runtime, Docker) and runtime.cri_dockerd:
        if RUNTIMES["docker"].holds_for(minor):
            text = f"Kubernetes {minor} speaks to Docker without cri-dockerd: leave it out"
            yield Problem(path=("runtime", "cri_dockerd"), text=text)
    else:
        yield from _check_span(RUNTIMES, runtime.engine, minor, where)
    if isinstance(runtime, Containerd):
        yield from _check_containerd(runtime, minor)
    optional = {*RUNTIMES, "cri-dockerd", "flanneld"} - runtime_components(cluster)
    for name in cluster.extra:
        if name in optional:
            yield Problem(
                path=("extra", name), text=f"{name} is not installed: the cluster does not use it"
            )


def runtime_components(cluster: Cluster) -> set[str]:
    """The optional components that the cluster runs, by the names that `extra` knows."""
    flannel = {"flanneld"} if cluster.network.plugin == "flannel" else set()
    shim = isinstance(cluster.runtime, Docker) and cluster.runtime.cri_dockerd
    return {cluster.runtime.engine} | ({"cri-dockerd"} if shim else set()) | flannel


def _check_span(
    spans: Mapping[str, Span], choice: str, minor: str, where: tuple[str, ...]
) -> Iterator[Problem]:
    """Whether the minor takes the choice; with what to take instead."""
    span = spans[choice]
    if not span.holds_for(minor):
        when = (
            f"from Kubernetes {span.since}"
            if key_of(minor) < key_of(span.since)
            else (f"before Kubernetes {span.until}")
        )
        text = f"{choice} works {when}, not with {minor}: {span.instead}"
        yield Problem(path=where, text=text)
    elif key_of(minor) >= key_of(span.deprecated):
        text = f"{choice} is deprecated from Kubernetes {span.deprecated} on: {span.instead}"
        yield Problem(path=where, text=text, is_error=False)


def _check_containerd(runtime: Containerd, minor: str) -> Iterator[Problem]:
    version = runtime.version or default_version("containerd", minor)
    where = ("runtime", "version")
    if key_of(minor_of(version)) < (1, 4):
        yield Problem(path=where, text=f"containerd {version} is too old: take 1.4 or later")
    elif key_of(minor) >= (1, 26) and key_of(minor_of(version)) < (1, 6):
        text = f"the kubelet of {minor} needs CRI v1, which containerd {version} lacks: take 1.6+"
        yield Problem(path=where, text=text)
    if runtime.registries and key_of(minor_of(version)) < (1, 5):
        text = f"containerd {version} reads no hosts.toml: take 1.5 or later"
        yield Problem(path=("runtime", "registries"), text=text)
    seen: set[str] = set()
    for index, registry in enumerate(runtime.registries):
        here = ("runtime", "registries", index)
        if registry.host in seen:
            yield Problem(path=(*here, "host"), text=f"{registry.host} is given twice")
        seen.add(registry.host)
        if registry.ca is not None and not _holds_certificates(registry.ca):
            text = f"{registry.ca}: no PEM file with certificates, and with nothing else"
            yield Problem(path=(*here, "ca"), text=text)


def _holds_certificates(path: Path) -> bool:
    """And no private key: the file is one that everybody on a host may read."""
    try:
        return set(re.findall(r"-----BEGIN ([A-Z0-9 ]+)-----", path.read_text())) == {"CERTIFICATE"}
    except (OSError, UnicodeDecodeError):
        return False


def _check_proxy_mode(cluster: Cluster) -> Iterator[Problem]:
    if mode := cluster.network.proxy_mode:
        minor = minor_of(cluster.kubernetes.version)
        yield from _check_span(PROXY_MODES, mode, minor, ("network", "proxy_mode"))


def _check_flannel(cluster: Cluster) -> Iterator[Problem]:
    network = cluster.network
    flannel = network.flannel
    if network.plugin != "flannel":
        if "flannel" in network.model_fields_set:
            text = f"network.plugin is {network.plugin}: say `plugin: flannel`, or leave this out"
            yield Problem(path=("network", "flannel"), text=text)
        return
    if flannel.store == "kubernetes":
        apart = [
            node.name
            for node in cluster.nodes
            if Role.CONTROL_PLANE in node.roles and Role.WORKER not in node.roles
        ]
        if apart:
            text = (
                f"{', '.join(apart)}: no worker, so no Node object and no flannel there: their API"
                " servers reach no webhook or aggregated API in a pod (metrics-server runs on the"
                " hosts' network). Where you need that: plugin static, or the role worker too"
            )
            yield Problem(path=("network", "plugin"), text=text, is_error=False)
        return
    where = ("network", "flannel", "store")
    engine = cluster.runtime.engine
    if engine != "docker" or runtime_components(cluster) & {"cri-dockerd"}:
        text = "etcd feeds dockerd's bridge, and the kubelet uses another network: take kubernetes"
        yield Problem(path=where, text=text)
    etcd = cluster.etcd.version or default_version("etcd", minor_of(cluster.kubernetes.version))
    if key_of(minor_of(etcd)) >= (3, 6):
        text = f"etcd {etcd} has no v2 API any more: take store kubernetes, or etcd 3.4"
        yield Problem(path=where, text=text)
    if flannel.version and key_of(minor_of(flannel.version)) >= (0, 18):
        text = f"flannel {flannel.version} does not speak etcd's v2 API: take 0.17 or earlier"
        yield Problem(path=("network", "flannel", "version"), text=text)
    text = (
        "every worker gets a client key of etcd, and whoever reads it reads and writes all that the"
        " cluster holds: take store kubernetes unless you need the old way"
    )
    yield Problem(path=where, text=text, is_error=False)


def _check_weak(cluster: Cluster) -> Iterator[Problem]:
    """What works and is weaker than it need be."""
    if cluster.pki.authorities == "single":
        text = (
            "one authority for all: every kubelet's certificate is also a client certificate that"
            " etcd believes; separate is the default for that reason"
        )
        yield Problem(path=("pki", "authorities"), text=text, is_error=False)
    if cluster.pki.key == "rsa-2048" and cluster.pki.ca_days > 365 * 5:
        text = (
            f"RSA with 2048 bits for {cluster.pki.ca_days} days: NIST SP 800-57 ends it with 2030;"
            " ecdsa-p256 lasts"
        )
        yield Problem(path=("pki", "key"), text=text, is_error=False)
    if cluster.dns.provider == "none":
        text = "provider none: pods find no Service by its name"
        yield Problem(path=("dns", "provider"), text=text, is_error=False)


def _check_nodes(cluster: Cluster) -> Iterator[Problem]:
    names: dict[str, int] = {}
    addresses: dict[IPv4Address, int] = {}
    for index, node in enumerate(cluster.nodes):
        where = ("nodes", index)
        if node.name in names:
            yield Problem(
                path=(*where, "name"), text=f"{node.name} is also nodes[{names[node.name]}]"
            )
        if node.address in addresses:
            other = cluster.nodes[addresses[node.address]].name
            yield Problem(path=(*where, "address"), text=f"{node.address} is also {other}'s")
        names.setdefault(node.name, index)
        addresses.setdefault(node.address, index)
        if node.name == "localhost":
            yield Problem(
                path=(*where, "name"), text="localhost is every host's name: choose another"
            )
        if len(set(node.roles)) < len(node.roles):
            yield Problem(path=(*where, "roles"), text="names a role twice")
        if not _is_host_address(node.address):
            yield Problem(path=(*where, "address"), text=f"{node.address} is no host's address")


def _is_host_address(address: IPv4Address) -> bool:
    return not (
        address.is_unspecified
        or address.is_loopback
        or address.is_multicast
        or address.is_link_local
        or address.is_reserved
    )


def _check_backup(cluster: Cluster) -> Iterator[Problem]:
    """Snapshots lie apart from what they are of, and the copies apart from the snapshots."""
    etcd = cluster.etcd
    places = {"data_dir": etcd.data_dir, "wal_dir": etcd.wal_dir}
    for field, path in (("directory", etcd.backup.directory), ("copy_to", etcd.backup.copy_to)):
        for name, place in places.items():
            if path and place and f"{path}/".startswith(f"{place}/"):
                text = f"{path} is below etcd.{name}: choose another directory"
                yield Problem(path=("etcd", "backup", field), text=text)
        places["backup.directory"] = etcd.backup.directory


def _check_roles(cluster: Cluster) -> Iterator[Problem]:
    members = _having(cluster, Role.ETCD)
    if not _having(cluster, Role.CONTROL_PLANE):
        yield Problem(
            path=("nodes",), text="no node has the role control-plane: give it to one or three"
        )
    if not members:
        yield Problem(path=("nodes",), text="no node has the role etcd: give it to one or three")
    elif len(members) % 2 == 0:
        yield Problem(
            path=("nodes",),
            text=f"{len(members)} etcd members survive no more failures than {len(members) - 1}:"
            " take an odd number",
            is_error=False,
        )
    if not _having(cluster, Role.WORKER):
        text = "no node has the role worker: nothing can run, and verify.sh will fail"
        yield Problem(path=("nodes",), text=text, is_error=False)


def _check_networks(cluster: Cluster) -> Iterator[Problem]:
    network = cluster.network
    ranges = {"pod_cidr": network.pod_cidr, "service_cidr": network.service_cidr}
    if network.pod_cidr.overlaps(network.service_cidr):
        yield Problem(
            path=("network", "service_cidr"),
            text=f"{network.service_cidr} overlaps network.pod_cidr {network.pod_cidr}:"
            " choose two ranges apart",
        )
    for key, cidr in ranges.items():
        for index, node in enumerate(cluster.nodes):
            if node.address in cidr:
                yield Problem(
                    path=("nodes", index, "address"),
                    text=f"{node.address} lies inside network.{key} {cidr}: choose another range",
                )
    # the API server refuses service ranges of more than 20 bits (kube-apiserver's validation.go)
    if not 12 <= network.service_cidr.prefixlen <= 28:
        yield Problem(
            path=("network", "service_cidr"),
            text="must be a /12 to a /28: the API server takes no other",
        )
    workers = len(_having(cluster, Role.WORKER))
    if network.pod_subnet_prefix < network.pod_cidr.prefixlen:
        text = f"each worker's /{network.pod_subnet_prefix} does not fit into {network.pod_cidr}"
        yield Problem(path=("network", "pod_cidr"), text=text)
    elif workers > 2 ** (network.pod_subnet_prefix - network.pod_cidr.prefixlen):
        text = f"{network.pod_cidr} has too few /{network.pod_subnet_prefix} for {workers} workers"
        yield Problem(path=("network", "pod_cidr"), text=text)


def _check_endpoint(cluster: Cluster) -> Iterator[Problem]:
    planes = _having(cluster, Role.CONTROL_PLANE)
    balancer = cluster.control_plane.load_balancer
    endpoint = cluster.control_plane.endpoint
    where = ("control_plane", "endpoint")
    if isinstance(balancer, NodeLocal):
        yield from _check_node_local(cluster)
        return
    if endpoint is None:
        if len(planes) > 1 or balancer is not None:
            text = "endpoint is missing: HOST:PORT for all clients"
            yield Problem(path=("control_plane",), text=text)
        return
    host, _, port = endpoint.rpartition(":")
    address = _address(host)
    if address is None and not _looks_like_name(host):
        yield Problem(path=where, text=f"{host} is neither an IPv4 address nor a DNS name")
        return
    if address is not None:
        yield from _check_endpoint_ranges(cluster, address)
    if isinstance(balancer, NginxKeepalived):
        yield from _check_virtual_address(cluster, address, int(port))
    elif isinstance(balancer, ExternalLoadBalancer):
        yield from _refuse_balancer_role(cluster, "load_balancer is external")
    else:
        yield from _check_direct_endpoint(planes, host, address, int(port))
        yield from _refuse_balancer_role(cluster, "control_plane.load_balancer is not given")


def _check_node_local(cluster: Cluster) -> Iterator[Problem]:
    endpoint = cluster.control_plane.endpoint
    if endpoint is not None and not endpoint.startswith("127.0.0.1:"):
        text = "with a node-local load balancer it is 127.0.0.1:PORT on every node: leave it out"
        yield Problem(path=("control_plane", "endpoint"), text=text)
    yield from _refuse_balancer_role(cluster, "node-local means every node")


def _check_endpoint_ranges(cluster: Cluster, address: IPv4Address) -> Iterator[Problem]:
    network = cluster.network
    ranges = {"pod_cidr": network.pod_cidr, "service_cidr": network.service_cidr}
    for key, cidr in ranges.items():
        if address in cidr:
            text = f"{address} lies inside network.{key} {cidr}"
            yield Problem(path=("control_plane", "endpoint"), text=text)


def _check_direct_endpoint(
    planes: list[Node], host: str, address: IPv4Address | None, port: int
) -> Iterator[Problem]:
    """Without a load balancer the endpoint is the only control plane itself."""
    where = ("control_plane", "endpoint")
    if len(planes) > 1:
        text = "two or more control planes need a load_balancer: nginx-keepalived or external"
        yield Problem(path=("control_plane",), text=text)
    if address is not None and address not in {node.address for node in planes}:
        text = f"{host} is no control plane's address, and nothing serves it"
        yield Problem(path=where, text=text)
    if len(planes) == 1 and port != API_PORT:
        yield Problem(path=where, text=f"without a load balancer the port is {API_PORT}")


def _check_virtual_address(
    cluster: Cluster, address: IPv4Address | None, port: int
) -> Iterator[Problem]:
    where = ("control_plane", "endpoint")
    balancers = _having(cluster, Role.LOAD_BALANCER)
    if address is None:
        text = "must be an IPv4 address: keepalived moves an address, not a name"
        yield Problem(path=where, text=text)
    for node in cluster.nodes:
        if node.address == address:
            text = f"{address} is {node.name}'s own address: the virtual address must be a free one"
            yield Problem(path=where, text=text)
    if not balancers:
        yield Problem(
            path=("control_plane", "load_balancer"),
            text="no node has the role load-balancer: give it to the control planes",
        )
    shared = {
        port_: unit for n in balancers for role in n.roles for port_, unit in PORTS[role].items()
    }
    if port in shared:
        yield Problem(
            path=where, text=f"port {port} is {shared[port]}'s on the same host: take 8443"
        )


def _refuse_balancer_role(cluster: Cluster, reason: str) -> Iterator[Problem]:
    for index, node in enumerate(cluster.nodes):
        if Role.LOAD_BALANCER in node.roles:
            text = f"load-balancer has nothing to do here: {reason}"
            yield Problem(path=("nodes", index, "roles"), text=text)


def _check_node_ports(cluster: Cluster) -> Iterator[Problem]:
    low, high = (int(part) for part in cluster.network.node_port_range.split("-"))
    fixed = {port: unit for ports in PORTS.values() for port, unit in ports.items()}
    if cluster.control_plane.endpoint:
        fixed[int(cluster.control_plane.endpoint.rpartition(":")[2])] = "the endpoint"
    for port, unit in sorted(fixed.items()):
        if low <= port <= high:
            text = f"holds {port}, which is {unit}'s: choose a range apart"
            yield Problem(path=("network", "node_port_range"), text=text)


def _check_names(cluster: Cluster) -> Iterator[Problem]:
    for name in cluster.artifacts:
        component, slash, arch = name.partition("/")
        if component not in COMPONENTS or (slash and arch not in set(Arch)):
            text = f"unknown artifact; known: {', '.join(COMPONENTS)}, also with /amd64 or /arm64"
            yield Problem(path=("artifacts", name), text=text)
    for name, extra in cluster.extra.items():
        if name not in EXTRA_COMPONENTS:
            text = f"unknown component; known: {', '.join(EXTRA_COMPONENTS)}"
            yield Problem(path=("extra", name), text=text)
        elif extra.config and not EXTRA_COMPONENTS[name].has_config:
            yield Problem(
                path=("extra", name, "config"), text=f"{name} has no configuration file here"
            )
        elif extra.flags and not EXTRA_COMPONENTS[name].has_flags:
            yield Problem(
                path=("extra", name, "flags"), text=f"{name} takes config here, not flags"
            )


def _check_upstream_keys(cluster: Cluster) -> Iterator[Problem]:
    for name, key in cluster.upstream_keys.items():
        if name not in COMPONENTS:
            text = f"unknown component; known: {', '.join(COMPONENTS)}"
            yield Problem(path=("upstream_keys", name), text=text)
        for scheme in Scheme:
            path: Path | None = getattr(key, scheme)
            if path and not path.is_file():
                yield Problem(path=("upstream_keys", name, scheme.value), text=f"{path} is no file")


def _having(cluster: Cluster, role: Role) -> list[Node]:
    return [node for node in cluster.nodes if role in node.roles]


def _address(host: str) -> IPv4Address | None:
    try:
        return IPv4Address(host)
    except ValueError:
        return None


def _looks_like_name(host: str) -> bool:
    labels: Iterable[str] = host.split(".")
    return not host.replace(".", "").isdigit() and all(
        label and label.replace("-", "").isalnum() and label == label.lower() for label in labels
    )
