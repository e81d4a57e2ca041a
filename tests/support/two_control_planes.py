"""Two control planes as processes on loopback addresses, with one etcd, and the stages of rotations."""

import base64
import http.client
import json
import os
import shutil
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bundler.cache.store import Cache
from bundler.cluster.plan import make_plan
from bundler.cluster.schema import Cluster
from bundler.project import Inputs
from bundler.render.node import render_node
from bundler.render.tree import write_tree
from bundler.state.stages import Rotation, take_step
from support.external_ca_cluster import find_programs, read_command
from support.networks import take_network
from support.projects import open_plan
from support.shells import write_program

RUNNING = ("kube-apiserver", "kube-controller-manager")
OBSTACLE = """
set -u
PATH={programs}:$PATH
prefix=$DESTDIR here={tree} work={work}
. {tree}/node.env
for part in core/common core/https coordination/rollout-order coordination/keys coordination/key-stages; do
    . {tree}/lib/$part.sh
done
prefix=$DESTDIR here={tree} work={work}
find_key_obstacle
"""


@dataclass
class ControlPlane:
    """One host: its installed files below a directory, and its processes."""

    name: str
    address: str
    root: Path
    programs: Path
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ, "DESTDIR": str(self.root), "MAX_PAUSE": "1", "HOME": str(self.root),
            "API_LOCAL": f"https://{self.address}:6443",
            "PATH": f"{self.root}/stand-ins:{self.programs}:{os.environ['PATH']}",
        }  # fmt: skip

    def install(self, tree: Path, *, restart: tuple[str, ...] = RUNNING) -> None:
        """Put the files of a bundle into place, then restart what runs, as install.sh does."""
        (self.root / "opt/k8s").mkdir(parents=True, exist_ok=True)
        for kept in ("var/log/kubernetes", "var/lib", "run/kube-apiserver", "stand-ins"):
            (self.root / kept).mkdir(parents=True, exist_ok=True)
        # ends the process, and `revive` starts it again
        write_program(
            self.root / "stand-ins/systemctl",
            f'[ "$1" != restart ] || kill "$(cat {self.root}/$2.pid)"\n',
        )
        shutil.copytree(
            tree / "rootfs", self.root, dirs_exist_ok=True, ignore=shutil.ignore_patterns("bin")
        )
        for name, target in (("bin", self.programs), ("bundle", tree)):
            link = self.root / "opt/k8s" / name
            link.unlink(missing_ok=True)
            link.symlink_to(target)
        for unit in restart:
            if unit in self.running:
                self.restart(unit)
        self.revive()

    def obstacle(self, tree: Path) -> str:
        """Why install.sh would refuse this bundle now: a line, or nothing."""
        work = self.root / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        script = OBSTACLE.format(tree=tree, work=work, programs=self.programs)
        done = subprocess.run(
            ["sh", "-c", script],
            env=self.environment, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.stderr == "", done.stderr
        assert done.returncode == (0 if done.stdout else 1)
        return done.stdout.strip()

    def script(self, name: str, *words: str, **environment: str) -> subprocess.Popen[str]:
        """Start a program of /opt/k8s/libexec, with what it prints in one stream."""
        return subprocess.Popen(
            ["sh", self.root / "opt/k8s/libexec" / name, *words],
            env={**self.environment, **environment}, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, name: str, *words: str, **environment: str) -> tuple[int, str]:
        process = self.script(name, *words, **environment)
        deadline = time.monotonic() + 240
        while True:
            try:
                said, _ = process.communicate(timeout=2)
            except subprocess.TimeoutExpired:
                assert time.monotonic() < deadline, f"{name} does not end"
                self.revive()
            else:
                return process.returncode, said

    def restart(self, unit: str) -> None:
        """Stop the unit if it runs, and start it with what its unit runs before and after."""
        self.stop(unit)
        if unit == "kube-apiserver":
            code, said = self.run("loaded-keys.sh", "note")
            assert code == 0, said
        with (self.root / f"{unit}.log").open("ab") as log:
            self.running[unit] = subprocess.Popen(
                read_command(self.root, unit, elects_leader=True),
                stdout=log, stderr=log, cwd=self.root, env=self.environment,
            )  # fmt: skip
        (self.root / f"{unit}.service.pid").write_text(str(self.running[unit].pid))
        if unit == "kube-apiserver":
            self.wait("the API server is ready", self.is_ready)
            code, said = self.run("loaded-keys.sh", "publish", MAINPID=str(self.running[unit].pid))
            assert code == 0, said

    def revive(self) -> None:
        """Start a controller manager that has ended because its API server was away, as systemd does."""
        for unit, process in tuple(self.running.items()):
            if process.poll() is not None:
                log = (self.root / f"{unit}.log").read_text(errors="replace")
                assert unit == "kube-controller-manager", log[-3000:]
                self.restart(unit)

    def stop(self, *units: str) -> None:
        for unit in units or tuple(self.running):
            process = self.running.pop(unit, None)
            if process:
                process.terminate()
                try:
                    process.wait(15)  # as TimeoutStopSec
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def is_ready(self) -> bool:
        return self.kubectl("get", "--raw=/readyz", check=False) == "ok"

    def is_alive(self) -> bool:
        return bool(self.kubectl("get", "--raw=/version", check=False))

    def kubectl(self, *words: str, check: bool = True, stdin: str = "") -> str:
        done = subprocess.run(
            [
                self.programs / "kubectl", "--kubeconfig",
                self.root / "etc/kubernetes/admin.kubeconfig", "--server",
                f"https://{self.address}:6443", *words,
            ],
            capture_output=True, text=True, check=False, input=stdin, env=self.environment,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    def etcdctl(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        pki = self.root / "etc/kubernetes/pki"
        return subprocess.run(
            [
                self.programs / "etcdctl", f"--endpoints=https://{self.address}:2379",
                f"--cacert={pki / 'etcd-ca.crt'}", f"--cert={pki / 'apiserver-etcd-client.crt'}",
                f"--key={pki / 'apiserver-etcd-client.key'}", "--command-timeout=20s", *words,
            ],
            capture_output=True, check=False, env={**self.environment, "ETCDCTL_API": "3"},
        )  # fmt: skip

    def may(self, token: str) -> int:
        """The status that a service account with this token gets."""
        context = ssl.create_default_context(
            cafile=str(self.root / "etc/kubernetes/pki/ca-servers.crt")
        )
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        connection = http.client.HTTPSConnection(self.address, 6443, context=context, timeout=20)
        connection.request("GET", "/api", headers={"Authorization": f"Bearer {token}"})
        status = connection.getresponse().status
        connection.close()
        return status

    def wait(self, what: str, holds: Callable[[], object], seconds: float = 120) -> None:
        started = time.monotonic()
        while not holds():
            self.revive()
            assert time.monotonic() - started < seconds, f"after {seconds} s: still not {what}"
            time.sleep(0.3)


@dataclass
class Site:
    """The builder's state, its builds, and both control planes. etcd runs on the first."""

    directory: Path
    network: str
    programs: Path
    keys: dict[str, Any] = field(default_factory=dict)  # more keys of cluster.yaml

    def __post_init__(self) -> None:
        hosts = [
            ControlPlane(name, f"{self.network}.{number}", self.directory / name, self.programs)
            for number, name in enumerate(("one", "two"), 1)
        ]
        self.one, self.two = self.hosts = tuple(hosts)

    @property
    def cluster(self) -> Cluster:
        roles: dict[str, Any] = {"one": ["etcd", "control-plane"], "two": ["control-plane"]}
        return Cluster.model_validate(
            {
                "apiVersion": "bundler/v1alpha1",
                "name": "both",
                "kubernetes": {"version": "1.20.2"},
                "etcd": {"version": "3.4.23"},
                "runtime": {"engine": "containerd"},
                "dns": {"provider": "none"},
                "control_plane": {"endpoint": f"{self.network}.1:6443"},
                "nodes": [
                    {"name": host.name, "address": host.address, "roles": roles[host.name]}
                    for host in self.hosts
                ],
                **self.keys,
            }
        )

    @property
    def state(self) -> Path:
        return self.directory / "both.state"

    def build(self, name: str) -> dict[str, Path]:
        """Render the bundles of both hosts, as `bundler build` does; by host."""
        inputs = Inputs(
            description=self.directory / "cluster.yaml", cache=Cache(self.directory / "cache")
        )
        trees = {host.name: self.directory / "builds" / name / host.name for host in self.hosts}
        with open_plan(self.cluster, inputs) as (plan, secrets):
            for node in plan.nodes:
                write_tree(render_node(plan, node, secrets), trees[node.name])
        for host in self.hosts if "profile" in self.keys else ():
            give_loopback(trees[host.name], host.address)
        return trees

    def rotate(self, rotation: Rotation, step: str, *names: str) -> dict[str, Path]:
        """Take a step on the builder, and build its bundles."""
        plan = make_plan(self.cluster)
        take_step(rotation, self.state, plan, step, datetime.now(UTC), names=names)
        number = len(list((self.directory / "builds").iterdir()))
        return self.build(f"{number}-{step}")

    def install(self, trees: dict[str, Path]) -> None:
        """Install a stage on both hosts, one after another; no host may refuse it."""
        for host in self.hosts:
            refused = host.obstacle(trees[host.name])
            assert refused == "", refused
            host.install(trees[host.name])

    def start(self) -> None:
        """Install the first build, and start everything."""
        trees = self.build("0-first")
        for host in self.hosts:
            host.install(trees[host.name])
        self.one.restart("etcd")
        self.one.wait(
            "healthy etcd", lambda: self.one.etcdctl("endpoint", "health").returncode == 0
        )
        for host in self.hosts:
            host.restart("kube-apiserver")
            code, said = host.run("apply-addons.sh")
            assert code == 0, said
            host.restart("kube-controller-manager")
        self.one.wait("a service account", self.has_service_account)

    def create_secrets(self, values: Mapping[str, str]) -> None:
        """A Secret of each name, whose `value` is the value."""
        items = [
            {
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
                "data": {"value": base64.b64encode(value.encode()).decode()},
            }
            for name, value in values.items()
        ]  # fmt: skip
        body = {"apiVersion": "v1", "kind": "List", "items": items}
        self.one.kubectl("create", "-f", "-", stdin=json.dumps(body))

    def check_secrets(self, values: Mapping[str, str]) -> None:
        """Every API server answers with every value."""
        for host in self.hosts:
            found = json.loads(host.kubectl("get", "secrets", "-o", "json"))["items"]
            assert values == {
                one["metadata"]["name"]: base64.b64decode(one["data"]["value"]).decode()
                for one in found
                if one["type"] == "Opaque"
            }

    def read_token(self, namespace: str = "default") -> str:
        """The token that new pods of the default service account get."""
        path = "jsonpath={.secrets[0].name}"
        name = self.one.kubectl("-n", namespace, "get", "sa", "default", "-o", path)
        return self.read_secret_token(name, namespace)

    def read_secret_token(self, name: str, namespace: str = "default") -> str:
        data = self.one.kubectl(
            "-n", namespace, "get", "secret", name, "-o", "jsonpath={.data.token}"
        )
        return base64.b64decode(data).decode()

    def has_service_account(self) -> bool:
        """Of 1.20 with its token, which is a Secret."""
        path = "jsonpath={.metadata.uid}" if "kubernetes" in self.keys else "jsonpath={.secrets}"
        return bool(self.one.kubectl("get", "sa", "default", "-o", path, check=False))

    def stop(self) -> None:
        for host in reversed(self.hosts):
            host.stop()

    def count_keys(self, resource: str = "secrets") -> dict[str, int]:
        """How many Secrets etcd holds under each key, from the bytes in etcd."""
        found = self.one.etcdctl("get", f"/registry/{resource}/", "--prefix", "-w", "json")
        assert found.returncode == 0, found.stderr
        counts: dict[str, int] = {}
        for pair in json.loads(found.stdout).get("kvs", []):
            name = read_key_name(pair["value"])
            counts[name] = counts.get(name, 0) + 1
        return counts


def give_loopback(tree: Path, address: str) -> None:
    """Put a host's own address in place of loopback, which both hosts share here."""
    unit = "rootfs/etc/systemd/system/kube-controller-manager.service"
    for path, before, after in (
        ("node.env", "MANAGERS_AT='127.0.0.1'", f"MANAGERS_AT='{address}'"),
        (unit, "--bind-address=127.0.0.1", f"--bind-address={address}"),
    ):
        text = (tree / path).read_text()
        assert before in text
        (tree / path).chmod(0o600)
        (tree / path).write_text(text.replace(before, after))


@contextmanager
def run_site(
    factory: pytest.TempPathFactory, programs: Path | None = None, **keys: object
) -> Iterator[Site]:
    """Two control planes that run until the block ends; by default with the lab's programs."""
    programs = programs or find_programs(factory.mktemp("programs") / "bin")
    site = Site(factory.mktemp("site"), take_network(), programs, keys)
    try:
        site.start()
        yield site
    finally:
        site.stop()


def read_key_name(value: str) -> str:
    """PROVIDER:KEY of a value in base64, or `plain`."""
    parts = base64.b64decode(value).split(b":", 5)
    if parts[:2] != [b"k8s", b"enc"]:
        return "plain"
    return f"{parts[2].decode()}:{parts[4].decode()}"
