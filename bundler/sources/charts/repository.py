"""Charts of HTTP repositories.

Source: https://helm.sh/docs/topics/chart_repository (the index file).
"""

import re
from typing import Any
from urllib.parse import urljoin

from bundler.cache.refs import DOCUMENTS
from bundler.catalog import Artifact
from bundler.cluster.schema_addons import Addon
from bundler.errors import ArtifactError
from bundler.formats.bounded_yaml import Bounds, YamlError, decode, read_manifests
from bundler.formats.safe_parse import split_url
from bundler.sources.charts.pinned import FROM_USER, PinnedChart, not_in_cache
from bundler.sources.download import FetchOptions
from bundler.sources.fetch import fetch_unpinned
from bundler.sources.lock import TrustSource
from bundler.sources.sidecars import SidecarKind, fetch_sidecar
from bundler.urls import show_url

INDEX = "index.yaml"
MAX_INDEX = 64 << 20  # bytes; the largest public ones have 20 MB
BOUNDS = Bounds(size=MAX_INDEX, values=4_000_000, characters=2 * MAX_INDEX, depth=40)
DIGEST = re.compile(r"(sha256:)?([0-9a-f]{64})")
SHOWN = 5  # versions in a message
KIND = SidecarKind(
    name="the index",
    instead="name the chart's package with path:",
    folders=(DOCUMENTS,),
    most=MAX_INDEX,
)


def find_in_repository(addon: Addon, options: FetchOptions) -> PinnedChart:
    """Find a chart in the index of its repository.

    Raises ArtifactError if the repository, the chart or the version does not exist.
    """
    chart = addon.chart
    if not chart or not chart.repo:
        raise TypeError(f"{addon.name} is not of a repository")
    url = f"{chart.repo.rstrip('/')}/{INDEX}"
    content = fetch_sidecar(_as_file(addon, url), KIND, url, options)
    if not content and options.offline:
        raise not_in_cache(addon)
    if not content:
        raise ArtifactError(
            f"{show_url(url)}: there is no such file: add-on {addon.name} needs a repository of"
            " charts there",
            hint="check repo: it is the URL below which index.yaml is; registries are oci://",
        )
    release = _choose(_read_index(content, show_url(url)), addon, show_url(url))
    where = _find_url(release, url)
    stated = DIGEST.fullmatch(str(release.get("digest", "")))
    if chart.sha256 and stated and stated[2] != chart.sha256:
        raise ArtifactError(
            f"chart {chart.name} {chart.version}: {show_url(url)} states the digest"
            f" sha256:{stated[2]}, and cluster.yaml sha256:{chart.sha256}",
            hint="find out who changed it before you trust the repository or change the digest",
        )
    origin, evidence = TrustSource.UPSTREAM_CHECKSUM, show_url(url)
    digest = stated[2] if stated else ""
    if chart.sha256:
        origin, evidence, digest = TrustSource.USER, FROM_USER, chart.sha256
    elif not digest:
        origin, evidence = TrustSource.FIRST_USE, "what the URL served"
        digest = fetch_unpinned(_as_file(addon, where), options)[0].digest
    return PinnedChart(
        addon=addon.name,
        name=chart.name or "",
        version=chart.version or "",
        repository=show_url(chart.repository),
        url=where,
        digest=digest,
        origin=origin,
        evidence=evidence,
    )


def _as_file(addon: Addon, url: str) -> Artifact:
    name, version = (addon.chart.name, addon.chart.version) if addon.chart else ("", "")
    pinned = PinnedChart(
        addon=addon.name, name=name or "", version=version or "", repository="", url=url, digest="",
        origin=TrustSource.FIRST_USE, evidence="",
    )  # fmt: skip
    return pinned.artifact


def _read_index(content: bytes, where: str) -> dict[str, Any]:
    """Name → its releases."""
    try:
        documents = read_manifests(decode(content, BOUNDS), BOUNDS)
        data = next((each.data for each in documents), None)
    except YamlError as error:
        raise ArtifactError(f"{where}:{error.faults[0]}") from error
    entries = data.get("entries") if isinstance(data, dict) else None
    if not isinstance(entries, dict):
        raise ArtifactError(f"{where}: has no entries: it is not the index of a chart repository")
    return entries


def _choose(entries: dict[str, Any], addon: Addon, where: str) -> dict[str, Any]:
    chart = addon.chart
    name, version = (chart.name, chart.version) if chart else ("", "")
    if name not in entries:
        raise ArtifactError(
            f"{where}: has no chart {name}", hint=f"it has: {_shorten(sorted(entries))}"
        )
    found = entries[name]
    releases = [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
    for release in releases:
        if release.get("version") == version:
            return release
    known = [str(release.get("version")) for release in releases]
    raise ArtifactError(
        f"{where}: {name} has no version {version}", hint=f"it has: {_shorten(known)}"
    )


def _find_url(release: dict[str, Any], index: str) -> str:
    urls = release.get("urls")
    first = urls[0] if isinstance(urls, list) and urls else None
    if not isinstance(first, str):
        raise ArtifactError(f"{show_url(index)}: {release.get('name')} has no URL")
    url = urljoin(index, first)
    try:
        parts = split_url(url)
    except ValueError as error:
        raise ArtifactError(f"{show_url(index)}: {show_url(url)}: {error}") from error
    if parts.scheme not in {"http", "https"}:
        raise ArtifactError(
            f"{show_url(index)}: its package is at {show_url(url)}, which is not a web address",
            hint="if it is in a registry, use repo: oci://HOST/PATH",
        )
    return url


def _shorten(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
