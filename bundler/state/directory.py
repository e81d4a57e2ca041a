"""The state directory: what is made once for a cluster and reused ever after, on disk.

    .lock                       held while a build reads or writes here
    encryption-key              32 random bytes in base64, for Secrets in etcd
    allocations.yaml            which pod subnet each worker has
    etcd-founders               the members of etcd that begin the cluster, a name a line
    tokens/<node>               the bootstrap token of each worker's kubelet
    pki/                        see pki/store.py
    archive/                    see pki/renew.py and pki/rotation.py

Directories are 0700 and files 0600. A file or directory appears whole or not at all: it is written
under a name that begins with `.tmp-`, synced, and renamed; what a killed run left is removed.
"""

import base64
import binascii
import fcntl
import logging
import os
import re
import secrets
import stat
import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from bundler.state.transaction import CHANGE, finish_change

TOKEN = re.compile(r"[a-z0-9]{6}\.[a-z0-9]{16}")
TOKEN_ALPHABET = string.ascii_lowercase + string.digits
RESTORE = (
    "restore it from your backup of the state directory; do not delete it: running clusters depend"
    " on what it held"
)
ALLOCATIONS_HEADER = (
    "# Pod subnets, given out once and for ever. Written by bundler; do not edit.\n"
)
_log = logging.getLogger(__name__)


class State:
    """An open, locked state directory; made by `open_state`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def ensure_encryption_key(self) -> str:
        """The key that encrypts Secrets in etcd: 32 bytes in base64.

        Raises PkiError if it is missing though certificates exist: a new key could not read the
        Secrets of the cluster that runs.
        """
        path = self.directory / "encryption-key"
        if not path.exists():
            if has_entries(self.directory / "pki"):
                raise PkiError(
                    f"{path}: missing, but certificates made after it exist", hint=RESTORE
                )
            self.write_file(path, base64.b64encode(secrets.token_bytes(32)) + b"\n")
        text = self.read_file(path).strip()
        try:
            key = base64.b64decode(text, validate=True)
        except binascii.Error:
            key = b""
        if len(key) != 32:
            raise PkiError(f"{path}: expected 32 bytes in base64", hint=RESTORE)
        return text.decode()

    def ensure_tokens(self, nodes: Iterable[str]) -> dict[str, str]:
        """The bootstrap token (`<6 characters>.<16 characters>`) of each node named."""
        directory = self.directory / "tokens"
        self.make_directory(directory)
        files = [path for path in sorted(directory.iterdir()) if not path.name.startswith(".")]
        tokens = {path.name: self._read_token(path) for path in files}
        identifiers: dict[str, str] = {}
        for name, token in tokens.items():
            other = identifiers.setdefault(token[:6], name)
            if other != name:
                raise PkiError(
                    f"{directory / name}: has the same token as {other}, but each node needs its"
                    " own",
                    hint="delete the one that was copied; the next build makes a new token",
                )
        wanted = tuple(nodes)
        for name in wanted:
            if name not in tokens:
                tokens[name] = _make_token(identifiers)
                identifiers[tokens[name][:6]] = name
                self.write_file(directory / name, f"{tokens[name]}\n".encode())
        return {name: tokens[name] for name in wanted}

    def list_revoked_tokens(self, nodes: Iterable[str]) -> tuple[str, ...]:
        """The identifiers (no secrets) of the tokens of nodes that are none of these any more."""
        directory = self.directory / "tokens"
        gone = sorted({path.name for path in directory.iterdir()} - set(nodes))
        return tuple(
            self._read_token(directory / name)[:6] for name in gone if not name.startswith(".")
        )

    def ensure_pod_subnets(
        self, names: Iterable[str], pod_cidr: IPv4Network, prefix: int
    ) -> dict[str, IPv4Network]:
        """The pod subnet (`/prefix` out of `pod_cidr`) of each worker named; it never changes.

        A node that is gone keeps its subnet for as long as others are free, so that no new node
        meets stale routes to an old one. Raises ConfigError if the range changed or is full.
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

    def ensure_etcd_founders(self, names: Sequence[str]) -> tuple[str, ...]:
        """Which of these members of etcd begin the cluster; others only ever join it.

        They are those of the first build. In a state from before this was written down: those that
        have certificates. To be called before certificates are made. When no founder is left all
        of these are: a cluster that would be set up anew could not begin else.
        """
        path = self.directory / "etcd-founders"
        if path.exists():
            known = self.read_file(path).decode(errors="replace").split()
        else:
            nodes = self.directory / "pki" / "nodes"
            known = [name for name in names if (nodes / name / "etcd-peer").is_dir()]
        founders = tuple(name for name in names if name in known) or tuple(names)
        if not path.exists() or not set(founders) & set(known):
            self.write_file(path, "".join(f"{name}\n" for name in founders).encode())
        return founders

    def read_file(self, path: Path) -> bytes:
        """The bytes of a file of the state; refused if others than its owner may read it."""
        try:
            if path.stat().st_mode & 0o077:
                raise PkiError(
                    f"{path}: open to other users (mode {_get_mode(path)}), expected 0600",
                    hint=f"chmod -R go= {self.directory}",
                )
            return path.read_bytes()
        except FileNotFoundError as error:
            raise PkiError(f"{path}: missing", hint=RESTORE) from error
        except OSError as error:
            raise PkiError(
                f"{path}: cannot be read: {error.strerror}",
                hint="run as the owner of the state directory, or restore the file",
            ) from error

    def write_file(self, path: Path, data: bytes) -> None:
        """Put a file in place as a whole, 0600; what was there before stays if that fails."""
        with _explain_write_errors(path):
            write_atomically(path, data)

    def write_directory(self, path: Path, files: Mapping[str, bytes]) -> None:
        """Put a new directory with files in place as a whole (0700, 0600)."""
        with _explain_write_errors(path):
            write_directory_atomically(path, files)

    def make_directory(self, path: Path) -> None:
        """Make a directory of the state (0700) if it is not there."""
        with _explain_write_errors(path):
            path.mkdir(mode=0o700, exist_ok=True)

    def _read_token(self, path: Path) -> str:
        token = self.read_file(path).decode(errors="replace").strip()
        if not TOKEN.fullmatch(token):
            raise PkiError(
                f"{path}: expected a bootstrap token such as abcdef.0123456789abcdef",
                hint="restore it from your backup of the state directory; if there is none, delete"
                " the file: the next build makes a new token, which only new joins need",
            )
        return token

    def _read_allocations(
        self, path: Path, pod_cidr: IPv4Network, prefix: int
    ) -> dict[str, IPv4Network]:
        if not path.exists():
            return {}
        try:
            document = yaml.safe_load(self.read_file(path))
            found = (IPv4Network(document["pod_cidr"]), int(document["pod_subnet_prefix"]))
            nodes = {str(name): IPv4Network(text) for name, text in document["nodes"].items()}
        except (yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise PkiError(f"{path}: not what bundler wrote there", hint=RESTORE) from error
        if found != (pod_cidr, prefix):
            raise ConfigError(
                f"network.pod_cidr is {pod_cidr} in /{prefix} subnets, but the nodes have theirs"
                f" out of {found[0]} in /{found[1]} subnets since the first build",
                hint=f"set network.pod_cidr: {found[0]} and network.pod_subnet_prefix: {found[1]};"
                f" if nothing of this cluster was ever installed, delete {path} instead",
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
def open_state(path: Path, *, notify: Callable[[str], None] = _log.warning) -> Iterator[State]:
    """Open, and if need be make, a state directory, alone: other builds wait until it is closed.

    `notify` gets one line if another build is being waited for. Raises PkiError if the directory
    is open to other users, OutputError if it cannot be made or locked.
    """
    with _explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
    if path.stat().st_mode & 0o077:
        raise PkiError(
            f"{path}: holds the keys of the cluster, but is open to other users"
            f" (mode {_get_mode(path)})",
            hint=f"chmod -R go= {path}",
        )
    with _explain_write_errors(path / ".lock"):
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(path / ".lock", flags, 0o600)
    try:
        with _explain_write_errors(path / ".lock"):
            _lock(descriptor, path, notify)
            remove_leftovers(path)
            finish_change(path)
        yield State(path)
    finally:
        os.close(descriptor)


def heal_state(path: Path) -> None:
    """Finish a change that a killed run laid down, for those who read without the lock."""
    if (path / CHANGE).is_dir():
        with open_state(path):
            pass


def has_entries(directory: Path) -> bool:
    """Whether the directory exists and holds anything but what a killed run left."""
    return directory.is_dir() and any(
        not entry.name.startswith(TEMPORARY) for entry in directory.iterdir()
    )


def _lock(descriptor: int, path: Path, notify: Callable[[str], None]) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        notify(f"{path} is in use by another build; waiting until that ends")
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _allocate(
    known: Mapping[str, IPv4Network], wanted: tuple[str, ...], pod_cidr: IPv4Network, prefix: int
) -> dict[str, IPv4Network]:
    if prefix < pod_cidr.prefixlen:
        raise ConfigError(
            f"network.pod_subnet_prefix {prefix} is wider than network.pod_cidr {pod_cidr}",
            hint=f"take a prefix from {pod_cidr.prefixlen} up",
        )
    allocations = dict(known)
    used = set(known.values())
    fresh = (net for net in pod_cidr.subnets(new_prefix=prefix) if net not in used)
    gone = iter([name for name in known if name not in wanted])
    for name in wanted:
        if name in allocations:
            continue
        subnet = next(fresh, None)
        if subnet is None:
            former = next(gone, None)
            if former is None:
                raise ConfigError(
                    f"network.pod_cidr {pod_cidr} holds {2 ** (prefix - pod_cidr.prefixlen)} pod"
                    f" subnets of /{prefix}, but there are {len(wanted)} workers",
                    hint="a new cluster: widen network.pod_cidr or raise network.pod_subnet_prefix;"
                    " a running one: neither can change any more",
                )
            subnet = allocations.pop(former)
        allocations[name] = subnet
    return allocations


def _make_token(taken: Mapping[str, str]) -> str:
    while True:
        text = "".join(secrets.choice(TOKEN_ALPHABET) for _ in range(22))
        if text[:6] not in taken:
            return f"{text[:6]}.{text[6:]}"


def _get_mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):04o}"


@contextmanager
def _explain_write_errors(path: Path) -> Iterator[None]:
    try:
        with explain_disk_faults(path):
            yield
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written: {error.strerror}",
            hint="run as the owner of the state directory",
        ) from error
