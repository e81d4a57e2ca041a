"""The add-on that makes the pod network (`network.plugin: addon`): checks, and what needs it."""

from collections.abc import Iterator

from bundler.cluster.needed_addons import list_needed
from bundler.cluster.problem import Problem, suggest
from bundler.cluster.schema import Cluster, Role
from bundler.formats.bounded_yaml import YamlPath

WHERE: YamlPath = ("network", "plugin")
NAME: YamlPath = ("network", "addon")


def check_network_addon(cluster: Cluster) -> Iterator[Problem]:
    """Whether the add-on exists, and whether what is left to it has an add-on to do it."""
    network = cluster.network
    if network.plugin == "addon":
        yield from _check_name(cluster)
        yield from _check_planes(cluster)
        return
    leaves = "network.plugin is {plugin}: set `plugin: addon` and its add-on, or {instead}"
    for path, is_left, instead in (
        (NAME, network.addon is not None, "remove this key"),
        (("network", "proxy_mode"), network.proxy_mode == "none", "choose iptables"),
        (("network", "policy", "engine"), network.policy.engine == "addon", "choose kube-router"),
    ):
        if is_left:
            yield Problem(path=path, text=leaves.format(plugin=network.plugin, instead=instead))


def _check_name(cluster: Cluster) -> Iterator[Problem]:
    name, names = cluster.network.addon, [addon.name for addon in cluster.addons]
    if name is None:
        text = "add the name of the add-on that makes the pod network, such as `addon: calico`"
        yield Problem(path=WHERE, text=text)
    elif name not in names:
        text = f"there is no add-on {name}{suggest(name, names)}: add it to `addons`"
        yield Problem(path=NAME, text=text)


def _check_planes(cluster: Cluster) -> Iterator[Problem]:
    """Hosts with an API server that pods' networks do not reach."""
    planes_only = [
        node.name
        for node in cluster.nodes
        if Role.CONTROL_PLANE in node.roles and Role.WORKER not in node.roles
    ]
    if planes_only:
        text = (
            f"{', '.join(planes_only)} without the role worker has no pod, so none of the add-on's:"
            " the API server there may not reach webhooks and aggregated APIs in pods. If you need"
            " them, add the role worker"
        )
        yield Problem(path=WHERE, text=text, is_error=False)


def put_network_first(cluster: Cluster) -> Cluster:
    """Return the cluster with add-ons that need the one which makes the pod network.

    Pods get no address before it, so nothing else that has pods becomes ready. What it needs
    itself, such as an add-on of definitions, is left.
    """
    name = cluster.network.addon
    needs = {addon.name: addon.needs for addon in cluster.addons}
    if cluster.network.plugin != "addon" or name not in needs:
        return cluster
    before = list_needed(name, needs)
    addons = tuple(
        addon
        if addon.name in before or name in addon.needs
        else addon.model_copy(update={"needs": (name, *addon.needs)})
        for addon in cluster.addons
    )
    return cluster.model_copy(update={"addons": addons})
