"""Which package a chart of cluster.yaml stands for: of the lock, of an earlier run, or now."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from bundler.cluster.schema_addons import OCI, Addon
from bundler.sources.charts.pinned import (
    PinnedChart,
    find_known,
    find_locked,
    not_in_cache,
    remember,
)
from bundler.sources.charts.registry import open_registry
from bundler.sources.charts.repository import find_in_repository
from bundler.sources.download import FetchOptions
from bundler.sources.fetch import ensure_artifact
from bundler.sources.images.options import RegistryOptions
from bundler.sources.lock import Lock
from bundler.sources.retries import UnavailableError


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartOptions:
    """How charts are found."""

    lock: Lock | None
    fetch: FetchOptions
    registries: RegistryOptions
    renewed: Collection[str] = ()  # add-ons whose charts are looked for again
    is_locking: bool = False  # also those that the lock does not have


def ensure_chart(addon: Addon, options: ChartOptions) -> tuple[PinnedChart, Path]:
    """Find the chart of a repository and its package, which is in the cache then.

    Raises ArtifactError if it cannot be downloaded, or does not match its digest.
    """
    found = find_chart(addon, options)
    if _is_oci(addon):
        path = open_registry(addon, options.fetch, options.registries).fetch(found.artifact)
    else:
        try:
            path = ensure_artifact(found.artifact, options.fetch)
        except UnavailableError as error:
            if options.fetch.offline:
                raise not_in_cache(addon) from error
            raise
    return found, path


def find_chart(addon: Addon, options: ChartOptions) -> PinnedChart:
    """Find the URL and digest of a chart."""
    if addon.name not in options.renewed:
        if locked := find_locked(addon, options.lock):
            return locked
        if not options.is_locking and (known := find_known(addon, options.fetch.cache)):
            return known
    if _is_oci(addon):
        found = open_registry(addon, options.fetch, options.registries).find()
    else:
        found = find_in_repository(addon, options.fetch)
    remember(addon, found, options.fetch.cache)
    return found


def _is_oci(addon: Addon) -> bool:
    return bool(addon.chart and addon.chart.repo and addon.chart.repo.startswith(OCI))
