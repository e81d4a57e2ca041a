"""Checks of cluster.yaml's fields against one another."""

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address
from pathlib import Path

from bundler.catalog import BUILD_TOOLS, COMPONENTS, default_version
from bundler.catalog.signatures import Scheme
from bundler.cluster.components import (
    COREDNS_NEEDS,
    DOCKER_SHIMS,
    EXTRA_COMPONENTS,
    KUBE_ROUTER_NEEDS,
    KUBE_ROUTERS,
    MINORS,
    PROXY_MODES,
    RUNTIMES,
    SNAPSHOT_TOOLS,
    Span,
    key_of,
    minor_of,
    row_for,
)
from bundler.cluster.host_needs import check_sysctls
from bundler.cluster.inputs import UpstreamKey
from bundler.cluster.network_addon import check_network_addon
from bundler.cluster.network_checks import (
    check_endpoint,
    check_interfaces,
    check_networks,
    check_node_ports,
    is_host_address,
)
from bundler.cluster.problem import Problem
from bundler.cluster.registry_checks import check_registries
from bundler.cluster.registry_service import check_registry_service
from bundler.cluster.schema import Cluster, Containerd, Docker, Role
from bundler.cluster.schema_addons import OCI
from bundler.cluster.tls_checks import check_tls
from bundler.cluster.values import Arch

SERVING_ROLES = frozenset((Role.CONTROL_PLANE, Role.ETCD))
"""Roles whose servers have certificates that bundler issues."""

ADDONS = "addons/"
"""The beginning of keys of `upstream_keys` that are about the charts of add-ons."""

OLDEST = {"docker": min(DOCKER_SHIMS, key=key_of), "etcd": min(SNAPSHOT_TOOLS, key=key_of)}
"""The first minors that bundler's tables have."""


OPTIONAL = frozenset({*RUNTIMES, "cri-dockerd", "flanneld", "kube-proxy", "kube-router"})
"""Components that not every cluster runs, by their names under `extra`."""

SYSTEM_NAMESPACES = frozenset({"kube-system"})
"""Namespaces whose pods others cannot do without."""


def check_cluster(cluster: Cluster) -> Iterator[Problem]:
    """Every problem of cluster.yaml that needs no other file, except for CA and key files."""
    yield from _check_versions(cluster)
    yield from _check_runtime(cluster)
    yield from check_registries(cluster)
    if minor_of(cluster.kubernetes.version) in MINORS:
        yield from _check_proxy_mode(cluster)
        yield from _check_flannel(cluster)
        yield from _check_policy(cluster)
        yield from _check_coredns(cluster)
        yield from _check_weak(cluster)
        yield from check_tls(cluster)
    yield from check_registry_service(cluster)
    yield from _check_nodes(cluster)
    yield from _check_sans(cluster)
    yield from check_sysctls(cluster)
    yield from _check_roles(cluster)
    yield from _check_backup(cluster)
    yield from check_networks(cluster)
    yield from check_network_addon(cluster)
    yield from check_endpoint(cluster)
    yield from check_interfaces(cluster)
    yield from check_node_ports(cluster)
    yield from _check_names(cluster)
    yield from _check_upstream_keys(cluster)


def _check_versions(cluster: Cluster) -> Iterator[Problem]:
    minor = minor_of(cluster.kubernetes.version)
    if minor not in MINORS:
        yield Problem(
            path=("kubernetes", "version"),
            text=f"Kubernetes {minor} is not supported: choose {MINORS[0]} to {MINORS[-1]}",
        )

    chosen = {"etcd": (("etcd", "version"), cluster.etcd.version)}
    if isinstance(cluster.runtime, Docker):
        chosen["docker"] = (("runtime", "version"), cluster.runtime.version)
    for name, (where, version) in chosen.items():
        if version and key_of(minor_of(version)) < key_of(OLDEST[name]):
            text = f"{name} {version} is too old: use {OLDEST[name]} or later"
            yield Problem(path=where, text=text)


def _check_runtime(cluster: Cluster) -> Iterator[Problem]:
    minor, runtime = minor_of(cluster.kubernetes.version), cluster.runtime
    where = ("runtime", "engine")
    if minor not in MINORS:
        return
    if isinstance(runtime, Docker) and runtime.cri_dockerd:
        if RUNTIMES["docker"].holds_for(minor):
            text = f"the kubelet of {minor} uses Docker without cri-dockerd: remove this key"
            yield Problem(path=("runtime", "cri_dockerd"), text=text)
    else:
        yield from _check_span(RUNTIMES, runtime.engine, minor, where)
    if isinstance(runtime, Containerd):
        yield from _check_containerd(runtime, minor)
    optional = OPTIONAL - runtime_components(cluster)
    for name in cluster.extra:
        if name in optional:
            yield Problem(
                path=("extra", name),
                text=f"the cluster does not use {name}: remove this key",
            )


def runtime_components(cluster: Cluster) -> set[str]:
    """The optional components that the cluster runs, by their names under `extra`."""
    flannel = {"flanneld"} if cluster.network.plugin == "flannel" else set()
    policy = {cluster.network.policy.engine} & OPTIONAL
    proxy = {"kube-proxy"} if cluster.network.proxy_mode != "none" else set()
    shim = isinstance(cluster.runtime, Docker) and cluster.runtime.cri_dockerd
    return (
        {cluster.runtime.engine} | ({"cri-dockerd"} if shim else set()) | flannel | policy | proxy
    )


def _check_span(
    spans: Mapping[str, Span], choice: str, minor: str, where: tuple[str, ...]
) -> Iterator[Problem]:
    """A choice that the minor does not support, or soon will not, and what to choose instead."""
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
        text = f"{choice} is deprecated from Kubernetes {span.deprecated}: {span.instead}"
        yield Problem(path=where, text=text, is_error=False)


def _check_containerd(runtime: Containerd, minor: str) -> Iterator[Problem]:
    version = runtime.version or default_version("containerd", minor)
    where = ("runtime", "version")
    if key_of(minor_of(version)) < (1, 4):
        yield Problem(path=where, text=f"containerd {version} is too old: use 1.4 or later")
    elif key_of(minor) >= (1, 26) and key_of(minor_of(version)) < (1, 6):
        text = (
            f"the kubelet of {minor} needs CRI v1, which containerd {version} does not have:"
            " use 1.6 or later"
        )
        yield Problem(path=where, text=text)


def _check_coredns(cluster: Cluster) -> Iterator[Problem]:
    minor, version = minor_of(cluster.kubernetes.version), cluster.dns.version
    if cluster.dns.provider != "coredns" or not version:
        return
    if key_of(minor) < key_of(needed := row_for(COREDNS_NEEDS, minor_of(version))):
        text = (
            f"CoreDNS {version} needs Kubernetes {needed} or newer, and {minor} would wait for it"
            f" without end: use {default_version('coredns', minor)}"
        )
        yield Problem(path=("dns", "version"), text=text)


def _check_proxy_mode(cluster: Cluster) -> Iterator[Problem]:
    mode = cluster.network.proxy_mode
    if mode and mode != "none":
        minor = minor_of(cluster.kubernetes.version)
        yield from _check_span(PROXY_MODES, mode, minor, ("network", "proxy_mode"))


def _check_policy(cluster: Cluster) -> Iterator[Problem]:
    """NetworkPolicies: keys without an engine that reads them, and what kube-router needs."""
    policy, where = cluster.network.policy, ("network", "policy")
    unread = {"none": ("version", "default_deny"), "addon": ("version",)}.get(policy.engine, ())
    for key in unread:
        if getattr(policy, key):
            text = (
                f"network.policy.engine is {policy.engine}: set `engine: kube-router` or remove"
                " this key"
            )
            yield Problem(path=(*where, key), text=text)
    for namespace in policy.default_deny:
        if namespace in SYSTEM_NAMESPACES:
            text = f"{namespace} has cluster DNS and metrics, which every pod uses: remove it"
            yield Problem(path=(*where, "default_deny"), text=text)
    if policy.engine == "kube-router":
        yield from _check_kube_router(cluster)


def _check_kube_router(cluster: Cluster) -> Iterator[Problem]:
    network, minor = cluster.network, minor_of(cluster.kubernetes.version)
    policy, where = network.policy, ("network", "policy")
    if network.plugin == "addon":
        text = (
            "kube-router works with the bridges that bundler makes: use `engine: addon` if the"
            " add-on enforces NetworkPolicies, or `engine: none`"
        )
        yield Problem(path=(*where, "engine"), text=text)
    if network.plugin == "flannel" and network.flannel.store == "etcd":
        text = (
            "kube-router works with bridges of CNI, and flannel's store etcd uses dockerd's: use"
            " `store: kubernetes` or `engine: none`"
        )
        yield Problem(path=(*where, "engine"), text=text)
    needed = row_for(KUBE_ROUTER_NEEDS, minor_of(policy.version)) if policy.version else minor
    if key_of(minor) < key_of(needed):
        text = (
            f"kube-router {policy.version} needs Kubernetes {needed} or newer: use"
            f" {row_for(KUBE_ROUTERS, minor)}"
        )
        yield Problem(path=(*where, "version"), text=text)


def _check_flannel(cluster: Cluster) -> Iterator[Problem]:
    network = cluster.network
    flannel = network.flannel
    if network.plugin != "flannel":
        if "flannel" in network.model_fields_set:
            text = f"network.plugin is {network.plugin}: set `plugin: flannel` or remove this key"
            yield Problem(path=("network", "flannel"), text=text)
        return
    if flannel.store == "kubernetes":
        planes_only = [
            node.name
            for node in cluster.nodes
            if Role.CONTROL_PLANE in node.roles and Role.WORKER not in node.roles
        ]
        if planes_only:
            text = (
                f"{', '.join(planes_only)} without the role worker has no flannel: the API server"
                " there cannot reach webhooks and aggregated APIs in pods (metrics-server works, it"
                " uses the host network). If you need them, use `plugin: static` or add the role"
                " worker"
            )
            yield Problem(path=("network", "plugin"), text=text, is_error=False)
        if flannel.version and key_of(minor_of(flannel.version)) < (0, 14):
            text = (
                f"flannel {flannel.version} does not reload the kubelet's certificate, with which"
                " it acts as its node: use 0.14 or later"
            )
            yield Problem(path=("network", "flannel", "version"), text=text)
        return
    where = ("network", "flannel", "store")
    engine = cluster.runtime.engine
    if engine != "docker" or runtime_components(cluster) & {"cri-dockerd"}:
        text = "store etcd works only with Docker through dockershim: use `store: kubernetes`"
        yield Problem(path=where, text=text)
    etcd = cluster.etcd.version or default_version("etcd", minor_of(cluster.kubernetes.version))
    if key_of(minor_of(etcd)) >= (3, 6):
        text = f"etcd {etcd} no longer has the v2 API: use `store: kubernetes` or etcd 3.4"
        yield Problem(path=where, text=text)
    if flannel.version and key_of(minor_of(flannel.version)) >= (0, 18):
        text = f"flannel {flannel.version} cannot use etcd's v2 API: use 0.17 or earlier"
        yield Problem(path=("network", "flannel", "version"), text=text)


def _check_weak(cluster: Cluster) -> Iterator[Problem]:
    """Warnings for choices that work but are weaker than the default."""
    if cluster.pki.key == "rsa-2048" and cluster.pki.ca_days > 365 * 5:
        text = (
            f"a CA with a 2048-bit RSA key for {cluster.pki.ca_days} days: NIST SP 800-57 accepts"
            " such keys only until 2030; use ecdsa-p256"
        )
        yield Problem(path=("pki", "key"), text=text, is_error=False)
    if cluster.dns.provider == "none":
        text = "with provider none, pods cannot find Services by name"
        yield Problem(path=("dns", "provider"), text=text, is_error=False)


def _check_nodes(cluster: Cluster) -> Iterator[Problem]:
    names: dict[str, int] = {}
    addresses: dict[IPv4Address, int] = {}
    for index, node in enumerate(cluster.nodes):
        where = ("nodes", index)
        if node.name in names:
            yield Problem(
                path=(*where, "name"),
                text=f"{node.name} is also the name of nodes[{names[node.name]}]",
            )
        if node.address in addresses:
            other = cluster.nodes[addresses[node.address]].name
            yield Problem(
                path=(*where, "address"), text=f"{node.address} is also the address of {other}"
            )
        names.setdefault(node.name, index)
        addresses.setdefault(node.address, index)
        if node.name == "localhost":
            yield Problem(
                path=(*where, "name"), text="every host is localhost: choose another name"
            )
        if len(set(node.roles)) < len(node.roles):
            yield Problem(path=(*where, "roles"), text="lists a role twice: keep one")
        if not is_host_address(node.address):
            yield Problem(
                path=(*where, "address"), text=f"{node.address} cannot be a host's address"
            )


def _check_sans(cluster: Cluster) -> Iterator[Problem]:
    """Names in certificates of hosts that have none, or that are those of other hosts."""
    owners: dict[object, str] = {}
    for node in cluster.nodes:
        owners |= {node.name: node.name, node.address: node.name}
    for index, node in enumerate(cluster.nodes):
        where = ("nodes", index, "sans")
        if node.sans and SERVING_ROLES.isdisjoint(node.roles):
            text = (
                "only certificates of control planes and etcd members have more names: the kubelet"
                " asks for its own, with the node's name and address; remove it"
            )
            yield Problem(path=where, text=text)
        for number, name in enumerate(node.sans):
            if (owner := owners.get(name, node.name)) != node.name:
                text = f"{name} is the name or address of {owner}: remove it"
                yield Problem(path=(*where, number), text=text)


def _check_backup(cluster: Cluster) -> Iterator[Problem]:
    """Snapshots are not stored in etcd's directories, and copies not with the snapshots."""
    etcd = cluster.etcd
    places = {"data_dir": etcd.data_dir, "wal_dir": etcd.wal_dir}
    for field, path in (("directory", etcd.backup.directory), ("copy_to", etcd.backup.copy_to)):
        for name, place in places.items():
            if path and place and f"{path}/".startswith(f"{place}/"):
                text = f"{path} is inside etcd.{name}: choose another directory"
                yield Problem(path=("etcd", "backup", field), text=text)
        places["backup.directory"] = etcd.backup.directory


def _check_roles(cluster: Cluster) -> Iterator[Problem]:
    members = cluster.having(Role.ETCD)
    if not cluster.having(Role.CONTROL_PLANE):
        yield Problem(
            path=("nodes",), text="no node has the role control-plane: give it to one or three"
        )
    if not members:
        yield Problem(path=("nodes",), text="no node has the role etcd: give it to one or three")
    elif len(members) % 2 == 0:
        yield Problem(
            path=("nodes",),
            text=f"{len(members)} etcd members tolerate no more failures than"
            f" {len(members) - 1}: use an odd number",
            is_error=False,
        )
    if not cluster.having(Role.WORKER):
        text = "no node has the role worker: no pods can run, and verify.sh will fail"
        yield Problem(path=("nodes",), text=text, is_error=False)


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
                path=("extra", name, "config"),
                text=f"{name} has no configuration file: use flags",
            )
        elif extra.flags and not EXTRA_COMPONENTS[name].has_flags:
            yield Problem(
                path=("extra", name, "flags"),
                text=f"{name} has no flags here: use config",
            )


def _check_upstream_keys(cluster: Cluster) -> Iterator[Problem]:
    for name, key in cluster.upstream_keys.items():
        if fault := _find_key_fault(name, key, cluster):
            yield Problem(path=("upstream_keys", name), text=fault)
        for scheme in Scheme:
            path: Path | None = getattr(key, scheme)
            if path and not path.is_file():
                yield Problem(
                    path=("upstream_keys", name, scheme.value), text=f"{path}: no such file"
                )


def _find_key_fault(name: str, key: UpstreamKey, cluster: Cluster) -> str:
    """Why nothing with that name is signed, or not in that way; empty if it may be."""
    if not name.startswith(ADDONS):
        if name in BUILD_TOOLS:
            return "it is a program of the build, pinned by its digest: remove the key"
        known = ", ".join(each for each in COMPONENTS if each not in BUILD_TOOLS)
        return "" if name in COMPONENTS else f"unknown component; known: {known}"
    charts = {a.name: a.chart for a in cluster.addons if a.chart and a.chart.repo}
    chart = charts.get(name.removeprefix(ADDONS))
    if not chart:
        return "there is no such add-on with a chart of a repository"
    if key.sigstore:
        return "charts are checked with openpgp (.prov files), or cosign in registries"
    if key.cosign and not (chart.repo or "").startswith(OCI):
        return "cosign signs charts in registries (oci://); this repository needs openpgp"
    return ""
