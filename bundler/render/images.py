"""The images of a node, as files of its bundle.

    rootfs/opt/k8s/images/blobs/sha256/DIGEST    each manifest, configuration and layer once
    rootfs/opt/k8s/images/NAME/                  the files that turn blobs into an image archive
    lib/images.tsv                               the list of images for install.sh and other scripts
    lib/registry.tsv                             what registry-seed.sh copies (registry.py)

They stay on the host, so that it can load an image again that the runtime lost. The archive that
the host assembles has both indices: Docker reads manifest.json (before version 25 nothing else),
containerd reads index.json.
"""

import re
from collections.abc import Iterator
from dataclasses import replace

from bundler.cache.payload import Payload
from bundler.cluster.plan import ClusterPlan, NodePlan
from bundler.cluster.schema import Containerd, Role
from bundler.formats.image_manifests import (
    OCI_INDEX,
    PLAIN_LAYERS,
    Descriptor,
    describe,
    dump,
)
from bundler.formats.image_references import Reference
from bundler.formats.stored_images import StoredImage
from bundler.render.registry import LIST as REGISTRY_LIST
from bundler.render.registry import make_seed
from bundler.render.tree import File
from bundler.sources.images.needed import list_needed
from bundler.sources.payloads import ImageFiles

DIRECTORY = "rootfs/opt/k8s/images"
BLOBS = f"{DIRECTORY}/blobs/sha256"
LIST = "lib/images.tsv"
HEADING = "# directory\treference\timage id\tKiB that the runtime needs for it\n"
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
UNPACKED = 4
"""The factor for a compressed layer: the runtime keeps it, and unpacks it to about three times."""


def make_image_files(plan: ClusterPlan, node: NodePlan, files: ImageFiles) -> Iterator[File]:
    """Yield each blob once, even if several images share it, and the lists."""
    blobs: dict[str, File] = {}
    lines = []
    for needed in list_needed(plan):
        if needed.arch != node.arch or not node.has(Role.WORKER):
            continue
        if needed.image.where == "registry":
            continue
        image = files.images[needed.reference.name, needed.arch]
        name = directory_name(needed.reference)
        for blob in _list_blobs(image, needed.reference.name, files):
            blobs.setdefault(blob.path, blob)
        pinned = plan.image_digests.get(needed.reference.name)
        yield from _list_contents(image, needed.reference, name, pinned)
        lines.append(f"{name}\t{needed.reference.name}\t{image.image_id}\t{_kibibytes(image)}\n")
        if isinstance(plan.cluster.runtime, Containerd):  # Docker has no image by such a name
            _, *others = list_names(needed.reference, pinned)
            lines += [f"{name}\t{other}\t{image.image_id}\t0\n" for other in others]
    seeded, text = make_seed(plan, node, files)
    for hexadecimal, content in seeded.items():
        path = f"{BLOBS}/{hexadecimal}"
        blobs.setdefault(path, File(path=path, mode=0o644, content=content, origin="registry"))
    yield from blobs.values()
    if node.has(Role.REGISTRY):
        yield File(path=REGISTRY_LIST, mode=0o644, content=text.encode(), origin="registry")
    if lines:
        text = HEADING + "".join(lines)
        yield File(path=LIST, mode=0o644, content=text.encode(), origin="images")


def directory_name(reference: Reference) -> str:
    """Turn a reference into the name of a directory, `registry.k8s.io_pause_3.9`."""
    return re.sub(r"[/:]", "_", reference.name)


def _list_blobs(image: StoredImage, name: str, files: ImageFiles) -> Iterator[File]:
    manifest = image.manifest
    contents: dict[str, bytes | Payload] = {
        manifest.descriptor.hexadecimal: manifest.content,
        manifest.config.hexadecimal: image.config,
    }
    for layer in image.layers:
        contents[layer.descriptor.hexadecimal] = files.layers[layer.descriptor.digest]
    for hexadecimal, content in contents.items():
        yield File(path=f"{BLOBS}/{hexadecimal}", mode=0o644, content=content, origin=name)


def _list_contents(
    image: StoredImage, reference: Reference, name: str, pinned: str | None
) -> Iterator[File]:
    """Yield the indices of an image, and the list of its blobs."""
    names = list_names(reference, pinned)
    manifest = image.manifest
    descriptors = (manifest.descriptor, manifest.config, *manifest.layers)
    digests = dict.fromkeys(descriptor.hexadecimal for descriptor in descriptors)
    contents = {
        "blobs": "".join(f"{digest}\n" for digest in digests).encode(),
        "oci-layout": LAYOUT,
        "index.json": _make_index(manifest.descriptor, names),
        "manifest.json": dump([
            {
                "Config": _blob_name(manifest.config),
                "RepoTags": [reference.name],
                "Layers": [_blob_name(layer) for layer in manifest.layers],
            }
        ]),
    }  # fmt: skip
    for part, content in contents.items():
        path = f"{DIRECTORY}/{name}/{part}"
        yield File(path=path, mode=0o644, content=content, origin=reference.name)


def list_names(reference: Reference, pinned: str | None) -> tuple[str, ...]:
    """The names by which containerd has an image: pods may also use the digest.

    `pinned` is the digest by which pods of add-ons name it.
    """
    whole = reference if reference.digest or not pinned else replace(reference, digest=pinned)
    return tuple(name for name in (whole.name, whole.by_digest) if name)


def _make_index(manifest: Descriptor, names: tuple[str, ...]) -> bytes:
    """Make index.json with every name for containerd."""
    manifests = [
        describe(manifest) | {"annotations": {"io.containerd.image.name": name}} for name in names
    ]
    return dump({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests})


def _blob_name(descriptor: Descriptor) -> str:
    return f"blobs/sha256/{descriptor.hexadecimal}"


def _kibibytes(image: StoredImage) -> int:
    return 1 + sum(
        layer.place.size * (2 if layer.descriptor.media_type in PLAIN_LAYERS else UNPACKED)
        for layer in image.layers
    ) // 1024  # fmt: skip
