"""An image as it lies on the builder's disk, wherever it came from."""

from dataclasses import dataclass
from pathlib import Path

from bundler.formats.image_manifests import (
    Descriptor,
    ImageManifest,
    architecture_of,
    digest_of,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Some bytes of a file."""

    path: Path
    offset: int
    size: int

    def read(self) -> bytes:
        """All of them; for documents, which are small."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer, and where its bytes are."""

    descriptor: Descriptor
    place: Place
    is_verified: bool  # it is in the cache, so known to be what its digest says


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """One image for one machine, whole."""

    manifest: ImageManifest
    config: bytes
    layers: tuple[Layer, ...]

    @property
    def image_id(self) -> str:
        """`sha256:…` of the configuration: what runtimes know an image by."""
        return digest_of(self.config)

    @property
    def architecture(self) -> str:
        """In Go's spelling, which is Kubernetes'."""
        return architecture_of(self.config, self.image_id)
