"""Which images are pulled from registries and read from files, and their digests."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from bundler.cluster.addons.proof import find_fault
from bundler.cluster.plan import ClusterPlan
from bundler.errors import ArtifactError
from bundler.formats.image_archives import open_image
from bundler.formats.image_references import Reference, full_name
from bundler.sources.images.needed import Images, Needed, list_needed
from bundler.sources.lock import Lock, LockKind


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedImage:
    """One image for one architecture: by a known digest, or by its tag."""

    reference: Reference
    arch: str
    digest: str | None  # sha256:… of a manifest or an index
    index: str | None = None  # sha256:… of the index, if it is needed too

    @property
    def label(self) -> str:
        """`registry.k8s.io/pause:3.9 (amd64)`."""
        return f"{self.reference.name} ({self.arch})"


def list_wanted(plan: ClusterPlan, lock: Lock | None, path: Path) -> tuple[WantedImage, ...]:
    """The images to pull from registries; with a lock, by the digests in the lock.

    Raises ArtifactError if the lock and cluster.yaml differ; `path` is that of the lock.
    """
    wanted = []
    faults: dict[str, str] = {}
    for needed in list_remote(plan):
        reference, arch = needed.reference, needed.arch
        entry = lock.find(LockKind.IMAGE, reference.name, arch) if lock else None
        if entry and (drift := entry.explain_drift(version_of(reference), reference.url, "")):
            faults[reference.name] = f"{path}: {reference.name} ({arch}) {drift}"
        elif lock and not entry:
            faults[reference.name] = f"{path}: {reference.name} ({arch}) is missing in the lock"
        digest = entry.digest if entry else reference.digest
        index = entry.index if entry and needed.image.where == "registry" else None
        wanted.append(WantedImage(reference=reference, arch=arch, digest=digest, index=index))
    if faults:
        raise ArtifactError(
            "\n".join(faults.values()),
            hint="check what changed and why; then update the entries with:"
            f" bundler lock {' '.join(f'--update {name}' for name in faults)}",
        )
    return tuple(wanted)


def list_digests(lock: Lock, named: Collection[str]) -> Mapping[str, str]:
    """Image → the digest of its index, or of its manifest if all architectures have the same.

    Of those that `named` has, as they are written there. Pods on every node can name the image by
    it. An image with neither is not in the result.
    """
    names = {full_name(text) for text in named if not find_fault(text)}
    found: dict[str, set[str]] = {}
    for entry in (entry for entry in lock.of(LockKind.IMAGE) if entry.name in names):
        found.setdefault(entry.name, set()).add(entry.index or entry.digest)
    return {name: next(iter(digests)) for name, digests in found.items() if len(digests) == 1}


def open_files(plan: ClusterPlan) -> Images:
    """Every image that is a file in cluster.yaml."""
    return {
        (needed.reference.name, needed.arch): open_image(
            needed.image.file, needed.reference, needed.arch
        )
        for needed in list_needed(plan)
        if needed.image.file
    }


def list_remote(plan: ClusterPlan) -> tuple[Needed, ...]:
    """The images that are pulled from registries."""
    return tuple(needed for needed in list_needed(plan) if not needed.image.file)


def version_of(reference: Reference) -> str:
    return reference.tag or ""
