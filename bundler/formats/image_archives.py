"""Read images from files: archives of `docker save`, OCI archives, and directories of both.

Nothing is unpacked: layers are read from the archive. A name in an archive is only looked up among
the archive's own regular files, so it cannot lead to another file of the builder.
"""

import posixpath
import tarfile
from collections.abc import Iterator, Mapping
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
from bundler.formats.stored_images import Layer, Place, StoredImage
from bundler.formats.tar_safety import BadMemberError, iter_members, open_tar

DOCKER_INDEX = "manifest.json"
OCI_INDEX_FILE = "index.json"
NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
GZIP = b"\x1f\x8b"
Files = Mapping[str, Place]
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
    chosen = [image for image in found if _is_named(image, reference)]
    if not chosen:
        held = ", ".join(name for image in found for name in image.names) or "no named image"
        raise ArtifactError(
            f"{path}: does not hold {_show(reference)}; it holds {held}",
            hint=f"save it with: docker save -o FILE {reference.name}; or remove `file`",
        )
    machines = []
    for image in chosen:
        where = f"{path}: {_show(reference)}"
        stored = (
            _read_docker(files, image.entry, where)
            if image.is_docker
            else _read_oci(files, image.entry, arch, where)
        )
        if stored.architecture == arch:
            return stored
        machines.append(stored.architecture or "an unknown architecture")
    raise ArtifactError(
        f"{_show(reference)} in {path} is for {', '.join(dict.fromkeys(machines))}, but nodes are"
        f" {arch}: give one archive for each architecture, with `arch:`"
    )


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
        path.relative_to(root).as_posix(): Place(path=path, offset=0, size=path.stat().st_size)
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.resolve().is_relative_to(inside)
    }


def _list_archive(path: Path) -> Files:
    files: dict[str, Place] = {}
    links: dict[str, str] = {}
    with open_tar(path, "r:") as archive:
        for member in iter_members(archive):
            name = posixpath.normpath(member.name)
            if member.isreg():
                files[name] = Place(path=path, offset=member.offset_data, size=member.size)
            elif member.issym():  # docker save writes one for a layer that occurs twice
                links[name] = posixpath.join(posixpath.dirname(name), member.linkname)
            elif member.islnk():
                links[name] = member.linkname
        end = archive.offset
    if path.stat().st_size < end:
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


def _is_named(image: _Found, reference: Reference) -> bool:
    """Compare the digest if the reference has one (`docker save` loses it), else the name."""
    if reference.digest:
        return reference.digest in image.names
    return reference.name in image.names or (reference.tag or "") in image.names


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


def _find_blob(files: Files, descriptor: Descriptor, where: str) -> Place:
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
        Layer(descriptor=_describe_layer(place, diff_id), place=place, is_verified=False)
        for place, diff_id in zip(places, diff_ids, strict=True)
    )
    manifest = make_manifest(config, tuple(layer.descriptor for layer in layers))
    return StoredImage(manifest=manifest, config=config, layers=layers)


def _describe_layer(place: Place, diff_id: str) -> Descriptor:
    """A layer's descriptor; the configuration has the digest only of an uncompressed layer."""
    with place.path.open("rb") as file:
        file.seek(place.offset)
        if file.read(len(GZIP)) != GZIP:
            return Descriptor(OCI_LAYER, diff_id, place.size)
        file.seek(place.offset)
        digest = hash_next(file, place.size).hexdigest()
    return Descriptor(OCI_LAYER_GZIP, f"sha256:{digest}", place.size)


def _read_json(files: Files, name: str, where: str) -> Any:
    return read_json(_read_document(files[name], where))


def _read_document(place: Place, where: str) -> bytes:
    if place.size > MAX_DOCUMENT:
        raise ArtifactError(f"{where}: has a document of more than {MAX_DOCUMENT >> 20} MiB")
    return place.read()
