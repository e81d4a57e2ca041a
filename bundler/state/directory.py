"""The state directory on disk: what is created once for a cluster and then reused.

    .lock                       locked while a build reads or writes
    state-id                    see state_id.py
    encryption-*                see encryption.py
    allocations.yaml            which pod subnet each worker has
    etcd-founders               the initial members of etcd, one name per line
    seals/, sealed-to/          see bundle/seal_keys.py
    tokens/                     see tokens.py
    pki/                        see pki/cluster_pki.py
    admin-group                 see pki/admin_group.py
    archive/                    see replaced.py

Directories are 0700 and files 0600. Files and directories are written atomically: under a name that
begins with `.tmp-`, synced, then renamed. What a killed run leaves is removed.
"""

import fcntl
import logging
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from ipaddress import IPv4Network
from pathlib import Path

import yaml

from bundler.errors import ConfigError, OutputError, PkiError
from bundler.files import (
    TEMPORARY,
    explain_disk_faults,
    remove_leftovers,
    write_atomically,
    write_directory_atomically,
)
from bundler.formats.bounded_yaml import decode, read_document
from bundler.private_files import (
    check_private_directories,
    ensure_private_directory,
    make_private_directory,
    open_private,
)
from bundler.state.state_id import ensure_state_id
from bundler.state.transaction import CHANGE, finish_transaction

RESTORE = (
    "restore it from your backup of the state directory; do not delete it: the running cluster"
    " depends on its content"
)
GET_STATE = (
    "restore it with `bundler state import FILE`, or name it with --state DIR; the state of a new"
    " cluster is made by `bundler build`"
)
ALLOCATIONS_HEADER = "# Pod subnets, which never change. Written by bundler; do not edit.\n"
_log = logging.getLogger(__name__)


class State:
    """An open, locked state directory; created by `open_state`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def ensure_pod_subnets(
        self, names: Iterable[str], pod_cidr: IPv4Network, prefix: int
    ) -> dict[str, IPv4Network]:
        """Load or allocate the pod subnet (`/prefix` of `pod_cidr`) of each worker.

        A subnet never changes. The subnet of a removed node is reused only when no other is free,
        so that stale routes do not lead to a new node. Raises ConfigError if the range changed or
        is full.
        """
        path = self.directory / "allocations.yaml"
        known = self._read_allocations(path, pod_cidr, prefix)
        wanted = tuple(names)
        allocations = _allocate(known, wanted, pod_cidr, prefix)
        if allocations != known:
            document = {
                "pod_cidr": str(pod_cidr),
                "pod_subnet_prefix": prefix,
                "nodes": {name: str(subnet) for name, subnet in allocations.items()},
            }
            text = ALLOCATIONS_HEADER + yaml.safe_dump(document, sort_keys=False)
            self.write_file(path, text.encode())
        return {name: allocations[name] for name in wanted}

    def ensure_initial_etcd_members(self, names: Sequence[str]) -> tuple[str, ...]:
        """Load or record the initial members of etcd; other members only join the cluster.

        The initial members are those of the first build. If an older bundler made the state, they
        are those that have certificates, so call this before certificates are created. If none of
        them is left, all members of `names` become initial members: otherwise a cluster that is
        installed again could not start.
        """
        path = self.directory / "etcd-founders"
        if path.exists():
            known = self.read_file(path).decode(errors="replace").split()
        else:
            nodes = self.directory / "pki" / "nodes"
            known = [name for name in names if (nodes / name / "etcd-peer").is_dir()]
        members = tuple(name for name in names if name in known) or tuple(names)
        if not path.exists() or not set(members) & set(known):
            self.write_file(path, "".join(f"{name}\n" for name in members).encode())
        return members

    def read_file(self, path: Path) -> bytes:
        """Read a file of the state; raises PkiError if other users can access it."""
        try:
            with open_private(path) or nullcontext() as file:
                if not file or os.fstat(file.fileno()).st_mode & 0o077:
                    raise PkiError(
                        f"{path}: accessible to other users, or not a file of this one (mode"
                        f" {_get_mode(path)}), expected 0600",
                        hint=f"chmod -R go= {self.directory}",
                    )
                return file.read()
        except FileNotFoundError as error:
            raise PkiError(f"{path}: missing", hint=RESTORE) from error
        except OSError as error:
            raise PkiError(
                f"{path}: cannot read: {error.strerror}",
                hint="run as the owner of the state directory, or restore the file",
            ) from error

    def write_file(self, path: Path, data: bytes) -> None:
        """Write a file atomically (0600); if that fails, the old file stays."""
        with _explain_write_errors(path):
            write_atomically(path, data)

    def write_directory(self, path: Path, files: Mapping[str, bytes]) -> None:
        """Create a directory with files atomically (0700, 0600)."""
        with _explain_write_errors(path):
            write_directory_atomically(path, files)

    def make_directory(self, path: Path) -> None:
        """Create a directory of the state (0700) if it does not exist."""
        with _explain_write_errors(path):
            make_private_directory(path)

    def _read_allocations(
        self, path: Path, pod_cidr: IPv4Network, prefix: int
    ) -> dict[str, IPv4Network]:
        if not path.exists():
            return {}
        try:
            document = read_document(decode(self.read_file(path))).data
            found = (IPv4Network(document["pod_cidr"]), int(document["pod_subnet_prefix"]))
            nodes = {str(name): IPv4Network(text) for name, text in document["nodes"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PkiError(f"{path}: the file is damaged", hint=RESTORE) from error
        if found != (pod_cidr, prefix):
            raise ConfigError(
                f"network.pod_cidr is {pod_cidr} with /{prefix} subnets, but since the first build"
                f" the nodes have /{found[1]} subnets of {found[0]}",
                hint=f"set network.pod_cidr: {found[0]} and network.pod_subnet_prefix: {found[1]};"
                f" if no node of this cluster was ever installed, delete {path} instead",
            )
        subnets = set(nodes.values())
        if len(subnets) != len(nodes) or any(
            subnet.prefixlen != prefix or not subnet.subnet_of(pod_cidr) for subnet in subnets
        ):
            raise PkiError(
                f"{path}: expected a different /{prefix} of {pod_cidr} for each node", hint=RESTORE
            )
        return nodes


@contextmanager
def open_state(
    path: Path, *, create: bool = False, notify: Callable[[str], None] = _log.warning
) -> Iterator[State]:
    """Open a state directory exclusively; other builds wait until it closes.

    `notify` gets one line if this build has to wait for another. Raises PkiError if there is no
    such directory, unless `create`, or if other users can access it; OutputError if it cannot be
    created or locked.
    """
    if not create:
        check_is_state(path)
    if path.is_dir() and path.stat().st_mode & 0o077:
        raise PkiError(
            f"{path}: holds the keys of the cluster, but is accessible to other users"
            f" (mode {_get_mode(path)}), expected 0700",
            hint=f"chmod -R go= {path}",
        )
    _check_private(path)
    with _explain_write_errors(path / ".lock"):
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(path / ".lock", flags, 0o600)
    try:
        with _explain_write_errors(path / ".lock"):
            _lock(descriptor, path, notify)
            remove_leftovers(path)
            finish_transaction(path)
            ensure_state_id(path)
        yield State(path)
    finally:
        os.close(descriptor)


def check_is_state(path: Path) -> None:
    """Raise PkiError if `path` is not a state directory that a build made."""
    if not (path / "pki").is_dir():
        raise PkiError(f"{path}: not a state directory (it has no pki/)", hint=GET_STATE)


def _check_private(path: Path) -> None:
    """Create the directory if needed; OutputError if others can change it or one in it."""
    with _explain_write_errors(path):
        ensure_private_directory(path, option="--state")
        check_private_directories(path, option="--state")


def recover_state(path: Path) -> None:
    """Finish the transaction of a killed run, for callers that read without the lock."""
    if (path / CHANGE).is_dir():
        with open_state(path):
            pass


def has_entries(directory: Path) -> bool:
    """Whether the directory exists and holds more than temporary files of a killed run."""
    return directory.is_dir() and any(
        not entry.name.startswith(TEMPORARY) for entry in directory.iterdir()
    )


def _lock(descriptor: int, path: Path, notify: Callable[[str], None]) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        notify(f"{path} is in use by another build; waiting for it to finish")
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _allocate(
    known: Mapping[str, IPv4Network], wanted: tuple[str, ...], pod_cidr: IPv4Network, prefix: int
) -> dict[str, IPv4Network]:
    if prefix < pod_cidr.prefixlen:
        raise ConfigError(
            f"network.pod_subnet_prefix {prefix} is wider than network.pod_cidr {pod_cidr}",
            hint=f"set network.pod_subnet_prefix to {pod_cidr.prefixlen} or more",
        )
    allocations = dict(known)
    used = set(known.values())
    free = (net for net in pod_cidr.subnets(new_prefix=prefix) if net not in used)
    removed = iter([name for name in known if name not in wanted])
    for name in wanted:
        if name in allocations:
            continue
        subnet = next(free, None)
        if not subnet:
            removed_node = next(removed, None)
            if not removed_node:
                raise ConfigError(
                    f"network.pod_cidr {pod_cidr} holds {2 ** (prefix - pod_cidr.prefixlen)} pod"
                    f" subnets of /{prefix}, but there are {len(wanted)} workers",
                    hint="new cluster: enlarge network.pod_cidr or raise network.pod_subnet_prefix;"
                    " running cluster: neither can change",
                )
            subnet = allocations.pop(removed_node)
        allocations[name] = subnet
    return allocations


def _get_mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):04o}"


@contextmanager
def _explain_write_errors(path: Path) -> Iterator[None]:
    try:
        with explain_disk_faults(path):
            yield
    except OSError as error:
        raise OutputError(
            f"{path}: cannot write: {error.strerror}",
            hint="run as the owner of the state directory",
        ) from error
