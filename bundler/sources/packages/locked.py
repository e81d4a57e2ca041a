"""The OS packages of the lock and of `packages.dir`, compared with cluster.yaml."""

from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from bundler.catalog import Artifact
from bundler.cluster.inputs import Packages
from bundler.cluster.os_packages import (
    list_base,
    manager_of,
    name_of,
    release_of,
    split_by_release,
    wanted_pairs,
)
from bundler.cluster.plan import ClusterPlan
from bundler.errors import ArtifactError
from bundler.formats.digests import hash_file
from bundler.sources.artifacts import from_entry
from bundler.sources.lock import Lock, LockEntry, LockKind, TrustSource
from bundler.sources.packages.debs import read_deb
from bundler.sources.packages.files import PackageFile
from bundler.sources.packages.repositories import APT, read_sources
from bundler.sources.packages.rpms import read_rpm

GROUP = "packages"
"""`bundler lock --update packages` resolves all packages again."""
FROM_DIRECTORY = "packages.dir in cluster.yaml"
LOCAL = "file:"


def check_locked(plan: ClusterPlan, lock: Lock | None, path: Path) -> tuple[LockEntry, ...] | None:
    """The packages of the lock, or None if there is no lock or the cluster has no packages.

    Raises ArtifactError if they are not what cluster.yaml needs; `path` is that of the lock.
    """
    if not plan.cluster.list_packages() or not lock:
        return None
    if faults := list(dict.fromkeys(find_drift(plan, lock))):
        raise ArtifactError(
            "\n".join(f"{path}: {fault}" for fault in faults),
            hint=f"check what changed and why; then run: bundler lock --update {GROUP}",
        )
    return tuple(lock.of(LockKind.PACKAGE))


def is_fetched_entry(entry: LockEntry) -> bool:
    """Whether the file is downloaded; files of packages.dir are on the builder."""
    return not entry.url.startswith(LOCAL)


def to_file(entry: LockEntry, packages: Packages | None) -> Artifact:
    """A locked package as a file to fetch, with user and password of its mirror, if it has any."""
    file = from_entry(entry, entry.evidence)
    here = urlsplit(entry.url)
    for address in _list_addresses(packages):
        there = urlsplit(address)
        user, at, host = there.netloc.rpartition("@")
        if at and (there.scheme, host) == (here.scheme, here.netloc):
            return replace(file, url=urlunsplit(here._replace(netloc=f"{user}@{host}")))
    return file


def _list_addresses(packages: Packages | None) -> Iterator[str]:
    """The repositories of cluster.yaml, or else those of this machine."""
    if packages and packages.mirror:
        yield from (mirror.split()[0] for mirror in packages.mirror)
    elif packages and manager_of(packages.os) == "dpkg":
        yield from (source.uri for source in read_sources(APT))


def list_directory(
    plan: ClusterPlan, directory: Path, packages: Packages, now: datetime
) -> Iterator[LockEntry]:
    seen: dict[tuple[str, str], Path] = {}
    suffix = {"dpkg": ".deb", "rpm": ".rpm"}[manager_of(packages.os)]
    machines = {node.arch.value for node in plan.nodes}
    for path in sorted(directory.glob(f"*{suffix}")):
        file = read_local(path, packages)
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


def find_drift(plan: ClusterPlan, lock: Lock) -> Iterator[str]:
    """How the locked packages differ from what cluster.yaml needs now."""
    locked, base = (set(names or ()) for names in (lock.base, list_base(plan.cluster)))
    for name in sorted(locked ^ base):
        was = "was" if name in locked else "was not"
        yield f"{name} {was} in packages.base when packages were resolved"
    of_release = plan.cluster.list_packages()
    for entry in lock.of(LockKind.PACKAGE):
        if entry.release not in of_release:
            hosts = ", ".join(of_release)
            yield f"{entry.name} is for {entry.release}, but the hosts are {hosts}"
    for part in split_by_release(plan):
        packages = of_release[release_of(part, part.nodes[0])]
        yield from _find_drift(part, packages, lock)


def _find_drift(plan: ClusterPlan, packages: Packages, lock: Lock) -> Iterator[str]:
    """The same, for the hosts of one distribution."""
    entries = tuple(e for e in lock.of(LockKind.PACKAGE) if e.release == packages.os)
    for entry in entries:
        if entry.url.startswith(LOCAL) and not packages.dir and "/" not in entry.url:
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
    for entry in list_directory(plan, directory, packages, never):
        here[entry.key] = entry
        if entry.key not in locked:
            yield f"{directory / entry.url.removeprefix(LOCAL)} is missing in the lock"
    for key, entry in locked.items():
        if key not in here:
            yield f"{entry.name} {entry.version} is in the lock, but not in {directory}"
        elif here[key].digest != entry.digest:
            yield f"{entry.name} is locked as {entry.digest}, but the file is {here[key].digest}"


def read_local(path: Path, packages: Packages | None) -> PackageFile:
    """Read a package file as the tools of its distribution do; needs no signature."""
    if not packages or manager_of(packages.os) == "dpkg":
        return read_deb(path)
    return read_rpm(path, None)
