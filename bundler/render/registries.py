"""containerd's configuration of registries: a hosts.toml and a CA certificate for each.

Source: https://github.com/containerd/containerd/blob/main/docs/hosts.md
"""

from collections.abc import Iterator

import tomli_w

from bundler.cluster.plan import ClusterPlan, NodePlan
from bundler.cluster.schema import Containerd, Registry, Role
from bundler.formats.image_references import DOCKER_HUB, HOSTS, needs_override_path
from bundler.render.tree import File

DIRECTORY = "etc/containerd/certs.d"
DOCKER_HUB_SERVER = f"https://{HOSTS[DOCKER_HUB]}"


def make_registry_files(plan: ClusterPlan, node: NodePlan) -> Iterator[File]:
    """Yield the files of every registry, for a worker that runs containerd."""
    runtime = plan.on_host(node).cluster.runtime
    if not isinstance(runtime, Containerd) or not node.has(Role.WORKER):
        return
    for registry in runtime.registries:
        folder = f"{DIRECTORY}/{registry.host}"
        origin = f"runtime.registries: {registry.host}"
        text = tomli_w.dumps(_make_hosts(registry, f"/{folder}"))
        yield File(
            path=f"rootfs/{folder}/hosts.toml", mode=0o644, content=text.encode(), origin=origin
        )
        if registry.ca:
            content = registry.ca.read_bytes()
            yield File(path=f"rootfs/{folder}/ca.crt", mode=0o644, content=content, origin=origin)


def _make_hosts(registry: Registry, folder: str) -> dict[str, object]:
    server = DOCKER_HUB_SERVER if registry.host == DOCKER_HUB else f"https://{registry.host}"
    how: dict[str, object] = {"capabilities": ["pull", "resolve"]}
    if registry.ca:
        how["ca"] = f"{folder}/ca.crt"
    if registry.insecure:
        how["skip_verify"] = True
    # without mirrors the registry itself must be listed, or containerd ignores its CA
    urls = registry.mirrors or (server,)
    return {"server": server, "host": {url: how | _path_of(url) for url in urls}}


def _path_of(url: str) -> dict[str, bool]:
    return {"override_path": True} if needs_override_path(url) else {}
