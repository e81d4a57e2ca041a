"""The JSON documents of images: indices and manifests, in OCI and Docker format.

Source: https://github.com/opencontainers/image-spec, manifest.md and image-index.md;
https://distribution.github.io/distribution/spec/manifest-v2-2/
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bundler.errors import ArtifactError
from bundler.formats.safe_parse import read_json

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = f"{OCI_LAYER}+gzip"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
INDICES = (OCI_INDEX, DOCKER_LIST)
MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
PLAIN_LAYERS = (OCI_LAYER, DOCKER_LAYER)
GZIP_LAYERS = (OCI_LAYER_GZIP, f"{DOCKER_LAYER}.gzip")
OCI_LAYER_ZSTD = f"{OCI_LAYER}+zstd"
ZSTD_LAYERS: Mapping[str, Mapping[str, tuple[int, int]]] = {
    OCI_LAYER_ZSTD: {"docker": (23, 0), "containerd": (1, 5)},
    f"{DOCKER_LAYER}.zstd": {"docker": (23, 0), "containerd": (2, 0)},
}
"""Media type of a layer → runtime → its first version that unpacks such layers."""
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
MAX_DOCUMENT = 8 << 20  # bytes of a manifest, an index or a configuration
MAX_LAYER = 16 << 30  # bytes, compressed
FROM_DAEMON = "docker save -o FILE REFERENCE"


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A reference to a blob: media type, digest, size in bytes."""

    media_type: str
    digest: str  # sha256:…
    size: int

    @property
    def hexadecimal(self) -> str:
        """The digest without its algorithm."""
        return self.digest.partition(":")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageManifest:
    """One image for one architecture."""

    content: bytes  # the document as served; its digest is the digest of the image
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]

    @property
    def descriptor(self) -> Descriptor:
        """The manifest as a blob."""
        return Descriptor(self.media_type, digest_of(self.content), len(self.content))


def digest_of(content: bytes) -> str:
    """`sha256:…`."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def media_type_of(content: bytes, where: str, served_as: str = "") -> str:
    """The document's own media type, else the one it was served with; empty if both are unknown."""
    document = _read(content, where)
    stated = document.get("mediaType") or served_as.partition(";")[0].strip()
    if stated in INDICES + MANIFESTS:
        return str(stated)
    # in OCI documents the media type is optional
    if document.get("schemaVersion") != 2:
        return ""
    return OCI_INDEX if "manifests" in document else OCI_MANIFEST if "config" in document else ""


def parse_manifest(content: bytes, media_type: str, where: str) -> ImageManifest:
    """A manifest; ArtifactError if hosts could not load the image. `where` is for messages."""
    document = _read(content, where)
    try:
        manifest = ImageManifest(
            content=content,
            media_type=media_type,
            config=_read_descriptor(document["config"]),
            layers=tuple(_read_descriptor(layer) for layer in document["layers"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{where}: not an image manifest ({error})") from error
    for layer in manifest.layers:
        if layer.media_type not in {*PLAIN_LAYERS, *GZIP_LAYERS, *ZSTD_LAYERS}:
            raise ArtifactError(
                f"{where}: has a layer of type {layer.media_type}, which no container runtime"
                " unpacks",
                hint=f"save it as an archive and use that: {FROM_DAEMON}",
            )
    return manifest


def choose_manifest(content: bytes, arch: str, where: str) -> Descriptor:
    """The manifest in an index for linux/`arch`; ArtifactError lists the platforms there are."""
    document = _read(content, where)
    found: dict[str, Descriptor] = {}
    try:
        for entry in document["manifests"]:
            platform = entry.get("platform") or {}
            name = f"{platform.get('os')}/{platform.get('architecture')}"
            # container runtimes use the first match; arm64 has only the variant v8
            found.setdefault(name, _read_descriptor(entry))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{where}: not an image index ({error})") from error
    if not (chosen := found.get(f"linux/{arch}")):
        known = sorted(name for name in found if "unknown" not in name and "None" not in name)
        raise ArtifactError(
            f"{where}: is not published for linux/{arch}, only for {', '.join(known) or 'nothing'}",
            hint="choose another tag, or use an image file with `file:` and `arch:`",
        )
    return chosen


def architecture_of(config: bytes, where: str) -> str:
    """The architecture in an image's configuration, in Go's spelling."""
    return str(_read(config, where).get("architecture", ""))


def diff_ids_of(config: bytes, where: str) -> tuple[str, ...]:
    """The digests of the uncompressed layers, `sha256:…`."""
    try:
        digests = tuple(_read(config, where)["rootfs"]["diff_ids"])
        if all(DIGEST.fullmatch(digest) for digest in digests):
            return digests
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"{where}: the image configuration has no rootfs.diff_ids") from error
    raise ArtifactError(f"{where}: the image configuration has invalid diff_ids: {digests}")


def dump(document: Any) -> bytes:
    """JSON, always the same bytes for the same document."""
    return json.dumps(document, separators=(",", ":")).encode()


def describe(descriptor: Descriptor) -> dict[str, Any]:
    """A descriptor as it is in documents."""
    return {
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest,
        "size": descriptor.size,
    }


def make_manifest(config: bytes, layers: tuple[Descriptor, ...]) -> ImageManifest:
    """A manifest for an image that has none, such as one from `docker save`."""
    described = Descriptor(OCI_CONFIG, digest_of(config), len(config))
    content = dump(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": describe(described),
            "layers": [describe(layer) for layer in layers],
        }
    )
    return ImageManifest(content=content, media_type=OCI_MANIFEST, config=described, layers=layers)


def _read_descriptor(entry: dict[str, Any]) -> Descriptor:
    digest, size = entry["digest"], entry["size"]
    if not DIGEST.fullmatch(digest):
        raise ValueError(f"{digest} is not a sha256 digest")
    if not isinstance(size, int) or size < 0:
        raise ValueError(f"{size} is not a size")
    return Descriptor(str(entry["mediaType"]), str(digest), size)


def _read(content: bytes, where: str) -> dict[str, Any]:
    try:
        document = read_json(content)
    except ValueError as error:
        raise ArtifactError(f"{where}: not JSON ({error})") from error
    if not isinstance(document, dict):
        raise ArtifactError(f"{where}: not a JSON object")
    return document
