"""Image archives as `docker save` writes them: which references and which image ids they hold."""

import hashlib
import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bundler.checks import Problem
from bundler.config import Cluster, Image, Role
from bundler.errors import ArtifactError

MAX_DOCUMENT = 8 << 20  # bytes of a manifest or an image's configuration
DOCKER_HUB = "docker.io"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveImage:
    """One image of an archive: its references, and the digest of its configuration."""

    references: tuple[str, ...]
    image_id: str  # sha256:…


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
            ArchiveImage(
                references=tuple(normalize(ref) for ref in entry["RepoTags"] or ()),
                image_id="sha256:" + hashlib.sha256(documents[entry["Config"]]).hexdigest(),
            )
            for entry in manifest
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: its manifest.json does not describe the archive") from error


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


def is_pause(image: Image) -> bool:
    """Whether this is the sandbox image: so marked, or so named."""
    if image.use is not None:
        return image.use == "pause"
    return image.ref.rpartition("/")[2].partition(":")[0].startswith("pause")


def check_images(cluster: Cluster) -> Iterator[Problem]:
    """Every problem of `images`, their archives' contents included."""
    counted = Counter(normalize(image.ref) for image in cluster.images)
    for index, image in enumerate(cluster.images):
        where = ("images", index)
        if counted[normalize(image.ref)] > 1:
            yield Problem(path=(*where, "ref"), text=f"{image.ref} is given twice")
        if normalize(image.ref).endswith(":latest"):
            text = (
                f"{image.ref} has no fixed tag, so that the kubelet would always pull it: give one"
            )
            yield Problem(path=(*where, "ref"), text=text)
        try:
            find_image(image)
        except ArtifactError as error:
            hint = f" ({error.hint})" if error.hint else ""
            yield Problem(path=(*where, "file"), text=f"{error.message}{hint}")
    if not any(Role.WORKER in node.roles for node in cluster.nodes):
        return
    pauses = [image for image in cluster.images if is_pause(image)]
    if len(pauses) != 1:
        text = (
            f"needs exactly one pause image, and has {len(pauses)}: every pod's sandbox is made of"
            " it (docker save -o images/pause.tar registry.k8s.io/pause:3.2)"
        )
        yield Problem(path=("images",), text=text)
    checks = [image for image in cluster.images if image.use == "verify"]
    if not checks:
        text = (
            "no image has `use: verify`: verify.sh cannot run its pods (any web server on port 80)"
        )
        yield Problem(path=("images",), text=text, is_error=False)
    elif len(checks) > 1:
        yield Problem(path=("images",), text="more than one image has `use: verify`")


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
