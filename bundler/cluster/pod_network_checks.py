"""Checks of what makes the pod network, forwards Services and enforces NetworkPolicies."""

from collections.abc import Iterator

from bundler.catalog import default_version
from bundler.cluster.components import (
    KUBE_ROUTER_NEEDS,
    KUBE_ROUTERS,
    PROXY_MODES,
    key_of,
    minor_of,
    row_for,
)
from bundler.cluster.problem import Problem, suggest
from bundler.cluster.runtime_checks import check_span, runtime_components
from bundler.cluster.schema import Cluster, Role
from bundler.formats.bounded_yaml import YamlPath

PLUGIN: YamlPath = ("network", "plugin")
ADDON: YamlPath = ("network", "addon")
SYSTEM_NAMESPACES = frozenset({"kube-system"})
"""Namespaces whose pods others cannot do without."""


def check_pod_network(cluster: Cluster) -> Iterator[Problem]:
    """Choices that the minor does not have, or that do not work with one another."""
    yield from _check_proxy_mode(cluster)
    yield from _check_flannel(cluster)
    yield from _check_addon(cluster)
    yield from _check_policy(cluster)


def _check_proxy_mode(cluster: Cluster) -> Iterator[Problem]:
    mode = cluster.network.proxy_mode
    if mode and mode != "none":
        minor = minor_of(cluster.kubernetes.version)
        yield from check_span(PROXY_MODES, mode, minor, ("network", "proxy_mode"))


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
        yield from _warn_of_planes(
            cluster,
            "has no flannel: the API server there cannot reach webhooks and aggregated APIs in pods"
            " (metrics-server works, it uses the host network). If you need them, use"
            " `plugin: static` or add the role worker",
        )
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


def _check_addon(cluster: Cluster) -> Iterator[Problem]:
    """Whether the add-on exists, and whether what is left to it has an add-on to do it."""
    network = cluster.network
    if network.plugin == "addon":
        yield from _check_name(cluster)
        yield from _warn_of_planes(
            cluster,
            "has no pod, so none of the add-on's: the API server there may not reach webhooks and"
            " aggregated APIs in pods. If you need them, add the role worker",
        )
        return
    if network.policy.engine == "addon" and not cluster.addons:
        text = "there is no add-on: add the one that enforces NetworkPolicies to `addons`"
        yield Problem(path=("network", "policy", "engine"), text=text)
    leaves = "network.plugin is {plugin}: set `plugin: addon` and its add-on, or {instead}"
    for path, is_left, instead in (
        (ADDON, network.addon is not None, "remove this key"),
        (("network", "proxy_mode"), network.proxy_mode == "none", "choose iptables"),
    ):
        if is_left:
            yield Problem(path=path, text=leaves.format(plugin=network.plugin, instead=instead))


def _check_name(cluster: Cluster) -> Iterator[Problem]:
    name, names = cluster.network.addon, [addon.name for addon in cluster.addons]
    if name is None:
        text = "add the name of the add-on that makes the pod network, such as `addon: calico`"
        yield Problem(path=PLUGIN, text=text)
    elif name not in names:
        text = f"there is no add-on {name}{suggest(name, names)}: add it to `addons`"
        yield Problem(path=ADDON, text=text)


def _warn_of_planes(cluster: Cluster, why: str) -> Iterator[Problem]:
    """Hosts with an API server that the network of pods does not reach."""
    names = [
        node.name
        for node in cluster.nodes
        if Role.CONTROL_PLANE in node.roles and Role.WORKER not in node.roles
    ]
    if names:
        text = f"{', '.join(names)} without the role worker {why}"
        yield Problem(path=PLUGIN, text=text, is_error=False)
