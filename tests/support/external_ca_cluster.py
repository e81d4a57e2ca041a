"""Run etcd, API server and controller manager of one host as processes, as in its units."""

import http.client
import json
import os
import shlex
import shutil
import ssl
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bundler.cache.store import Cache
from bundler.cluster.schema import Cluster
from bundler.project import Inputs
from bundler.render.node import render_node
from bundler.render.tree import write_tree
from support.paths import LAB_CACHE
from support.projects import open_plan

PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kubectl")
INSTALLED = ("/etc/kubernetes", "/etc/etcd", "/var/lib/", "/var/log/", "/opt/k8s/")


def find_programs(directory: Path) -> Path:
    """A directory with etcd, etcdctl and Kubernetes of the lab."""
    archives = sorted(
        LAB_CACHE.glob("mirror/github.com/etcd-io/etcd/releases/download/*/*amd64.tar.gz")
    )
    built = sorted(LAB_CACHE.glob("build/kubernetes-*/kube-apiserver"))
    if not archives or not built:
        pytest.skip(
            "an API server cannot run: there is no etcd or Kubernetes in the lab's cache (make lab)"
        )
    directory.mkdir(parents=True, exist_ok=True)
    # tar, because tarfile's filters are not in every Python 3.11
    extract = ["tar", "-xzf", archives[-1], "-C", directory, "--strip-components=1"]
    subprocess.run([*extract, "--wildcards", "*/etcd", "*/etcdctl"], check=True)
    for name in PROGRAMS:
        (directory / name).symlink_to(built[-1].parent / name)
    return directory


def describe(address: str, **pki: object) -> dict[str, Any]:
    return {
        "apiVersion": "bundler/v1alpha1",
        "name": "own",
        "kubernetes": {"version": "1.20.2"},
        "etcd": {"version": "3.4.23"},
        "runtime": {"engine": "containerd"},
        "control_plane": {"endpoint": f"{address}:6443"},
        "dns": {"provider": "none"},
        "pki": pki,
        "nodes": [
            {"name": "one", "address": address, "roles": ["etcd", "control-plane", "worker"]}
        ],
    }


def place(text: str, root: Path) -> str:
    """The text with the paths of installed files below the directory."""
    for path in INSTALLED:
        text = text.replace(path, f"{root}{path}")
    return text


def without_election(text: str) -> str:
    """The text of a unit or a configuration whose program elects no leader.

    A controller manager or a scheduler that cannot renew its lease on a busy machine ends, and here no systemd
    starts it again.
    """
    return text.replace("--leader-elect=true", "--leader-elect=false").replace(
        "leaderElect: true", "leaderElect: false"
    )


def read_command(root: Path, unit: str, *, elects_leader: bool = False) -> list[str]:
    """The command of a unit, with paths below the directory; etcd listens on the host's address only."""
    text = (root / f"etc/systemd/system/{unit}.service").read_text().replace("\\\n", " ")
    text = text if elects_leader else without_election(text)
    line = next(line for line in text.splitlines() if line.startswith("ExecStart="))
    words = [place(word, root) for word in shlex.split(line.removeprefix("ExecStart="))]
    return [word.replace(",https://127.0.0.1:2379", "") for word in words]


def link_programs(tree: Path, programs: Path) -> Path:
    """Finish a rendered tree as install.sh does; returns the root of its host."""
    root = tree / "rootfs"
    (root / "opt/k8s").mkdir(parents=True, exist_ok=True)
    shutil.rmtree(root / "opt/k8s/bin", ignore_errors=True)
    (root / "opt/k8s/bin").symlink_to(programs)
    (root / "opt/k8s/bundle").symlink_to(tree)
    (root / "var/log/kubernetes").mkdir(parents=True)
    (root / "var/lib").mkdir(parents=True, exist_ok=True)
    return root


@dataclass
class Host:
    """The files that a bundle installs, below a directory, and the processes that run there."""

    root: Path
    address: str
    programs: Path
    elects_leader: bool = False
    """Only tests that read a leader's lease need it."""
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @classmethod
    def install(
        cls,
        directory: Path,
        programs: Path,
        description: dict[str, Any],
        state: Path | None = None,
    ) -> "Host":
        """Render from the state directory, by default the one next to cluster.yaml."""
        cluster = Cluster.model_validate(description)
        inputs = Inputs(
            description=directory / "cluster.yaml", cache=Cache(directory / "cache"), state=state
        )
        with open_plan(cluster, inputs) as (plan, secrets):
            write_tree(render_node(plan, plan.nodes[0], secrets), directory / "tree")
        root = link_programs(directory / "tree", programs)
        return cls(root=root, address=description["nodes"][0]["address"], programs=programs)

    @property
    def pki(self) -> Path:
        return self.root / "etc/kubernetes/pki"

    def start(self, unit: str) -> None:
        """Run the command of the unit, with paths below the directory."""
        folder = self.root / "etc/kubernetes"
        for file in (*folder.glob("*.yaml"), *folder.glob("policy/*.yaml")):
            if str(self.root) not in (text := file.read_text()):
                text = text if self.elects_leader else without_election(text)
                file.write_text(place(text, self.root))
        with (self.root / f"{unit}.log").open("wb") as log:
            self.running.append(
                subprocess.Popen(
                    read_command(self.root, unit, elects_leader=self.elects_leader), stdout=log, stderr=log, cwd=self.root,
                    env={**os.environ, "DESTDIR": str(self.root)},
                )
            )  # fmt: skip

    def start_api(self) -> None:
        """Start etcd and the API server, and wait until the API answers."""
        self.start("etcd")
        self.wait("etcd is healthy", lambda: self.etcdctl("endpoint", "health").returncode == 0)
        self.start("kube-apiserver")
        self.wait(
            "the API answers", lambda: self.kubectl("get", "--raw=/readyz", check=False) == "ok"
        )

    def stop(self) -> None:
        for process in reversed(self.running):
            process.kill()
            process.wait()
        self.running.clear()

    def log(self, unit: str) -> str:
        return (self.root / f"{unit}.log").read_text(errors="replace")[-3000:]

    def wait(self, what: str, holds: Callable[[], object], seconds: float = 180) -> None:
        started = time.monotonic()
        while not holds():
            for process in self.running:
                assert process.poll() is None, self.log(Path(process.args[0]).name)
            assert time.monotonic() - started < seconds, (
                f"after {seconds} s still waiting for: {what}"
            )
            time.sleep(0.3)

    def etcdctl(
        self, *words: str, ca: Path | None = None, cert: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        pki = self.root / "etc/etcd/pki"
        cert = cert or pki / "healthcheck-client.crt"
        return subprocess.run(
            [
                self.programs / "etcdctl", f"--endpoints=https://{self.address}:2379",
                f"--cacert={ca or pki / 'ca.crt'}", f"--cert={cert}",
                f"--key={cert.with_suffix('.key')}", "--command-timeout=5s", *words,
            ],
            capture_output=True, text=True, check=False, env={**os.environ, "ETCDCTL_API": "3"},
        )  # fmt: skip

    def apply_addons(self) -> str:
        """Run the program of kube-apply.service to its end; returns what it prints."""
        done = subprocess.run(
            ["sh", self.root / "opt/k8s/libexec/apply-addons.sh"],
            capture_output=True, text=True, check=True, timeout=120,
            env={
                # kubectl's cache is writable by its group, which scripts of the bundle next to it refuse
                **os.environ, "DESTDIR": str(self.root), "HOME": str(self.root.parent.parent),
                "PATH": f"{self.programs}:{os.environ['PATH']}",
                "API_LOCAL": f"https://{self.address}:6443",
            },
        )  # fmt: skip
        return done.stdout

    def kubectl(self, *words: str, check: bool = True, stdin: str = "") -> str:
        done = subprocess.run(
            [
                self.programs / "kubectl", "--kubeconfig",
                self.root / "etc/kubernetes/admin.kubeconfig", *words,
            ],
            capture_output=True, text=True, check=False, input=stdin,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    def ask(self, path: str, context: ssl.SSLContext) -> tuple[int, dict[str, Any]]:
        """Send a request to the API server; returns status and answer."""
        connection = http.client.HTTPSConnection(self.address, 6443, context=context, timeout=10)
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, json.loads(body) if body.startswith(b"{") else {}


def trusting(file: Path, client: Path | None = None, *, partial: bool = False) -> ssl.SSLContext:
    """A TLS context like that of OpenSSL programs: only with `partial` an intermediate is trusted."""
    context = ssl.create_default_context(cafile=str(file))
    context.verify_flags &= ~ssl.VERIFY_X509_PARTIAL_CHAIN & ~ssl.VERIFY_X509_STRICT
    if partial:
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if client:
        context.load_cert_chain(client, client.with_suffix(".key"))
    return context
