"""Which images a cluster uses from registries and files, and their digests."""

from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path

from bundler.cluster.plan import ClusterPlan
from bundler.errors import ArtifactError
from bundler.formats.image_archives import open_image
from bundler.formats.image_references import Reference
from bundler.sources.images.needed import Images, Needed, list_needed
from bundler.sources.images.pull import Puller, WantedImage
from bundler.sources.lock import (
    Lock,
    LockEntry,
    LockKind,
    TrustSource,
)
from bundler.sources.lock_update import Proposal

IN_CONFIGURATION = "images in cluster.yaml"
FROM_TAG = "first use: what the registry served for the tag"


def list_wanted(plan: ClusterPlan, lock: Lock | None, path: Path) -> tuple[WantedImage, ...]:
    """The images to pull from registries; with a lock, by the digests in the lock.

    Raises ArtifactError if the lock and cluster.yaml differ; `path` is that of the lock.
    """
    wanted = []
    faults: dict[str, str] = {}
    for needed in _list_fetched(plan):
        reference, arch = needed.reference, needed.arch
        entry = lock.find(LockKind.IMAGE, reference.name, arch) if lock else None
        if entry and (drift := entry.explain_drift(_version(reference), reference.url, "")):
            faults[reference.name] = f"{path}: {reference.name} ({arch}) {drift}"
        elif lock and entry is None:
            faults[reference.name] = f"{path}: {reference.name} ({arch}) is missing in the lock"
        digest = entry.digest if entry else reference.digest
        wanted.append(WantedImage(reference=reference, arch=arch, digest=digest))
    if faults:
        raise ArtifactError(
            "\n".join(faults.values()),
            hint="check what changed and why; then update the entries with:"
            f" bundler lock {' '.join(f'--update {name}' for name in faults)}",
        )
    return tuple(wanted)


def gather_images(plan: ClusterPlan, wanted: tuple[WantedImage, ...], puller: Puller) -> Images:
    """Every image of the cluster, from its file or from the cache."""
    images = open_files(plan)
    for pulled in puller.pull(wanted):
        images[pulled.wanted.reference.name, pulled.wanted.arch] = pulled.image
    return images


def open_files(plan: ClusterPlan) -> Images:
    """Every image that is a file in cluster.yaml."""
    return {
        (needed.reference.name, needed.arch): open_image(
            needed.image.file, needed.reference, needed.arch
        )
        for needed in list_needed(plan)
        if needed.image.file
    }


def propose_images(plan: ClusterPlan, puller: Puller, now: datetime) -> Iterator[Proposal]:
    """A proposal for the lock for every image that is pulled."""
    for needed in _list_fetched(plan):
        reference = needed.reference
        yield Proposal(
            kind=LockKind.IMAGE,
            name=reference.name,
            version=_version(reference),
            arch=needed.arch,
            url=reference.url,
            digest="",  # the digest in the reference may be that of an index; the URL has it
            make_entry=partial(_make_entry, needed, puller, now),
        )


def _list_fetched(plan: ClusterPlan) -> tuple[Needed, ...]:
    return tuple(needed for needed in list_needed(plan) if needed.image.file is None)


def _version(reference: Reference) -> str:
    return reference.tag or ""


def _make_entry(needed: Needed, puller: Puller, now: datetime) -> LockEntry:
    """Pull an image into the cache as the registry has it today, and make its lock entry."""
    reference = needed.reference
    wanted = WantedImage(reference=reference, arch=needed.arch, digest=reference.digest)
    (pulled,) = puller.pull((wanted,))
    is_pinned = reference.digest is not None
    image = pulled.image
    manifest = image.manifest.descriptor
    return LockEntry(
        kind=LockKind.IMAGE,
        name=reference.name,
        version=_version(reference),
        arch=needed.arch,
        url=reference.url,
        size=manifest.size + len(image.config) + sum(layer.place.size for layer in image.layers),
        digest=manifest.digest,
        index=pulled.served if pulled.served != manifest.digest else None,
        origin=TrustSource.USER if is_pinned else TrustSource.FIRST_USE,
        evidence=IN_CONFIGURATION if is_pinned else FROM_TAG,
        locked=now,
    )
