"""A chart of a repository with its URL and digest."""

import json
from dataclasses import asdict, dataclass

from bundler.cache.refs import CHARTS, read_ref, write_ref
from bundler.cache.store import Cache
from bundler.catalog import Artifact
from bundler.cluster.schema_addons import Addon, Chart
from bundler.errors import ArtifactError
from bundler.formats.chart_packages import MAX_CHART
from bundler.formats.safe_parse import read_json
from bundler.sources.images.pull import read_document, store_document
from bundler.sources.lock import Lock, LockEntry, LockKind, TrustSource
from bundler.urls import show_url

ALGORITHM = "sha256"
ARCH = "all"
FROM_USER = "chart.sha256 in cluster.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedChart:
    """One package of a chart."""

    addon: str
    name: str
    version: str
    repository: str  # REPO/NAME, without a password
    url: str  # of the package; of a registry: of the manifest by its tag
    digest: str  # of the package, hexadecimal
    manifest: str = ""  # of a registry: the digest of the manifest, sha256:…
    origin: TrustSource
    evidence: str

    @property
    def artifact(self) -> Artifact:
        """The package as a file to fetch."""
        return Artifact(
            component=f"chart {self.name}",
            version=self.version,
            arch=ARCH,
            url=self.url,
            algorithm=ALGORITHM,
            digest=self.digest,
            source=self.evidence,
            most=MAX_CHART,
        )


def find_locked(addon: Addon, lock: Lock | None) -> PinnedChart | None:
    """The chart of the lock's entry; None if there is none for this version and repository."""
    entry = lock.find(LockKind.CHART, addon.name, ARCH) if lock else None
    chart = addon.chart
    if not entry or not chart or explain_drift(entry, chart):
        return None
    return PinnedChart(
        addon=addon.name,
        name=chart.name or "",
        version=entry.version,
        repository=entry.repository or "",
        url=entry.url,
        digest=entry.digest.partition(":")[2],
        manifest=entry.index or "",
        origin=entry.origin,
        evidence=entry.evidence,
    )


def explain_drift(entry: LockEntry, chart: Chart) -> str:
    """How a lock entry differs from cluster.yaml; empty if it does not."""
    if entry.repository != (wanted := show_url(chart.repository)):
        return f"is locked from {entry.repository}, but its repository is now {wanted}"
    digest = f"{ALGORITHM}:{chart.sha256}" if chart.sha256 else ""
    return entry.explain_drift(chart.version or "", entry.url, digest)


def find_known(addon: Addon, cache: Cache) -> PinnedChart | None:
    """The chart that an earlier run found: a version stays what it was, as a tag of an image."""
    digest = read_ref(CHARTS, _describe(addon), cache)
    content = read_document(digest, cache) if digest else None
    if not content:
        return None
    try:
        known = read_json(content)
        found = PinnedChart(**known | {"origin": TrustSource(known["origin"])})
    except (ValueError, TypeError, KeyError):
        return None
    return found if found.addon == addon.name else None


def remember(addon: Addon, found: PinnedChart, cache: Cache) -> None:
    """Store what a chart of cluster.yaml stands for."""
    digest = store_document(json.dumps(asdict(found)).encode(), cache)
    write_ref(CHARTS, _describe(addon), digest, cache)


def _describe(addon: Addon) -> str:
    chart = addon.chart
    if not chart:
        raise TypeError(f"{addon.name} is no chart")
    words = (addon.name, show_url(chart.repository), chart.version, chart.sha256)
    return " ".join(word for word in words if word)


def not_in_cache(addon: Addon) -> ArtifactError:
    """The error for a chart that is missing in the cache when bundler is offline."""
    chart = addon.chart
    name = f"{chart.name} {chart.version}" if chart else addon.name
    return ArtifactError(
        f"chart {name} of add-on {addon.name} is not in the cache",
        hint="run bundler lock on a machine with a network, and carry cluster.lock.yaml and the"
        " cache over (bundler cache export); or name its package with path:",
    )
