"""Which package files the hosts need: from the lock, or resolved with signed indices."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
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
    split_by_release,
    wanted_pairs,
)
from bundler.cluster.plan import ClusterPlan
from bundler.cluster.values import Arch
from bundler.errors import ArtifactError
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
from bundler.sources.packages.locked import (
    GROUP,
    LOCAL,
    find_drift,
    is_fetched_entry,
    list_directory,
    to_file,
)
from bundler.sources.packages.repositories import find_repositories
from bundler.sources.packages.rpms import read_rpm

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
    found = {
        entry.key: entry
        for part in split_by_release(plan)
        for entry in _resolve_release(part, cache, now, offline=offline)
    }
    return tuple(found.values())


def _resolve_release(
    plan: ClusterPlan, cache: Cache, now: datetime, *, offline: bool
) -> Iterator[LockEntry]:
    """The entries for the hosts of one distribution."""
    packages = plan.cluster.packages
    if packages is None:
        return
    if packages.dir is not None:
        yield from list_directory(plan, packages.dir, packages, now)
        return
    for arch in sorted({node.arch for node in plan.nodes}):
        names = sorted(
            {name_of(pair) for n in plan.nodes if n.arch == arch for pair in wanted_pairs(plan, n)}
        )
        resolve = RESOLVERS[manager_of(packages.os)]
        yield from resolve(names, packages, arch, cache, now, offline)


def gather_packages(
    plan: ClusterPlan, entries: tuple[LockEntry, ...] | None, options: FetchOptions
) -> tuple[PackageFile, ...]:
    """Every package file for the hosts, verified: from the lock, or resolved now if None."""
    releases = ", ".join(plan.cluster.list_packages())
    if not releases:
        return ()
    if entries is None:
        with log.step(f"resolving packages of {releases}, because there is no lock"):
            now = datetime.now(UTC).replace(microsecond=0)
            entries = resolve_packages(plan, options.cache, now, offline=options.offline)
    with log.step(f"{len(entries)} packages of {releases}"):
        return ensure_packages(plan, entries, options)


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
    of_release = plan.cluster.list_packages()
    named = {entry.name for entry in kept} | {GROUP, EVERYTHING}
    if not of_release:
        return
    if not old or not named.isdisjoint(update) or any(find_drift(plan, old)):
        kept = list(resolve_packages(plan, options.cache, now, offline=options.offline))
    for entry in kept:
        same = identify(from_entry(entry, entry.evidence))
        make_entry = partial(_check_file, entry, of_release[entry.release], options)
        yield Proposal(kind=LockKind.PACKAGE, **same, release=entry.release, make_entry=make_entry)


def _check_file(entry: LockEntry, packages: Packages, options: FetchOptions) -> LockEntry:
    """Fetch the file of a new entry into the cache and check that it matches the entry."""
    if entry.origin is not TrustSource.USER:
        _read(entry, ensure_artifact(to_file(entry, packages), options), packages)
    return entry


def ensure_packages(
    plan: ClusterPlan, entries: Iterable[LockEntry], options: FetchOptions
) -> tuple[PackageFile, ...]:
    """The file of every entry, verified and read; ArtifactError if one differs."""
    entries = tuple(entries)
    of_release = plan.cluster.list_packages()
    paths = {
        entry: directory / entry.url.removeprefix(LOCAL)
        for entry in entries
        if (directory := of_release[entry.release].dir) and not is_fetched_entry(entry)
    }
    artifacts = {
        entry: to_file(entry, of_release[entry.release]) for entry in entries if entry not in paths
    }
    fetched = ensure_artifacts(list(artifacts.values()), options)
    paths |= {entry: fetched[artifact] for entry, artifact in artifacts.items()}
    return tuple(_read(entry, paths[entry], of_release[entry.release]) for entry in entries)


def _read(entry: LockEntry, path: Path, packages: Packages) -> PackageFile:
    file = _read_file(path, packages, is_fetched=entry.origin is not TrustSource.USER)
    if (file.name, file.version, file.arch) != (entry.name, entry.version, entry.arch):
        raise ArtifactError(
            f"{entry.url} is {file.name} {file.version} ({file.arch}),"
            f" not {entry.name} {entry.version} ({entry.arch})",
            hint=f"update the entry: bundler lock --update {entry.name}",
        )
    return replace(file, release=entry.release)


def _read_file(path: Path, packages: Packages, *, is_fetched: bool) -> PackageFile:
    """Read a file with the tools of its distribution; an .rpm from a repository must be signed."""
    if manager_of(packages.os) == "dpkg":
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
