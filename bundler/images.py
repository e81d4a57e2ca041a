"""Image archives as `docker save` writes them: which references and which image ids they hold."""

import hashlib
import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bundler.catalog import default_version
from bundler.checks import Problem
from bundler.components import IMAGE_NAMES, MINORS, minor_of, row_for
from bundler.config import Cluster, Image, Role
from bundler.errors import ArtifactError

MAX_DOCUMENT = 8 << 20  # bytes of a manifest or an image's configuration
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
DOCKER_HUB = "docker.io"
WHY_NEEDED = {
    "pause": "every pod's sandbox is made of it",
    "coredns": "it answers the cluster's DNS; or say `dns: {provider: none}`",
    "metrics-server": "metrics_server asks for it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveImage:
    """One image of an archive: its references, and the digest of its configuration."""

    references: tuple[str, ...]
    image_id: str  # sha256:…
    architecture: str  # in Go's spelling, which is Kubernetes'
    layers: tuple[str, ...] = ()  # digests of what they hold, uncompressed, the lowest first


def read_archive(path: Path) -> tuple[ArchiveImage, ...]:
    """Every image of a docker-save archive; raises ArtifactError where it is no such archive."""
    try:
        with tarfile.open(path, "r:") as archive:
            documents = _read_documents(archive)
    except (tarfile.TarError, EOFError) as error:
        raise ArtifactError(
            f"{path}: not a whole, uncompressed tar archive ({error})",
            hint="make it anew: docker save -o FILE REFERENCE (gunzip it if it is compressed)",
        ) from error
    except OSError as error:
        raise ArtifactError(f"{path}: {error.strerror or error}") from error
    if "manifest.json" not in documents:
        raise ArtifactError(
            f"{path}: holds no manifest.json, so it is no docker-save archive",
            hint="make it with: docker save -o FILE REFERENCE",
        )
    try:
        manifest = json.loads(documents["manifest.json"])
        return tuple(
            _read_image(entry["RepoTags"] or (), documents[entry["Config"]]) for entry in manifest
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path}: its manifest.json does not describe the archive") from error


def _read_image(references: Iterable[str], document: bytes) -> ArchiveImage:
    """An image by its configuration (the OCI image specification, config.md)."""
    config = json.loads(document)
    layers = (config.get("rootfs") or {}).get("diff_ids") or ()
    if not all(DIGEST.fullmatch(layer) for layer in layers):
        raise ValueError(f"a layer's digest is none: {layers}")
    return ArchiveImage(
        references=tuple(normalize(reference) for reference in references),
        image_id="sha256:" + hashlib.sha256(document).hexdigest(),
        architecture=str(config.get("architecture", "")),
        layers=tuple(layers),
    )


def find_image(image: Image) -> ArchiveImage:
    """The image of `image.file` that carries `image.ref`; ArtifactError lists what it carries."""
    found = read_archive(image.file)
    wanted = normalize(image.ref)
    for candidate in found:
        if wanted in candidate.references:
            return candidate
    held = ", ".join(ref for c in found for ref in c.references) or "no reference at all"
    raise ArtifactError(f"{image.file}: does not hold {image.ref}; it holds {held}")


def normalize(reference: str) -> str:
    """The full form of a reference: registry, repository and tag (distribution/reference)."""
    first, slash, rest = reference.partition("/")
    if not slash:
        registry, name = DOCKER_HUB, f"library/{reference}"
    elif "." in first or ":" in first or first == "localhost":
        registry, name = first, rest
    else:
        registry, name = DOCKER_HUB, reference
    if "@" not in name and ":" not in name.rpartition("/")[2]:
        name += ":latest"
    return f"{registry}/{name}"


def serves(image: Image, use: str) -> bool:
    """Whether this is the image for a purpose: so marked, or else so named."""
    if image.use is not None:
        return image.use == use
    name = repository_name(image.ref)
    return name == use or name.startswith(f"{use}-")  # pause-amd64


def find_use(cluster: Cluster, use: str, arch: str | None = None) -> tuple[Image, ...]:
    """The images for a purpose (pause, verify, coredns, metrics-server) on nodes of `arch`."""
    return tuple(
        image
        for image in cluster.images
        if serves(image, use) and (arch is None or image.arch in {None, arch})
    )


def repository_name(reference: str) -> str:
    """`pause` of `registry.k8s.io/pause:3.2`."""
    return reference.rpartition("/")[2].partition("@")[0].partition(":")[0]


def needed_images(cluster: Cluster) -> dict[str, str]:
    """purpose → where upstream publishes the image, for each that the cluster cannot do without."""
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
    """Every problem of `images`, their archives' contents included."""
    counted = Counter((normalize(image.ref), image.arch) for image in cluster.images)
    for index, image in enumerate(cluster.images):
        where = ("images", index)
        if counted[normalize(image.ref), image.arch] > 1:
            yield Problem(path=(*where, "ref"), text=f"{image.ref} is given twice")
        if normalize(image.ref).endswith(":latest"):
            text = (
                f"{image.ref} has no fixed tag, so that the kubelet would always pull it: give one"
            )
            yield Problem(path=(*where, "ref"), text=text)
        yield from _check_archive(cluster, image, where)
    if minor_of(cluster.kubernetes.version) not in MINORS:
        return
    for arch in _worker_arches(cluster):
        yield from _check_needed(cluster, arch)
    if not _worker_arches(cluster):
        return
    checks = find_use(cluster, "verify")
    if not checks:
        text = (
            "no image has `use: verify`: verify.sh cannot run its pods (any web server on port 80)"
        )
        yield Problem(path=("images",), text=text, is_error=False)
    for use in ("verify", "coredns", "metrics-server"):
        refs = sorted({normalize(image.ref) for image in find_use(cluster, use)})
        if len(refs) > 1:
            text = f"more than one image serves as {use}: {', '.join(refs)}"
            yield Problem(path=("images",), text=text)


def _check_archive(
    cluster: Cluster, image: Image, where: tuple[str | int, ...]
) -> Iterator[Problem]:
    """The archive holds the image, for the machine of every node that loads it."""
    try:
        found = find_image(image)
    except ArtifactError as error:
        hint = f" ({error.hint})" if error.hint else ""
        yield Problem(path=(*where, "file"), text=f"{error.message}{hint}")
        return
    wanted = {image.arch.value} if image.arch else set(_worker_arches(cluster))
    if others := wanted - {found.architecture}:
        text = (
            f"{image.ref} in {image.file} is for {found.architecture or 'an unknown machine'}, and"
            f" nodes are {', '.join(sorted(others))}: give one archive for each, marked `arch:`"
        )
        yield Problem(path=(*where, "file"), text=text)


def _worker_arches(cluster: Cluster) -> tuple[str, ...]:
    return tuple(sorted({n.arch.value for n in cluster.nodes if Role.WORKER in n.roles}))


def _check_needed(cluster: Cluster, arch: str) -> Iterator[Problem]:
    """Every purpose has exactly one image on nodes of that machine."""
    several = f" for {arch}" if len(_worker_arches(cluster)) > 1 else ""
    for use, reference in needed_images(cluster).items():
        if len(found := find_use(cluster, use, arch)) != 1:
            text = (
                f"needs exactly one {use} image{several}, and has {len(found)}: {WHY_NEEDED[use]}"
                f" (docker save -o images/{use}.tar {reference})"
            )
            yield Problem(path=("images",), text=text)


def _read_documents(archive: tarfile.TarFile) -> dict[str, bytes]:
    """The small JSON files of the archive, by name; layers are skipped over."""
    documents: dict[str, bytes] = {}
    for member in archive:
        name = member.name.removeprefix("./")
        is_document = name.endswith(".json") or name.startswith("blobs/sha256/")
        if member.isfile() and is_document and member.size <= MAX_DOCUMENT:
            file = archive.extractfile(member)
            content = file.read() if file else b""
            if content[:1] in (b"{", b"["):
                documents[name] = content
    return documents
