"""The images that a cluster needs and has, and checks of those in cluster.yaml."""

from collections import Counter
from collections.abc import Iterator

from bundler.catalog import default_version
from bundler.cluster.components import (
    IMAGE_NAMES,
    MINORS,
    key_of,
    minor_of,
    row_for,
)
from bundler.cluster.inputs import Image
from bundler.cluster.plan import runtime_versions
from bundler.cluster.problem import Problem
from bundler.cluster.schema import Cluster, Docker, Role
from bundler.errors import ArtifactError
from bundler.formats.image_archives import open_image
from bundler.formats.image_manifests import FROM_DAEMON, ZSTD_LAYERS
from bundler.formats.image_references import full_name, parse_reference, repository_name
from bundler.formats.stored_images import StoredImage

WHY_NEEDED = {
    "pause": "every pod's sandbox runs it",
    "coredns": "it is the cluster's DNS server; or set `dns: {provider: none}`",
    "metrics-server": "the key metrics_server is set",
}


def add_needed(cluster: Cluster) -> Cluster:
    """The cluster plus upstream's image for each purpose without an image in cluster.yaml."""
    if minor_of(cluster.kubernetes.version) not in MINORS or not _worker_arches(cluster):
        return cluster
    added = tuple(
        Image(ref=reference)
        for use, reference in needed_images(cluster).items()
        if not find_use(cluster, use)
    )
    return cluster.model_copy(update={"images": cluster.images + added})


def is_for(image: Image, use: str) -> bool:
    """Whether the image is for a purpose: by its `use`, or without one by its name."""
    if image.use is not None:
        return image.use == use
    name = repository_name(image.ref)
    return name == use or name.startswith(f"{use}-")  # pause-amd64


def find_use(cluster: Cluster, use: str, arch: str | None = None) -> tuple[Image, ...]:
    """The images for a purpose (pause, verify, coredns, metrics-server) on nodes of `arch`."""
    return tuple(
        image
        for image in cluster.images
        if is_for(image, use) and (not arch or image.arch in {None, arch})
    )


def needed_images(cluster: Cluster) -> dict[str, str]:
    """Purpose → upstream's image, for each purpose that the cluster requires."""
    minor = minor_of(cluster.kubernetes.version)
    versions = {
        "pause": None,
        "coredns": cluster.dns.version if cluster.dns.provider == "coredns" else "",
        "metrics-server": cluster.metrics_server.version if cluster.metrics_server else "",
    }
    return {
        use: row_for(IMAGE_NAMES[use], minor).format(version=version or default_version(use, minor))
        for use, version in versions.items()
        if version != ""
    }


def check_images(cluster: Cluster) -> Iterator[Problem]:
    """Every problem of `images`, including the contents of their archives."""
    counted = Counter((full_name(image.ref), image.arch) for image in cluster.images)
    for index, image in enumerate(cluster.images):
        where = ("images", index)
        if counted[full_name(image.ref), image.arch] > 1:
            yield Problem(path=(*where, "ref"), text=f"{image.ref} is listed twice: keep one")
        if parse_reference(image.ref).tag in {None, "latest"}:
            text = (
                f"{image.ref} has no fixed tag, by which hosts recognize an image: use NAME:TAG"
                " or NAME:TAG@sha256:DIGEST"
            )
            yield Problem(path=(*where, "ref"), text=text)
        if image.where == "registry":
            yield from _check_use(cluster, image, where)
        elif "@" in image.ref and isinstance(cluster.runtime, Docker):
            text = (
                "Docker does not find a loaded image by its digest: pods must name it"
                f" {image.ref.partition('@')[0]}, without @sha256 (the bundle stays pinned)"
            )
            yield Problem(path=(*where, "ref"), text=text, is_error=False)
        yield from _check_archive(cluster, image, where)
    arches = _worker_arches(cluster)
    if minor_of(cluster.kubernetes.version) not in MINORS or not arches:
        return
    for arch in arches:
        yield from _check_needed(cluster, arch)
    yield from _check_verify(cluster, arches)
    for use in ("verify", "coredns", "metrics-server"):
        refs = sorted({full_name(image.ref) for image in find_use(cluster, use)})
        if len(refs) > 1:
            text = f"more than one image for {use}: {', '.join(refs)}; keep one"
            yield Problem(path=("images",), text=text)


def _check_use(cluster: Cluster, image: Image, where: tuple[str | int, ...]) -> Iterator[Problem]:
    """An image of the cluster itself that its workers would have to pull."""
    for use in (*needed_images(cluster), "verify"):
        if is_for(image, use):
            text = f"workers need the {use} image before they can pull any: remove this key"
            yield Problem(path=(*where, "where"), text=text)


def _check_verify(cluster: Cluster, arches: tuple[str, ...]) -> Iterator[Problem]:
    """No image for verify.sh's pods, or none for some workers."""
    if not find_use(cluster, "verify"):
        text = (
            "no image has `use: verify`: verify.sh cannot run its test pods (take any image of a"
            " web server on port 80)"
        )
        yield Problem(path=("images",), text=text, is_error=False)
        return
    for arch in arches:
        if not find_use(cluster, "verify", arch):
            text = f"no image with `use: verify` for {arch}: verify.sh runs it on every worker"
            yield Problem(path=("images",), text=text)


def _check_archive(
    cluster: Cluster, image: Image, where: tuple[str | int, ...]
) -> Iterator[Problem]:
    """An archive without the image, or without it for some worker's architecture."""
    if not image.file:
        return
    for arch in [image.arch.value] if image.arch else _worker_arches(cluster):
        try:
            stored = open_image(image.file, parse_reference(image.ref), arch)
            check_layers(cluster, stored, f"{image.file}: {image.ref}")
        except ArtifactError as error:
            hint = f" ({error.hint})" if error.hint else ""
            yield Problem(path=(*where, "file"), text=f"{error.message}{hint}")


def check_layers(cluster: Cluster, image: StoredImage, where: str) -> None:
    """ArtifactError if the cluster's container runtime cannot unpack a layer of the image."""
    engine = cluster.runtime.engine
    version = runtime_versions(cluster)[engine]
    for layer in image.layers:
        first = ZSTD_LAYERS.get(layer.descriptor.media_type, {}).get(engine)
        if first and key_of(minor_of(version)) < first:
            major, minor = first
            raise ArtifactError(
                f"{where}: has a layer that is compressed with zstd, which {engine} {version}"
                " cannot unpack",
                hint=f"use {engine} {major}.{minor} or later, or load the image into a Docker and"
                f" save it there: {FROM_DAEMON}",
            )


def _worker_arches(cluster: Cluster) -> tuple[str, ...]:
    return tuple(sorted({n.arch.value for n in cluster.nodes if Role.WORKER in n.roles}))


def _check_needed(cluster: Cluster, arch: str) -> Iterator[Problem]:
    """A purpose without exactly one image for workers of an architecture."""
    several = f" for {arch}" if len(_worker_arches(cluster)) > 1 else ""
    for use, reference in needed_images(cluster).items():
        if len(found := find_use(cluster, use, arch)) != 1:
            text = (
                f"needs exactly one {use} image{several}, found {len(found)}: {WHY_NEEDED[use]}"
                f" (upstream's image is {reference})"
            )
            yield Problem(path=("images",), text=text)
