"""The cluster's own registry: what it holds under which name, who may write, and checks of it."""

import re
from collections.abc import Iterator
from pathlib import Path

from bundler.cluster.components import MINORS, PORTS, key_of, minor_of
from bundler.cluster.plan import NODE_LOCAL_ENDPOINT, runtime_versions
from bundler.cluster.problem import Problem
from bundler.cluster.schema import Cluster, Containerd, Docker, Node, NodeLocal, Role
from bundler.cluster.schema_registry import PushUser, RegistryService
from bundler.formats.image_references import DOCKER_HUB, Reference, parse_reference

HASH = re.compile(r"\$[56]\$[^\s:$]+(\$[^\s:$]+)+")
"""A password's hash that every nginx can compare: SHA-256 or SHA-512 of crypt(5)."""


def repository_of(reference: Reference) -> str:
    """The repository of an upstream image: below its registry's name, of Docker Hub without it.

    Docker asks a mirror of Docker Hub by the plain name, and has no mirrors of others.
    """
    if reference.registry == DOCKER_HUB:
        return reference.repository
    return f"{reference.registry.lower().replace(':', '_')}/{reference.repository}"


def list_registry_images(cluster: Cluster) -> tuple[Reference, ...]:
    """The images that workers pull from the cluster's registry."""
    return tuple(parse_reference(i.ref) for i in cluster.images if i.where == "registry")


def list_upstreams(cluster: Cluster) -> tuple[str, ...]:
    """The upstream registries of these images, in the order of the file."""
    return tuple(dict.fromkeys(one.registry for one in list_registry_images(cluster)))


def list_hosts(cluster: Cluster) -> tuple[str, ...]:
    """ADDRESS:PORT of every host of the registry, in the order of the file."""
    registry = cluster.registry
    if not registry:
        return ()
    addresses = {node.name: node.address for node in cluster.nodes}
    return tuple(f"{addresses[name]}:{registry.port}" for name in registry.nodes)


def list_docker_mirrors(cluster: Cluster) -> list[str]:
    """The mirrors of Docker Hub for dockerd: the cluster's registry first."""
    own = [f"https://{host}" for host in list_hosts(cluster)]
    theirs = cluster.runtime.registry_mirrors if isinstance(cluster.runtime, Docker) else ()
    return [*own, *theirs]


def check_registry_service(cluster: Cluster) -> Iterator[Problem]:
    """Every problem of `registry` and of images that go there."""
    yield from _check_images(cluster)
    registry = cluster.registry
    for index, node in enumerate(cluster.nodes):
        if Role.REGISTRY in node.roles and (not registry or node.name not in registry.nodes):
            text = "the role registry is for hosts that registry.nodes names: name it there"
            yield Problem(path=("nodes", index, "roles"), text=text)
    if not registry:
        return
    nodes = {node.name: node for node in cluster.nodes}
    for index, name in enumerate(registry.nodes):
        where = ("registry", "nodes", index)
        if name not in nodes:
            yield Problem(path=where, text=f"there is no node {name}: name one of `nodes`")
        elif name in registry.nodes[:index]:
            yield Problem(path=where, text=f"{name} is listed twice: keep one")
        else:
            is_first = index == 0
            yield from _check_ports(cluster, registry, nodes[name], has_push=is_first)
            yield from _check_storage(cluster, registry, nodes[name])
    yield from _check_users(cluster, registry)


def _check_images(cluster: Cluster) -> Iterator[Problem]:
    """Images that workers could not pull from the registry."""
    is_known = minor_of(cluster.kubernetes.version) in MINORS
    for index, image in enumerate(cluster.images):
        if image.where != "registry":
            continue
        where, upstream = ("images", index, "where"), parse_reference(image.ref).registry
        if not cluster.registry:
            text = "the cluster has no registry: add `registry: {nodes: [...]}`, or remove this key"
            yield Problem(path=where, text=text)
        elif isinstance(cluster.runtime, Docker) and upstream != DOCKER_HUB:
            text = (
                f"Docker has mirrors of {DOCKER_HUB} only, and pulls {image.ref} from {upstream}"
                " itself: remove this key, or use containerd"
            )
            yield Problem(path=where, text=text)
        elif isinstance(cluster.runtime, Containerd) and is_known:
            needed = (1, 5) if upstream == DOCKER_HUB else (1, 6)
            version = runtime_versions(cluster)["containerd"]
            if key_of(minor_of(version)) < needed:
                least = ".".join(map(str, needed))
                text = f"containerd {version} cannot use such a mirror: use {least} or later"
                yield Problem(path=where, text=text)


def _check_ports(
    cluster: Cluster, registry: RegistryService, node: Node, *, has_push: bool
) -> Iterator[Problem]:
    """A port of the registry that another unit of the host has."""
    balancer = cluster.control_plane.load_balancer
    endpoint = cluster.control_plane.endpoint
    if isinstance(balancer, NodeLocal) and not endpoint:
        endpoint = NODE_LOCAL_ENDPOINT
    taken = {port for role in node.roles for port in PORTS[role]}
    if endpoint and (Role.LOAD_BALANCER in node.roles or isinstance(balancer, NodeLocal)):
        taken.add(int(endpoint.rpartition(":")[2]))
    low, _, high = str(cluster.network.node_port_range).partition("-")
    ports: dict[tuple[str, ...], int] = {("registry", "port"): registry.port}
    if registry.push and has_push:
        ports["registry", "push", "port"] = registry.push.port
    for where, port in ports.items():
        if port in taken:
            text = f"{port} is the port of another unit on {node.name}: choose another"
            yield Problem(path=where, text=text)
        elif Role.WORKER in node.roles and int(low) <= port <= int(high):
            text = (
                f"{port} is in network.node_port_range, and {node.name} is a worker: choose another"
            )
            yield Problem(path=where, text=text)


def _check_storage(cluster: Cluster, registry: RegistryService, node: Node) -> Iterator[Problem]:
    """A directory that other data are in."""
    own = cluster.on_host(node)
    places = {"runtime.data_root": own.runtime.data_root} if Role.WORKER in node.roles else {}
    if Role.ETCD in node.roles:
        places |= {
            "etcd.data_dir": own.etcd.data_dir,
            "etcd.backup.directory": own.etcd.backup.directory,
        }
        places |= {"etcd.wal_dir": own.etcd.wal_dir} if own.etcd.wal_dir else {}
    for name, place in places.items():
        pair = sorted((f"{registry.storage}/", f"{place}/"), key=len)
        if pair[1].startswith(pair[0]):
            text = f"{registry.storage} and {name} {place} are one inside the other: choose another"
            yield Problem(path=("registry", "storage"), text=text)


def _check_users(cluster: Cluster, registry: RegistryService) -> Iterator[Problem]:
    """Users who are listed twice, write where images of the bundle are, or have no hash."""
    seeded = {repository_of(one): one.name for one in list_registry_images(cluster)}
    users = registry.push.users if registry.push else ()
    for index, user in enumerate(users):
        where = ("registry", "push", "users", index)
        if user.name in {other.name for other in users[:index]}:
            yield Problem(path=(*where, "name"), text=f"{user.name} is listed twice: keep one")
        for repository, name in seeded.items():
            if f"{repository}/".startswith(f"{user.writes}/"):
                text = f"{user.writes} has {name} of the bundle: choose another prefix"
                yield Problem(path=(*where, "prefix" if user.prefix else "name"), text=text)
                break
        if fault := _find_fault(user.password):
            yield Problem(path=(*where, "password"), text=fault)


def _find_fault(path: Path) -> str:
    """What is wrong with the file of a hash; empty if nothing is. It is never quoted."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return f"{path}: cannot be read; write it with: openssl passwd -6 >{path}"
    if len(lines) == 1 and HASH.fullmatch(lines[0]):
        return ""
    return (
        f"{path}: must have one line, a hash of crypt(5) that begins with $6$ or $5$; write it"
        f" with: openssl passwd -6 >{path}"
    )


def read_hash(user: PushUser) -> str:
    """The hash of a user's password."""
    return user.password.read_text().strip()
