"""Charts in OCI registries.

Source: https://helm.sh/docs/topics/registries (media types; `+` of a version is `_` in its tag).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from bundler.catalog import Artifact
from bundler.cluster.schema_addons import OCI, Addon
from bundler.errors import ArtifactError
from bundler.formats.image_manifests import DIGEST
from bundler.formats.image_references import Reference, parse_reference
from bundler.formats.safe_parse import read_json
from bundler.sources.charts.pinned import FROM_USER, PinnedChart, not_in_cache
from bundler.sources.download import FetchOptions
from bundler.sources.fetch import try_sources
from bundler.sources.images.needed import FROM_TAG
from bundler.sources.images.options import RegistryOptions
from bundler.sources.images.registry import (
    Repository,
    check_digest,
    ensure_repository_blob,
    list_repositories,
    make_hint,
)
from bundler.sources.limits import MAX_SIDECAR
from bundler.sources.lock import TrustSource
from bundler.sources.retries import SourceError
from bundler.urls import show_url

PACKAGE = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
PROVENANCE = "application/vnd.cncf.helm.chart.provenance.v1.prov"
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartRegistry:
    """The registry of one chart, and its mirrors."""

    addon: Addon
    reference: Reference
    options: FetchOptions
    registries: RegistryOptions

    def find(self) -> PinnedChart:
        """Find the chart by its tag; ArtifactError if there is no such chart."""
        chart = self.addon.chart
        manifest = self.read_manifest(self.reference.tag or "")
        layer = _find_layer(manifest.layers, PACKAGE)
        if not layer:
            raise ArtifactError(
                f"{self.reference.name} is no Helm chart: it has no layer of type {PACKAGE}"
            )
        digest = layer["digest"].partition(":")[2]
        wanted = chart.sha256 if chart else None
        if wanted and wanted != digest:
            raise ArtifactError(
                f"{self.reference.name}: its package is sha256:{digest}, and cluster.yaml has"
                f" sha256:{wanted}",
                hint="find out who changed it before you trust the registry or change the digest",
            )
        return PinnedChart(
            addon=self.addon.name,
            name=(chart and chart.name) or "",
            version=(chart and chart.version) or "",
            repository=show_url(chart.repository) if chart else "",
            url=self.reference.url,
            digest=digest,
            manifest=manifest.digest,
            origin=TrustSource.USER if wanted else TrustSource.FIRST_USE,
            evidence=FROM_USER if wanted else FROM_TAG,
        )

    def fetch(self, artifact: Artifact) -> Path:
        """The package, or another blob of the repository, from the cache or the registry."""
        return ensure_repository_blob(
            artifact, self.options, self._list, partial(not_in_cache, self.addon)
        )

    def fetch_layer(self, layer: Mapping[str, Any], what: str, label: str) -> bytes:
        """The content of a small blob of the repository."""
        blob = Artifact(
            component=f"{what} of {label}", version="", arch="", url=self.reference.url,
            algorithm="sha256", digest=layer["digest"].partition(":")[2],
            source="the manifest in the registry", most=MAX_SIDECAR,
        )  # fmt: skip
        return self.fetch(blob).read_bytes()

    def read_manifest(self, name: str) -> "ChartManifest":
        """A manifest by its tag or digest."""
        if self.options.offline:
            raise not_in_cache(self.addon)

        def read(repository: Repository) -> ChartManifest:
            served = repository.read(f"manifests/{name}")
            digest = check_digest(served, name, f"{repository.base}/manifests/{name}")
            return ChartManifest(digest=digest, layers=_read_layers(served.content))

        return self._try(read)

    def _try(self, read: Callable[[Repository], Answer]) -> Answer:
        found = self._list()
        repositories = {each.base: each for each in found}
        return try_sources(
            self.reference.name,
            repositories,
            lambda base: self.options.retry(partial(read, repositories[base])),
            partial(make_hint, self.reference, found, self.options),
            self.options,
        )

    def _list(self) -> tuple[Repository, ...]:
        return list_repositories(self.reference, self.registries, self.options.session)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartManifest:
    """What a manifest of a registry names."""

    digest: str
    layers: tuple[Mapping[str, Any], ...]


def open_registry(
    addon: Addon, options: FetchOptions, registries: RegistryOptions
) -> ChartRegistry:
    """The registry of an add-on's chart."""
    chart = addon.chart
    if not chart or not chart.version:
        raise TypeError(f"{addon.name} is not of a registry")
    tag = chart.version.replace("+", "_")
    reference = parse_reference(f"{chart.repository.removeprefix(OCI)}:{tag}")
    return ChartRegistry(addon=addon, reference=reference, options=options, registries=registries)


def find_provenance(manifest: ChartManifest) -> Mapping[str, Any] | None:
    """The layer with the provenance file, or None."""
    return _find_layer(manifest.layers, PROVENANCE)


def _find_layer(layers: tuple[Mapping[str, Any], ...], kind: str) -> Mapping[str, Any] | None:
    return next((layer for layer in layers if layer["mediaType"] == kind), None)


def _read_layers(content: bytes) -> tuple[Mapping[str, Any], ...]:
    try:
        layers = read_json(content)["layers"]
        if all(DIGEST.fullmatch(each["digest"]) and str(each["mediaType"]) for each in layers):
            return tuple(layers)
    except (ValueError, KeyError, TypeError):
        pass
    raise SourceError("served no manifest with layers")
