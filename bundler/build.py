"""The pipeline: description → plan → verified artifacts → PKI → trees → one tarball per node."""

import os
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bundler import log
from bundler.artifacts import Artifacts, Needs, list_needs, resolve_artifacts
from bundler.cache import Cache
from bundler.catalog import Artifact
from bundler.completeness import check_images_complete
from bundler.config import Cluster
from bundler.context import Secrets
from bundler.documents import InputFiles, make_describer
from bundler.errors import ArtifactError, ConfigError
from bundler.fetch import FetchOptions, ensure_artifacts
from bundler.files import explain_disk_faults, remove_leftovers, write_atomically
from bundler.loader import load_cluster
from bundler.lock import read_lock, write_lock
from bundler.locking import (
    Change,
    first_uses,
    lock_path,
    make_lock,
    propose_artifacts,
    refuse_first_uses,
)
from bundler.machine import SCRIPT, read_machine
from bundler.pack import pack
from bundler.paths import default_state
from bundler.payload import Payload, ensure_file, ensure_members, read_payload
from bundler.pki_store import ensure_pki
from bundler.plan import NodePlan, Plan, make_plan, worker_names
from bundler.progress import DownloadProgress
from bundler.render import Describe, Payloads, render_node
from bundler.signing import SIGNATURE, SUMS_SIGNATURE, load_signing_key, sign
from bundler.state import open_state
from bundler.tree import MANIFEST, File, write_tree

SUMS = "SHA256SUMS"
WARNING = "warning: "
PARALLEL = 2
ONE_DAY = 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Everything that a build depends on."""

    description: Path
    cache: Cache
    mirrors: tuple[str, ...] = ()
    offline: bool = False
    pins: Path | None = None
    state: Path | None = None  # None: beside the description
    strict: bool = False  # nothing without a lock, nothing only seen on first use


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """One node's tarball."""

    node: str
    path: Path
    sha256: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a build would do."""

    cluster: Cluster
    artifacts: tuple[tuple[Artifact, bool], ...]  # and whether it is in the cache already
    state: Path
    bundles: tuple[str, ...]


def check(inputs: Inputs) -> Cluster:
    """Validate the description and its pins; nothing is written or fetched."""
    loaded = load_cluster(inputs.description, inputs.pins)
    for warning in loaded.warnings:
        log.warning(warning)
    _resolve(make_plan(loaded.cluster, {}), inputs)
    return loaded.cluster


def update_lock(
    inputs: Inputs, update: Collection[str], *, dry_run: bool = False
) -> tuple[Change, ...]:
    """Write the lock of a description, having brought what is new in it into the cache."""
    loaded = load_cluster(inputs.description, inputs.pins)
    path = lock_path(inputs.description)
    old = read_lock(path) if path.exists() else None
    now = datetime.now(UTC).replace(microsecond=0)
    with log.step(f"locking what {loaded.cluster.name} needs"), DownloadProgress() as progress:
        options = _fetch_options(inputs, progress)
        proposals = propose_artifacts(make_plan(loaded.cluster, {}), options, now)
        new, changes = make_lock(loaded.cluster.name, old, proposals, update)
    if inputs.strict:
        refuse_first_uses(new)
    if new != old and not dry_run:
        write_lock(new, path)
    return changes


def preview(inputs: Inputs) -> Preview:
    """What `build` would fetch, create and write."""
    cluster = check(inputs)
    plan = make_plan(cluster, {})
    artifacts = _resolve(plan, inputs)
    return Preview(
        cluster=cluster,
        artifacts=tuple(
            (artifact, _is_cached(artifact, inputs.cache)) for artifact in artifacts.values()
        ),
        state=_state_path(inputs, cluster),
        bundles=tuple(bundle_name(plan, node) for node in plan.nodes),
    )


def build(inputs: Inputs, output: Path, *, signing_key: Path | None = None) -> tuple[Bundle, ...]:
    """Write every node's tarball and SHA256SUMS into `output`, signed if there is a key.

    SHA256SUMS is taken away first and written last: while it is there, it is true.
    """
    key = load_signing_key(signing_key) if signing_key else None
    cluster = check(inputs)
    payloads = _gather_payloads(cluster, inputs)
    with open_secrets(cluster, inputs) as (plan, secrets):
        mtime = _choose_mtime(secrets)
        describe = _make_describer(plan, inputs, mtime)
        output = output.absolute()
        with explain_disk_faults(output):
            output.mkdir(parents=True, exist_ok=True)
            remove_leftovers(output)
            (output / SUMS).unlink(missing_ok=True)
            (output / SUMS_SIGNATURE).unlink(missing_ok=True)

        def make(node: NodePlan) -> Bundle:
            name = bundle_name(plan, node)
            target = output / f"{name}.tar.gz"
            tree = render_node(plan, node, secrets, payloads, describe)
            check_images_complete(plan, tree)
            if key:
                signature = sign(key, _content(tree[MANIFEST]))
                tree.add(File(path=SIGNATURE, mode=0o644, content=signature, origin="signature"))
            digest = pack(tree, name, target, mtime)
            return Bundle(node=node.name, path=target, sha256=digest, size=target.stat().st_size)

        packing = log.step(f"packing {len(plan.nodes)} bundles")
        with packing, ThreadPoolExecutor(PARALLEL) as pool:
            bundles = tuple(pool.map(make, plan.nodes))
    sums = "".join(f"{bundle.sha256}  {bundle.path.name}\n" for bundle in bundles)
    if key:
        write_atomically(output / SUMS_SIGNATURE, sign(key, sums.encode()), mode=0o644)
    write_atomically(output / SUMS, sums.encode(), mode=0o644)
    _note_strangers(output, cluster, bundles)
    _warn_of_first_uses(inputs)
    return bundles


def render(inputs: Inputs, output: Path, *, text_only: bool) -> tuple[Path, ...]:
    """Write every node's tree as plain files below `output`/NODE."""
    cluster = check(inputs)
    payloads = None if text_only else _gather_payloads(cluster, inputs)
    with open_secrets(cluster, inputs) as (plan, secrets):
        describe = _make_describer(plan, inputs, _choose_mtime(secrets)) if payloads else None
        directories = []
        for node in plan.nodes:
            directory = output / node.name
            _refuse_stranger(directory)
            write_tree(render_node(plan, node, secrets, payloads, describe), directory)
            directories.append(directory)
    return tuple(directories)


def bundle_name(plan: Plan, node: NodePlan) -> str:
    """The tarball's name without .tar.gz, and the directory that it unpacks to."""
    return f"{plan.name}-{node.name}"


@contextmanager
def open_secrets(cluster: Cluster, inputs: Inputs) -> Iterator[tuple[Plan, Secrets]]:
    """The plan with the state's decisions, and the cluster's secrets; the state stays locked."""
    with open_state(_state_path(inputs, cluster)) as state:
        network = cluster.network
        workers = worker_names(cluster)
        # flannel gives subnets out by itself
        planned = workers if network.plugin == "static" else []
        subnets = state.ensure_pod_subnets(planned, network.pod_cidr, network.pod_subnet_prefix)
        plan = make_plan(cluster, subnets)
        with log.step(f"keys and certificates in {state.directory}"):
            pki = ensure_pki(state, plan, datetime.now(UTC))
            for note in pki.notes:
                if note.startswith(WARNING):
                    log.warning(note.removeprefix(WARNING))
                else:
                    log.info(f"  {note}")
        yield (
            plan,
            Secrets(
                pki=pki,
                tokens=state.ensure_tokens(workers),
                encryption_key=state.ensure_encryption_key(),
            ),
        )


def _gather_payloads(cluster: Cluster, inputs: Inputs) -> Payloads:
    """Every large file as a segment in the cache, fetched and verified where it was not there."""
    remove_leftovers(inputs.cache.directory("segments"), older_than=ONE_DAY)
    plan = make_plan(cluster, {})
    needs = list_needs(plan)
    artifacts = _resolve(plan, inputs)
    with log.step(f"{len(artifacts)} upstream files"), DownloadProgress() as progress:
        options = _fetch_options(inputs, progress)
        paths = ensure_artifacts(list(artifacts.values()), options)
    with log.step("compressing what is new"):
        members = _gather_members(needs, artifacts, paths, inputs.cache)
        _check_programs(members, artifacts)
        images = {image.file: ensure_file(image.file, inputs.cache) for image in cluster.images}
    return Payloads(
        member=lambda component, arch, member: members[component, arch][member],
        image=lambda path: images[path],
    )


def _resolve(plan: Plan, inputs: Inputs) -> Artifacts:
    """The pinned file behind each need: as the lock says, where there is one."""
    path = lock_path(inputs.description)
    if not path.exists():
        if inputs.strict:
            raise ConfigError(f"{path}: --strict needs a lock", hint="make one with: bundler lock")
        return resolve_artifacts(plan)
    lock = read_lock(path)
    if inputs.strict:
        refuse_first_uses(lock)
    return resolve_artifacts(plan, lock, path)


def _make_describer(plan: Plan, inputs: Inputs, mtime: int) -> Describe:
    lock = lock_path(inputs.description)
    files = InputFiles(
        description=inputs.description, lock=lock if lock.exists() else None, pins=inputs.pins
    )
    return make_describer(plan, _resolve(plan, inputs), files, mtime)


def _warn_of_first_uses(inputs: Inputs) -> None:
    path = lock_path(inputs.description)
    for entry in first_uses(read_lock(path)) if path.exists() else ():
        log.warning(
            f"{entry.name} {entry.version} ({entry.arch}): nobody vouches for its digest, which"
            f" was only seen on first use ({path.name}); --strict refuses it"
        )


def _fetch_options(inputs: Inputs, progress: DownloadProgress) -> FetchOptions:
    return FetchOptions(
        cache=inputs.cache, mirrors=inputs.mirrors, offline=inputs.offline, progress=progress
    )


def _gather_members(
    needs: Needs,
    artifacts: Mapping[tuple[str, str], Artifact],
    paths: Mapping[Artifact, Path],
    cache: Cache,
) -> dict[tuple[str, str], dict[str, Payload]]:
    return {
        key: {"": ensure_file(paths[artifacts[key]], cache)}
        if names == ("",)
        else ensure_members(artifacts[key], paths[artifacts[key]], names, cache)
        for key, names in needs.items()
    }


def _check_programs(
    members: Mapping[tuple[str, str], Mapping[str, Payload]],
    artifacts: Mapping[tuple[str, str], Artifact],
) -> None:
    """Every program is one, and of its node's machine."""
    faults = []
    for (component, arch), payloads in members.items():
        for name, payload in payloads.items():
            found = read_machine(next(read_payload(payload), b""))
            if found not in {arch, SCRIPT}:
                where = artifacts[component, arch]
                faults.append(f"{where.label}: {name or where.url} is {found}, not for {arch}")
    if faults:
        raise ArtifactError(
            "\n".join(faults), hint="check the URL and the digest of that artifact in cluster.yaml"
        )


def _content(file: File) -> bytes:
    """The bytes of a file that is made in memory."""
    if not isinstance(file.content, bytes):
        raise TypeError(f"{file.path} is a payload")
    return file.content


def _state_path(inputs: Inputs, cluster: Cluster) -> Path:
    return inputs.state or default_state(inputs.description, cluster.name)


def _is_cached(artifact: Artifact, cache: Cache) -> bool:
    return (cache.root / "blobs" / artifact.algorithm / artifact.digest).is_file()


def _choose_mtime(secrets: Secrets) -> int:
    """SOURCE_DATE_EPOCH, else when the cluster's authority was made: the same at every build."""
    chosen = os.environ.get("SOURCE_DATE_EPOCH")
    if chosen is None:
        return int(secrets.pki.authorities["kubernetes-ca"].not_before.timestamp())
    if not chosen.isdigit():
        raise ConfigError(f"SOURCE_DATE_EPOCH is {chosen!r}, not a number of seconds")
    return int(chosen)


def _note_strangers(output: Path, cluster: Cluster, bundles: tuple[Bundle, ...]) -> None:
    """Bundles of nodes that left the plan lie about until somebody takes them away."""
    known = {bundle.path.name for bundle in bundles}
    for path in sorted(output.glob(f"{cluster.name}-*.tar.gz")):
        if path.name not in known:
            log.warning(
                f"{path} is of no node in the plan: an earlier build's? It is not in {SUMS}"
            )


def _refuse_stranger(directory: Path) -> None:
    """Overwrite an earlier rendering only, never somebody's files."""
    if directory.is_dir() and any(directory.iterdir()) and not (directory / "MANIFEST").is_file():
        raise ConfigError(
            f"{directory} holds other files than a rendered tree",
            hint="choose another directory with -o",
        )
