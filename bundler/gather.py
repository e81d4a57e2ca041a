"""What goes into bundles from outside: upstream files and images, as the lock and the pins say."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from bundler import log
from bundler.artifacts import Artifacts, Needs, from_entry, list_needs, resolve_artifacts
from bundler.cache import Cache
from bundler.catalog import Artifact
from bundler.config import Cluster
from bundler.download import PARALLEL
from bundler.errors import ArtifactError, ConfigError
from bundler.fetch import FetchOptions, ensure_artifacts, run_jobs
from bundler.files import remove_leftovers
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
from bundler.mirrors import parse_mirror
from bundler.packages.bundle import PackageFiles
from bundler.packages.resolve import (
    check_locked,
    gather_packages,
    has_url,
    propose_packages,
)
from bundler.payload import Payload, ensure_file, ensure_members, read_payload
from bundler.plan import Plan, make_plan
from bundler.progress import DownloadProgress
from bundler.render import Payloads
from bundler.transport import make_session

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


def check(inputs: Inputs) -> Cluster:
    """Validate the description and its pins; nothing is written or fetched."""
    loaded = load_cluster(inputs.description, inputs.pins)
    for warning in loaded.warnings:
        log.warning(warning)
    plan = make_plan(loaded.cluster, {})
    resolve(plan, inputs)
    check_locked(plan, lock_path(inputs.description))
    return loaded.cluster


def list_files(inputs: Inputs) -> tuple[Artifact, ...]:
    """Every file that a description takes from outside; of packages, those of its lock."""
    plan = make_plan(check(inputs), {})
    packages = check_locked(plan, lock_path(inputs.description)) or ()
    return (
        *resolve(plan, inputs).values(),
        *(from_entry(entry, entry.evidence) for entry in packages if has_url(entry)),
    )


def fetch(inputs: Inputs) -> tuple[tuple[Artifact, Path], ...]:
    """Bring every file of a description into the cache; no keys, no state."""
    artifacts = list_files(inputs)
    paths = _ensure(artifacts, inputs)
    warn_of_first_uses(inputs)
    return tuple((artifact, paths[artifact]) for artifact in artifacts)


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
        plan = make_plan(loaded.cluster, {})
        proposals = [
            *propose_artifacts(plan, options, now),
            *propose_packages(plan, old, update, options, now),
        ]
        new, changes = make_lock(
            loaded.cluster.name, old, proposals, update, partial(run_jobs, options=options)
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
        debs = gather_packages(
            plan, lock_path(inputs.description), _fetch_options(inputs, progress)
        )
    with log.step("compressing what is new"):
        members = _gather_members(needs, artifacts, paths, inputs.cache)
        _check_programs(members, artifacts)
        images = {image.file: ensure_file(image.file, inputs.cache) for image in cluster.images}
        laid = {deb: ensure_file(deb.path, inputs.cache) for deb in debs}
    return Payloads(
        member=lambda component, arch, member: members[component, arch][member],
        image=lambda path: images[path],
        packages=PackageFiles(debs=debs, payload=lambda deb: laid[deb]) if debs else None,
    )


def resolve(plan: Plan, inputs: Inputs) -> Artifacts:
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


def warn_of_first_uses(inputs: Inputs) -> None:
    path = lock_path(inputs.description)
    for entry in first_uses(read_lock(path)) if path.exists() else ():
        log.warning(
            f"{entry.name} {entry.version} ({entry.arch}): nobody vouches for its digest, which"
            f" was only seen on first use ({path.name}); --strict refuses it"
        )


def _ensure(artifacts: Sequence[Artifact], inputs: Inputs) -> dict[Artifact, Path]:
    with log.step(f"{len(artifacts)} upstream files"), DownloadProgress() as progress:
        return ensure_artifacts(artifacts, _fetch_options(inputs, progress))


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
            found = read_machine(next(read_payload(payload), b""))
            if found not in {arch, SCRIPT}:
                where = artifacts[component, arch]
                faults.append(f"{where.label}: {name or where.url} is {found}, not for {arch}")
    if faults:
        raise ArtifactError(
            "\n".join(faults), hint="check the URL and the digest of that artifact in cluster.yaml"
        )
