"""Tables: supported distributions, and the OS packages that nodes need."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from bundler.cluster.components import (
    COMMANDS,
    COMMANDS_WANTED,
    Row,
    has_feature,
    select,
)
from bundler.cluster.plan import ClusterPlan, NodePlan
from bundler.cluster.problem import Problem
from bundler.cluster.schema import Cluster, Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """How a distribution publishes its releases."""

    manager: Literal["dpkg", "rpm"]
    keyring: str  # a file of /usr/share/keyrings; for RPM families an absolute path
    keyring_package: str = ""
    suites: tuple[str, ...] = ()  # for a mirror without suites in cluster.yaml
    known_suites: tuple[str, ...] = ()  # used from the builder's own apt configuration


DEBIAN = Family(
    manager="dpkg",
    keyring="debian-archive-keyring",
    keyring_package="debian-archive-keyring",
    suites=("{codename}", "{codename}-updates"),
    known_suites=("{codename}", "{codename}-updates", "{codename}-security"),
)
UBUNTU = Family(
    manager="dpkg",
    keyring="ubuntu-archive-keyring",
    keyring_package="ubuntu-keyring (on Debian: ubuntu-archive-keyring)",
    suites=("{codename}", "{codename}-updates", "{codename}-security"),
    known_suites=("{codename}", "{codename}-updates", "{codename}-security"),
)


def _rpm_family(key: str) -> Family:
    return Family(manager="rpm", keyring=f"/etc/pki/rpm-gpg/RPM-GPG-KEY-{key}")


@dataclass(frozen=True, slots=True, kw_only=True)
class OsRelease:
    """One release of a distribution; `packages.os` is its key in RELEASES."""

    family: Family
    codename: str

    def name_suites(self, patterns: tuple[str, ...]) -> tuple[str, ...]:
        """The patterns with this release's codename."""
        return tuple(pattern.format(codename=self.codename) for pattern in patterns)


RELEASES = {
    "debian-11": OsRelease(family=DEBIAN, codename="bullseye"),
    "debian-12": OsRelease(family=DEBIAN, codename="bookworm"),
    "debian-13": OsRelease(family=DEBIAN, codename="trixie"),
    "ubuntu-22.04": OsRelease(family=UBUNTU, codename="jammy"),
    "ubuntu-24.04": OsRelease(family=UBUNTU, codename="noble"),
    **{
        f"{name}-{version}": OsRelease(family=_rpm_family(key), codename=version)
        for name, key, versions in (
            ("rhel", "redhat-release", "8 9 10"),
            ("centos", "centosofficial", "9 10"),
            ("rocky", "Rocky-{codename}", "8 9 10"),
            ("almalinux", "AlmaLinux-{codename}", "8 9 10"),
            ("ol", "oracle", "8 9 10"),
            ("fedora", "fedora-{codename}-primary", "40 41 42 43"),
            ("amzn", "amazon-linux-{codename}", "2023"),
        )
        for version in versions.split()
    },
}
"""ID-VERSION_ID of os-release(5), for RPM families without the minor → its release."""

ZYPPER_FAMILIES = frozenset(("opensuse", "sles"))

MINIMAL_RPM = (
    *("filesystem", "setup", "basesystem", "bash", "coreutils", "glibc", "grep", "gawk", "sed"),
    *("tar", "gzip", "systemd", "util-linux", "shadow-utils", "rpm"),
)
"""The minimal installation of an RPM family; their dependencies belong to it."""

STREAM_MODULE = "nginx-stream:libnginx-mod-stream"
MORE_PACKAGES: tuple[Row, ...] = (
    (STREAM_MODULE, Role.LOAD_BALANCER, None),
    ("modprobe:kmod", Role.WORKER, None),
    ("ipvsadm:ipvsadm", Role.WORKER, "proxy-ipvs"),
    ("apparmor_parser:apparmor", Role.WORKER, "docker"),
    ("matchpathcon:libselinux-utils", None, None),
    ("semanage:policycoreutils-python-utils", None, None),
)
"""Packages that preflight does not require on every host.

Left of the colon: what replaces the package.
"""

MINIMAL = frozenset(("mount", "util-linux"))
"""Packages of every installation: Essential: yes or Priority: required in every release above."""

ROWS = tuple(
    row
    for row in (*COMMANDS, *COMMANDS_WANTED, *MORE_PACKAGES)
    if row[0].partition(":")[2] not in MINIMAL
)

NAMES_BY_RELEASE: dict[str, dict[str, str]] = {
    "nginx-light": {
        "debian-12": "nginx", "debian-13": "nginx", "ubuntu-24.04": "nginx", "rpm": "nginx",
    },
    "libnginx-mod-stream": {"rpm": "nginx-mod-stream"},
    "iproute2": {"rpm": "iproute"},
    "conntrack": {"rpm": "conntrack-tools"},
    "iptables": {"rpm": "iptables-nft"},
    "iputils-ping": {"rpm": "iputils"},
    "apparmor": {"rpm": ""},
    "libselinux-utils": {"dpkg": ""},
    "policycoreutils-python-utils": {"dpkg": ""},
}  # fmt: skip
"""Packages with another name in a release, or in all releases of a package manager; empty: not
needed there, as its kernels have AppArmor or SELinux, not both.

nginx-light is an empty transitional package from 1.22 on.
"""

QUIET_UNITS = {
    "nginx": "nginx.service",
    "nginx-light": "nginx.service",
    "keepalived": "keepalived.service",
    "ipvsadm": "ipvsadm.service",
}
"""Package → its unit, which stays disabled: a unit of bundler runs the program."""


SAME_SOURCE = ("base", "components", "dir", "frozen", "keyring", "mirror")
"""Keys of `packages` that decide where packages come from."""


def wanted_pairs(
    plan: ClusterPlan, node: NodePlan, dir_names: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """`command:package` for each package of a node; `:package` if it has no command.

    `dir_names` are the packages in `packages.dir`: all are wanted unless `packages.names` is set.
    """
    plan = plan.on_host(node)
    packages = plan.cluster.packages
    if not packages:
        return ()
    own = select(ROWS, node.roles, plan.features)
    if packages.names is None and not packages.dir:
        renamed = (_rename(pair, packages.os) for pair in own)
        chosen = tuple(pair for pair in renamed if name_of(pair))
    else:
        names = packages.names if packages.names is not None else dir_names
        known = _names_of(_pairs_of_any_role(plan), packages.os)
        chosen = tuple(
            f"{pair.partition(':')[0]}:{name}"
            for name in names
            for pair in own
            if name in _names_of((pair,), packages.os)
        ) + tuple(f":{name}" for name in names if name not in known)
    there = {name_of(pair) for pair in chosen}
    return chosen + tuple(f":{name}" for name in packages.add if name not in there)


def split_by_release(plan: ClusterPlan) -> tuple[ClusterPlan, ...]:
    """For each distribution the plan with its hosts only, and with its `packages`."""
    return tuple(
        replace(
            plan,
            cluster=plan.cluster.model_copy(update={"packages": packages}),
            nodes=tuple(node for node in plan.nodes if release_of(plan, node) == release),
        )
        for release, packages in plan.cluster.list_packages().items()
    )


def list_base(cluster: Cluster) -> tuple[str, ...] | None:
    """`packages.base` of all distributions, sorted; None if no host gets packages."""
    several = cluster.list_packages().values()
    return tuple(sorted({name for each in several for name in each.base})) if several else None


def release_of(plan: ClusterPlan, node: NodePlan) -> str:
    """The distribution of a node, as `packages.os` has it; empty if it gets no packages."""
    packages = plan.on_host(node).cluster.packages
    return packages.os if packages else ""


def manager_of(release: str) -> str:
    """The package manager of a release; empty for an unknown release."""
    return RELEASES[release].family.manager if release in RELEASES else ""


def name_of(pair: str) -> str:
    """`command:package` → `package`."""
    return pair.partition(":")[2]


def check_packages(cluster: Cluster) -> Iterator[Problem]:
    """Problems of `packages` that cluster.yaml and its files show."""
    packages = cluster.packages
    if not packages:
        return
    where = ("packages", "os")
    family = packages.os.partition("-")[0]
    if packages.os not in RELEASES:
        text = f"{packages.os} is not supported; supported: {', '.join(RELEASES)}"
        if family in ZYPPER_FAMILIES:
            text = (
                f"{packages.os} uses zypper, which bundler does not support: remove `packages` and"
                " install the packages that preflight names from your own repository"
            )
        yield Problem(path=where, text=text)
    if packages.dir is not None:
        for key in ("mirror", "keyring", "base", "frozen", "components"):
            if key in packages.model_fields_set:
                text = "cannot be used together with dir: remove one of them"
                yield Problem(path=("packages", key), text=text)
        if not packages.dir.is_dir():
            yield Problem(path=("packages", "dir"), text=f"{packages.dir}: no such directory")
    elif packages.keyring is not None and not packages.keyring.is_file():
        yield Problem(path=("packages", "keyring"), text=f"{packages.keyring}: no such file")


def check_sources(cluster: Cluster) -> Iterator[Problem]:
    """Hosts of one distribution whose packages come from different repositories."""
    first = cluster.list_packages()
    for index, node in enumerate(cluster.nodes):
        own = node.packages
        if own is None:
            continue
        for key in SAME_SOURCE:
            if getattr(own, key) != getattr(first[own.os], key):
                text = (
                    f"must be equal on all hosts with {own.os}: their packages are resolved"
                    " together; `names` and `add` may differ"
                )
                yield Problem(path=("nodes", index, "packages", key), text=text)


def _pairs_of_any_role(plan: ClusterPlan) -> tuple[str, ...]:
    return tuple(pair for pair, _, feature in ROWS if has_feature(feature, plan.features))


def _rename(pair: str, release: str) -> str:
    command, _, name = pair.partition(":")
    names = NAMES_BY_RELEASE.get(name, {})
    return f"{command}:{names.get(release) or names.get(manager_of(release), name)}"


def _names_of(pairs: tuple[str, ...], release: str) -> set[str]:
    """The packages under both names: of the table, and of the release."""
    return {name_of(spelling) for pair in pairs for spelling in (pair, _rename(pair, release))}
