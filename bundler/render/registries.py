"""containerd's configuration of registries: a hosts.toml and a CA certificate for each.

The cluster's own registry comes before all mirrors, and needs no file of its own: workers trust the
cluster's CA already. It has each upstream registry below that registry's name, so its URL has a
path, which containerd takes with `override_path` as it is.

Source: https://github.com/containerd/containerd/blob/main/docs/hosts.md
"""

from collections.abc import Iterator

import tomli_w

from bundler.cluster.plan import ClusterPlan, NodePlan
from bundler.cluster.registry_service import (
    list_hosts,
    list_registry_images,
    list_upstreams,
    repository_of,
)
from bundler.cluster.schema import Cluster, Containerd, Registry, Role
from bundler.formats.image_references import DOCKER_HUB, HOSTS, needs_override_path
from bundler.render.tree import File

DIRECTORY = "etc/containerd/certs.d"
DOCKER_HUB_SERVER = f"https://{HOSTS[DOCKER_HUB]}"
CLUSTER_CA = "/etc/kubernetes/pki/ca.crt"
PULLS: dict[str, object] = {"capabilities": ["pull", "resolve"]}

Hosts = dict[str, object]
"""URL → how containerd uses it, in the order in which it does."""


def make_registry_files(plan: ClusterPlan, node: NodePlan) -> Iterator[File]:
    """Yield the files of every registry, for a worker that runs containerd."""
    cluster = plan.on_host(node).cluster
    if not isinstance(cluster.runtime, Containerd) or not node.has(Role.WORKER):
        return
    given = {registry.host: registry for registry in cluster.runtime.registries}
    for host in dict.fromkeys((*given, *list_upstreams(cluster))):
        registry = given.get(host, Registry(host=host))
        origin = f"runtime.registries: {host}"
        document = _make_hosts(registry, f"/{DIRECTORY}/{host}", _make_own(cluster, host))
        yield _make_file(host, document, origin)
        if registry.ca:
            path, content = f"rootfs/{DIRECTORY}/{host}/ca.crt", registry.ca.read_bytes()
            yield File(path=path, mode=0o644, content=content, origin=origin)
    for host in _list_own_names(cluster):
        if host not in given:
            document = {"server": f"https://{host}", "host": _make_pushed(cluster, host)}
            yield _make_file(host, document, "registry")


def _make_file(host: str, document: dict[str, object], origin: str) -> File:
    path = f"rootfs/{DIRECTORY}/{host}/hosts.toml"
    return File(path=path, mode=0o644, content=tomli_w.dumps(document).encode(), origin=origin)


def _make_hosts(registry: Registry, folder: str, own: Hosts) -> dict[str, object]:
    server = DOCKER_HUB_SERVER if registry.host == DOCKER_HUB else f"https://{registry.host}"
    how = dict(PULLS)
    if registry.ca:
        how["ca"] = f"{folder}/ca.crt"
    if registry.insecure:
        how["skip_verify"] = True
    # without mirrors the registry itself must be listed, or containerd ignores its CA
    urls = registry.mirrors or (server,)
    return {"server": server, "host": own | {url: how | _path_of(url) for url in urls}}


def _make_own(cluster: Cluster, upstream: str) -> Hosts:
    """The hosts of the cluster's registry for images of an upstream registry that it has."""
    images = (one for one in list_registry_images(cluster) if one.registry == upstream)
    first = next(images, None)
    if first is None:
        return {}
    path = repository_of(first).removesuffix(first.repository).rstrip("/")
    urls = (f"https://{host}/v2/{path}".removesuffix("/v2/") for host in list_hosts(cluster))
    return {url: PULLS | {"ca": CLUSTER_CA} | _path_of(url) for url in urls}


def _list_own_names(cluster: Cluster) -> tuple[str, ...]:
    """The names by which pods may name images that were pushed."""
    registry = cluster.registry
    name = (f"{registry.name}:{registry.port}",) if registry and registry.name else ()
    return (*name, *list_hosts(cluster))


def _make_pushed(cluster: Cluster, name: str) -> Hosts:
    """All hosts of the cluster's registry; the one that the image names is the first."""
    hosts = sorted(list_hosts(cluster), key=lambda host: host != name)
    return {f"https://{host}": PULLS | {"ca": CLUSTER_CA} for host in hosts}


def _path_of(url: str) -> dict[str, bool]:
    return {"override_path": True} if needs_override_path(url) else {}
