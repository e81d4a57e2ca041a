"""Which upstream files a cluster needs, and their digests.

If there is a lock, digests come from it, and it must agree with cluster.yaml and the catalog.
Otherwise they come from cluster.yaml or the catalog. A file without a digest is never used.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from bundler.catalog import (
    KUBERNETES_ARCHIVE,
    KUBERNETES_PROGRAMS,
    MAX_SIZES,
    Artifact,
    artifact_url,
    closest_versions,
    default_version,
    find_artifact,
)
from bundler.cluster.components import minor_of
from bundler.cluster.inputs import Pin
from bundler.cluster.plan import ClusterPlan, choose_flannel, choose_kube_router, runtime_versions
from bundler.cluster.schema import Cluster
from bundler.errors import ArtifactError
from bundler.overlays.files import list_fetched
from bundler.sources.limits import MAX_PACKAGE
from bundler.sources.lock import Lock, LockEntry, LockKind
from bundler.sources.trust import describe_trust, find_key
from bundler.urls import show_url

Needs = dict[tuple[str, str], tuple[str, ...]]
"""(component, architecture) → the members of its archive that nodes use."""
Artifacts = Mapping[tuple[str, str], Artifact]
"""(component, architecture) → the file."""

FROM_USER = "artifacts in cluster.yaml"


def list_needs(plan: ClusterPlan) -> Needs:
    """The members of upstream archives that all nodes together use."""
    needs: dict[tuple[str, str], dict[str, None]] = {}
    for node in plan.nodes:
        for fetched in list_fetched(plan, node):
            needs.setdefault((fetched.component, node.arch), {})[fetched.member] = None
    return {key: tuple(members) for key, members in needs.items()}


def choose_artifacts(plan: ClusterPlan) -> Artifacts:
    """The file for each need, from cluster.yaml and the catalog; some have no digest.

    Raises ArtifactError if one pin is used for two architectures.
    """
    versions = _choose_versions(plan)
    pins = plan.cluster.artifacts
    found: dict[tuple[str, str], Artifact] = {}
    faults: list[str] = []
    for component, arch in list_needs(plan):
        version = versions[component]
        if own := pins.get(f"{component}/{arch}"):
            found[component, arch] = _from_pin(component, version, arch, own)
        elif pin := pins.get(component):
            found[component, arch] = _from_pin(component, version, arch, pin)
            faults += _check_single(component, plan, pin)
        else:
            built_in = find_artifact(component, version, arch)
            found[component, arch] = built_in or _from_pin(
                component, version, arch, Pin.model_construct()
            )
    if faults:
        raise ArtifactError("\n".join(dict.fromkeys(faults)))
    return found


def resolve_artifacts(
    plan: ClusterPlan, lock: Lock | None = None, path: Path | None = None
) -> Artifacts:
    """The pinned file for each need; ArtifactError explains how to pin the others.

    A component with `upstream_keys` needs a lock, because only `bundler lock` checks signatures.
    `path` is where the lock was read, for messages.
    """
    chosen = choose_artifacts(plan)
    trusts = {key: find_trust(plan, artifact) for key, artifact in chosen.items()}
    if lock is not None:
        return _resolve_locked(chosen, trusts, lock, path or Path("cluster.lock.yaml"))
    if unchecked := [chosen[key].label for key, trust in trusts.items() if trust]:
        raise ArtifactError(
            f"{', '.join(unchecked)}: upstream_keys requires a signature, and without a lock it is"
            " not checked",
            hint="check the signature and write the lock with: bundler lock",
        )
    missing = [_explain_missing(artifact) for artifact in chosen.values() if not artifact.digest]
    if missing:
        raise ArtifactError(
            "\n".join(missing),
            hint="bundler uses only pinned files: take the digest from upstream's release page,"
            " over a connection that you trust, and add it to cluster.yaml; or run bundler lock",
        )
    return chosen


def find_pinned(
    cluster: Cluster, lock: Lock | None, component: str, version: str, arch: str
) -> Artifact:
    """The file of a build tool: of the lock, of `artifacts`, or of the catalog; or without digest.

    An entry of the lock for another version is not used.
    """
    entry = lock.find(LockKind.ARTIFACT, component, arch) if lock else None
    if entry and entry.version == version:
        return from_entry(entry, f"cluster.lock.yaml, {entry.origin}")
    pins = cluster.artifacts
    is_single = len({node.arch for node in cluster.nodes} | {arch}) == 1
    own = pins.get(f"{component}/{arch}") or (pins.get(component) if is_single else None)
    if own:
        return _from_pin(component, version, arch, own)
    built_in = find_artifact(component, version, arch)
    return built_in or _from_pin(component, version, arch, Pin.model_construct())


def find_trust(plan: ClusterPlan, artifact: Artifact) -> str:
    """The signer that `upstream_keys` requires for a file; empty if it requires none."""
    key = find_key(plan.cluster.upstream_keys, artifact.component)
    return describe_trust(artifact.component, artifact.version, key) if key else ""


def _resolve_locked(
    chosen: Artifacts, trusts: Mapping[tuple[str, str], str], lock: Lock, path: Path
) -> Artifacts:
    found = {}
    faults: dict[str, list[str]] = {}
    for (component, arch), artifact in chosen.items():
        entry = lock.find(LockKind.ARTIFACT, component, arch)
        drift = (
            entry.explain_drift(artifact.version, artifact.url, artifact.pin)
            or entry.explain_trust(trusts[component, arch])
            if entry
            else "is missing in the lock"
        )
        if drift:
            faults.setdefault(component, []).append(f"{path}: {component} ({arch}) {drift}")
        elif entry:
            locked = from_entry(entry, f"{path.name}, {entry.origin}")
            # the URL with its password
            found[component, arch] = replace(locked, url=artifact.url, made_from=artifact.made_from)
    if faults:
        raise ArtifactError(
            "\n".join(line for lines in faults.values() for line in lines),
            hint="check what changed and why; then update the entries with:"
            f" bundler lock {' '.join(f'--update {name}' for name in faults)}",
        )
    return found


def from_entry(entry: LockEntry, source: str) -> Artifact:
    """A lock entry as a file to fetch."""
    algorithm, _, digest = entry.digest.partition(":")
    return Artifact(
        component=entry.name,
        version=entry.version,
        arch=entry.arch,
        url=entry.url,
        algorithm=algorithm,
        digest=digest,
        source=source,
        most=MAX_SIZES.get(entry.name, MAX_PACKAGE),
        size=entry.size,
    )


def _choose_versions(plan: ClusterPlan) -> dict[str, str]:
    cluster = plan.cluster
    minor = minor_of(cluster.kubernetes.version)
    return {
        **dict.fromkeys((KUBERNETES_ARCHIVE, *KUBERNETES_PROGRAMS), cluster.kubernetes.version),
        "etcd": plan.etcd_version,
        "cni-plugins": default_version("cni-plugins", minor),
        "flanneld": choose_flannel(cluster),
        **({"registry": cluster.registry.version} if cluster.registry else {}),
        "kube-router": choose_kube_router(cluster),
        **runtime_versions(cluster),
    }


def _from_pin(component: str, version: str, arch: str, pin: Pin) -> Artifact:
    algorithm = "sha512" if pin.sha512 else "sha256"
    return Artifact(
        component=component,
        version=version,
        arch=arch,
        url=pin.url or artifact_url(component, version, arch),
        algorithm=algorithm,
        digest=pin.sha512 or pin.sha256 or "",
        source=FROM_USER,
        made_from=pin.made_from,
        most=MAX_SIZES[component],
    )


def _check_single(component: str, plan: ClusterPlan, pin: Pin) -> Iterator[str]:
    """A digest is of one file, so it fits one architecture only."""
    arches = sorted({node.arch for node in plan.nodes})
    if len(arches) > 1:
        digest = (pin.sha512 or pin.sha256 or "")[:12]
        pinned = f"{digest}…" if digest else show_url(pin.url or "")
        yield (
            f"artifacts.{component} pins one file ({pinned}), but nodes are"
            f" {' and '.join(arches)}: pin {' and '.join(f'{component}/{a}' for a in arches)}"
        )


def _explain_missing(artifact: Artifact) -> str:
    close = closest_versions(artifact.component, artifact.version, artifact.arch)
    near = f"; similar pinned versions: {', '.join(close)}" if close else ""
    return (
        f"{artifact.component} {artifact.version} ({artifact.arch}) has no built-in pin{near}."
        " To pin it:\n"
        "    artifacts:\n"
        f"      {artifact.component}:\n"
        f"        url: {show_url(artifact.url)}\n"
        "        sha256: <64 hexadecimal digits>   # or sha512"
    )
