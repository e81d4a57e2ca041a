"""The lab's hosts: containers that run systemd, on a network without a route to the internet."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from support.paths import LAB_CACHE

PROJECT = Path(__file__).parents[2]
NETWORK = os.environ.get("LAB_NETWORK", "bundlerlab")
HOSTS_SH = PROJECT / "scripts" / "lab" / "hosts.sh"

FIGURES: list[str] = []
"""What tests measured; printed at the end of the run."""

ACCOUNT_COPIES = (
    "/etc/.pwd.lock", "/etc/group-", "/etc/gshadow-", "/etc/passwd-", "/etc/shadow-",
)  # fmt: skip
"""What useradd and userdel leave behind."""

# What a running system writes by itself, with or without a bundle.
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
    *ACCOUNT_COPIES,
    "/etc/mtab",
    "/etc/resolv.conf",
    "/etc/hostname",
    "/etc/hosts",
    "/lib/modules",
    "/var/www",  # Debian's nginx leaves its page behind even when it is purged
]

# Only bundler's scripts write here. A listing of running hosts is limited to these: elsewhere in /var
# files come and go during the search.
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
"""A cluster of one host; tests replace its name and address for a host of their own."""


@dataclass(frozen=True)
class Host:
    """One host of the lab."""

    name: str
    address: str

    @property
    def container(self) -> str:
        return f"{NETWORK}-{self.name}"

    def shell(self, command: str) -> list[str]:
        """The arguments of a process that runs a shell command as root on the host."""
        return ["docker", "exec", self.container, "sh", "-c", command]

    def copy(self, file: Path, target: str) -> None:
        docker("cp", str(file), f"{self.container}:{target}")

    def run(
        self, command: str, *, check: bool = True, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command as root on the host; both outputs are in stdout, in order."""
        done = subprocess.run(
            self.shell(f"exec 2>&1; {command}"),
            capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, (
            f"{self.name}: {command}\n{done.stdout}{done.stderr}"
        )
        return done

    def output(self, command: str) -> str:
        return self.run(command).stdout

    def unpack(self, bundle: Path, parent: str = "/root") -> str:
        """Copy a tarball to the host and unpack it there; return its directory."""
        directory = f"{parent}/{bundle.name.removesuffix('.tar.gz')}"
        self.run(f"rm -rf {directory}* && mkdir -p {parent}")
        self.copy(bundle, f"{directory}.tar.gz")
        self.run(f"tar -xzf {directory}.tar.gz -C {parent}")
        return directory

    def list_files(self, roots: tuple[str, ...] = ("/", "/var", "/opt")) -> dict[str, str]:
        """Map each path to its type, mode, owner and (for a file) digest, without LIVE.

        Pass INSTALLED for a host where the cluster runs.
        """
        prune = " -o ".join(f"-path {path}" for path in LIVE)
        listing = self.output(
            f"find {' '.join(roots)} -xdev \\( {prune} \\) -prune -o -printf '%p\\t%y %m %U:%G %l\\n'"
        )
        digests = self.output(
            "find /etc /opt /usr/local -xdev -type f ! -path /etc/resolv.conf ! -path /etc/hosts "
            "! -path /etc/hostname "
            + " ".join(f"! -path {path}" for path in ACCOUNT_COPIES)
            + " | xargs -r sha256sum"
        )
        files = dict(line.split("\t", 1) for line in listing.splitlines())
        for line in digests.splitlines():
            digest, path = line.split("  ", 1)
            files[path] += f" {digest}"
        return files

    def unit_starts(self) -> dict[str, str]:
        """Map each unit of the bundle to when it was started, and its state."""
        text = self.output(
            ". /opt/k8s/bundle/node.env; for u in $UNITS; do echo $u $(systemctl show -p "
            "ExecMainStartTimestampMonotonic --value $u) $(systemctl is-active $u); done"
        )
        return dict(line.split(" ", 1) for line in text.splitlines())


def differences(before: dict[str, str], after: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Map every path that differs to its former and its present value."""
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
    """The five hosts of the example, and what tests know about them."""

    directory: Path  # examples/lab.yaml, its state directory, and dist/
    hosts: dict[str, Host]
    before: dict[str, dict[str, str]] = field(default_factory=dict)  # files before any install
    first_install: float | None = None  # seconds until verify.sh was green
    is_green: bool = False  # the last verify.sh passed

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
        done = (host or self.masters[0]).run("/opt/k8s/bundle/verify.sh", check=False, timeout=400)
        self.is_green = done.returncode == 0
        return done

    def start_install(
        self, host: Host, bundles: Path, options: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Unpack the host's bundle of a later build and run install.sh, which waits for other hosts."""
        place = host.unpack(bundles / f"lab-{host.name}.tar.gz", f"/root/{bundles.name}")
        return host.run(f"{place}/install.sh --wait 10m {options}", check=False, timeout=900)

    def install(self, bundles: Path, options: str = "") -> list[str]:
        """Run install.sh of a later build on all hosts at once; returns what each printed."""
        runs = side_by_side(
            lambda host: self.start_install(host, bundles, options), self.hosts.values()
        )
        for name, run in zip(self.hosts, runs, strict=True):
            assert run.returncode == 0, f"{name}: {run.stdout}"
        return [run.stdout for run in runs]

    def list_image_events(self) -> list[dict[str, Any]]:
        """The events about images, each of which says that nothing was pulled."""
        events = json.loads(self.kubectl("get events -A -o json"))["items"]
        found = [e for e in events if e["reason"] in {"Pulling", "Pulled", "Failed", "BackOff"}]
        assert {e["reason"] for e in found} == {"Pulled"}
        assert all("already present on machine" in e["message"] for e in found)
        return found

    def install_first(self) -> None:
        """Run install.sh on all hosts at once, then verify.sh; measure both."""
        start = time.monotonic()
        self.first_install = 0.0
        runs = side_by_side(
            lambda host: host.run(f"/root/lab-{host.name}/install.sh", check=False),
            self.hosts.values(),
        )
        installed = time.monotonic() - start
        for host, run in zip(self.hosts.values(), runs, strict=True):
            assert run.returncode == 0, f"{host.name}: {run.stdout}"
        verified = self.verify()
        assert verified.returncode == 0, verified.stdout
        self.first_install = time.monotonic() - start
        FIGURES.append(
            f"install.sh on five hosts: {installed:.0f} s; to a green verify.sh:"
            f" {self.first_install:.0f} s"
        )


def make_lab_directory(directory: Path) -> Path:
    """Put scripts/lab.yaml into its examples/, and links to the lab's image archives and packages."""
    (directory / ".lab").mkdir()
    for made in ("images", "packages"):
        (directory / ".lab" / made).symlink_to(LAB_CACHE / made)
    (directory / "examples").mkdir()
    shutil.copy(PROJECT / "scripts" / "lab.yaml", directory / "examples")
    return directory


def boot_cluster(directory: Path) -> Cluster:
    """Boot the hosts of the directory's examples/lab.yaml."""
    nodes = yaml.safe_load((directory / "examples" / "lab.yaml").read_text())["nodes"]
    hosts = {node["name"]: Host(node["name"], node["address"]) for node in nodes}
    hosts_sh("up", *(f"{host.name}={host.address}" for host in hosts.values()))
    return Cluster(directory=directory, hosts=hosts)


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def hosts_sh(*arguments: str) -> None:
    """Run scripts/lab/hosts.sh; one call at a time, because lanes share the network."""
    with locked(LAB_CACHE / "hosts.lock"):
        done = subprocess.run([HOSTS_SH, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def shared_lab(directory: Path) -> Iterator[None]:
    """Remove the hosts of earlier runs before the first lane, and all hosts after the last.

    The lanes of a run count themselves in `directory`. BUNDLER_KEEP_LAB keeps the hosts.
    """
    count, lock = directory / "lanes", directory / "lanes.lock"
    with locked(lock):
        if not count.exists():
            hosts_sh("down")
            count.write_text("0")
        count.write_text(str(int(count.read_text()) + 1))
    yield
    with locked(lock):
        left = int(count.read_text()) - 1
        count.write_text(str(left))
        if not left and "BUNDLER_KEEP_LAB" not in os.environ:
            hosts_sh("down")


def side_by_side(work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """Do the work on all items at once; return the results in their order."""
    items = list(items)
    with ThreadPoolExecutor(len(items)) as pool:
        return list(pool.map(work, items))


def make_image(archive: Path, reference: str, files: Mapping[str, Path]) -> None:
    """Save the lab's image of nginx with more files, by their names in its root, under another reference."""
    docker("load", "-q", "-i", str(LAB_CACHE / "images" / "nginx.tar"))
    container = docker("create", "nginx:1.22").strip()
    try:
        for name, file in files.items():
            docker("cp", str(file), f"{container}:/{name}")
        docker("commit", container, reference)
        docker("save", "-o", str(archive), reference)
    finally:
        docker("rm", "-f", container)
        docker("rmi", "-f", reference)


def link_mirror(mirror: Path) -> None:
    """The files of the lab's mirror, in a directory to which a test may add more."""
    for path in (LAB_CACHE / "mirror").rglob("*"):
        if path.is_file():
            target = mirror / path.relative_to(LAB_CACHE / "mirror")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path)


def build(
    description: Path, output: Path, *, cache: Path, environment: Mapping[str, str] | None = None,
    words: tuple[str, ...] = ("build",), arguments: tuple[str, ...] = (), umask: int = 0o022, cwd: Path | None = None,
    sources: tuple[str, ...] = ("--mirror", str(LAB_CACHE / "mirror"), "--pins", str(LAB_CACHE / "pins.yaml")),
) -> None:  # fmt: skip
    """Run `bundler build`, or another command that builds, offline with the lab's mirror and pins."""
    command = [
        str(Path(sys.executable).parent / "bundler"), *words, "-c", str(description), "-o", str(output), "--cache", str(cache),
        *sources, "--offline", *arguments,
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, umask=umask, cwd=cwd,
        env={**os.environ, **(environment or {})},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def wait_for(what: str, holds: Callable[[], object], *, seconds: float, pause: float = 1) -> float:
    """Wait until `holds` returns true; return the seconds that this took."""
    start = time.monotonic()
    while not holds():
        assert time.monotonic() - start < seconds, f"not within {seconds} s: {what}"
        time.sleep(pause)
    return time.monotonic() - start
