"""The large files of all bundles: fetched, verified, and compressed once in the cache."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bundler import log
from bundler.cache.payload import Payload, ensure_file, ensure_members, ensure_part, read_head
from bundler.cache.store import Cache
from bundler.catalog import KUBERNETES_ARCHIVE, Artifact, find_artifact
from bundler.catalog.kubernetes import MEMBERS
from bundler.cluster.plan import ClusterPlan
from bundler.errors import ArtifactError
from bundler.formats.image_packages import ImagePackages
from bundler.formats.program_machine import HEAD, SCRIPT, read_machine
from bundler.formats.stored_images import Layer
from bundler.sources.artifacts import Artifacts, Needs, list_needs
from bundler.sources.fetch import FetchOptions, ensure_artifacts
from bundler.sources.images.needed import Images
from bundler.sources.images.packages import list_image_packages
from bundler.sources.images.pull import Puller
from bundler.sources.images.resolve import gather_images
from bundler.sources.packages.files import PackageFile
from bundler.sources.packages.resolve import gather_packages
from bundler.sources.resolved import Resolved
from bundler.urls import show_url

Members = Mapping[tuple[str, str], Mapping[str, Payload]]
"""(component, architecture) → member of its archive → content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFiles:
    """Every image of all nodes, and the payload of each layer by its digest."""

    images: Images
    layers: Mapping[str, Payload]
    packages: Mapping[str, ImagePackages]  # by image ID


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageFiles:
    """Every package file of all nodes, and the payload of each."""

    files: tuple[PackageFile, ...]
    payload: Callable[[PackageFile], Payload]


@dataclass(frozen=True, slots=True, kw_only=True)
class Payloads:
    """The large files of all nodes."""

    member: Callable[[str, str, str], Payload]  # (component, arch, member)
    images: ImageFiles
    packages: PackageFiles | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedSources:
    """The fetched files: their paths in the cache or on the builder."""

    artifacts: Mapping[Artifact, Path]
    images: Images
    packages: tuple[PackageFile, ...]


def fetch_sources(
    plan: ClusterPlan, resolved: Resolved, options: FetchOptions, puller: Puller
) -> FetchedSources:
    """Fetch every file into the cache and verify it."""
    artifacts = list(resolved.artifacts.values())
    with log.step(f"{len(artifacts)} upstream files"):
        paths = ensure_artifacts(artifacts, options)
    packages = gather_packages(plan, resolved.packages, options)
    return FetchedSources(
        artifacts=paths, images=gather_images(plan, resolved.images, puller), packages=packages
    )


def ensure_payloads(
    plan: ClusterPlan, resolved: Resolved, fetched: FetchedSources, cache: Cache
) -> Payloads:
    """Compress new files; ArtifactError if a program is not what its pin or its node asks for."""
    members = _ensure_members(list_needs(plan), resolved.artifacts, fetched.artifacts, cache)
    _check_programs(members, resolved.artifacts)
    _compare_with_pins(members, resolved.artifacts, plan)
    images = ensure_layers(fetched.images, cache)
    packages = {file: ensure_file(file.path, cache) for file in fetched.packages}
    return Payloads(
        member=lambda component, arch, member: members[component, arch][member],
        images=images,
        packages=PackageFiles(files=fetched.packages, payload=lambda file: packages[file])
        if packages
        else None,
    )


def ensure_layers(images: Images, cache: Cache) -> ImageFiles:
    """Make the payload of each layer once; ArtifactError if one is damaged."""
    layers = {layer.descriptor.digest: layer for i in images.values() for layer in i.layers}
    return ImageFiles(
        images=images,
        layers={digest: _ensure_layer(layer, cache) for digest, layer in layers.items()},
        packages=list_image_packages(images, cache),
    )


def _ensure_layer(layer: Layer, cache: Cache) -> Payload:
    place, digest = layer.place, layer.descriptor.digest
    payload = ensure_part(
        place.path, place.offset, place.size, cache,
        known=layer.descriptor.hexadecimal if layer.is_verified else None,
    )  # fmt: skip
    if payload.sha256 != layer.descriptor.hexadecimal:
        raise ArtifactError(
            f"{place.path}: the digest of a layer does not match its content:\n"
            f"  expected {digest}\n  found    sha256:{payload.sha256}",
            hint="the file is damaged: create it again",
        )
    return payload


def _ensure_members(
    needs: Needs, artifacts: Artifacts, paths: Mapping[Artifact, Path], cache: Cache
) -> Members:
    return {
        key: {"": ensure_file(paths[artifacts[key]], cache)}
        if names == ("",)
        else ensure_members(artifacts[key], paths[artifacts[key]], names, cache)
        for key, names in needs.items()
    }


def _check_programs(members: Members, artifacts: Artifacts) -> None:
    """ArtifactError unless every file is a script or a program for the architecture of its node."""
    faults = []
    for (component, arch), payloads in members.items():
        for name, payload in payloads.items():
            found = read_machine(read_head(payload, HEAD))
            if found not in {arch, SCRIPT}:
                where = artifacts[component, arch]
                what = name or show_url(where.url)
                faults.append(f"{where.label}: {what} is {found}, not for {arch}")
    if faults:
        raise ArtifactError(
            "\n".join(faults), hint="check the URL and the digest of that artifact in cluster.yaml"
        )


def _compare_with_pins(members: Members, artifacts: Artifacts, plan: ClusterPlan) -> None:
    """ArtifactError if a program of Kubernetes' archive differs from the pin of that program.

    An archive that the user pins may be another build: then it is a warning.
    """
    faults: list[str] = []
    for (component, arch), payloads in members.items():
        if component != KUBERNETES_ARCHIVE:
            continue
        archive = artifacts[component, arch]
        differing = {
            pin: payload.sha256
            for name, payload in payloads.items()
            if (pin := find_artifact(MEMBERS[name], archive.version, arch))
            and pin.digest != payload.sha256
        }
        if differing and component in plan.cluster.list_pinned(arch):
            names = ", ".join(sorted(pin.component for pin in differing))
            log.warning(f"{archive.label} of `artifacts` is not upstream's build: {names}")
            continue
        faults += (
            f"{archive.label}: {pin.component} does not match its own pin:\n"
            f"  expected {pin.pin} ({pin.source})\n"
            f"  found    sha256:{digest} ({archive.source})"
            for pin, digest in differing.items()
        )
    if faults:
        raise ArtifactError(
            "\n".join(faults),
            hint="two published digests contradict each other: find out which file is upstream's,"
            f" then pin it in cluster.yaml, under `artifacts` as {KUBERNETES_ARCHIVE}",
        )
