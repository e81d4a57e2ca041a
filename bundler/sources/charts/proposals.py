"""Charts in the lock: what it should have, and whether it has it."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path

from bundler.cluster.inputs import UpstreamKey
from bundler.cluster.schema import Cluster
from bundler.cluster.schema_addons import Addon
from bundler.errors import ArtifactError
from bundler.sources.charts.pinned import ALGORITHM, ARCH, PinnedChart, explain_drift
from bundler.sources.charts.provenance import check_provenance, key_name
from bundler.sources.charts.resolve import ChartOptions, ensure_chart
from bundler.sources.lock import Lock, LockEntry, LockKind, TrustSource
from bundler.sources.lock_update import Proposal
from bundler.sources.trust import describe_trust
from bundler.urls import show_url


def propose_charts(
    cluster: Cluster, charts: Mapping[str, PinnedChart], options: ChartOptions, now: datetime
) -> Iterator[Proposal]:
    """A proposal for the lock for every chart of a repository; `charts` are as they are now."""
    for addon in _list_remote(cluster):
        found = charts[addon.name]
        key = cluster.upstream_keys.get(key_name(addon.name))
        yield Proposal(
            kind=LockKind.CHART,
            name=addon.name,
            version=found.version,
            arch=ARCH,
            url=show_url(found.url),
            digest=f"{ALGORITHM}:{found.digest}",
            make_entry=partial(_make_entry, addon, key, options, now),
            trust=_find_trust(addon, key),
        )


def check_charts(cluster: Cluster, lock: Lock | None, path: Path) -> None:
    """Raise ArtifactError if the lock and cluster.yaml differ, or a signature is not checked."""
    faults: dict[str, str] = {}
    for addon in _list_remote(cluster):
        key = cluster.upstream_keys.get(key_name(addon.name))
        trust = _find_trust(addon, key)
        entry = lock.find(LockKind.CHART, addon.name, ARCH) if lock else None
        if not lock and trust:
            raise ArtifactError(
                f"chart of add-on {addon.name}: upstream_keys requires a signature, and without a"
                " lock it is not checked",
                hint="check the signature and write the lock with: bundler lock",
            )
        if not lock or not addon.chart:
            continue
        drift = (
            explain_drift(entry, addon.chart) or entry.explain_trust(trust)
            if entry
            else "is missing in the lock"
        )
        if drift:
            faults[addon.name] = f"{path}: the chart of add-on {addon.name} {drift}"
    if faults:
        raise ArtifactError(
            "\n".join(faults.values()),
            hint="check what changed and why; then update the entries with:"
            f" bundler lock {' '.join(f'--update {name}' for name in faults)}",
        )


def _list_remote(cluster: Cluster) -> Iterator[Addon]:
    yield from (addon for addon in cluster.addons if addon.chart and addon.chart.repo)


def _find_trust(addon: Addon, key: UpstreamKey | None) -> str:
    version = (addon.chart.version if addon.chart else None) or ""
    return describe_trust(key_name(addon.name), version, key) if key else ""


def _make_entry(
    addon: Addon, key: UpstreamKey | None, options: ChartOptions, now: datetime
) -> LockEntry:
    found, path = ensure_chart(addon, options)
    origin, evidence = found.origin, found.evidence
    if key:
        origin = TrustSource.UPSTREAM_SIGNATURE
        evidence = check_provenance(addon, found, key, options).evidence
    return LockEntry(
        kind=LockKind.CHART,
        name=addon.name,
        version=found.version,
        arch=ARCH,
        url=found.url,
        size=path.stat().st_size,
        digest=f"{ALGORITHM}:{found.digest}",
        index=found.manifest or None,
        repository=found.repository,
        origin=origin,
        evidence=evidence,
        trust=_find_trust(addon, key) or None,
        locked=now,
    )
