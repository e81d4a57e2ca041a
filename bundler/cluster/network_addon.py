"""What the add-on that makes the pod network (`network.plugin: addon`) changes for the others."""

from bundler.cluster.needed_addons import list_needed
from bundler.cluster.schema import Cluster


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
