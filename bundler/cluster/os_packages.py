"""Tables: the distributions that packages are resolved for, and what nodes need of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from bundler.cluster.components import (
    COMMANDS,
    COMMANDS_WANTED,
    Row,
    has_feature,
    select,
)
from bundler.cluster.networks import Problem
from bundler.cluster.plan import ClusterPlan, NodePlan
from bundler.cluster.schema import Cluster, Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """How a distribution publishes its releases."""

    manager: Literal["dpkg", "rpm"]
    keyring: str  # below /usr/share/keyrings; of RPM families the whole path
    keyring_package: str = ""
    suites: tuple[str, ...] = ()  # of a mirror that is given without suites
    known_suites: tuple[str, ...] = ()  # of the builder's own configuration, those that are taken


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
class Release:
    """One release of a distribution, under the name that `packages.os` has for it."""

    family: Family
    codename: str

    def name_suites(self, patterns: tuple[str, ...]) -> tuple[str, ...]:
        """The family's patterns, as this release has them."""
        return tuple(pattern.format(codename=self.codename) for pattern in patterns)


RELEASES = {
    "debian-11": Release(family=DEBIAN, codename="bullseye"),
    "debian-12": Release(family=DEBIAN, codename="bookworm"),
    "debian-13": Release(family=DEBIAN, codename="trixie"),
    "ubuntu-22.04": Release(family=UBUNTU, codename="jammy"),
    "ubuntu-24.04": Release(family=UBUNTU, codename="noble"),
    **{
        f"{name}-{version}": Release(family=_rpm_family(key), codename=version)
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
"""ID-VERSION_ID of os-release(5) (of RPM families without a minor), and how that is published."""

ZYPPER_FAMILIES = frozenset(("opensuse", "sles"))

MINIMAL_RPM = (
    *("filesystem", "setup", "basesystem", "bash", "coreutils", "glibc", "grep", "gawk", "sed"),
    *("tar", "gzip", "systemd", "util-linux", "shadow-utils", "rpm"),
)
"""What every installation of an RPM family has, with what these need."""

STREAM_MODULE = "nginx-stream:libnginx-mod-stream"
MORE_PACKAGES: tuple[Row, ...] = (
    (STREAM_MODULE, Role.LOAD_BALANCER, None),
    ("modprobe:kmod", Role.WORKER, None),
    ("ipvsadm:ipvsadm", Role.WORKER, "proxy-ipvs"),
)
"""Beyond what preflight asks for. Left of the colon: what makes a package unnecessary."""

MINIMAL = frozenset(("mount", "util-linux"))
"""What every installation has: Essential: yes or Priority: required in every release above."""

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
}  # fmt: skip
"""Packages that a release, or whoever has that package manager, has under another name.

nginx-light is an empty shell from 1.22 on.
"""

QUIET_UNITS = {
    "nginx": "nginx.service",
    "nginx-light": "nginx.service",
    "keepalived": "keepalived.service",
    "ipvsadm": "ipvsadm.service",
}
"""Units of packages whose programs are run by units of bundler's: neither started nor enabled."""


def wanted_pairs(
    plan: ClusterPlan, node: NodePlan, brought: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """`command:package` of what the node is to have; without a command just `:package`.

    `brought` are the names in `packages.dir`, which are wanted unless `packages.names` chooses.
    """
    packages = plan.cluster.packages
    if packages is None:
        return ()
    own = select(ROWS, node.roles, plan.features)
    if packages.names is None and packages.dir is None:
        chosen = tuple(_rename(pair, packages.os) for pair in own)
    else:
        names = brought if packages.names is None else packages.names
        known = _names_of(_pairs_of_any_role(plan), packages.os)
        chosen = tuple(
            f"{pair.partition(':')[0]}:{name}"
            for name in names
            for pair in own
            if name in _names_of((pair,), packages.os)
        ) + tuple(f":{name}" for name in names if name not in known)
    there = {name_of(pair) for pair in chosen}
    return chosen + tuple(f":{name}" for name in packages.add if name not in there)


def manager_of(release: str) -> str:
    """Which package manager a release has; empty for one that is not known."""
    return RELEASES[release].family.manager if release in RELEASES else ""


def name_of(pair: str) -> str:
    """The package of a `command:package`."""
    return pair.partition(":")[2]


def check_packages(cluster: Cluster) -> Iterator[Problem]:
    """What cannot be resolved for whatever reason that the description itself shows."""
    packages = cluster.packages
    if packages is None:
        return
    where = ("packages", "os")
    family = packages.os.partition("-")[0]
    if packages.os not in RELEASES:
        text = f"bundler resolves no packages for {packages.os}: known: {', '.join(RELEASES)}"
        if family in ZYPPER_FAMILIES:
            text = (
                f"{packages.os} has packages of zypper's, which bundler neither resolves nor"
                " installs: leave `packages` out, and install what preflight names from your own"
                " repository"
            )
        yield Problem(path=where, text=text)
    if packages.dir is not None:
        for key in ("mirror", "keyring", "base", "frozen", "components"):
            if key in packages.model_fields_set:
                text = "has nothing to do beside dir: those files are taken as they are"
                yield Problem(path=("packages", key), text=text)
        if not packages.dir.is_dir():
            yield Problem(path=("packages", "dir"), text=f"{packages.dir} is no directory")
    elif packages.keyring is not None and not packages.keyring.is_file():
        yield Problem(path=("packages", "keyring"), text=f"{packages.keyring} is no file")


def _pairs_of_any_role(plan: ClusterPlan) -> tuple[str, ...]:
    return tuple(pair for pair, _, feature in ROWS if has_feature(feature, plan.features))


def _rename(pair: str, release: str) -> str:
    command, _, name = pair.partition(":")
    names = NAMES_BY_RELEASE.get(name, {})
    return f"{command}:{names.get(release) or names.get(manager_of(release), name)}"


def _names_of(pairs: tuple[str, ...], release: str) -> set[str]:
    """A user may write the table's name or the release's."""
    return {name_of(spelling) for pair in pairs for spelling in (pair, _rename(pair, release))}
