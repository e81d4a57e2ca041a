"""Minimal Debian hosts: containers with systemd, without a network and without anything else."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from bundler.cluster.inputs import Packages
from bundler.cluster.os_packages import RELEASES
from bundler.errors import ArtifactError
from bundler.sources.packages.repositories import AptRepositories, find_repositories
from support.paths import LAB_CACHE

RECIPE = [
    "--quiet", "--mode=root", "--variant=minbase", "--include=systemd-sysv",
    "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*", '--aptopt=Acquire::Check-Valid-Until "false"',
]  # fmt: skip
CAPABILITIES = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "NET_ADMIN",
    "NET_RAW",
    "SYS_ADMIN",
    "SYS_PTRACE",
    "SYS_CHROOT",
    "MKNOD",
    "AUDIT_WRITE",
    "SETFCAP",
    "NET_BIND_SERVICE",
]
# systemd 256 and newer starts on cgroup v1 only with this option
LEGACY = "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1 systemd.unified_cgroup_hierarchy=0"


@dataclass(frozen=True)
class MinimalHost:
    """A running container."""

    container: str

    def run(self, command: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["docker", "exec", self.container, "sh", "-c", f"exec 2>&1; {command}"],
            capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}"
        return done

    def unpack(self, bundle: Path) -> None:
        """Unpack the bundle in /root."""
        with bundle.open("rb") as file:
            subprocess.run(
                ["docker", "exec", "-i", self.container, "tar", "-xz", "-C", "/root"],
                stdin=file, check=True,
            )  # fmt: skip


def require_repositories(os_name: str) -> AptRepositories:
    """The mirror of a release that this machine uses; the test is skipped if there is none."""
    for program in ("docker", "mmdebstrap", "apt-get"):
        if not shutil.which(program):
            pytest.skip(
                f"minimal hosts cannot be made: there is no docker, mmdebstrap or apt-get: {program}"
            )
    if os.geteuid() != 0:
        pytest.skip("minimal hosts cannot be made: only root can make their root file system")
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        pytest.skip("minimal hosts cannot be booted: no Docker daemon answers")
    return find_release(os_name)


def find_release(os_name: str) -> AptRepositories:
    """The mirror of a release that this machine uses; the test is skipped if there is none."""
    try:
        repositories = find_repositories(Packages(os=os_name))
    except ArtifactError as error:
        pytest.skip(
            f"minimal hosts cannot be made: this machine has no repositories of the release: {error.message}"
        )
    first = repositories.sources[0]
    try:
        urlopen(f"{first.uri.rstrip('/')}/dists/{first.suites[0]}/InRelease", timeout=60).close()
    except HTTPError as error:
        pytest.skip(
            "minimal hosts cannot be made: this machine's mirror does not have the release"
            f" {RELEASES[os_name].codename}: {error}"
        )
    return repositories


@contextmanager
def boot(os_name: str, repositories: AptRepositories, hostname: str) -> Iterator[MinimalHost]:
    """One host, which is removed at the end with its image."""
    name = f"wt-packages-{os_name}-{os.getpid()}"
    subprocess.run(
        ["docker", "import", "--change", 'CMD ["/sbin/init"]', _ensure_root(os_name, repositories), name],
        check=True, capture_output=True,
    )  # fmt: skip
    try:
        subprocess.run(
            ["docker", "run", "--detach", "--name", name, "--hostname", hostname,
             "--network", "none", "--cpu-shares", "32", "--cgroupns=private",
             "--tmpfs", "/run", "--tmpfs", "/tmp:exec", "--tmpfs", "/run/lock",
             "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined",
             "--security-opt", "systempaths=unconfined", "--device-cgroup-rule", "a *:* rwm",
             "--env", "container=docker", "--env", f"SYSTEMD_PROC_CMDLINE={LEGACY}",
             *(word for capability in CAPABILITIES for word in ("--cap-add", capability)), name],
            check=True, capture_output=True,
        )  # fmt: skip
        host = MinimalHost(name)
        host.run(
            "for i in $(seq 60); do case $(systemctl is-system-running) in running | degraded) exit 0 ;; esac; sleep 1; done; exit 1"
        )
        yield host
    finally:
        subprocess.run(["docker", "rm", "-fv", name], check=False, capture_output=True)
        subprocess.run(["docker", "rmi", name], check=False, capture_output=True)


def _ensure_root(os_name: str, repositories: AptRepositories) -> Path:
    """A minimal root file system, cached for the next run."""
    codename = RELEASES[os_name].codename
    recipe = hashlib.sha256(" ".join(RECIPE).encode()).hexdigest()[:12]
    path = LAB_CACHE / "rootfs" / f"minimal-{os_name}-{recipe}.tar"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        source = repositories.sources[0]
        line = f"deb [signed-by={repositories.keyring}] {source.uri} {codename} main"
        new = path.with_name(f"new-{os.getpid()}-{path.name}")
        subprocess.run(
            ["mmdebstrap", *RECIPE, codename, new, line], check=True, stdin=subprocess.DEVNULL,
            env={**os.environ, "TMPDIR": "/tmp"},
        )  # fmt: skip
        new.rename(path)
    return path
