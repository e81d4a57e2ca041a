"""All files, images and packages of a build with their digests, before anything is fetched."""

from dataclasses import dataclass
from pathlib import Path

from bundler.cluster.plan import ClusterPlan
from bundler.errors import ConfigError
from bundler.sources.artifacts import Artifacts, resolve_artifacts
from bundler.sources.images.wanted import WantedImage, list_wanted
from bundler.sources.lock import Lock, LockEntry, refuse_first_uses
from bundler.sources.packages.locked import check_locked


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """The upstream files, images and packages of a cluster."""

    artifacts: Artifacts
    images: tuple[WantedImage, ...]  # from registries
    packages: tuple[LockEntry, ...] | None  # None: there is no lock


def resolve_sources(
    plan: ClusterPlan, lock: Lock | None, lock_path: Path, *, strict: bool = False
) -> Resolved:
    """Resolve files, images and packages from the lock, or without a lock from cluster.yaml.

    Raises ArtifactError if the lock and cluster.yaml differ or a digest is missing. With
    `strict` a lock is required, and so is a trust source for every digest in it.
    """
    if strict and not lock:
        raise ConfigError(
            f"{lock_path}: --strict needs a lock", hint="create it with: bundler lock"
        )
    if strict and lock:
        refuse_first_uses(lock)
    return Resolved(
        artifacts=resolve_artifacts(plan, lock, lock_path),
        images=list_wanted(plan, lock, lock_path),
        packages=check_locked(plan, lock, lock_path),
    )
