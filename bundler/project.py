"""What goes into bundles from outside: upstream files and images, as the lock and the pins say."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from bundler import log
from bundler.cache.payload import (
    Payload,
    ensure_file,
    ensure_members,
    read_head,
)
from bundler.cache.store import Cache
from bundler.catalog import Artifact
from bundler.cluster.loader import load_cluster
from bundler.cluster.plan import ClusterPlan, make_plan
from bundler.cluster.schema import Cluster
from bundler.errors import ArtifactError, ConfigError
from bundler.files import remove_leftovers
from bundler.formats.image_references import full_name
from bundler.formats.program_machine import HEAD, SCRIPT, read_machine
from bundler.progress import DownloadProgress
from bundler.render.images import ensure_layers
from bundler.render.node import Payloads
from bundler.render.packages import PackageFiles
from bundler.sources.artifacts import (
    Artifacts,
    Needs,
    from_entry,
    list_needs,
    resolve_artifacts,
)
from bundler.sources.download import PARALLEL
from bundler.sources.fetch import FetchOptions, ensure_artifacts, run_jobs
from bundler.sources.images.pull import Puller, WantedImage, list_cached
from bundler.sources.images.registry import RegistryOptions
from bundler.sources.images.resolve import (
    gather_images,
    list_wanted,
    open_files,
    propose_images,
)
from bundler.sources.lock import Lock, read_lock, write_lock
from bundler.sources.lock_update import (
    LockChange,
    first_uses,
    list_beside,
    lock_path,
    make_lock,
    propose_artifacts,
    refuse_first_uses,
)
from bundler.sources.mirrors import parse_mirror
from bundler.sources.packages.resolve import (
    check_locked,
    gather_packages,
    has_url,
    propose_packages,
)
from bundler.sources.sidecars import recall_beside
from bundler.sources.transport import make_session

ONE_DAY = 24 * 3600.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Everything that a build depends on."""

    description: Path
    cache: Cache
    mirrors: tuple[str, ...] = ()  # see mirrors.parse_mirror
    ca_file: Path | None = None  # private authorities, PEM
    jobs: int = PARALLEL  # downloads at a time
    offline: bool = False
    pins: Path | None = None
    state: Path | None = None  # None: beside the description
    strict: bool = False  # nothing without a lock, nothing only seen on first use
    registries: RegistryOptions = field(default_factory=RegistryOptions)


def check(inputs: Inputs) -> Cluster:
    """Validate the description and its pins; nothing is written or fetched."""
    loaded = load_cluster(inputs.description, inputs.pins)
    for warning in loaded.warnings:
        log.warning(warning)
    plan = make_plan(loaded.cluster, {})
    resolve(plan, inputs)
    resolve_images(plan, inputs)
    check_locked(plan, lock_path(inputs.description))
    return loaded.cluster


def list_files(inputs: Inputs) -> tuple[Artifact, ...]:
    """Every file that a description takes from outside.

    Of packages those of its lock; of images what is known of them without asking a registry; of
    what upstream publishes beside files what the cache remembers.
    """
    plan = make_plan(check(inputs), {})
    images = resolve_images(plan, inputs)
    blobs = {file.digest: file for wanted in images for file in list_cached(wanted, inputs.cache)}
    return (*_list_plain(plan, inputs), *_list_beside(plan, inputs), *blobs.values())


def _list_beside(plan: ClusterPlan, inputs: Inputs) -> Iterator[Artifact]:
    """Digests and signatures, as `bundler lock` asked for them."""
    keys = plan.cluster.upstream_keys
    for artifact in resolve(plan, inputs).values():
        for url in list_beside(artifact, keys.get(artifact.component)):
            yield from recall_beside(artifact, url, inputs.cache)


def _list_plain(plan: ClusterPlan, inputs: Inputs) -> tuple[Artifact, ...]:
    """Files that are fetched by their URL."""
    packages = check_locked(plan, lock_path(inputs.description)) or ()
    return (
        *resolve(plan, inputs).values(),
        *(from_entry(entry, entry.evidence) for entry in packages if has_url(entry)),
    )


def list_given(inputs: Inputs) -> frozenset[str]:
    """The SHA-256 of what a description brings itself: layers of image files, packages of `dir`."""
    plan = make_plan(load_cluster(inputs.description, inputs.pins).cluster, {})
    packages = check_locked(plan, lock_path(inputs.description)) or ()
    return frozenset((
        *(entry.digest.partition(":")[2] for entry in packages if not has_url(entry)),
        *(
            layer.descriptor.hexadecimal
            for image in open_files(plan).values()
            for layer in image.layers
        ),
    ))  # fmt: skip


def fetch(inputs: Inputs) -> tuple[tuple[Artifact, Path], ...]:
    """Bring every file of a description into the cache; no keys, no state."""
    plan = make_plan(check(inputs), {})
    artifacts = _list_plain(plan, inputs)
    paths = _ensure(artifacts, inputs)
    wanted = resolve_images(plan, inputs)
    with log.step(f"{len(wanted)} images"), DownloadProgress() as progress:
        pulled = _puller(inputs, progress).pull(wanted)
    for file in (file for image in pulled for file in image.files):
        paths[file] = inputs.cache.blob_path(file.algorithm, file.digest)
    warn_of_first_uses(plan, inputs)
    return tuple(paths.items())


def update_lock(
    inputs: Inputs, update: Collection[str], *, dry_run: bool = False
) -> tuple[LockChange, ...]:
    """Write the lock of a description, having brought what is new in it into the cache."""
    loaded = load_cluster(inputs.description, inputs.pins)
    path = lock_path(inputs.description)
    old = read_lock(path) if path.exists() else None
    now = datetime.now(UTC).replace(microsecond=0)
    with log.step(f"locking what {loaded.cluster.name} needs"), DownloadProgress() as progress:
        options = _fetch_options(inputs, progress)
        plan = make_plan(loaded.cluster, {})
        update = {_image_or(name, plan) for name in update}
        proposals = [
            *propose_artifacts(plan, options, now),
            *propose_images(plan, _puller(inputs, progress, anew=True), now),
            *propose_packages(plan, old, update, options, now),
        ]
        new, changes = make_lock(
            loaded.cluster, old, proposals, update, partial(run_jobs, options=options)
        )
    if inputs.strict:
        refuse_first_uses(new)
    if new != old and not dry_run:
        write_lock(new, path)
    return changes


def gather_payloads(cluster: Cluster, inputs: Inputs) -> Payloads:
    """Every large file as a segment in the cache, fetched and verified where it was not there."""
    remove_leftovers(inputs.cache.directory("segments"), older_than=ONE_DAY)
    plan = make_plan(cluster, {})
    needs = list_needs(plan)
    artifacts = resolve(plan, inputs)
    paths = _ensure(list(artifacts.values()), inputs)
    with DownloadProgress() as progress:
        packages = gather_packages(
            plan, lock_path(inputs.description), _fetch_options(inputs, progress)
        )
        puller = _puller(inputs, progress)
        images = gather_images(plan, resolve_images(plan, inputs), puller)
    with log.step("compressing what is new"):
        members = _gather_members(needs, artifacts, paths, inputs.cache)
        _check_programs(members, artifacts)
        image_files = ensure_layers(images, inputs.cache)
        laid = {file: ensure_file(file.path, inputs.cache) for file in packages}
    return Payloads(
        member=lambda component, arch, member: members[component, arch][member],
        images=image_files,
        packages=PackageFiles(files=packages, payload=lambda file: laid[file])
        if packages
        else None,
    )


def resolve(plan: ClusterPlan, inputs: Inputs) -> Artifacts:
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


def resolve_images(plan: ClusterPlan, inputs: Inputs) -> tuple[WantedImage, ...]:
    """Every image that comes from a registry, as the lock says, where there is one."""
    path = lock_path(inputs.description)
    return list_wanted(plan, read_lock(path) if path.exists() else None, path)


def warn_of_first_uses(plan: ClusterPlan, inputs: Inputs) -> None:
    """Say whose digests nobody vouches for."""
    path = lock_path(inputs.description)
    lock: Lock | None = read_lock(path) if path.exists() else None
    for image in resolve_images(plan, inputs) if lock is None else ():
        if image.digest is None:
            log.warning(
                f"{image.label}: nobody says what its tag must be; it is taken as it was first"
                " seen, and bundler lock keeps that"
            )
    for entry in first_uses(lock) if lock else ():
        log.warning(
            f"{entry.name} {entry.version} ({entry.arch}): nobody vouches for its digest, which"
            f" was only seen on first use ({path.name}); --strict refuses it"
        )


def _ensure(artifacts: Sequence[Artifact], inputs: Inputs) -> dict[Artifact, Path]:
    with log.step(f"{len(artifacts)} upstream files"), DownloadProgress() as progress:
        return ensure_artifacts(artifacts, _fetch_options(inputs, progress))


def _image_or(name: str, plan: ClusterPlan) -> str:
    """The full name of an image that the cluster has, else the name of something else."""
    try:
        found = full_name(name)
    except ValueError:
        return name
    return found if found in {full_name(image.ref) for image in plan.cluster.images} else name


def _puller(inputs: Inputs, progress: DownloadProgress, *, anew: bool = False) -> Puller:
    return Puller(_fetch_options(inputs, progress), inputs.registries, anew=anew)


def _fetch_options(inputs: Inputs, progress: DownloadProgress) -> FetchOptions:
    return FetchOptions(
        cache=inputs.cache,
        mirrors=tuple(map(parse_mirror, inputs.mirrors)),
        offline=inputs.offline,
        jobs=inputs.jobs,
        progress=progress,
        session=make_session(inputs.ca_file),
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
            found = read_machine(read_head(payload, HEAD))
            if found not in {arch, SCRIPT}:
                where = artifacts[component, arch]
                faults.append(f"{where.label}: {name or where.url} is {found}, not for {arch}")
    if faults:
        raise ArtifactError(
            "\n".join(faults), hint="check the URL and the digest of that artifact in cluster.yaml"
        )
