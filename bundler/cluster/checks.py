"""Checks of cluster.yaml's fields against one another."""

from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

from bundler.catalog import BUILD_TOOLS, COMPONENTS, default_version
from bundler.catalog.signatures import Scheme
from bundler.cluster.components import (
    COREDNS_NEEDS,
    DOCKER_SHIMS,
    EXTRA_COMPONENTS,
    MINORS,
    SNAPSHOT_TOOLS,
    key_of,
    minor_of,
    row_for,
)
from bundler.cluster.host_needs import check_addon_ports, check_sysctls
from bundler.cluster.inputs import UpstreamKey
from bundler.cluster.network_checks import (
    check_endpoint,
    check_interfaces,
    check_networks,
    check_node_ports,
    is_host_address,
)
from bundler.cluster.pod_network_checks import check_pod_network
from bundler.cluster.problem import Problem
from bundler.cluster.registry_checks import check_registries
from bundler.cluster.registry_service import check_registry_service
from bundler.cluster.runtime_checks import check_runtime
from bundler.cluster.schema import Cluster, Docker, Role
from bundler.cluster.schema_addons import OCI
from bundler.cluster.tls_checks import check_tls
from bundler.cluster.values import Arch

SERVING_ROLES = frozenset((Role.CONTROL_PLANE, Role.ETCD))
"""Roles whose servers have certificates that bundler issues."""

ADDONS = "addons/"
"""The beginning of keys of `upstream_keys` that are about the charts of add-ons."""

OLDEST = {"docker": min(DOCKER_SHIMS, key=key_of), "etcd": min(SNAPSHOT_TOOLS, key=key_of)}
"""The first minors that bundler's tables have."""


def check_cluster(cluster: Cluster) -> Iterator[Problem]:
    """Every problem of cluster.yaml that needs no other file, except for CA and key files."""
    yield from _check_versions(cluster)
    yield from check_runtime(cluster)
    yield from check_registries(cluster)
    if minor_of(cluster.kubernetes.version) in MINORS:
        yield from check_pod_network(cluster)
        yield from _check_coredns(cluster)
        yield from _check_weak(cluster)
        yield from check_tls(cluster)
        yield from check_addon_ports(cluster)
    yield from check_registry_service(cluster)
    yield from _check_nodes(cluster)
    yield from _check_sans(cluster)
    yield from check_sysctls(cluster)
    yield from _check_roles(cluster)
    yield from _check_backup(cluster)
    yield from check_networks(cluster)
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
