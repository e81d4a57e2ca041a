"""Clusters of one host for the machines, and what is asked of them."""

import hashlib
import io
import json
import os
import shutil
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from support.lab import FIGURES, Host, build
from support.machines import MACHINES, Image, Machine
from support.paths import LAB_CACHE
from support.patience import patience

ALL_ROLES = """\
apiVersion: bundler/v1alpha1
name: machine
kubernetes: {version: 1.20.2}
etcd: {version: 3.4.23}
runtime: {engine: docker, version: 20.10.24}
network: {plugin: static, proxy_mode: ipvs}
dns: {provider: none}
control_plane: {endpoint: "10.0.2.250:8443", load_balancer: {kind: nginx-keepalived}}
nodes:
  - {name: machine, address: 10.0.2.15, roles: [etcd, control-plane, load-balancer, worker]}
images:
  - {ref: "registry.k8s.io/pause:3.2", file: images/pause.tar}
  - {ref: "nginx:1.22", file: images/nginx.tar, use: verify}
packages: {os: debian-12, dir: packages, names: NAMES}
"""
"""Every role on one host; kube-proxy in IPVS mode, as in the tutorial."""

CONTAINERD = ALL_ROLES.replace(
    "runtime: {engine: docker, version: 20.10.24}",
    "runtime: {engine: containerd, version: 1.6.20, runc: 1.1.5, crictl: none}",
).replace("proxy_mode: ipvs", "proxy_mode: iptables")

HARDENED = """\
net.ipv4.ip_forward = 0
net.ipv4.conf.all.send_redirects = 0
net.ipv4.conf.all.accept_source_route = 0
net.ipv4.conf.all.accept_redirects = 0
net.ipv4.conf.all.secure_redirects = 0
net.ipv4.conf.all.log_martians = 1
net.ipv4.icmp_echo_ignore_broadcasts = 1
net.ipv4.conf.all.rp_filter = 1
net.ipv4.conf.default.rp_filter = 1
net.ipv4.tcp_syncookies = 1
kernel.randomize_va_space = 2
kernel.kptr_restrict = 2
kernel.dmesg_restrict = 1
kernel.yama.ptrace_scope = 2
fs.suid_dumpable = 0
vm.panic_on_oom = 1
"""
"""The sysctl.conf of a hardened host, which is no router."""

INSTALL = f"--ready-within {patience('a unit')} --settle {patience('a settled unit')}"
VERIFY = f"/opt/k8s/bundle/verify.sh --jobs 2 --timeout {patience('a check')}"
KUBECTL = "/opt/k8s/bin/kubectl --kubeconfig /etc/kubernetes/admin.kubeconfig"


@dataclass(frozen=True)
class Site:
    """A machine and the directory of its bundle there."""

    machine: Machine
    bundle: str

    def install(self, options: str = "", *, what: str = "install.sh") -> str:
        """Run install.sh until every unit is ready."""
        start = time.monotonic()
        done = self.machine.run(
            f"{self.bundle}/install.sh {INSTALL} {options}",
            check=False,
            timeout=patience("install.sh"),
        )
        assert done.returncode == 0, done.stdout
        assert any(end in done.stdout for end in ("All units are ready", "nothing to do")), (
            done.stdout
        )
        FIGURES.append(f"{self.machine.image.name}: {what}: {time.monotonic() - start:.0f} s")
        return done.stdout

    def verify(self, what: str) -> str:
        """Check that verify.sh is green, of the cluster and of the host."""
        start = time.monotonic()
        done = self.machine.run(VERIFY, check=False, timeout=patience("verify.sh"))
        FIGURES.append(
            f"{self.machine.image.name}: verify.sh {what}: {time.monotonic() - start:.0f} s"
        )
        assert done.returncode == 0, f"{what}: {done.stdout}"
        host = self.machine.run(f"{VERIFY} --node", check=False, timeout=patience("verify.sh"))
        assert host.returncode == 0, f"{what}: {host.stdout}"
        return done.stdout

    def kubectl(self, arguments: str, *, check: bool = True) -> str:
        return self.machine.run(f"{KUBECTL} {arguments}", check=check).stdout


def make_bundle(
    project: Path,
    image: Image,
    description: str,
    name: str = "cluster",
    mirror: Path | None = None,
    images: Path = LAB_CACHE / "images",
) -> Path:
    """Build the bundle of a machine of this image, with the image's packages.

    A mirror has its pins in pins.yaml. Keys are made once: of the same description the bundle is the same, byte for byte.
    """
    directory = project / image.name
    directory.mkdir(exist_ok=True)
    for link, target in (
        ("images", images),
        ("packages", image.directory / "packages"),
    ):
        (directory / link).unlink(missing_ok=True)
        (directory / link).symlink_to(target)
    path, output = directory / f"{name}.yaml", directory / name
    shutil.rmtree(output, ignore_errors=True)
    path.write_text(description.replace("NAMES", json.dumps(image.list_brought())))
    mirrors = (*([mirror] if mirror else []), ensure_mirror())
    pins = ("--pins", str(mirrors[0] / "pins.yaml"))
    sources = tuple(word for each in mirrors for word in ("--mirror", str(each)))
    build(path, output, cache=MACHINES / "product-cache", sources=(*sources, *pins))
    return output / "machine-machine.tar.gz"


def ensure_mirror() -> Path:
    """The lab's mirror with the real runc, which the lab's hosts cannot use."""
    real = LAB_CACHE / "host" / "runc"
    pins = yaml.safe_load((LAB_CACHE / "pins.yaml").read_text())
    target = MACHINES / "mirror"
    source = (LAB_CACHE / "pins.yaml").read_bytes()
    made_of = target / "made-of"
    if made_of.exists() and made_of.read_bytes() == source:
        return target
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(LAB_CACHE / "mirror", target, copy_function=os.link)
    for name, replace in (("docker", _replace_in_archive), ("runc", shutil.copyfile)):
        artifact = pins["artifacts"][name]
        path = target / artifact["url"].removeprefix("https://")
        if real.exists():
            path.unlink()
            replace(real, path)
        artifact["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (target / "pins.yaml").write_text(yaml.safe_dump(pins))
    made_of.write_bytes(source)
    return target


def _replace_in_archive(program: Path, path: Path) -> None:
    """Write the lab's archive to `path`, with this program in place of the one of its name."""
    former = LAB_CACHE / "mirror" / path.relative_to(MACHINES / "mirror")
    with tarfile.open(former) as old, tarfile.open(path, "w:gz", compresslevel=1) as new:
        for member in old:
            content = old.extractfile(member)
            if Path(member.name).name == program.name:
                member.size = program.stat().st_size
                content = io.BytesIO(program.read_bytes())
            new.addfile(member, content)


def list_swaps(machine: Machine) -> list[str]:
    return machine.output("sed 1d /proc/swaps").splitlines()


def harden(machine: Machine) -> None:
    machine.run(
        f"printf '%s' '{HARDENED}' >/etc/sysctl.conf;"
        " ln -sf ../sysctl.conf /etc/sysctl.d/99-sysctl.conf; /lib/systemd/systemd-sysctl"
    )


def await_line(host: Host, condition: str) -> None:
    """Wait on the machine itself until the condition holds."""
    done = host.run(
        f"until {condition}; do sleep 0.1; done", check=False, timeout=patience("a moment")
    )
    assert done.returncode == 0, f"never: {condition}\n{done.stdout}"
