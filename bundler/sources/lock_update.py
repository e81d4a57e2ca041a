"""Make and update the lock: what the cluster needs, the trust source of each digest, and drift.

An entry that still matches is kept. An entry that would change is updated only if `--update` names
it, so that every change is a decision.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Literal, TypedDict

from bundler.catalog import Artifact, checksum_url
from bundler.cluster.inputs import UpstreamKey
from bundler.cluster.os_packages import list_base
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
from bundler.sources.sidecars import DIGEST, fetch_sidecar
from bundler.sources.signatures import check_signature, list_signatures
from bundler.sources.trust import describe_trust, find_key
from bundler.urls import show_url

EVERYTHING = "all"
FROM_CATALOG = "catalog: "
HEXADECIMAL = set("0123456789abcdef")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """One file that the cluster needs; `make_entry` finds out its exact digest and size now."""

    kind: LockKind
    name: str
    version: str
    arch: str
    url: str
    digest: str  # as in an entry; empty if only `make_entry` finds it
    make_entry: Callable[[], LockEntry]
    trust: str = ""  # the signer that `upstream_keys` requires
    release: str = ""  # of a package: its distribution

    @property
    def names(self) -> set[str]:
        """The values of `--update` that select it."""
        return {self.name, f"{self.kind}s", EVERYTHING}


class Identity(TypedDict):
    """The fields that a proposal and its entry have in common."""

    name: str
    version: str
    arch: str
    url: str
    digest: str


def identify(artifact: Artifact) -> Identity:
    """The common fields for a file."""
    return {
        "name": artifact.component,
        "version": artifact.version,
        "arch": artifact.arch,
        "url": show_url(artifact.url),
        "digest": artifact.pin,
    }


@dataclass(frozen=True, slots=True)
class LockChange:
    """The change of one entry."""

    what: Literal["added", "renewed", "kept", "dropped"]
    entry: LockEntry


def propose_artifacts(
    plan: ClusterPlan, options: FetchOptions, now: datetime
) -> Iterator[Proposal]:
    """Every upstream file of a cluster."""
    for artifact in choose_artifacts(plan).values():
        key = find_key(plan.cluster.upstream_keys, artifact.component)
        make_entry = partial(lock_artifact, artifact, options, now, key)
        trust = find_trust(plan, artifact)
        yield Proposal(
            kind=LockKind.ARTIFACT, **identify(artifact), make_entry=make_entry, trust=trust
        )


def run_each(calls: list[Callable[[], LockEntry]]) -> list[LockEntry]:
    """Run the calls one after another; return their results."""
    return [call() for call in calls]


def make_lock(
    cluster: Cluster,
    old: Lock | None,
    proposals: Iterable[Proposal],
    update: Collection[str],
    run: Callable[[list[Callable[[], LockEntry]]], list[LockEntry]] = run_each,
) -> tuple[Lock, tuple[LockChange, ...]]:
    """The new lock, and the change of each entry of the old and the new one.

    `update` names the entries that may change: names, a kind (`packages`), or `all`. `run` runs
    `make_entry` of the proposals, perhaps in parallel. Raises ArtifactError before that if an entry
    has drifted that `update` does not name, or if a name in `update` is unknown.
    """
    left = {entry.key: entry for entry in old.entries} if old else {}
    names = {entry.name for entry in left.values()} | {f"{kind}s" for kind in LockKind}
    kept: list[LockEntry] = []
    new: list[tuple[Proposal, LockEntry | None]] = []
    drift: dict[str, list[str]] = {}
    for proposal in proposals:
        names.add(proposal.name)
        key = (proposal.kind, proposal.name, proposal.arch, proposal.release)
        entry = left.pop(key, None)
        if not entry or not proposal.names.isdisjoint(update):
            new.append((proposal, entry))
        elif difference := entry.explain_drift(proposal.version, proposal.url, proposal.digest):
            drift.setdefault(proposal.name, []).append(
                f"{proposal.name} ({proposal.arch}) {difference}"
            )
        elif entry.explain_trust(proposal.trust):
            new.append((proposal, entry))
        else:
            kept.append(entry)
    _refuse(drift, set(update) - names - {EVERYTHING}, names)
    made = run([proposal.make_entry for proposal, _ in new])
    for (proposal, was), now in zip(new, made, strict=True):
        if was and was.digest != now.digest and proposal.names.isdisjoint(update):
            drift.setdefault(was.name, []).append(
                f"{was.name} ({was.arch}) is locked as {was.digest}, but is now {now.digest}"
            )
    _refuse(drift, set(), names)
    changes = [LockChange("kept", entry) for entry in kept]
    changes += [_compare(was, now) for (_, was), now in zip(new, made, strict=True)]
    changes += [LockChange("dropped", entry) for entry in left.values()]
    entries = tuple(change.entry for change in changes if change.what != "dropped")
    base = list_base(cluster)
    state = old.state if old else None
    new_lock = Lock(cluster=cluster.name, state=state, base=base, entries=entries)
    return new_lock, tuple(changes)


def _refuse(drift: dict[str, list[str]], unknown: set[str], names: set[str]) -> None:
    if drift:
        raise ArtifactError(
            "\n".join(line for lines in drift.values() for line in lines),
            hint="to accept these changes: bundler lock "
            + " ".join(f"--update {name}" for name in drift),
        )
    if unknown:
        raise ArtifactError(
            f"--update {', '.join(sorted(unknown))}: the cluster needs nothing with that name",
            hint=f"names: {', '.join(sorted(names))}; or use --update {EVERYTHING}",
        )


def _compare(was: LockEntry | None, now: LockEntry) -> LockChange:
    if not was:
        return LockChange("added", now)
    same = now.model_copy(update={"locked": was.locked}) == was
    return LockChange("kept", was) if same else LockChange("renewed", now)


def lock_artifact(
    artifact: Artifact, options: FetchOptions, now: datetime, key: UpstreamKey | None = None
) -> LockEntry:
    """Fetch one upstream file into the cache and make its lock entry with the trust source.

    With a `key`, upstream must have signed the file, in addition to any other trust source.
    """
    if artifact.digest:
        path = ensure_artifact(artifact, options)
        from_user = artifact.source == FROM_USER
        origin = TrustSource.USER if from_user else TrustSource.CATALOG
        evidence = artifact.source.removeprefix(FROM_CATALOG)
    elif published := _find_checksum(artifact, options):
        artifact = published
        path = ensure_artifact(artifact, options)
        origin, evidence = TrustSource.UPSTREAM_CHECKSUM, artifact.source
    else:
        artifact, path = fetch_unpinned(artifact, options)
        origin, evidence = TrustSource.FIRST_USE, "what the URL served"
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
        sources=artifact.sources or None,
        trust=trust,
        locked=now,
    )


def list_sidecar_urls(artifact: Artifact, key: UpstreamKey | None) -> Iterator[str]:
    """The URLs of the digests and signatures that `lock_artifact` may request for a file."""
    if where := checksum_url(artifact):
        yield where[1]
    if key is not None:
        yield from list_signatures(artifact, key)


def _find_checksum(artifact: Artifact, options: FetchOptions) -> Artifact | None:
    """The artifact with the digest that upstream publishes next to it, or None."""
    where = checksum_url(artifact)
    if not where:
        return None
    algorithm, url = where
    content = fetch_sidecar(artifact, DIGEST, url, options)
    name = artifact.url.rpartition("/")[2]
    digest = read_checksum(content or b"", name, algorithm)
    return replace(artifact, algorithm=algorithm, digest=digest, source=url) if digest else None


def read_checksum(content: bytes, name: str, algorithm: str) -> str | None:
    """The digest of `name` in the output of sha256sum, or the only word of a file."""
    lines = [line.split() for line in content.decode(errors="replace").splitlines()]
    found = [words[0] for words in lines if len(words) == 2 and words[1].lstrip("*") == name]
    if [len(words) for words in lines if words] == [1]:
        found = [words[0] for words in lines if words]
    length = DIGEST_LENGTHS[algorithm]
    digests = {d.lower() for d in found if len(d) == length and set(d.lower()) <= HEXADECIMAL}
    return digests.pop() if len(digests) == 1 else None
