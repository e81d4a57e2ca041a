"""Which package files the hosts need: from the lock, or resolved with signed indices."""

from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from bundler import log
from bundler.cache.store import Cache
from bundler.cluster.inputs import Packages
from bundler.cluster.os_packages import (
    RELEASES,
    manager_of,
    name_of,
    wanted_pairs,
)
from bundler.cluster.plan import ClusterPlan
from bundler.cluster.values import Arch
from bundler.errors import ArtifactError
from bundler.formats.digests import hash_file
from bundler.sources.artifacts import from_entry
from bundler.sources.fetch import FetchOptions, ensure_artifact, ensure_artifacts
from bundler.sources.lock import (
    Lock,
    LockEntry,
    LockKind,
    TrustSource,
)
from bundler.sources.lock_update import EVERYTHING, Proposal, identify
from bundler.sources.packages.apt import AptRoot, FoundPackage
from bundler.sources.packages.debs import read_deb
from bundler.sources.packages.dnf import DnfRoot, find_rpm_repositories
from bundler.sources.packages.files import PackageFile
from bundler.sources.packages.repositories import find_repositories
from bundler.sources.packages.rpms import read_rpm

GROUP = "packages"
"""`bundler lock --update packages` resolves all packages again."""
FROM_DIRECTORY = "packages.dir in cluster.yaml"
LOCAL = "file:"
"""The URL prefix of files in packages.dir."""


def resolve_packages(
    plan: ClusterPlan, cache: Cache, now: datetime, *, offline: bool = False
) -> tuple[LockEntry, ...]:
    """An entry for every package file that may be missing on a host.

    The files are those in `packages.dir`, or the packages are resolved with the distribution's
    indices for the release and the nodes' architectures. Only indices are downloaded. Raises
    ArtifactError with the reasons of apt or dnf if a package cannot be resolved, or if a signature
    is not valid.
    """
    packages = plan.cluster.packages
    if packages is None:
        return ()
    if packages.dir is not None:
        return tuple(_entries_of_directory(plan, packages.dir, packages, now))
    found = {}
    for arch in sorted({node.arch for node in plan.nodes}):
        names = sorted(
            {name_of(pair) for n in plan.nodes if n.arch == arch for pair in wanted_pairs(plan, n)}
        )
        resolve = RESOLVERS[manager_of(packages.os)]
        for entry in resolve(names, packages, arch, cache, now, offline):
            found[entry.key] = entry
    return tuple(found.values())


def gather_packages(
    plan: ClusterPlan, entries: tuple[LockEntry, ...] | None, options: FetchOptions
) -> tuple[PackageFile, ...]:
    """Every package file for the hosts, verified: from the lock, or resolved now if None."""
    packages = plan.cluster.packages
    if packages is None:
        return ()
    if entries is None:
        with log.step(f"resolving packages of {packages.os}, because there is no lock"):
            now = datetime.now(UTC).replace(microsecond=0)
            entries = resolve_packages(plan, options.cache, now, offline=options.offline)
    with log.step(f"{len(entries)} packages of {packages.os}"):
        return ensure_packages(plan, entries, options)


def check_locked(plan: ClusterPlan, lock: Lock | None, path: Path) -> tuple[LockEntry, ...] | None:
    """The packages of the lock, or None if there is no lock or the cluster has no packages.

    Raises ArtifactError if they are not what cluster.yaml needs; `path` is that of the lock.
    """
    packages = plan.cluster.packages
    if packages is None or lock is None:
        return None
    if faults := list(dict.fromkeys(_find_drift(plan, packages, lock))):
        raise ArtifactError(
            "\n".join(f"{path}: {fault}" for fault in faults),
            hint=f"check what changed and why; then run: bundler lock --update {GROUP}",
        )
    return tuple(lock.of(LockKind.PACKAGE))


def propose_packages(
    plan: ClusterPlan,
    old: Lock | None,
    update: Collection[str],
    options: FetchOptions,
    now: datetime,
) -> Iterator[Proposal]:
    """A proposal for the lock for every package; locked packages are kept while they match.

    The distribution's indices change daily. They are used only if cluster.yaml needs a package that
    is not locked, or if `update` names a package.
    """
    kept = list(old.of(LockKind.PACKAGE)) if old else []
    packages = plan.cluster.packages
    named = {entry.name for entry in kept} | {GROUP, EVERYTHING}
    if packages is None:
        return
    if not old or not named.isdisjoint(update) or any(_find_drift(plan, packages, old)):
        kept = list(resolve_packages(plan, options.cache, now, offline=options.offline))
    for entry in kept:
        same = identify(from_entry(entry, entry.evidence))
        yield Proposal(
            kind=LockKind.PACKAGE, **same, make_entry=partial(_check_file, entry, packages, options)
        )


def _check_file(entry: LockEntry, packages: Packages, options: FetchOptions) -> LockEntry:
    """Fetch the file of a new entry into the cache and check that it is what the entry says."""
    if entry.origin is not TrustSource.USER:
        _read(entry, ensure_artifact(from_entry(entry, entry.evidence), options), packages)
    return entry


def is_fetched_entry(entry: LockEntry) -> bool:
    """Whether the file is downloaded; files of packages.dir are on the builder."""
    return not entry.url.startswith(LOCAL)


def ensure_packages(
    plan: ClusterPlan, entries: Iterable[LockEntry], options: FetchOptions
) -> tuple[PackageFile, ...]:
    """The file of every entry, verified and read; ArtifactError if one is not what it must be."""
    entries = tuple(entries)
    packages = plan.cluster.packages
    directory = packages.dir if packages else None
    paths = {
        entry: directory / entry.url.removeprefix(LOCAL)
        for entry in entries
        if directory and not is_fetched_entry(entry)
    }
    artifacts = {
        entry: from_entry(entry, entry.evidence) for entry in entries if entry not in paths
    }
    fetched = ensure_artifacts(list(artifacts.values()), options)
    paths |= {entry: fetched[artifact] for entry, artifact in artifacts.items()}
    return tuple(_read(entry, paths[entry], packages) for entry in entries)


def _read(entry: LockEntry, path: Path, packages: Packages | None) -> PackageFile:
    file = _read_file(path, packages, is_fetched=entry.origin is not TrustSource.USER)
    if (file.name, file.version, file.arch) != (entry.name, entry.version, entry.arch):
        raise ArtifactError(
            f"{entry.url} is {file.name} {file.version} ({file.arch}),"
            f" not {entry.name} {entry.version} ({entry.arch})",
            hint=f"update the entry: bundler lock --update {entry.name}",
        )
    return file


def _read_file(path: Path, packages: Packages | None, *, is_fetched: bool) -> PackageFile:
    """Read a file with the tools of its distribution; an .rpm from a repository must be signed."""
    if packages is None or manager_of(packages.os) == "dpkg":
        return read_deb(path)
    return read_rpm(path, find_rpm_repositories(packages).keyring if is_fetched else None)


def _resolve_by_apt(
    names: list[str], packages: Packages, arch: Arch, cache: Cache, now: datetime, offline: bool
) -> Iterator[LockEntry]:
    """The packages for the nodes of one architecture, with their dependencies."""
    repositories = find_repositories(packages)
    name = f"{packages.os}-{arch}"
    with cache.lock(f"apt-{name}", label=f"packages of {name}"):
        apt = AptRoot(cache.directory("apt", name), repositories, arch)
        if repositories.is_local or not offline:
            apt.update()
        elif not apt.has_lists():
            raise _no_lists(packages, arch)
        apt.set_base(packages.base)
        found = apt.find(names)
    for package in found:
        where = f"Packages of {package.index}, {repositories.keyring.name}"
        yield _make_entry(package, f"{packages.os}: {where}", now)


def _resolve_by_dnf(
    names: list[str], packages: Packages, arch: Arch, cache: Cache, now: datetime, offline: bool
) -> Iterator[LockEntry]:
    """As _resolve_by_apt; the signature of each file is checked whenever it is read."""
    repositories = find_rpm_repositories(packages)
    name = f"{packages.os}-{arch}"
    with cache.lock(f"dnf-{name}", label=f"packages of {name}"):
        release = RELEASES[packages.os].codename
        root = DnfRoot(cache.directory("dnf", name), repositories, release, arch)
        is_offline = offline and not repositories.is_local
        if is_offline and not root.has_lists():
            raise _no_lists(packages, arch)
        found = root.find(names, packages.base, offline=is_offline)
    for package in found:
        where = f"signed package of {package.index}, {repositories.keyring.name}"
        yield _make_entry(package, f"{packages.os}: {where}", now)


RESOLVERS = {"dpkg": _resolve_by_apt, "rpm": _resolve_by_dnf}
"""Package manager → the function that resolves its packages."""


def _no_lists(packages: Packages, arch: Arch) -> ArtifactError:
    return ArtifactError(
        f"--offline: the package lists of {packages.os} ({arch}) are not in the cache",
        hint="run once without --offline, use a mirror file:/…, or create a lock",
    )


def _make_entry(package: FoundPackage, evidence: str, now: datetime) -> LockEntry:
    return LockEntry(
        kind=LockKind.PACKAGE,
        name=package.name,
        version=package.version,
        arch=package.arch,
        url=package.url,
        size=package.size,
        digest=package.digest,
        origin=TrustSource.UPSTREAM_SIGNATURE,
        evidence=evidence,
        locked=now,
    )


def _entries_of_directory(
    plan: ClusterPlan, directory: Path, packages: Packages, now: datetime
) -> Iterator[LockEntry]:
    seen: dict[tuple[str, str], Path] = {}
    suffix = {"dpkg": ".deb", "rpm": ".rpm"}[manager_of(packages.os)]
    machines = {node.arch.value for node in plan.nodes}
    for path in sorted(directory.glob(f"*{suffix}")):
        file = _read_file(path, packages, is_fetched=False)
        if file.arch not in {*machines, "all"}:
            raise ArtifactError(
                f"{path} is for {file.arch}, but nodes are {', '.join(sorted(machines))}",
                hint="replace it with the file for the architecture of the nodes",
            )
        if other := seen.get((file.name, file.arch)):
            raise ArtifactError(
                f"{path} and {other} are both {file.name} ({file.arch})", hint="keep one of them"
            )
        seen[file.name, file.arch] = path
        yield LockEntry(
            kind=LockKind.PACKAGE,
            name=file.name,
            version=file.version,
            arch=file.arch,
            url=f"{LOCAL}{path.name}",
            size=path.stat().st_size,
            digest=f"sha256:{hash_file(path, 'sha256')}",
            origin=TrustSource.USER,
            evidence=f"{packages.os}: {FROM_DIRECTORY}",
            locked=now,
        )
    if not seen:
        raise ArtifactError(f"{directory} has no {suffix} file", hint="put the packages there")


def _find_drift(plan: ClusterPlan, packages: Packages, lock: Lock) -> Iterator[str]:
    """How the locked packages differ from what cluster.yaml needs now."""
    entries = tuple(lock.of(LockKind.PACKAGE))
    locked, base = (set(names or ()) for names in (lock.base, packages.base))
    for name in sorted(locked ^ base):
        was = "was" if name in locked else "was not"
        yield f"{name} {was} in packages.base when packages were resolved"
    for entry in entries:
        locked_for = entry.evidence.partition(":")[0]
        if locked_for != packages.os:
            yield f"{entry.name} is for {locked_for}, but the hosts are {packages.os}"
        if entry.url.startswith(LOCAL) and packages.dir is None and "/" not in entry.url:
            yield f"{entry.name} is locked from packages.dir, which is no longer set"
    if packages.dir is not None:
        yield from _find_drift_of_files(plan, packages.dir, packages, entries)
    for node in plan.nodes:
        there = {entry.name for entry in entries if entry.arch in {node.arch, "all"}}
        for pair in wanted_pairs(plan, node):
            if name_of(pair) not in there:
                yield f"{name_of(pair)} ({node.arch}) is missing in the lock"


def _find_drift_of_files(
    plan: ClusterPlan, directory: Path, packages: Packages, entries: Collection[LockEntry]
) -> Iterator[str]:
    locked = {entry.key: entry for entry in entries}
    here = {}
    never = datetime.min.replace(tzinfo=UTC)
    for entry in _entries_of_directory(plan, directory, packages, never):
        here[entry.key] = entry
        if entry.key not in locked:
            yield f"{directory / entry.url.removeprefix(LOCAL)} is missing in the lock"
    for key, entry in locked.items():
        if key not in here:
            yield f"{entry.name} {entry.version} is in the lock, but not in {directory}"
        elif here[key].digest != entry.digest:
            yield f"{entry.name} is locked as {entry.digest}, but the file is {here[key].digest}"
