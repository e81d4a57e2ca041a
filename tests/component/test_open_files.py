"""Real dockerd: containers get the number of open files that daemon.json names."""

import json
import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.external_ca_cluster import LAB_CACHE

from bundler.paths import PACKAGE

BUSYBOX = shutil.which("busybox")


def default_ulimits() -> dict[str, dict[str, object]]:
    rows = yaml.safe_load((PACKAGE / "catalog/fields.yaml").read_text())["docker"]
    limits: dict[str, dict[str, object]] = rows[0]["fields"]["default-ulimits"]
    return limits


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short path: containerd's sockets are below it."""
    with tempfile.TemporaryDirectory(prefix="docker-", ignore_cleanup_errors=True) as made:
        yield Path(made)


@pytest.fixture
def docker(directory: Path) -> Iterator[list[str | Path]]:
    """The command line of docker for a dockerd of its own; without a network, and nothing pulled."""
    archives = sorted(LAB_CACHE.glob("mirror/download.docker.com/**/docker-*.tgz"))
    if not archives or not BUSYBOX or os.geteuid() != 0:
        pytest.skip(f"dockerd cannot run: no Docker in {LAB_CACHE} (make lab), busybox or root")
    subprocess.run(["tar", "-xzf", archives[-1], "-C", directory], check=True)
    if (real := LAB_CACHE / "host/runc").exists():  # the lab's own may be a wrapper
        shutil.copy(real, directory / "docker/runc")
    limits = default_ulimits()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # without CAP_SYS_RESOURCE
    for key in ("Hard", "Soft"):
        limits["nofile"][key] = min(int(str(limits["nofile"][key])), most - 1)
    (directory / "daemon.json").write_text(json.dumps({"default-ulimits": limits}))
    server = f"unix://{directory}/socket"
    with (directory / "log").open("wb") as log:
        daemon = subprocess.Popen(
            [
                directory / "docker/dockerd", "--config-file", directory / "daemon.json",
                "--data-root", directory / "data", "--exec-root", directory / "run", "--host", server,
                "--pidfile", directory / "pid", "--bridge=none", "--iptables=false",
                "--storage-driver=vfs",
            ],
            stdout=log, stderr=log,
            env={**os.environ, "PATH": f"{directory}/docker:{os.environ['PATH']}"},
        )  # fmt: skip
    command = [directory / "docker/docker", "--host", server]
    try:
        until = time.monotonic() + 60
        while subprocess.run([*command, "info"], capture_output=True, check=False).returncode:
            log_text = (directory / "log").read_text()
            assert daemon.poll() is None, log_text
            assert time.monotonic() < until, log_text
            time.sleep(0.3)
        yield command
    finally:
        daemon.terminate()
        daemon.wait()


def make_image(docker: list[str | Path], directory: Path) -> None:
    """Import busybox with the libraries that it needs as the image `shell`."""
    assert BUSYBOX
    listed = subprocess.run(["ldd", BUSYBOX], capture_output=True, text=True, check=False).stdout
    files = [BUSYBOX, *(word for word in listed.split() if word.startswith("/"))]
    archive = directory / "shell.tar"
    pack = ["tar", "-chf", archive, "--transform", f"s,^{BUSYBOX[1:]}$,bin/sh,", "-C", "/"]
    subprocess.run([*pack, *(file[1:] for file in files)], check=True)
    subprocess.run([*docker, "import", archive, "shell"], check=True, capture_output=True)


def test_containers_of_docker_get_the_number_of_open_files_of_daemon_json(
    docker: list[str | Path], directory: Path
) -> None:
    make_image(docker, directory)
    done = subprocess.run(
        [*docker, "run", "--rm", "--network=none", "shell", "/bin/sh", "-c", "ulimit -Sn; ulimit -Hn"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    configured = json.loads((directory / "daemon.json").read_text())["default-ulimits"]["nofile"]
    assert done.stdout.split() == [str(configured["Soft"]), str(configured["Hard"])], done.stderr
