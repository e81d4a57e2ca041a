"""The endpoint's address on hosts whose interfaces have different names: the real keepalived, in network namespaces."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.descriptions import write_description
from support.etcd_hosts import wait_for
from support.paths import LAB_CACHE
from support.shells import PINS

from bundler.cache.store import Cache
from bundler.pipeline import render
from bundler.project import Inputs

ENDPOINT = "172.30.20.250"
NAMED = ", interface: eth0"


def find_keepalived(directory: Path) -> Path:
    """Unpack the lab's packages that keepalived needs; return their root."""
    packages = LAB_CACHE / "packages"
    if os.getuid() != 0 or not list(packages.glob("keepalived_*.deb")):
        pytest.skip(
            "keepalived cannot run: there are no packages in the lab's cache (make lab), or the user is not root"
        )
    for pattern in ("keepalived_*", "lib*"):
        for package in sorted(packages.glob(f"{pattern}.deb")):
            subprocess.run(["dpkg-deb", "-x", package, directory], check=True)
    return directory


@dataclass
class LoadBalancer:
    """A host: a directory, and a network namespace with one interface."""

    root: Path
    programs: Path
    namespace: subprocess.Popen[bytes]
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def run(self, *command: str | Path, check: bool = True) -> str:
        inside = ["nsenter", f"--net=/proc/{self.namespace.pid}/ns/net", *command]
        return subprocess.run(inside, capture_output=True, text=True, check=check).stdout

    def start(self) -> None:
        script = self.root / "opt/k8s/libexec/keepalived-start.sh"
        flags = (self.root / "etc/systemd/system/kube-keepalived.service").read_text()
        line = next(line for line in flags.splitlines() if line.startswith("ExecStart="))
        words = [word.replace("=/run", f"={self.root}/run") for word in line.split()[1:]]
        library = self.programs / "usr/lib/x86_64-linux-gnu"
        with (self.root / "log").open("ab") as log:
            self.running.append(
                subprocess.Popen(
                    ["nsenter", f"--net=/proc/{self.namespace.pid}/ns/net", "/bin/sh", script, *words],
                    stdout=log, stderr=log, start_new_session=True,
                    env={
                        "DESTDIR": str(self.root), "PATH": f"{self.programs}/usr/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
                        "LD_LIBRARY_PATH": f"{library}:{self.programs}/lib/x86_64-linux-gnu",
                    },
                )
            )  # fmt: skip

    def stop(self) -> None:
        for process in self.running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(20)

    @property
    def log(self) -> str:
        return (self.root / "log").read_text(errors="replace")

    def holder(self) -> str:
        """The interface that has the endpoint's address; empty if none has."""
        for line in self.run("ip", "-4", "-o", "address", "show").splitlines():
            if f" {ENDPOINT}/" in line:
                return line.split()[1]
        return ""


@pytest.fixture
def balancers(tmp_path: Path) -> Iterator[tuple[LoadBalancer, LoadBalancer]]:
    """master1 with eth0 and master2 with ens9, one cable between them."""
    programs = find_keepalived(tmp_path / "programs")
    description = write_description(tmp_path)
    text = description.read_text()
    assert NAMED in text
    description.write_text(text.replace(NAMED, ""))
    inputs = Inputs(
        description=description, cache=Cache(tmp_path / "cache"), offline=True, pins=PINS
    )
    render(inputs, tmp_path / "trees", text_only=True)
    made = []
    for name in ("master1", "master2"):
        root = tmp_path / name
        shutil.copytree(tmp_path / "trees" / name / "rootfs", root)
        (root / "opt/k8s/bundle").mkdir(parents=True)
        shutil.copy(tmp_path / "trees" / name / "node.env", root / "opt/k8s/bundle")
        (root / "run/kube-keepalived").mkdir(parents=True)
        namespace = subprocess.Popen(["unshare", "--net", "sleep", "600"])
        made.append(LoadBalancer(root=root, programs=programs, namespace=namespace))
    one, two = made
    own = os.readlink("/proc/self/ns/net")
    for host in made:
        link = Path(f"/proc/{host.namespace.pid}/ns/net")
        wait_for("a network namespace", lambda at=link: os.readlink(at) != own)  # type: ignore[misc]
    one.run("ip", "link", "add", "name", "eth0", "type", "veth", "peer", "name", "ens9", "netns", str(two.namespace.pid))  # fmt: skip
    for host, interface, address in ((one, "eth0", "172.30.20.11"), (two, "ens9", "172.30.20.12")):
        host.run("ip", "address", "add", f"{address}/24", "dev", interface)
        host.run("ip", "link", "set", interface, "up")
    yield one, two
    for host in made:
        host.stop()
        host.namespace.kill()
        host.namespace.wait()


def test_the_address_moves_between_interfaces_of_different_names(
    balancers: tuple[LoadBalancer, LoadBalancer],
) -> None:
    one, two = balancers
    for host in balancers:
        host.start()
    wait_for("eth0 of master1 has the address", lambda: one.holder() == "eth0")
    assert "the endpoint's address goes to ens9" in two.log
    for host in balancers:
        assert "unknown keyword" not in host.log.lower()
    one.stop()
    wait_for("ens9 of master2 has the address", lambda: two.holder() == "ens9")


def test_without_the_nodes_address_it_says_so(
    balancers: tuple[LoadBalancer, LoadBalancer],
) -> None:
    one, _ = balancers
    one.run("ip", "address", "flush", "dev", "eth0")
    one.start()
    assert one.running[0].wait(20) == 1
    assert (
        "no interface has this node's address 172.30.20.11. Fix: configure the address" in one.log
    )
