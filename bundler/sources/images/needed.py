"""Which images the nodes load, or pull from the cluster's registry."""

from dataclasses import dataclass

from bundler.cluster.inputs import Image
from bundler.cluster.plan import ClusterPlan, pulled_images_of
from bundler.formats.image_references import Reference, parse_reference
from bundler.formats.stored_images import StoredImage

IN_CONFIGURATION = "images in cluster.yaml"
FROM_TAG = "what the registry served for the tag"
"""The evidence for an image's digest: stated in cluster.yaml, or seen on first use."""

Images = dict[tuple[str, str], StoredImage]
"""(full name, architecture) → the image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needed:
    """An image that nodes of that architecture use."""

    image: Image
    reference: Reference
    arch: str


def list_needed(plan: ClusterPlan) -> tuple[Needed, ...]:
    """Every image, once for each architecture that needs it."""
    found = {
        (image.ref, node.arch.value): Needed(
            image=image, reference=parse_reference(image.ref), arch=node.arch.value
        )
        for node in plan.nodes
        for image in pulled_images_of(plan, node)
    }
    return tuple(found.values())
