"""What versions need of their hosts: cgroup version, glibc, kernel, systemd.

`bundler check` compares the table with the distribution of `packages.os`. install.sh compares it
with the host (lib/requirements.tsv), and runs each new program there, which shows glibc.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from bundler.cluster.components import key_of
from bundler.cluster.os_packages import RELEASES
from bundler.cluster.plan import choose_proxy_mode, runtime_versions
from bundler.cluster.problem import Problem
from bundler.cluster.schema import Cluster, Role


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What a release of a distribution has by default; a host may have been changed."""

    glibc: str
    kernel: str
    systemd: str
    cgroup: str  # 1 | 2
    openssl: str


def _facts(glibc: str, kernel: str, systemd: str, cgroup: str) -> HostFacts:
    openssl = "1.1.1"  # or newer: every release that is known
    return HostFacts(glibc=glibc, kernel=kernel, systemd=systemd, cgroup=cgroup, openssl=openssl)


EL8 = _facts("2.28", "4.18", "239", "1")
EL9 = _facts("2.34", "5.14", "252", "2")
EL10 = _facts("2.39", "6.12", "257", "2")
FACTS = {
    "debian-11": _facts("2.31", "5.10", "247", "2"),
    "debian-12": _facts("2.36", "6.1", "252", "2"),
    "debian-13": _facts("2.41", "6.12", "257", "2"),
    "ubuntu-22.04": _facts("2.35", "5.15", "249", "2"),
    "ubuntu-24.04": _facts("2.39", "6.8", "255", "2"),
    "fedora-40": _facts("2.39", "6.8", "255", "2"),
    "fedora-41": _facts("2.40", "6.11", "256", "2"),
    "fedora-42": _facts("2.41", "6.14", "257", "2"),
    "fedora-43": _facts("2.42", "6.17", "258", "2"),
    "amzn-2023": _facts("2.34", "6.1", "252", "2"),
    **{f"{name}-8": EL8 for name in ("rhel", "rocky", "almalinux", "ol")},
    **{f"{name}-9": EL9 for name in ("rhel", "centos", "rocky", "almalinux", "ol")},
    **{f"{name}-10": EL10 for name in ("rhel", "centos", "rocky", "almalinux", "ol")},
}
"""Each release of os_packages.RELEASES → its facts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """What the versions of a program from `since` on, and before `until`, need of a host."""

    program: str
    since: str = ""
    until: str = ""
    fact: str  # a field of HostFacts
    least: str = ""
    below: str = ""
    needs: str
    fix: str
    role: Role | None = Role.WORKER
    unless: Callable[[Cluster], bool] = lambda _: False
    is_error: bool = True

    def holds_for(self, value: str) -> bool:
        """Whether a host with that value is good enough."""
        return key_of(value) >= key_of(self.least or "0") and (
            not self.below or key_of(value) < key_of(self.below)
        )


def _accepts_cgroup_v1(cluster: Cluster) -> bool:
    extra = cluster.extra.get("kubelet")
    return extra is not None and extra.config.get("failCgroupV1") is False


def _is_static_build(cluster: Cluster) -> bool:
    urls = [pin.url for name, pin in cluster.artifacts.items() if name.startswith("containerd")]
    return bool(urls) and all(url and "containerd-static" in url for url in urls)


USE_V1 = "boot with systemd.unified_cgroup_hierarchy=0 on the kernel's command line"
USE_V2 = "boot with systemd.unified_cgroup_hierarchy=1 on the kernel's command line"
STATIC = (
    "use the static build (artifacts: {containerd: {url:"
    " https://github.com/containerd/containerd/releases/download/vVERSION/"
    "containerd-static-VERSION-linux-ARCH.tar.gz}}), or runtime.version 2.0 or older"
)
REQUIREMENTS = (
    # sources: the kubelet's configuration (failCgroupV1, true by default from 1.35 on)
    Requirement(
        program="kubelet", since="1.35", fact="cgroup", least="2", needs="cgroup v2",
        fix=f"{USE_V2}, or set extra: {{kubelet: {{config: {{failCgroupV1: false}}}}}}",
        unless=_accepts_cgroup_v1,
    ),
    # Kubernetes 1.19's and Docker 20.10's release notes
    Requirement(
        program="kubelet", until="1.19", fact="cgroup", below="2", needs="cgroup v1",
        fix=f"{USE_V1}, or use Kubernetes 1.19 or later",
    ),
    Requirement(
        program="docker", until="20.10", fact="cgroup", below="2", needs="cgroup v1",
        fix=f"{USE_V1}, or use Docker 20.10 or later",
    ),
    # containerd issue 7255: this patch alone was built on Ubuntu 22.04
    Requirement(
        program="containerd", since="1.6.7", until="1.6.8", fact="glibc", least="2.34",
        needs="glibc 2.34 or newer", fix="use runtime.version 1.6.8 or a later 1.6",
    ),
    # containerd's release notes say 2.35 (Ubuntu 22.04); its programs name symbols up to 2.34
    Requirement(
        program="containerd", since="2.1", fact="glibc", least="2.34", needs="glibc 2.34 or newer",
        fix=STATIC, unless=_is_static_build,
    ),
    Requirement(
        program="containerd", since="2.1", fact="glibc", least="2.35",
        needs="by its release notes glibc 2.35 or newer, and install.sh tries whether it runs",
        fix=STATIC, unless=_is_static_build, is_error=False,
    ),
    # kube-proxy's pkg/proxy/nftables/supported.go
    Requirement(
        program="kube-proxy in nftables mode", fact="kernel", least="5.13",
        needs="Linux 5.13 or newer", fix="use network.proxy_mode iptables or ipvs",
        unless=lambda cluster: choose_proxy_mode(cluster) != "nftables",
    ),
    # LogsDirectory and StateDirectory: systemd.exec(5)
    Requirement(
        program="this bundle", fact="systemd", least="235", needs="systemd 235 or newer",
        fix="use a newer release of the distribution", role=None,
    ),
    # OpenSSL's CHANGES: TLS 1.3 came with 1.1.1. Scripts of the bundle ask servers with it
    Requirement(
        program="tls.min_version TLS1.3", fact="openssl", least="1.1.1",
        needs="OpenSSL 1.1.1 or newer", fix="use a newer release of the distribution, or TLS1.2",
        role=None, unless=lambda cluster: cluster.tls.min_version != "TLS1.3",
    ),
)  # fmt: skip
"""What versions need; a later row for the same program and fact asks for more."""


def list_requirements(cluster: Cluster) -> Iterator[tuple[Requirement, str]]:
    """The rows that the cluster's versions have, each with the program and its version."""
    versions = {
        **runtime_versions(cluster),
        "kubelet": cluster.kubernetes.version,
    }
    for row in REQUIREMENTS:
        version = versions.get(row.program, "")
        is_here = version or row.program not in {"kubelet", "docker", "containerd"}
        is_old = version and row.since and key_of(version) < key_of(row.since)
        is_new = version and row.until and key_of(version) >= key_of(row.until)
        if is_here and not is_old and not is_new and not row.unless(cluster):
            yield row, f"{row.program} {version}".strip()


def check_requirements(cluster: Cluster) -> Iterator[Problem]:
    """What the release of `packages.os` does not have."""
    if not cluster.packages or cluster.packages.os not in RELEASES:
        return
    facts, seen = FACTS[cluster.packages.os], set()
    for row, program in list_requirements(cluster):
        value = getattr(facts, row.fact)
        if row.holds_for(value) or (program, row.fact) in seen:
            continue
        seen.add((program, row.fact))
        text = (
            f"{program} needs {row.needs}, and {cluster.packages.os} has"
            f" {_show(row.fact, value)}: {row.fix.replace('VERSION', program.rpartition(' ')[2])}"
        )
        # cgroup and kernel are defaults of the release: install.sh checks those of the host
        is_certain = row.is_error and row.fact in {"glibc", "systemd"}
        yield Problem(path=("packages", "os"), text=text, is_error=is_certain)


def _show(fact: str, value: str) -> str:
    if fact == "cgroup":
        return f"cgroup v{value} by default"
    return f"Linux {value} by default" if fact == "kernel" else f"{fact} {value}"


def list_host_rows(cluster: Cluster, roles: tuple[Role, ...]) -> list[dict[str, Any]]:
    """The rows of lib/requirements.tsv; glibc is left out, because install.sh runs the programs."""
    return [
        {
            "fact": row.fact,
            "least": row.least or "-",
            "below": row.below or "-",
            "text": f"{program} needs {row.needs}",
            "fix": row.fix,
        }
        for row, program in list_requirements(cluster)
        if row.fact != "glibc" and (not row.role or row.role in roles)
    ]
