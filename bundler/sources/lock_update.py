"""How a lock comes about: what the cluster needs, on whose word, and what has drifted since.

Entries that still say what the cluster needs are kept as they are; one that would become another
is renewed only when it is named, so that a change is a decision.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Literal, TypedDict

from bundler.catalog import Artifact, checksum_url
from bundler.cluster.inputs import UpstreamKey
from bundler.cluster.plan import ClusterPlan
from bundler.cluster.schema import Cluster
from bundler.errors import ArtifactError
from bundler.formats.digests import DIGEST_LENGTHS
from bundler.sources.artifacts import FROM_USER, choose_artifacts, find_trust
from bundler.sources.fetch import FetchOptions, ensure_artifact, fetch_unpinned
from bundler.sources.lock import (
    Lock,
    LockEntry,
    LockKind,
    TrustSource,
)
from bundler.sources.sidecars import DIGEST, fetch_beside
from bundler.sources.signatures import check_signature, describe_trust, list_signatures

EVERYTHING = "all"
FROM_CATALOGUE = "catalog: "
HEXADECIMAL = set("0123456789abcdef")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """One file that the cluster needs; `settle` finds out what exactly it is, now."""

    kind: LockKind
    name: str
    version: str
    arch: str
    url: str
    digest: str  # as an entry's; empty where only `settle` will know
    settle: Callable[[], LockEntry]
    trust: str = ""  # who must have signed it, where somebody says so

    @property
    def names(self) -> set[str]:
        """What `--update` may say to mean it."""
        return {self.name, f"{self.kind}s", EVERYTHING}


class Identity(TypedDict):
    """What a file's proposal and its entry say alike."""

    name: str
    version: str
    arch: str
    url: str
    digest: str


def identify(artifact: Artifact) -> Identity:
    """A file as proposals and entries name it."""
    return {
        "name": artifact.component,
        "version": artifact.version,
        "arch": artifact.arch,
        "url": artifact.url,
        "digest": artifact.pin,
    }


@dataclass(frozen=True, slots=True)
class LockChange:
    """What became of one entry."""

    what: Literal["added", "renewed", "kept", "dropped"]
    entry: LockEntry


def lock_path(description: Path) -> Path:
    """`cluster.lock.yaml` beside `cluster.yaml`."""
    return description.with_suffix(".lock.yaml")


def propose_artifacts(
    plan: ClusterPlan, options: FetchOptions, now: datetime
) -> Iterator[Proposal]:
    """Every upstream file of a plan."""
    for artifact in choose_artifacts(plan).values():
        key = plan.cluster.upstream_keys.get(artifact.component)
        settle = partial(settle_artifact, artifact, options, now, key)
        trust = find_trust(plan, artifact)
        yield Proposal(kind=LockKind.ARTIFACT, **identify(artifact), settle=settle, trust=trust)


def call_all(calls: list[Callable[[], LockEntry]]) -> list[LockEntry]:
    """What each returns, one after another."""
    return [call() for call in calls]


def make_lock(
    cluster: Cluster,
    old: Lock | None,
    proposals: Iterable[Proposal],
    update: Collection[str],
    settle: Callable[[list[Callable[[], LockEntry]]], list[LockEntry]] = call_all,
) -> tuple[Lock, tuple[LockChange, ...]]:
    """The new lock, and what became of each entry of both.

    `update` names the entries that may become others, all of a kind (`packages`), or `all`.
    `settle` calls what settles proposals, perhaps several at a time. Raises ArtifactError where an
    entry has drifted that is not named, and where a name is no entry's, before anything is settled.
    """
    left = {entry.key: entry for entry in old.entries} if old else {}
    names = {entry.name for entry in left.values()} | {f"{kind}s" for kind in LockKind}
    kept: list[LockEntry] = []
    fresh: list[tuple[Proposal, LockEntry | None]] = []
    drift: dict[str, list[str]] = {}
    for proposal in proposals:
        names.add(proposal.name)
        entry = left.pop((proposal.kind, proposal.name, proposal.arch), None)
        if entry is None or not proposal.names.isdisjoint(update):
            fresh.append((proposal, entry))
        elif difference := entry.explain_drift(proposal.version, proposal.url, proposal.digest):
            drift.setdefault(proposal.name, []).append(
                f"{proposal.name} ({proposal.arch}) {difference}"
            )
        elif entry.explain_trust(proposal.trust):
            fresh.append((proposal, entry))
        else:
            kept.append(entry)
    _refuse(drift, set(update) - names - {EVERYTHING}, names)
    settled = settle([proposal.settle for proposal, _ in fresh])
    for (proposal, was), now in zip(fresh, settled, strict=True):
        if was and was.digest != now.digest and proposal.names.isdisjoint(update):
            drift.setdefault(was.name, []).append(
                f"{was.name} ({was.arch}) is locked as {was.digest}, and now is {now.digest}"
            )
    _refuse(drift, set(), names)
    changes = [LockChange("kept", entry) for entry in kept]
    changes += [_compare(was, now) for (_, was), now in zip(fresh, settled, strict=True)]
    changes += [LockChange("dropped", entry) for entry in left.values()]
    entries = tuple(change.entry for change in changes if change.what != "dropped")
    base = tuple(sorted(set(cluster.packages.base))) if cluster.packages else None
    return Lock(cluster=cluster.name, base=base, entries=entries), tuple(changes)


def _refuse(drift: dict[str, list[str]], strangers: set[str], names: set[str]) -> None:
    if drift:
        raise ArtifactError(
            "\n".join(line for lines in drift.values() for line in lines),
            hint="if that is what you want: bundler lock "
            + " ".join(f"--update {name}" for name in drift),
        )
    if strangers:
        raise ArtifactError(
            f"--update {', '.join(sorted(strangers))}: the cluster needs nothing of that name",
            hint=f"it needs {', '.join(sorted(names))}; or say --update {EVERYTHING}",
        )


def _compare(was: LockEntry | None, now: LockEntry) -> LockChange:
    if was is None:
        return LockChange("added", now)
    same = now.model_copy(update={"locked": was.locked}) == was
    return LockChange("kept", was) if same else LockChange("renewed", now)


def first_uses(lock: Lock) -> tuple[LockEntry, ...]:
    """Entries whose digest nobody vouches for."""
    return tuple(entry for entry in lock.entries if entry.origin is TrustSource.FIRST_USE)


def refuse_first_uses(lock: Lock) -> None:
    """ArtifactError that names every entry whose digest was only seen on first use."""
    if found := first_uses(lock):
        lines = (
            f"{entry.name} {entry.version} ({entry.arch}): its digest was only seen on first use"
            for entry in found
        )
        raise ArtifactError(
            "\n".join(lines),
            hint="take the digest from upstream over a way that you trust and put it under"
            " `artifacts` in cluster.yaml (an image's: into its ref, NAME:TAG@sha256:…), then run"
            " bundler lock; or do without --strict",
        )


def settle_artifact(
    artifact: Artifact, options: FetchOptions, now: datetime, key: UpstreamKey | None = None
) -> LockEntry:
    """Bring one upstream file into the cache, and say on whose word it is believed.

    With a `key` upstream must have signed it, whoever else says what it is.
    """
    if artifact.digest:
        path = ensure_artifact(artifact, options)
        from_user = artifact.source == FROM_USER
        origin = TrustSource.USER if from_user else TrustSource.CATALOG
        evidence = artifact.source.removeprefix(FROM_CATALOGUE)
    elif published := _find_checksum(artifact, options):
        artifact = published
        path = ensure_artifact(artifact, options)
        origin, evidence = TrustSource.UPSTREAM_CHECKSUM, artifact.source
    else:
        artifact, path = fetch_unpinned(artifact, options)
        origin, evidence = TrustSource.FIRST_USE, "nobody: what the URL gave"
    trust = None
    if key is not None:
        origin = TrustSource.UPSTREAM_SIGNATURE
        trust = describe_trust(artifact.component, artifact.version, key)
        evidence = check_signature(artifact, path, key, options).evidence
    return LockEntry(
        kind=LockKind.ARTIFACT,
        **identify(artifact),
        size=path.stat().st_size,
        origin=origin,
        evidence=evidence,
        trust=trust,
        locked=now,
    )


def list_beside(artifact: Artifact, key: UpstreamKey | None) -> Iterator[str]:
    """The URL of every document that `settle_artifact` may ask for, beside the file's own."""
    if where := checksum_url(artifact):
        yield where[1]
    if key is not None:
        yield from list_signatures(artifact, key)


def _find_checksum(artifact: Artifact, options: FetchOptions) -> Artifact | None:
    """The artifact with the digest that upstream publishes beside it, or None."""
    where = checksum_url(artifact)
    if where is None:
        return None
    algorithm, url = where
    content = fetch_beside(artifact, DIGEST, url, options)
    name = artifact.url.rpartition("/")[2]
    digest = read_checksum(content or b"", name, algorithm)
    return replace(artifact, algorithm=algorithm, digest=digest, source=url) if digest else None


def read_checksum(content: bytes, name: str, algorithm: str) -> str | None:
    """The digest of `name` in a file as sha256sum writes it, or the only word of the file."""
    lines = [line.split() for line in content.decode(errors="replace").splitlines()]
    found = [words[0] for words in lines if len(words) == 2 and words[1].lstrip("*") == name]
    if [len(words) for words in lines if words] == [1]:
        found = [words[0] for words in lines if words]
    length = DIGEST_LENGTHS[algorithm]
    digests = {d.lower() for d in found if len(d) == length and set(d.lower()) <= HEXADECIMAL}
    return digests.pop() if len(digests) == 1 else None
