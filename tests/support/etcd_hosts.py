"""Directories as hosts, each with a real etcd member on its own loopback address."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bundler.cache.store import Cache
from bundler.cluster.schema import Cluster
from bundler.project import Inputs
from bundler.render.node import render_node
from bundler.render.tree import write_tree
from support.minimal_hosts import find_release
from support.paths import LAB_CACHE
from support.projects import open_plan

STAND_IN = Path(__file__).with_name("stand_in_systemctl.py")
VERSION = "3.4.23"
FAST = {"heartbeat-interval": 100, "election-timeout": 500}


def find_etcd(directory: Path) -> Path:
    """Unpack the lab's etcd and etcdctl; return their directory."""
    archives = sorted(
        LAB_CACHE.glob("mirror/github.com/etcd-io/etcd/releases/download/*/*amd64.tar.gz")
    )
    if not archives:
        pytest.skip("etcd cannot run: there is no etcd in the lab's cache (make lab)")
    # the lab's own archive; tarfile's filters are not in every Python 3.11
    subprocess.run(["tar", "-xzf", archives[-1], "-C", directory], check=True)
    return next(directory.rglob("etcdctl")).parent


def find_etcd_of(os_name: str) -> Path:
    """The directory of a Debian release's etcd and etcdctl, which are downloaded once."""
    programs = LAB_CACHE / "programs" / f"etcd-{os_name}"
    if not programs.exists():
        repositories = find_release(os_name)
        new = programs.with_name(f"new-{os.getpid()}-{programs.name}")
        for made in ("lists/partial", "archives/partial"):
            (new / made).mkdir(parents=True)
        source = repositories.sources[0]
        sources = new / "sources.list"
        sources.write_text(
            f"deb [signed-by={repositories.keyring}] {source.uri} {source.suites[0]} main\n"
        )
        options = [
            f"-oDir::State::lists={new}/lists", f"-oDir::Cache={new}", "-oDir::State::status=/dev/null",
            f"-oDir::Etc::sourcelist={sources}", "-oDir::Etc::sourceparts=/dev/null",
            "-oAcquire::Check-Valid-Until=false", "-oAPT::Sandbox::User=",
        ]  # fmt: skip
        for words in (["update"], ["download", "etcd-server", "etcd-client"]):
            subprocess.run(["apt-get", "-qq", *options, *words], check=True, cwd=new)
        for package in new.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, new / "root"], check=True)
        (new / "root/usr/bin").rename(programs)
        shutil.rmtree(new)
    return programs


def wait_for(what: str, holds: Callable[[], object], seconds: float = 180) -> None:
    start = time.monotonic()
    while not holds():
        assert time.monotonic() - start < seconds, f"not within {seconds} s: {what}"
        time.sleep(0.2)


@dataclass(frozen=True)
class Member:
    """One host: a directory with the files that its bundle installs."""

    name: str
    address: str
    root: Path

    @property
    def data(self) -> Path:
        return self.root / "var/lib/etcd"

    @property
    def log(self) -> str:
        """What its programs wrote since the first start; empty before it."""
        log = self.root / "run/log"
        return log.read_text(errors="replace") if log.exists() else ""

    @property
    def said(self) -> list[str]:
        """The messages of etcd-start.sh since the first start."""
        mark = "etcd-start.sh: "
        return [line.removeprefix(mark) for line in self.log.splitlines() if line.startswith(mark)]

    @property
    def environment(self) -> dict[str, str]:
        path = f"{self.root}/bin:{self.root}/opt/k8s/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return {**os.environ, "DESTDIR": str(self.root), "PATH": path}

    def systemctl(self, *words: str) -> str:
        done = subprocess.run(
            [self.root / "bin/systemctl", *words], capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    def start(self) -> None:
        self.systemctl("start", "etcd")

    def stop(self) -> None:
        self.systemctl("stop", "etcd")

    def kill(self) -> None:
        """Send SIGKILL to the running process; stand_in_systemctl.py starts it again."""
        os.kill(int((self.root / "run/pid").read_text()), signal.SIGKILL)

    def is_ready(self) -> bool:
        return self.systemctl("is-active", "etcd") == "active"

    def lose_disk(self) -> None:
        """Delete the data and its record, as on a host that was installed again."""
        self.stop()
        shutil.rmtree(self.data)
        (self.root / "var/lib/bundler/etcd-member").unlink(missing_ok=True)

    def etcdctl(self, *words: str, check: bool = True) -> str:
        done = self.run_etcdctl(*words)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    def run_etcdctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        pki = self.root / "etc/etcd/pki"
        return subprocess.run(
            [
                self.root / "opt/k8s/bin/etcdctl", f"--endpoints=https://{self.address}:2379",
                f"--cacert={pki}/ca.crt", f"--cert={pki}/healthcheck-client.crt",
                f"--key={pki}/healthcheck-client.key", "--command-timeout=10s", *words,
            ],
            capture_output=True, text=True, check=False, env={**os.environ, "ETCDCTL_API": "3"},
        )  # fmt: skip

    def members(self) -> dict[str, str]:
        """Map the names of members that were started to their peer URLs."""
        listed = json.loads(self.etcdctl("member", "list", "-w", "json"))["members"]
        return {m.get("name", ""): m["peerURLs"][0] for m in listed if m.get("clientURLs")}

    def list_keys(self) -> dict[str, str]:
        """Map every key to its value."""
        found = json.loads(self.etcdctl("get", "", "--prefix", "-w", "json")).get("kvs", [])
        return {kv["key"]: kv["value"] for kv in found}


@dataclass
class Site:
    """The hosts of a cluster; all builds use one state directory."""

    directory: Path
    programs: Path
    network: str  # the first three bytes of the addresses
    made: dict[str, Member] = field(default_factory=dict)
    choices: Mapping[str, object] = field(default_factory=dict)  # keys of cluster.yaml
    workers: tuple[str, ...] = ()  # w1, w2 …

    def build(
        self, *names: str, flags: Mapping[str, object] = FAST, **etcd: object
    ) -> list[Member]:
        """Install a cluster of these members (m1, m2 …) from their bundles; return the hosts."""
        cluster = Cluster.model_validate(
            {
                "apiVersion": "bundler/v1alpha1",
                "name": "life",
                "kubernetes": {"version": "1.20.2"},
                "etcd": {"version": VERSION, **etcd},
                "runtime": {"engine": "containerd"},
                "control_plane": {"endpoint": f"{self.network}.1:6443"},
                "nodes": [
                    {"name": name, "address": f"{self.network}.{name[1:]}", "roles": ["etcd", "control-plane"]}
                    for name in names
                ] + [
                    {"name": name, "address": f"{self.network}.10{name[1:]}", "roles": ["worker"]}
                    for name in self.workers
                ],
                "extra": {"etcd": {"flags": dict(flags)}},
                **self.choices,
            }
        )  # fmt: skip
        inputs = Inputs(
            description=self.directory / "cluster.yaml", cache=Cache(self.directory / "cache")
        )
        with open_plan(cluster, inputs) as (plan, secrets):
            for node in plan.nodes:
                tree = self.directory / "trees" / node.name
                shutil.rmtree(tree, ignore_errors=True)
                write_tree(render_node(plan, node, secrets), tree)
                self.made[node.name] = self.install(node.name, str(node.address), tree)
        return [self.made[name] for name in names]

    def install(self, name: str, address: str, tree: Path) -> Member:
        root = self.directory / name
        shutil.copytree(tree / "rootfs", root, dirs_exist_ok=True)
        bundle = root / "opt/k8s/bundle"
        bundle.mkdir(parents=True, exist_ok=True)
        for entry in tree.iterdir():
            if entry.name == "lib":
                shutil.copytree(entry, bundle / "lib", dirs_exist_ok=True)
            elif entry.is_file():
                shutil.copy(entry, bundle)
        (root / "opt/k8s/bin").mkdir(exist_ok=True)
        for program in ("etcd", "etcdctl"):
            target = root / "opt/k8s/bin" / program
            if not target.exists():
                target.symlink_to(self.programs / program)
        for made in ("var/lib/bundler", "run/units", "bin"):
            (root / made).mkdir(parents=True, exist_ok=True)
        systemctl = root / "bin/systemctl"
        systemctl.write_text(f'#!/bin/sh\nexec {sys.executable} {STAND_IN} {root} "$@"\n')
        systemctl.chmod(0o755)
        return Member(name=name, address=address, root=root)


def wait_ready(members: Iterable[Member], seconds: float = 180) -> None:
    for member in members:
        wait_for(f"{member.name} is ready", member.is_ready, seconds)
