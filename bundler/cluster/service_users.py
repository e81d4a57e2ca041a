"""Users of the units, what each unit may read, and its sandbox: tables of the catalog.

service-users.tsv   user, its UID and GID, its units, and what it reads
unit-files.tsv      `copy`: a file that the unit gets a copy of (a pattern of the shell);
                    `own`: a directory that belongs to the unit's user
sandbox.tsv         a setting of systemd.exec(5), since which systemd, and the units that have it;
                    `users`: all units with a user of their own
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath

from bundler.catalog import read_table
from bundler.cluster.components import EXTRA_COMPONENTS
from bundler.cluster.problem import Problem
from bundler.cluster.schema import Cluster, SiteFile

COPIES = "/run/bundler"
"""The directory of the copies: UNIT/PATH."""

BOUND = ("/etc/kubernetes", "/etc/etcd", "/etc/kube-registry", "/var/lib/bundler")
"""Directories in whose place a unit sees its copies, and nothing else."""

HIDDEN = {
    "/home": "a home directory, which the unit cannot see",
    "/root": "a home directory, which the unit cannot see",
    "/tmp": "a place of which the unit has one of its own",  # noqa: S108
    "/var/tmp": "a place of which the unit has one of its own",  # noqa: S108
}
"""Directories of the host that units with a user do not see → what they are."""

HIDES = {"PrivateTmp": ("/tmp", "/var/tmp"), "ProtectHome": ("/home", "/root")}  # noqa: S108
"""Setting → the directories that it hides: a unit that owns a directory there goes without it."""

FILE_FLAGS = re.compile(
    r"(^|-)(authority|cafile|cert|certfile|certificate|config|dir|file|key|keyfile|kubeconfig|path)$"
)
"""Flags whose values are files or directories, by their names."""

USERS = "users"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceUser:
    """A user of units, and its number, which is that of its group too."""

    name: str
    id: int
    units: tuple[str, ...]  # without .service
    reads: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitFile:
    """A row of unit-files.tsv for a unit."""

    unit: str
    kind: str  # copy | own
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxRow:
    """A row of sandbox.tsv."""

    setting: str
    value: str
    since: str  # the first systemd that has it
    units: tuple[str, ...]
    why: str

    @property
    def line(self) -> str:
        """As in a unit."""
        return f"{self.setting}={self.value}"


@cache
def list_default_users() -> tuple[ServiceUser, ...]:
    """The users with the ids of the catalog."""
    return tuple(
        ServiceUser(
            name=row["user"], id=int(row["id"]), reads=row["reads"],
            units=tuple(unit.removesuffix(".service") for unit in row["units"].split()),
        )
        for row in read_table("service-users.tsv")
    )  # fmt: skip


def list_users(cluster: Cluster) -> tuple[ServiceUser, ...]:
    """All users with the ids of the cluster."""
    own = cluster.security.user_ids
    return tuple(
        ServiceUser(name=one.name, id=own.get(one.name, one.id), units=one.units, reads=one.reads)
        for one in list_default_users()
    )


def list_users_of(cluster: Cluster, units: tuple[str, ...]) -> tuple[ServiceUser, ...]:
    """The users of a node with these units (with .service)."""
    here = {unit.removesuffix(".service") for unit in units}
    return tuple(user for user in list_users(cluster) if here & set(user.units))


def user_of(cluster: Cluster, unit: str) -> ServiceUser | None:
    """The user of a unit; None if it runs as root."""
    return next((user for user in list_users(cluster) if unit in user.units), None)


@cache
def _list_rows() -> tuple[UnitFile, ...]:
    return tuple(UnitFile(**row) for row in read_table("unit-files.tsv"))


def list_unit_files(cluster: Cluster, unit: str) -> tuple[UnitFile, ...]:
    """What a unit reads and owns, with the paths of the cluster."""
    places = {
        "{etcd_data}": cluster.etcd.data_dir,
        "{etcd_wal}": cluster.etcd.wal_dir or "",
        "{registry_storage}": cluster.registry.storage if cluster.registry else "",
    }
    rows = (
        UnitFile(unit=row.unit, kind=row.kind, path=places.get(row.path, row.path))
        for row in _list_rows()
        if row.unit == unit
    )
    return tuple(row for row in rows if row.path)


@cache
def list_sandbox() -> tuple[SandboxRow, ...]:
    """The rows of sandbox.tsv."""
    return tuple(
        SandboxRow(
            setting=row["setting"], value=row["value"], since=row["since"], why=row["why"],
            units=tuple(row["units"].split()),
        )
        for row in read_table("sandbox.tsv")
    )  # fmt: skip


def make_unit_lines(cluster: Cluster, unit: str, capabilities: str = "") -> tuple[str, ...]:
    """The lines of [Service] that make a unit's user, its copies and its sandbox.

    capabilities: what a program without root needs all the same, such as CAP_NET_BIND_SERVICE.
    """
    user = user_of(cluster, unit)
    if user is None:
        return tuple(sorted(row.line for row in list_sandbox() if unit in row.units))
    files = list_unit_files(cluster, unit)
    lines = [
        row.line
        for row in list_sandbox()
        if USERS in row.units
        and row.setting != "CapabilityBoundingSet"
        and not any(
            f"{one.path}/".startswith(f"{place}/")
            for place in HIDES.get(row.setting, ())
            for one in files
            if one.kind == "own"
        )
    ]
    made = [
        *lines,
        f"CapabilityBoundingSet={capabilities}",
        *([f"AmbientCapabilities={capabilities}"] if capabilities else []),
        f"User={user.name}",
        f"Group={user.name}",
        *(
            f"BindReadOnlyPaths=-{COPIES}/{unit}{place}:{place}"
            for place in BOUND
            if any(row.kind == "copy" and row.path.startswith(f"{place}/") for row in files)
        ),
        *(f"ReadWritePaths=-{row.path}" for row in files if row.kind == "own"),
    ]
    if files:
        made.append(f"ExecStartPre=+/opt/k8s/libexec/unit-files.sh {unit}")
        made.append(f"ExecStopPost=+/usr/bin/env rm -rf {COPIES}/{unit}")
    return tuple(sorted(made))


def check_user_ids(cluster: Cluster) -> Iterator[Problem]:
    """Users that no unit has, and ids that two users share."""
    known = {user.name for user in list_default_users()}
    for name in cluster.security.user_ids:
        if name not in known:
            text = f"is not a user of bundler's units: {', '.join(sorted(known))}"
            yield Problem(path=("security", "user_ids", name), text=text)
    seen: dict[int, str] = {}
    for user in list_users(cluster):
        if other := seen.get(user.id):
            name = user.name if user.name in cluster.security.user_ids else other
            text = f"{other} and {user.name} both have {user.id}: each needs an id of its own"
            yield Problem(path=("security", "user_ids", name), text=text)
        seen[user.id] = user.name


def check_readable(cluster: Cluster) -> Iterator[Problem]:
    """Files that flags of `extra` name and that the unit's user cannot read."""
    for component, extra in cluster.extra.items():
        user = user_of(cluster, component)
        if component not in EXTRA_COMPONENTS or user is None:
            continue
        for flag, value in extra.flags.items():
            if not FILE_FLAGS.search(flag):
                continue
            where = ("extra", component, "flags", flag)
            for path in _list_paths(str(value)):
                yield from _check_path(cluster, user, path, where)


def _list_paths(value: str) -> Iterator[str]:
    """The parts of a flag's value that are absolute paths."""
    yield from (part for part in value.replace("=", ",").split(",") if part.startswith("/"))


def _check_path(
    cluster: Cluster, user: ServiceUser, path: str, where: tuple[str, ...]
) -> Iterator[Problem]:
    if path in {"/", "/dev/null"} or is_given(cluster, user, path):
        return
    own = ("/etc/kubernetes", "/etc/etcd")
    if hidden := next((what for at, what in HIDDEN.items() if path.startswith(f"{at}/")), ""):
        text = f"{path} is in {hidden}: choose another place, such as /etc/site"
        yield Problem(path=where, text=text)
    elif path.startswith(tuple(f"{place}/" for place in own)):
        text = (
            f"{user.units[0]} sees of bundler's own directories only what it needs, and {path} is"
            " not among it: carry the file with `files` at another path, such as /etc/site"
        )
        yield Problem(path=where, text=text)
    else:
        carried = [node.files[path] for node in cluster.nodes if path in node.files]
        if all(_is_readable(file, user) for file in carried) and carried:
            return
        how = (
            f"give it `owner: {user.name}:{user.name}` in `files`"
            if carried
            else f"chown {user.name} or chmod a+r it on the hosts, or carry it with `files`"
        )
        text = f"{user.units[0]} runs as {user.name}, which must be able to use {path}: {how}"
        yield Problem(path=where, text=text, is_error=bool(carried))


def is_given(cluster: Cluster, user: ServiceUser, path: str) -> bool:
    """Whether a unit of the user has a copy of a file, or a directory that is its own."""
    rows = [row for unit in user.units for row in list_unit_files(cluster, unit)]
    return any(
        PurePosixPath(path).match(row.path)  # as in a shell, * does not match a slash
        if row.kind == "copy"
        else f"{path}/".startswith(f"{row.path}/")
        for row in rows
    )


def _is_readable(file: SiteFile, user: ServiceUser) -> bool:
    """Whether mode and owner of a file of the site let the user read it."""
    owner, _, group = file.owner.partition(":")
    mode = int(file.mode, 8) if file.mode else 0o600 if file.secret else 0o644
    names = {user.name, str(user.id)}
    return bool(
        mode & 0o004 or (owner in names and mode & 0o400) or (group in names and mode & 0o040)
    )
