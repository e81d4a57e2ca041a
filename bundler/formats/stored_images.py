"""An image on the builder's disk, from a registry or from a file."""

from dataclasses import dataclass
from pathlib import Path

from bundler.formats.image_manifests import (
    Descriptor,
    ImageManifest,
    architecture_of,
    digest_of,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteRange:
    """A range of bytes in a file."""

    path: Path
    offset: int
    size: int

    def read(self) -> bytes:
        """All of the bytes; for documents, which are small."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer and where its bytes are stored."""

    descriptor: Descriptor
    place: ByteRange
    is_verified: bool  # it comes from the cache, which checked its digest


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """One complete image for one architecture."""

    manifest: ImageManifest
    config: bytes
    layers: tuple[Layer, ...]
    index: bytes = b""  # the index that upstream has the manifest in, if it is known

    @property
    def image_id(self) -> str:
        """`sha256:…` of the configuration: the image ID of container runtimes."""
        return digest_of(self.config)

    @property
    def architecture(self) -> str:
        """In Go's spelling, which Kubernetes uses too."""
        return architecture_of(self.config, self.image_id)
