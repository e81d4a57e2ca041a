"""Which images a cluster uses from registries and files, and their digests."""

from collections.abc import Iterator
from datetime import datetime
from functools import partial

from bundler.cluster.images import check_layers
from bundler.cluster.plan import ClusterPlan
from bundler.sources.images.needed import FROM_TAG, IN_CONFIGURATION, Images, Needed
from bundler.sources.images.pull import Puller
from bundler.sources.images.wanted import WantedImage, list_remote, open_files, version_of
from bundler.sources.lock import (
    LockEntry,
    LockKind,
    TrustSource,
)
from bundler.sources.lock_update import Proposal


def gather_images(plan: ClusterPlan, wanted: tuple[WantedImage, ...], puller: Puller) -> Images:
    """Every image of the cluster, from its file or from the cache."""
    images = open_files(plan)
    for pulled in puller.pull(wanted):
        check_layers(plan.cluster, pulled.image, pulled.wanted.label)
        images[pulled.wanted.reference.name, pulled.wanted.arch] = pulled.image
    return images


def propose_images(plan: ClusterPlan, puller: Puller, now: datetime) -> Iterator[Proposal]:
    """A proposal for the lock for every image that is pulled."""
    for needed in list_remote(plan):
        reference = needed.reference
        yield Proposal(
            kind=LockKind.IMAGE,
            name=reference.name,
            version=version_of(reference),
            arch=needed.arch,
            url=reference.url,
            digest="",  # the digest in the reference may be that of an index; the URL has it
            make_entry=partial(_make_entry, needed, puller, now),
        )


def _make_entry(needed: Needed, puller: Puller, now: datetime) -> LockEntry:
    """Pull the current image of the registry into the cache, and make its lock entry."""
    reference = needed.reference
    wanted = WantedImage(reference=reference, arch=needed.arch, digest=reference.digest)
    (pulled,) = puller.pull((wanted,))
    is_pinned = reference.digest is not None
    image = pulled.image
    manifest = image.manifest.descriptor
    return LockEntry(
        kind=LockKind.IMAGE,
        name=reference.name,
        version=version_of(reference),
        arch=needed.arch,
        url=reference.url,
        size=manifest.size + len(image.config) + sum(layer.place.size for layer in image.layers),
        digest=manifest.digest,
        index=pulled.served if pulled.served != manifest.digest else None,
        origin=TrustSource.USER if is_pinned else TrustSource.FIRST_USE,
        evidence=IN_CONFIGURATION if is_pinned else FROM_TAG,
        locked=now,
    )
