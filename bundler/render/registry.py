"""The cluster's registry on its hosts: values for templates, its users, and the list of its images.

/etc/kube-registry/users has the users who may push, with the hashes of their passwords.
lib/registry.tsv has what registry-seed.sh copies and links: kind, repository, digest, and the size
of a blob or the tag.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bundler.cache.payload import Payload
from bundler.cluster.plan import ClusterPlan, NodePlan
from bundler.cluster.registry_service import (
    list_docker_mirrors,
    list_hosts,
    list_registry_images,
    read_hash,
    repository_of,
)
from bundler.cluster.schema import Role
from bundler.cluster.schema_registry import PushUser, RegistryPush
from bundler.errors import ArtifactError
from bundler.files import SECRET_MODE
from bundler.formats.image_manifests import OCI_INDEX, describe, digest_of, dump
from bundler.formats.image_references import Reference
from bundler.formats.stored_images import StoredImage
from bundler.render.tree import File
from bundler.sources.images.needed import list_needed
from bundler.sources.payloads import ImageFiles

LIST = "lib/registry.tsv"
HEADING = "# kind\trepository\tdigest\tbytes or tag\n"
USERS = "rootfs/etc/kube-registry/users"
COMPONENT = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
"""A part of a repository's name, as in distribution's reference/regexp.go: never `..`."""

WRITES = (
    r"POST /v2/{name}/blobs/uploads/(\?[^ ]*)?",
    r"(PATCH|PUT|DELETE) /v2/{name}/blobs/uploads/[A-Za-z0-9-]+(\?[^ ]*)?",
    r"(PUT|DELETE) /v2/{name}/manifests/[A-Za-z0-9_][A-Za-z0-9_.:-]*",
)
"""The requests of a push, and the removal of an image, below a prefix."""


def make_registry_values(plan: ClusterPlan, node: NodePlan) -> dict[str, Any]:
    """Make the values; empty where the cluster or the node has no registry."""
    registry = plan.cluster.registry
    push = find_push(plan, node)
    return {
        "registry": registry,
        "registry_push": push,
        "registry_hosts": list_hosts(plan.cluster),
        "registry_images": tuple(list_manifests(plan)),
        "registry_position": registry.nodes.index(node.name)
        if registry and node.has(Role.REGISTRY)
        else 0,
        "registry_sources": tuple(list_sources(plan, node)),
        "registry_has_low_port": any(port < 1024 for port in list_ports(plan, node)),
        "registry_writes": tuple(list_writes(push.users)) if push else (),
        "registry_tls": "TLSv1.3"
        if plan.cluster.tls.min_version == "TLS1.3"
        else "TLSv1.2 TLSv1.3",
        "docker_mirrors": list_docker_mirrors(plan.cluster),
    }


def list_manifests(plan: ClusterPlan) -> Iterator[str]:
    """Yield REPOSITORY/manifests/TAG of each image of the bundle that is in the registry."""
    for reference in list_registry_images(plan.cluster):
        yield f"{repository_of(reference)}/manifests/{reference.tag or 'latest'}"


def list_sources(plan: ClusterPlan, node: NodePlan) -> Iterator[str]:
    """Yield words for registry-copy.sh: the first host restores from the others; they follow."""
    registry = plan.cluster.registry
    if not registry or not node.has(Role.REGISTRY):
        return
    first, *others = (host.rpartition(":")[0] for host in list_hosts(plan.cluster))
    if node.name == registry.nodes[0]:
        yield from ("restore", *others)
    else:
        yield from ("follow", first)


def find_push(plan: ClusterPlan, node: NodePlan) -> RegistryPush | None:
    """Who may push to this host: to the first of the registry only."""
    registry = plan.cluster.registry
    return registry.push if registry and node.name == registry.nodes[0] else None


def list_ports(plan: ClusterPlan, node: NodePlan) -> tuple[int, ...]:
    """The ports of the registry on this host."""
    registry = plan.cluster.registry
    if not registry or not node.has(Role.REGISTRY):
        return ()
    push = find_push(plan, node)
    return (registry.port, *([push.port] if push else []))


def list_writes(users: Iterable[PushUser]) -> Iterator[str]:
    """Regular expressions of `USER METHOD PATH`: what each user may write."""
    for user in users:
        name = f"{re.escape(user.writes)}(/{COMPONENT})+"
        for request in WRITES:
            yield f"{re.escape(user.name)} {request.format(name=name)}"


def make_user_files(plan: ClusterPlan, node: NodePlan) -> Iterator[File]:
    """Yield the file of users, for the host that accepts pushes."""
    if push := find_push(plan, node):
        text = "".join(f"{user.name}:{read_hash(user)}\n" for user in push.users)
        yield File(path=USERS, mode=SECRET_MODE, content=text.encode(), origin="registry.push")


def make_seed(
    plan: ClusterPlan, node: NodePlan, files: ImageFiles
) -> tuple[Mapping[str, bytes | Payload], str]:
    """Make what the registry of a host gets: blobs by digest, and the list; nothing elsewhere."""
    blobs: dict[str, bytes | Payload] = {}
    links: dict[tuple[int, str], None] = {}  # in the order: layers, manifests, tags
    by_name: dict[str, dict[str, StoredImage]] = {}
    references: dict[str, Reference] = {}
    for needed in list_needed(plan) if node.has(Role.REGISTRY) else ():
        if needed.image.where == "registry":
            name = needed.reference.name
            references[name] = needed.reference
            by_name.setdefault(name, {})[needed.arch] = files.images[name, needed.arch]
    for name, images in by_name.items():
        reference = references[name]
        repository = repository_of(reference)
        top, documents = _list_documents(images)
        _check_digest(reference, plan.image_digests.get(name), documents)
        for image in images.values():
            for config in (image.manifest.config, *image.manifest.layers):
                links[0, f"layer\t{repository}\t{config.hexadecimal}\n"] = None
            blobs[image.manifest.config.hexadecimal] = image.config
            for layer in image.layers:
                blobs[layer.descriptor.hexadecimal] = files.layers[layer.descriptor.digest]
        for digest, content in documents.items():
            blobs[digest] = content
            links[1, f"manifest\t{repository}\t{digest}\n"] = None
        links[2, f"tag\t{repository}\t{top}\t{reference.tag or 'latest'}\n"] = None
    sizes = (f"blob\t-\t{digest}\t{_size(content)}\n" for digest, content in blobs.items())
    return blobs, "".join((HEADING, *sizes, *(line for _, line in sorted(links))))


def _list_documents(images: Mapping[str, StoredImage]) -> tuple[str, dict[str, bytes]]:
    """The digest that the tag stands for, and the manifests with their index by digest.

    Upstream's index, if all architectures come from one, so that its digest is the same here.
    """
    documents = {
        image.manifest.descriptor.hexadecimal: image.manifest.content for image in images.values()
    }
    indices = {image.index for image in images.values()}
    if len(indices) == 1 and (index := next(iter(indices))):
        top = index
    elif len(documents) == 1:
        return next(iter(documents)), documents
    else:
        manifests = [
            describe(image.manifest.descriptor)
            | {"platform": {"architecture": arch, "os": "linux"}}
            for arch, image in sorted(images.items())
        ]
        top = dump({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests})
    for index in filter(None, (*indices, top)):
        documents[digest_of(index).partition(":")[2]] = index
    return digest_of(top).partition(":")[2], documents


def _check_digest(reference: Reference, pinned: str | None, documents: Mapping[str, bytes]) -> None:
    """ArtifactError if pods name the image by a digest that the registry would not have."""
    for digest in filter(None, (reference.digest, pinned)):
        if digest.partition(":")[2] not in documents:
            raise ArtifactError(
                f"{reference.name}: pods name it by {digest}, and what the registry gets has only"
                f" {', '.join(f'sha256:{one}' for one in documents)}",
                hint="a file has no index of its registry: remove `file`, or `where: registry`",
            )


def _size(content: bytes | Payload) -> int:
    return content.size if isinstance(content, Payload) else len(content)
