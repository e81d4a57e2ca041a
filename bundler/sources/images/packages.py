"""The packages inside all images. A layer is read once: a note in the cache has what was found."""

import base64
import gzip
import io
import json
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import zstandard

from bundler.cache.store import Cache
from bundler.files import write_atomically
from bundler.formats.image_manifests import GZIP_LAYERS, ZSTD_LAYERS
from bundler.formats.image_packages import (
    Files,
    ImagePackages,
    is_package_file,
    merge_layers,
    read_packages,
)
from bundler.formats.stored_images import ByteRange, Layer, StoredImage
from bundler.formats.tar_safety import BadMemberError, read_files, unpack_limit
from bundler.private_files import read_note
from bundler.sources.images.needed import Images

CHUNK = 1 << 16
MOST_ZSTD = 128 << 20
"""Bytes that zstd may look back, as its own programs and runtimes allow."""
DAMAGED = (
    BadMemberError, tarfile.TarError, EOFError, OSError, zlib.error, zstandard.ZstdError,
)  # fmt: skip
LAYERS = "layer-packages"
"""The folder of the notes: DIGEST.json, path → content in base64."""


class UnreadableError(Exception):
    """A layer whose files cannot be read; the message says why."""


def list_image_packages(images: Images, cache: Cache) -> Mapping[str, ImagePackages]:
    """Image ID → its packages; an image that cannot be read says why."""
    return {image.image_id: _list_packages(image, cache) for image in images.values()}


def _list_packages(image: StoredImage, cache: Cache) -> ImagePackages:
    try:
        return read_packages(merge_layers([_read_layer(layer, cache) for layer in image.layers]))
    except UnreadableError as error:
        return ImagePackages(unread=str(error))


def _read_layer(layer: Layer, cache: Cache) -> Files:
    path = cache.directory(LAYERS) / f"{layer.descriptor.hexadecimal}.json"
    noted = _parse_note(path)
    if noted is not None:
        return noted
    try:
        with _open(layer.place, layer.descriptor.media_type) as file:
            found = read_files(file, is_package_file, unpack_limit(layer.place.size))
    except DAMAGED as error:
        raise UnreadableError(f"a layer is no complete tar archive ({error})") from error
    note = {name: base64.b64encode(content).decode() for name, content in found.items()}
    write_atomically(path, json.dumps(note).encode())
    return found


def _parse_note(path: Path) -> Files | None:
    try:
        note = json.loads(read_note(path) or b"null")
        return {str(name): base64.b64decode(text) for name, text in note.items()}
    except (ValueError, TypeError, AttributeError):
        return None


@contextmanager
def _open(place: ByteRange, media_type: str) -> Iterator[IO[bytes]]:
    """The content of a layer, which ends where the layer does."""
    with place.path.open("rb") as file:
        file.seek(place.offset)
        part = io.BufferedReader(_ImagePart(file, place.size), CHUNK)
        if media_type in GZIP_LAYERS:
            with gzip.GzipFile(fileobj=part) as unzipped:
                yield cast("IO[bytes]", unzipped)
        elif media_type in ZSTD_LAYERS:
            decompressor = zstandard.ZstdDecompressor(max_window_size=MOST_ZSTD)
            with decompressor.stream_reader(part, read_across_frames=True) as unpacked:
                yield unpacked
        else:
            yield part


class _ImagePart(io.RawIOBase):
    """The next `size` bytes of a file."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        content = self._file.read(min(len(buffer), self._left))
        self._left -= len(content)
        buffer[: len(content)] = content
        return len(content)
