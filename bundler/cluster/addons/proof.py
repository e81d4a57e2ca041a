"""Which images of add-ons bundles carry, and what cannot be proved to be complete."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from bundler.cluster.addons.images import FoundImage
from bundler.cluster.images import WHY_NEEDED, needed_images
from bundler.cluster.inputs import Image
from bundler.cluster.schema import Cluster
from bundler.formats.image_references import full_name, parse_reference


class Proof(StrEnum):
    """What is known about something that a place names."""

    CARRIED = "carried"
    NOT_NEEDED = "not needed"  # in images_not_needed
    NOT_PROVED = "not proved"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageUse:
    """An image of the cluster, or what looks like one, and one place that it comes from."""

    name: str  # as bundles have it, with its registry; else as it is written there
    addon: str  # empty: of the cluster itself
    place: str
    why: str
    proof: Proof = Proof.CARRIED


def list_uses(cluster: Cluster, found: Sequence[FoundImage]) -> tuple[ImageUse, ...]:
    """List where each image of the cluster comes from, and what cannot be proved.

    `cluster` has every image that bundles carry.
    """
    needed = {full_name(ref): use for use, ref in needed_images(cluster).items()}
    of_addons = {full_name(each.text) for each in found if each.is_certain and _is_valid(each.text)}
    uses = [_describe_own(image, needed, of_addons) for image in cluster.images]
    carried = {full_name(image.ref) for image in cluster.images}
    return (
        *(use for use in uses if use),
        *(_describe(cluster, each, carried) for each in found),
    )


def _describe_own(image: Image, needed: Mapping[str, str], of_addons: set[str]) -> ImageUse | None:
    """An image of cluster.yaml, or one that bundler added; None if only add-ons name it."""
    name = full_name(image.ref)
    use = needed.get(name, "") or (image.use if image.use != "addon" else "") or ""
    place = str(image.file) if image.file else "images in cluster.yaml"
    if name in of_addons and not use and not image.file:
        return None
    why = WHY_NEEDED.get(use, use or "it is listed")
    return ImageUse(name=name, addon="", place="the cluster" if name in needed else place, why=why)


def _describe(cluster: Cluster, each: FoundImage, carried: set[str]) -> ImageUse:
    name = full_name(each.text) if each.is_reference and _is_valid(each.text) else each.text
    proof = Proof.NOT_PROVED
    if not {each.text, name}.isdisjoint(cluster.images_not_needed):
        proof = Proof.NOT_NEEDED
    elif each.is_reference and name in carried:
        proof = Proof.CARRIED
    return ImageUse(name=name, addon=each.object.addon, place=each.place, why=each.why, proof=proof)


def add_found(cluster: Cluster, found: Sequence[FoundImage]) -> Cluster:
    """The cluster plus each image of add-ons that is certain; those of cluster.yaml stay."""
    names = {full_name(image.ref) for image in cluster.images}
    added: dict[str, Image] = {}
    for each in found:
        if each.is_certain and not find_fault(each.text) and each.text not in _left_out(cluster):
            name = full_name(each.text)
            if name not in names:
                former = added.get(name)
                if not former or ("@" in each.text and "@" not in former.ref):
                    added[name] = Image(ref=each.text, use="addon")
    if not added:
        return cluster
    return cluster.model_copy(update={"images": cluster.images + tuple(added.values())})


def _left_out(cluster: Cluster) -> frozenset[str]:
    return frozenset(cluster.images_not_needed)


def find_fault(text: str) -> str:
    """Why bundles cannot carry an image by this reference; empty if they can."""
    try:
        reference = parse_reference(text)
    except ValueError as error:
        return f"{error}"
    if reference.tag in {None, "latest"}:
        return (
            "must have a fixed tag, by which hosts recognize an image: NAME:TAG, or"
            " NAME:TAG@sha256:DIGEST"
        )
    return ""


def _is_valid(text: str) -> bool:
    return not find_fault(text)


def check_proof(cluster: Cluster, found: Sequence[FoundImage]) -> Iterator[tuple[str, str]]:
    """Add-on and text of each image that cannot be carried, and of what cannot be proved."""
    carried = {full_name(image.ref): image.ref for image in cluster.images}
    told: set[str] = set()
    for each in found:
        where = each.object.describe(each.path)
        if each.is_certain and each.text not in cluster.images_not_needed:
            if fault := find_fault(each.text) or _find_other_digest(each.text, carried):
                yield each.object.addon, f"{where}: the image {each.text} {fault}"
        elif each.text not in told and _describe(cluster, each, set(carried)).proof is (
            Proof.NOT_PROVED
        ):
            told.add(each.text)
            yield each.object.addon, f"{where}: {_explain(each)}"


def _find_other_digest(text: str, carried: Mapping[str, str]) -> str:
    digest, other = (parse_reference(ref).digest for ref in (text, carried[full_name(text)]))
    if digest and other and digest != other:
        return f"has another digest than {carried[full_name(text)]}: one name is one image"
    return ""


def _explain(each: FoundImage) -> str:
    if not each.is_reference:
        return (
            f"{each.why}: bundler cannot prove that all of them are carried. Add those that it"
            f" starts to `images`, then confirm with images_not_needed: [{each.text}]"
        )
    if find_fault(each.text):
        return (
            f"{each.text} looks like an image without a fixed tag: write NAME:TAG there, or confirm"
            f" that it is not one or not needed with images_not_needed: [{each.text}]"
        )
    return (
        f"{each.text} looks like an image, and it is not certain that it is one: add it to"
        f" `images` as {{ref: {each.text}}}, or to images_not_needed: [{each.text}]"
    )


def list_stale(cluster: Cluster, found: Sequence[FoundImage]) -> Iterator[tuple[int, str]]:
    """Yield index and text of each acknowledgement that no add-on needs."""
    known = {each.text for each in found}
    known |= {full_name(each.text) for each in found if each.is_reference and _is_valid(each.text)}
    for index, text in enumerate(cluster.images_not_needed):
        if text not in known:
            yield index, f"{text}: no add-on names it: remove it"
