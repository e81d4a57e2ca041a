"""A worker is ready when its runtime has run a container: real containerd, Docker and runc, in directories of their own."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.descriptions import write_upstream
from support.etcd_hosts import wait_for
from support.paths import LAB_CACHE
from support.shells import write_program
from support.small_builds import make_site, unpack

PROGRAMS = ("containerd", "containerd-shim-runc-v2", "ctr", "docker", "dockerd", "runc")
PARTS = ("core/common", "transaction/images")


@dataclass
class Runtime:
    """A worker: the root of its files, and the daemons that it runs."""

    engine: str
    root: Path
    place: Path  # short, for the names of sockets
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "DESTDIR": str(self.root),
            "PATH": f"{self.place}/bin:{os.environ['PATH']}",
            "CONTAINERD_ADDRESS": f"{self.place}/c.sock",
            "DOCKER_HOST": f"unix://{self.place}/d.sock",
        }

    def start(self) -> None:
        self._start("containerd", "--config", self.place / "config.toml")
        wait_for("containerd answers", (self.place / "c.sock").exists)
        if self.engine == "docker":
            self._start(
                "dockerd", "--data-root", self.place / "data", "--exec-root", self.place / "exec",
                "--host", f"unix://{self.place}/d.sock", "--pidfile", self.place / "pid",
                "--containerd", self.place / "c.sock", "--bridge", "none", "--iptables=false",
                "--ip-forward=false", "--config-file", self.place / "daemon.json",
            )  # fmt: skip
            wait_for("dockerd answers", lambda: self.run("ready_runtime").returncode == 0)

    def _start(self, *command: str | Path) -> None:
        with (self.place / "log").open("ab") as log:
            self.running.append(
                subprocess.Popen(command, stdout=log, stderr=log, env=self.environment)
            )

    def stop(self) -> None:
        for process in reversed(self.running):
            process.send_signal(signal.SIGTERM)
            process.wait(30)

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command with the parts of install.sh."""
        bundle = self.root / "opt/k8s/bundle"
        (self.place / "work").mkdir(exist_ok=True)
        script = f"here={bundle} work={self.place}/work\n. $here/node.env\n"
        script += "".join(f". $here/lib/{part}.sh\n" for part in PARTS)
        script += f". $here/lib/runtime.sh\nread_images\n{command}\n"
        return subprocess.run(
            ["/bin/sh", "-c", script], capture_output=True, text=True, check=False,
            env=self.environment, timeout=120,
        )  # fmt: skip

    def load(self) -> None:
        """Load the pause image as install.sh does before it starts the kubelet; the other is no real one."""
        done = self.run(
            "for image in $IMAGES; do case $image in *pause*)"
            ' write_archive "${image%%|*}" | load_archive x || exit 1 ;; esac done'
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def break_runc(self) -> None:
        """As on a host without a library that runc needs."""
        write_program(self.place / "bin/runc", "exit 127\n")

    def left_containers(self) -> str:
        if self.engine == "docker":
            return self.run("docker ps -aq").stdout
        return self.run("ctr -n bundler-try containers ls -q; ctr namespaces ls -q").stdout


@pytest.fixture(params=["containerd", "docker"])
def runtime(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runtime]:
    pause = LAB_CACHE / "images/pause.tar"
    if os.getuid() != 0 or not all(map(shutil.which, PROGRAMS)) or not pause.exists():
        pytest.skip(
            "a container runtime cannot run: there is no containerd, Docker or runc,"
            " no pause image in the lab's cache (make lab), or the user is not root"
        )
    site = make_site(tmp_path / "site")
    shutil.copy(pause, site.directory / "pause.tar")
    path = site.directory / "cluster.yaml"
    text = path.read_text().replace("1.36.2", "1.20.2").replace("pause:3.10.2", "pause:3.2")
    path.write_text(text.replace("engine: containerd", f"engine: {request.param}"))
    write_upstream(site.directory, path)
    bundle = unpack(site.build() / "small-two.tar.gz", tmp_path / "bundle")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    subprocess.run(["/bin/sh", bundle / "install.sh"], check=True, env={**os.environ, "DESTDIR": str(root)})  # fmt: skip
    place = Path(tempfile.mkdtemp(prefix="bundler-runtime-", dir="/tmp"))
    write_program(place / "bin/systemctl", "echo ActiveEnterTimestampMonotonic=5\n")
    (place / "daemon.json").write_text("{}")
    (place / "config.toml").write_text(
        f'version = 2\nroot = "{place}/root"\nstate = "{place}/state"\n'
        f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "{place}/c.sock"\n'
    )
    made = Runtime(request.param, root, place)
    yield made
    made.stop()
    shutil.rmtree(place)


def test_a_worker_is_ready_when_its_runtime_has_run_a_container(runtime: Runtime) -> None:
    runtime.start()
    runtime.load()
    done = runtime.run("ready_containers")
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
    assert (runtime.place / "work/container-ran").exists()
    assert runtime.left_containers().split() in ([], ["k8s.io"])
    assert not list(Path("/sys/fs/cgroup").glob("*/bundler-try"))


def test_a_runtime_that_cannot_run_a_container_is_not_ready(runtime: Runtime) -> None:
    runtime.start()
    runtime.load()
    runtime.break_runc()
    done = runtime.run("ready_runtime; echo $?; ready_containers")
    answers, said = done.stdout.split("\n", 1)
    assert answers == "0"  # what was asked before: it only answers
    assert done.returncode == 1
    assert said.startswith("it runs no container: ")
    assert "runc" in said
    assert not (runtime.place / "work/container-ran").exists()
    (runtime.place / "bin/runc").unlink()
    assert runtime.run("ready_containers").returncode == 0
    runtime.break_runc()
    assert runtime.run("ready_containers").returncode == 0  # it ran since the runtime's start
    write_program(runtime.place / "bin/systemctl", "echo ActiveEnterTimestampMonotonic=7\n")
    assert runtime.run("ready_containers").returncode == 1


def test_before_a_change_the_runtime_has_to_answer_only(runtime: Runtime) -> None:
    runtime.start()
    runtime.break_runc()
    assert runtime.run("ready_containers").returncode == 0  # the bundle's image is not loaded yet
    assert not (runtime.place / "work/container-ran").exists()


def test_a_container_of_a_killed_run_is_removed(runtime: Runtime) -> None:
    runtime.start()
    runtime.load()
    killed = runtime.run("remove_tried_container() { :; }; ready_containers")
    assert killed.returncode == 0
    assert runtime.left_containers().strip()
    (runtime.place / "work/container-ran").unlink()
    assert runtime.run("ready_containers").returncode == 0
    assert runtime.left_containers().split() in ([], ["k8s.io"])
