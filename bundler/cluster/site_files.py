"""Files of a site (`files` of a node): their plan, and the places that are not theirs."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bundler.cluster.components import UNITS
from bundler.cluster.problem import Problem
from bundler.cluster.schema import Cluster, Node, Role, SiteFile
from bundler.errors import ConfigError
from bundler.files import SECRET_MODE
from bundler.formats.bounded_yaml import YamlPath
from bundler.formats.secret_shapes import find_secret_marker

SIZE_LIMIT = 4 << 20  # bytes of one file; bundles hold them uncompressed in memory
NODE_LIMIT = 32 << 20  # bytes of all files of a node
ROOTFS = "rootfs"
SYSLOG_CONFIG = "/etc/rsyslog.d/60-kubernetes-audit.conf"
OWNED = (
    "/etc/bundler",
    "/etc/cni",
    "/etc/containerd",
    "/etc/docker",
    "/etc/etcd",
    "/etc/etcd-flannel-proxy",
    "/etc/flannel",
    "/etc/kube-keepalived",
    "/etc/kube-nginx",
    "/etc/kube-registry",
    "/etc/kubernetes",
    "/opt/cni",
    "/opt/containerd",
    "/opt/k8s",
    "/var/lib/bundler",
    "/var/lib/kube-addons",
    "/var/lib/kube-apply",
    "/var/lib/kube-controller-manager",
    "/var/lib/kube-csr-approver",
    "/var/lib/kube-node-labeler",
    "/var/log/kubernetes",
)
"""Directories that are bundler's on every host."""

DANGEROUS = {
    "/bin": "programs of the operating system",
    "/boot": "the boot loader's",
    "/dev": "devices",
    SYSLOG_CONFIG: "the file that audit.syslog makes",
    "/lib": "libraries of the operating system",
    "/lib32": "libraries of the operating system",
    "/lib64": "libraries of the operating system",
    "/proc": "the kernel's",
    "/run": "empty after a boot",
    "/sbin": "programs of the operating system",
    "/sys": "the kernel's",
    "/tmp": "a place that every user can write",  # noqa: S108
    "/usr": "the package manager's, except /usr/local",
    "/var/lib/dpkg": "the package manager's",
    "/var/lib/rpm": "the package manager's",
    "/var/run": "empty after a boot",
    "/var/tmp": "a place that every user can write",  # noqa: S108
}
"""Places in which a file would be lost, or would break the host → what they are."""

ALLOWED_BELOW = ("/usr/local",)
OF_INSTALL = ".bundler-"
SHARED = frozenset(
    f"/etc/{name}"
    for name in (
        "crypttab", "fstab", "group", "gshadow", "hostname", "hosts", "ld.so.cache",
        "ld.so.preload", "machine-id", "mtab", "nsswitch.conf", "os-release", "passwd",
        "resolv.conf", "selinux/config", "shadow", "subgid", "subuid", "sudoers",
    )
)  # fmt: skip
"""Files with lines of others, or with which a host does not boot or lets nobody in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedFile:
    """One file of a site on one host."""

    path: str  # on the host
    mode: int
    owner: str  # USER:GROUP
    source: Path | None  # a file of the builder; None: `content` is the text
    content: str = field(default="", repr=False)
    restart: tuple[str, ...] = ()
    reload: tuple[str, ...] = ()
    origin: str = ""  # the key of cluster.yaml that it is made from; "": `files`

    @property
    def is_secret(self) -> bool:
        """Whether only its owner may read it, and nobody its content outside of the bundle."""
        return self.mode == SECRET_MODE

    def read(self) -> bytes:
        """The bytes; raises ConfigError if the source cannot be read."""
        if self.source is None:
            return self.content.encode()
        return read_source(self.source)


def list_site_files(node: Node) -> tuple[PlannedFile, ...]:
    """The files of a node, sorted; of bundler's units only those that its roles may have."""
    units = {name for name, role, _ in UNITS if role is None or role in node.roles}
    others = {name for name, _, _ in UNITS} - units
    return tuple(
        PlannedFile(
            path=path,
            mode=mode_of(file),
            owner=file.owner,
            source=file.source,
            content=_end_line(file.content or ""),
            restart=tuple(unit for unit in file.restart if unit not in others),
            reload=file.reload,
        )
        for path, file in sorted(node.files.items())
        if not file.roles or set(file.roles) & set(node.roles)
    )


def mode_of(file: SiteFile) -> int:
    """The mode of cluster.yaml; by default 0600 for a secret and else 0644."""
    if file.mode is None:
        return SECRET_MODE if file.secret else 0o644
    return int(file.mode, 8)


def _end_line(text: str) -> str:
    return text if not text or text.endswith("\n") else f"{text}\n"


def read_source(path: Path) -> bytes:
    """Read a regular file of at most SIZE_LIMIT bytes; raises ConfigError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ConfigError(f"{path}: must be a regular file")
            content = file.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    if len(content) > SIZE_LIMIT:
        raise ConfigError(f"{path}: larger than {SIZE_LIMIT >> 20} MiB: use an image or a package")
    return content


def check_site_files(cluster: Cluster) -> Iterator[Problem]:
    """Files in places that are not theirs, that cannot be read, or that show a secret."""
    readings: dict[Path, bytes | str] = {}
    for index, node in enumerate(cluster.nodes):
        own = cluster.on_host(node)
        total = 0
        for path, file in node.files.items():
            where = ("nodes", index, "files", path)
            if fault := find_wrong_place(path, own, node):
                yield Problem(path=where, text=fault)
            yield from _check_units(file, where)
            content = _read_once(file, readings)
            if isinstance(content, str):
                yield Problem(path=(*where, "source"), text=content)
                continue
            total += len(content)
            yield from _check_content(file, content, where)
        yield from _check_nesting(node, index)
        if total > NODE_LIMIT:
            text = f"{total >> 20} MiB together, and at most {NODE_LIMIT >> 20} MiB are possible"
            yield Problem(path=("nodes", index, "files"), text=text)


def _read_once(file: SiteFile, readings: dict[Path, bytes | str]) -> bytes | str:
    """The bytes, or what is wrong with the source."""
    if file.source is None:
        return (file.content or "").encode()
    if file.source not in readings:
        try:
            readings[file.source] = read_source(file.source)
        except ConfigError as error:
            readings[file.source] = error.message
    return readings[file.source]


def find_wrong_place(path: str, cluster: Cluster, node: Node) -> str:
    """Why a path is not the site's; empty if it is."""
    return next(_list_wrong(path, cluster, node), "")


def _list_wrong(path: str, cluster: Cluster, node: Node) -> Iterator[str]:
    parts = path.split("/")[1:]
    if {"", "."} & set(parts):
        yield "must not have // or /./: write the path in its short form"
    for directory in _list_owned(cluster, node):
        if f"{path}/".startswith(f"{directory}/"):
            yield f"{directory} is bundler's own directory: choose a path outside of it"
        if directory.startswith(f"{path}/"):
            yield f"{path} is a directory that holds bundler's {directory}: give a file's path"
    if path in SHARED:
        yield f"{path} has lines of others, or the host needs it as it is: use a drop-in directory"
    is_allowed = path.startswith(tuple(f"{below}/" for below in ALLOWED_BELOW))
    for directory, what in DANGEROUS.items():
        if f"{path}/".startswith(f"{directory}/") and not is_allowed:
            yield f"{directory} is {what}: choose another place"
    if len(parts) == 1:
        yield "must be in a directory of the host, such as /etc/site/agent.conf"
    if any(part.startswith(OF_INSTALL) for part in parts):
        yield f"names that begin with {OF_INSTALL} are of install.sh: choose another"


def _list_owned(cluster: Cluster, node: Node) -> Iterator[str]:
    yield from OWNED
    yield cluster.kubernetes.kubelet_root
    etcd = cluster.etcd
    if Role.ETCD in node.roles:
        yield etcd.data_dir
        yield from (place for place in (etcd.wal_dir,) if place)
        yield etcd.backup.directory
    if Role.WORKER in node.roles:
        yield cluster.runtime.data_root


def _check_units(file: SiteFile, where: YamlPath) -> Iterator[Problem]:
    own = {name for name, _, _ in UNITS}
    for number, unit in enumerate(file.reload):
        if unit in own:
            text = f"{unit} is bundler's, and is restarted: list it under `restart`"
            yield Problem(path=(*where, "reload", number), text=text)
        elif unit in file.restart:
            text = f"{unit} is restarted already: remove it here"
            yield Problem(path=(*where, "reload", number), text=text)


def _check_content(file: SiteFile, content: bytes, where: YamlPath) -> Iterator[Problem]:
    place = (*where, "source" if file.source else "content")
    if not file.secret and (marker := find_secret_marker(content)):
        text = f"has {marker!r}, as files with secrets have: add `secret: true`"
        yield Problem(path=place, text=text)
    if file.secret and file.source and _is_open(file.source):
        text = f"other users can read {file.source.name}: chmod 600 {file.source}"
        yield Problem(path=place, text=text, is_error=False)


def _is_open(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & 0o077)
    except OSError:
        return False  # it was read a moment ago


def _check_nesting(node: Node, index: int) -> Iterator[Problem]:
    """A path that is a directory of another one."""
    for path in node.files:
        below = next((other for other in node.files if other.startswith(f"{path}/")), None)
        if below:
            text = f"cannot be a file: {below} is below it"
            yield Problem(path=("nodes", index, "files", path), text=text)
