"""The lab as tests see it: hosts that are containers running systemd, on a network with no way out."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

PROJECT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("BUNDLER_LAB_CACHE") or Path.home() / ".cache" / "bundler-lab")
NETWORK = os.environ.get("LAB_NETWORK", "bundlerlab")
HOSTS_SH = PROJECT / "scripts" / "lab" / "hosts.sh"

FIGURES: list[str] = []
"""What tests measured on the way; shown at the end, and asserted nowhere but where a test says so."""

# What a running system writes by itself, whatever is installed.
LIVE = [
    "/proc",
    "/sys",
    "/dev",
    "/run",
    "/tmp",
    "/root",
    "/var/log",
    "/var/tmp",
    "/var/cache",
    "/var/backups",  # a timer may have taken a snapshot, which uninstall.sh leaves
    "/var/lib/systemd",
    "/var/lib/apt",
    "/var/lib/dpkg",
    "/etc/mtab",
    "/etc/resolv.conf",
    "/etc/hostname",
    "/etc/hosts",
    "/lib/modules",
    "/var/www",  # Debian's nginx leaves its page behind even when it is purged
]

# Where only install.sh and its like write: to be looked at while programs run, whose files come and
# go below /var amid a search.
INSTALLED = ("/etc", "/opt", "/usr", "/var/lib/bundler")


SOLO = """\
apiVersion: bundler/v1alpha1
name: solo
kubernetes: {version: 1.20.2}
etcd: {version: 3.4.23}
runtime: {engine: containerd, version: 1.6.20, runc: 1.1.5, crictl: none}
network: {proxy_mode: iptables}
dns: {provider: none}
pki: {authorities: single, key: rsa-2048}
control_plane: {load_balancer: {kind: node-local}}
nodes:
  - {name: solo, address: 172.30.20.31, roles: [etcd, control-plane, worker]}
images:
  - {ref: "registry.k8s.io/pause:3.2", file: ../.lab/images/pause.tar}
  - {ref: "nginx:1.22", file: ../.lab/images/nginx.tar, use: verify}
packages:
  os: debian-12
  dir: ../.lab/packages
  names: [nginx, libnginx-mod-stream, iproute2, openssl, iptables, conntrack, ipset, kmod, curl, socat, iputils-ping, ethtool]
extra:
  kube-proxy: {config: {conntrack: {maxPerCore: 0}}}
  kubelet: {config: {evictionHard: {nodefs.available: 1Gi, imagefs.available: 1Gi}, imageGCHighThresholdPercent: 100}}
"""
"""One host that is a whole cluster; tests replace its name and address where several need one."""


@dataclass(frozen=True)
class Host:
    """One host of the lab."""

    name: str
    address: str

    @property
    def container(self) -> str:
        return f"{NETWORK}-{self.name}"

    def run(
        self, command: str, *, check: bool = True, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command as root on the host; both outputs are in stdout, in order."""
        done = subprocess.run(
            ["docker", "exec", self.container, "sh", "-c", f"exec 2>&1; {command}"],
            capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, (
            f"{self.name}: {command}\n{done.stdout}{done.stderr}"
        )
        return done

    def output(self, command: str) -> str:
        return self.run(command).stdout

    def unpack(self, bundle: Path) -> str:
        """Copy a tarball to the host and unpack it there; its directory."""
        name = bundle.name.removesuffix(".tar.gz")
        self.run(f"rm -rf /root/{name}* && mkdir -p /root")
        docker("cp", str(bundle), f"{self.container}:/root/{bundle.name}")
        self.run(f"tar -xzf /root/{bundle.name} -C /root")
        return f"/root/{name}"

    def list_files(self, roots: tuple[str, ...] = ("/", "/var", "/opt")) -> dict[str, str]:
        """path → type, mode, owner and (of files) digest, for what does not change by itself.

        All of a host that is at rest; INSTALLED of one where programs run.
        """
        prune = " -o ".join(f"-path {path}" for path in LIVE)
        listing = self.output(
            f"find {' '.join(roots)} -xdev \\( {prune} \\) -prune -o -printf '%p\\t%y %m %U:%G %l\\n'"
        )
        digests = self.output(
            "find /etc /opt /usr/local -xdev -type f ! -path /etc/resolv.conf ! -path /etc/hosts "
            "! -path /etc/hostname | xargs -r sha256sum"
        )
        files = dict(line.split("\t", 1) for line in listing.splitlines())
        for line in digests.splitlines():
            digest, path = line.split("  ", 1)
            files[path] += f" {digest}"
        return files

    def unit_starts(self) -> dict[str, str]:
        """Unit → when it was started, for the units of the bundle."""
        text = self.output(
            ". /opt/k8s/bundle/node.env; for u in $UNITS; do echo $u $(systemctl show -p "
            "ExecMainStartTimestampMonotonic --value $u) $(systemctl is-active $u); done"
        )
        return dict(line.split(" ", 1) for line in text.splitlines())


def differences(before: dict[str, str], after: dict[str, str]) -> dict[str, tuple[str, str]]:
    """path → what it was and what it is, of every file that is not as it was."""
    paths = sorted(before.keys() | after.keys())
    both = {path: (before.get(path, "absent"), after.get(path, "absent")) for path in paths}
    return {path: pair for path, pair in both.items() if pair[0] != pair[1]}


class Kubectl:
    """kubectl as the administrator, on one of the control-plane hosts."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def __call__(self, arguments: str, *, check: bool = True) -> str:
        done = self.host.run(
            f"/opt/k8s/bin/kubectl --kubeconfig /etc/kubernetes/admin.kubeconfig {arguments}",
            check=check,
        )
        return done.stdout


@dataclass
class Cluster:
    """What the tests share."""

    directory: Path  # cluster.yaml, its state and dist/
    hosts: dict[str, Host]
    before: dict[str, dict[str, str]] = field(default_factory=dict)  # files before any install

    @property
    def dist(self) -> Path:
        return self.directory / "dist"

    def bundle(self, host: Host) -> Path:
        return self.dist / f"lab-{host.name}.tar.gz"

    @property
    def masters(self) -> list[Host]:
        return [host for host in self.hosts.values() if host.name.startswith("master")]

    @property
    def workers(self) -> list[Host]:
        return [host for host in self.hosts.values() if host.name.startswith("worker")]

    @property
    def kubectl(self) -> Kubectl:
        return Kubectl(self.masters[0])

    def verify(self, host: Host | None = None) -> subprocess.CompletedProcess[str]:
        return (host or self.masters[0]).run("/opt/k8s/bundle/verify.sh", check=False, timeout=400)


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def hosts_sh(*arguments: str) -> None:
    done = subprocess.run([HOSTS_SH, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def build(
    description: Path, output: Path, *, cache: Path, environment: Mapping[str, str] | None = None,
    arguments: tuple[str, ...] = (), umask: int = 0o022, cwd: Path | None = None,
) -> None:  # fmt: skip
    """Run `bundler build` with the lab's mirror and pins, as a user would."""
    command = [
        str(Path(sys.executable).parent / "bundler"), "build", "-c", str(description), "-o", str(output), "--cache", str(cache),
        "--mirror", str(CACHE / "mirror"), "--pins", str(CACHE / "pins.yaml"), "--offline", *arguments,
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, umask=umask, cwd=cwd,
        env={**os.environ, **(environment or {})},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def wait_for(what: str, holds: Callable[[], object], *, seconds: float, pause: float = 1) -> float:
    """Wait until it holds; how long that took."""
    begun = time.monotonic()
    while not holds():
        assert time.monotonic() - begun < seconds, f"after {seconds} s still not so: {what}"
        time.sleep(pause)
    return time.monotonic() - begun
