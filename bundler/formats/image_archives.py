"""Read images from files: archives of `docker save`, OCI archives, and directories of both.

Nothing is unpacked: layers are read from the archive. A name in an archive is only looked up among
the archive's own regular files, so it cannot lead to another file of the builder.
"""

import posixpath
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundler.errors import ArtifactError
from bundler.formats.digests import hash_next
from bundler.formats.image_manifests import (
    FROM_DAEMON,
    INDICES,
    MANIFESTS,
    MAX_DOCUMENT,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    PLAIN_LAYERS,
    Descriptor,
    architecture_of,
    choose_manifest,
    diff_ids_of,
    digest_of,
    make_manifest,
    parse_manifest,
)
from bundler.formats.image_references import Reference, full_name
from bundler.formats.safe_parse import read_json
from bundler.formats.stored_images import ByteRange, Layer, StoredImage
from bundler.formats.tar_safety import (
    BadMemberError,
    find_sparse_file,
    iter_members,
    open_tar,
)

DOCKER_INDEX = "manifest.json"
OCI_INDEX_FILE = "index.json"
NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
COMPRESSIONS = {
    b"\x1f\x8b": OCI_LAYER_GZIP,
    b"\x28\xb5\x2f\xfd": OCI_LAYER_ZSTD,
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
}
"""First bytes of a compressed layer → its media type, or the name if no runtime unpacks it."""
Files = Mapping[str, ByteRange]
"""The regular files of an archive or a directory, by normalized name."""


@dataclass(frozen=True, slots=True)
class _Found:
    """An image in an archive: an entry of index.json or of manifest.json."""

    names: tuple[str, ...]  # full names, digests, or (OCI) a tag alone
    entry: Mapping[str, Any]
    is_docker: bool


def open_image(path: Path, reference: Reference, arch: str) -> StoredImage:
    """The image with that name and architecture; ArtifactError lists what the file holds."""
    try:
        return _open_image(path, reference, arch)
    except OSError as error:  # bad media
        raise ArtifactError(f"{path}: {error.strerror or error}") from error


def _open_image(path: Path, reference: Reference, arch: str) -> StoredImage:
    files = list_files(path)
    found = tuple(_list_images(files, path))
    chosen = _choose(found, reference)
    if not chosen:
        listed = ", ".join(name for image in found for name in image.names) or "no named image"
        raise ArtifactError(
            f"{path}: does not hold {_show(reference)}; it holds {listed}",
            hint=f"save it with: docker save -o FILE {reference.name}; or remove `file`",
        )
    where = f"{path}: {_show(reference)}"
    read = _read_images(files, chosen, arch, where)
    held = [image for image in read if image.architecture == arch]
    if len(held) > 1:
        names = ", ".join(dict.fromkeys(image.names[0] for image in chosen))
        raise ArtifactError(
            f"{where}: {len(held)} images for {arch} have that name or tag ({names}):"
            f" {', '.join(image.image_id[:19] for image in held)}",
            hint=f"save only one: {FROM_DAEMON}; or name it by its digest: NAME:TAG@sha256:DIGEST",
        )
    if not held:
        machines = dict.fromkeys(image.architecture or "an unknown architecture" for image in read)
        raise ArtifactError(
            f"{_show(reference)} in {path} is for {', '.join(machines)}, but nodes are"
            f" {arch}: give one archive for each architecture, with `arch:`"
        )
    _check_layers(held[0], where)
    return held[0]


def _read_images(
    files: Files, chosen: Iterable[_Found], arch: str, where: str
) -> tuple[StoredImage, ...]:
    """Each image once: newer archives of Docker list it in index.json and in manifest.json."""
    read: dict[str, StoredImage] = {}
    for image in chosen:
        if not image.is_docker:
            stored = _read_oci(files, image.entry, arch, where)
        elif _image_id(files, image.entry) not in read:  # its layers take long to hash
            stored = _read_docker(files, image.entry, where)
        read.setdefault(stored.image_id, stored)
    return tuple(read.values())


def _image_id(files: Files, entry: Mapping[str, Any]) -> str:
    """The image ID of an entry of manifest.json; empty if its configuration is missing."""
    place = files.get(posixpath.normpath(str(entry.get("Config"))))
    return digest_of(_read_document(place, str(place.path))) if place else ""


def list_files(path: Path) -> Files:
    """Every regular file of an archive or a directory; ArtifactError if it is neither."""
    try:
        files = _list_directory(path) if path.is_dir() else _list_archive(path)
    except BadMemberError as error:
        raise ArtifactError(
            f"{path}: not an archive of images: {error}", hint=f"make it again: {FROM_DAEMON}"
        ) from error
    except (tarfile.TarError, EOFError) as error:
        raise ArtifactError(
            f"{path}: not a complete, uncompressed tar archive ({error})",
            hint=f"make it again: {FROM_DAEMON} (gunzip it if it is compressed)",
        ) from error
    except OSError as error:
        raise ArtifactError(f"{path}: {error.strerror or error}") from error
    if DOCKER_INDEX not in files and OCI_INDEX_FILE not in files:
        raise ArtifactError(
            f"{path}: has neither manifest.json (docker save) nor index.json (OCI)",
            hint=f"make it with: {FROM_DAEMON}",
        )
    return files


def _list_directory(root: Path) -> Files:
    inside = root.resolve()
    return {
        path.relative_to(root).as_posix(): ByteRange(path=path, offset=0, size=path.stat().st_size)
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.resolve().is_relative_to(inside)
    }


def _list_archive(path: Path) -> Files:
    files: dict[str, ByteRange] = {}
    links: dict[str, str] = {}
    with open_tar(path, "r:") as archive:
        for member in iter_members(archive):
            name = posixpath.normpath(member.name)
            if member.isreg():
                files[name] = ByteRange(path=path, offset=member.offset_data, size=member.size)
            elif member.issym():  # docker save writes one for a layer that occurs twice
                links[name] = posixpath.join(posixpath.dirname(name), member.linkname)
            elif member.islnk():
                links[name] = member.linkname
        end = archive.offset
    ends = {name: place.offset + place.size for name, place in files.items()}
    size = path.stat().st_size
    for name in (name for name, member_end in ends.items() if member_end > size):
        raise EOFError(f"the file ends before the end of {name}")
    if size < end:
        raise EOFError("the file ends early")
    targets = {name: posixpath.normpath(target) for name, target in links.items()}
    return files | {name: files[target] for name, target in targets.items() if target in files}


def _list_images(files: Files, path: Path) -> Iterator[_Found]:
    """The images in index.json and manifest.json; index.json first: it keeps digests."""
    where = str(path)
    try:
        if OCI_INDEX_FILE in files:
            for entry in _read_json(files, OCI_INDEX_FILE, where)["manifests"]:
                if entry.get("mediaType") in INDICES + MANIFESTS:
                    name = _name_of(entry.get("annotations") or {})
                    yield _Found((*name, str(entry["digest"])), entry, is_docker=False)
        if DOCKER_INDEX in files:
            for entry in _read_json(files, DOCKER_INDEX, where):
                names = tuple(full_name(tag) for tag in entry["RepoTags"] or ())
                yield _Found(names, entry, is_docker=True)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path}: its list of images is invalid ({error})") from error


def _name_of(annotations: Mapping[str, str]) -> tuple[str, ...]:
    """The full name, or only the tag, which is all that some tools write."""
    name = next((annotations[key] for key in NAME_ANNOTATIONS if annotations.get(key)), "")
    return (full_name(name) if "/" in name or ":" in name else name,) if name else ()


def _choose(found: Sequence[_Found], reference: Reference) -> list[_Found]:
    """The images with its digest if it has one (`docker save` loses it), its name, or its tag."""
    wanted = (reference.digest,) if reference.digest else (reference.name, reference.tag or "")
    chosen = ([image for image in found if name in image.names] for name in wanted)
    return next((images for images in chosen if images), [])


def _show(reference: Reference) -> str:
    short = reference.name.removeprefix("docker.io/library/")
    return f"{short}@{reference.digest}" if reference.digest else short


def _read_oci(files: Files, entry: Mapping[str, Any], arch: str, where: str) -> StoredImage:
    descriptor = Descriptor(str(entry["mediaType"]), str(entry["digest"]), 0)
    content = _read_blob(files, descriptor, where)
    while descriptor.media_type in INDICES:
        descriptor = choose_manifest(content, arch, where)
        content = _read_blob(files, descriptor, f"{where} (linux/{arch})")
    manifest = parse_manifest(content, descriptor.media_type, where)
    config = _read_blob(files, manifest.config, where)
    layers = tuple(
        Layer(descriptor=layer, place=_find_blob(files, layer, where), is_verified=False)
        for layer in manifest.layers
    )
    return StoredImage(manifest=manifest, config=config, layers=layers)


def _find_blob(files: Files, descriptor: Descriptor, where: str) -> ByteRange:
    name = f"blobs/sha256/{descriptor.hexadecimal}"
    if name not in files:
        raise ArtifactError(
            f"{where}: {descriptor.digest} is missing in the archive",
            hint="save the image again, for every architecture that nodes have",
        )
    return files[name]


def _read_blob(files: Files, descriptor: Descriptor, where: str) -> bytes:
    content = _read_document(_find_blob(files, descriptor, where), where)
    if digest_of(content) != descriptor.digest:
        raise ArtifactError(f"{where}: {descriptor.digest} in the archive is damaged")
    return content


def _read_docker(files: Files, entry: Mapping[str, Any], where: str) -> StoredImage:
    try:
        config = _read_document(files[posixpath.normpath(entry["Config"])], where)
        places = [files[posixpath.normpath(name)] for name in entry["Layers"]]
    except (KeyError, TypeError) as error:
        raise ArtifactError(
            f"{where}: its manifest.json does not match the archive ({error} is missing)"
        ) from error
    architecture_of(config, where)
    diff_ids = diff_ids_of(config, where)
    if len(diff_ids) != len(places):
        raise ArtifactError(
            f"{where}: manifest.json has {len(places)} layers, the configuration {len(diff_ids)}"
        )
    layers = tuple(
        Layer(descriptor=_describe_layer(place, diff_id, where), place=place, is_verified=False)
        for place, diff_id in zip(places, diff_ids, strict=True)
    )
    manifest = make_manifest(config, tuple(layer.descriptor for layer in layers))
    return StoredImage(manifest=manifest, config=config, layers=layers)


def _describe_layer(place: ByteRange, diff_id: str, where: str) -> Descriptor:
    """A layer's descriptor; the configuration has the digest only of an uncompressed layer."""
    with place.path.open("rb") as file:
        file.seek(place.offset)
        head = file.read(min(place.size, max(map(len, COMPRESSIONS))))
        media_type = next(
            (kind for magic, kind in COMPRESSIONS.items() if head.startswith(magic)), OCI_LAYER
        )
        if media_type == OCI_LAYER:
            return Descriptor(OCI_LAYER, diff_id, place.size)
        if "/" not in media_type:
            raise ArtifactError(
                f"{where}: has a layer that is compressed with {media_type}, which not every"
                " container runtime unpacks",
                hint=f"save it again: {FROM_DAEMON}",
            )
        file.seek(place.offset)
        digest = hash_next(file, place.size).hexdigest()
    return Descriptor(media_type, f"sha256:{digest}", place.size)


def _check_layers(image: StoredImage, where: str) -> None:
    """Refuse layers that runtimes cannot unpack ("unhandled tar header type 83").

    Only uncompressed layers are read: to read the others takes long.
    """
    for number, layer in enumerate(image.layers, start=1):
        if layer.descriptor.media_type not in PLAIN_LAYERS:
            continue
        if name := find_sparse_file(layer.place.path, layer.place.offset, layer.place.size):
            raise ArtifactError(
                f"{where}: layer {number} has the sparse file {name!r}, which container runtimes"
                " cannot unpack",
                hint="build the image from an archive that was made without tar --sparse",
            )


def _read_json(files: Files, name: str, where: str) -> Any:
    return read_json(_read_document(files[name], where))


def _read_document(place: ByteRange, where: str) -> bytes:
    if place.size > MAX_DOCUMENT:
        raise ArtifactError(f"{where}: has a document of more than {MAX_DOCUMENT >> 20} MiB")
    return place.read()
