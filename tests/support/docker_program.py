"""A dockerd of its own for one test, in a network namespace of its own."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.paths import LAB_CACHE

BUSYBOX = shutil.which("busybox")


@dataclass(frozen=True)
class Docker:
    """The running daemon."""

    command: list[str | Path]  # docker with the daemon's socket
    pid: int


@contextmanager
def short_directory() -> Iterator[Path]:
    """A short path: containerd's sockets are below it."""
    with tempfile.TemporaryDirectory(prefix="docker-", ignore_cleanup_errors=True) as made:
        yield Path(made)


@contextmanager
def run_dockerd(directory: Path, config: Mapping[str, object]) -> Iterator[Docker]:
    """Start it with that daemon.json; its network has no way out."""
    archives = sorted(LAB_CACHE.glob("mirror/download.docker.com/**/docker-*.tgz"))
    if not archives or not BUSYBOX or os.geteuid() != 0:
        pytest.skip(
            "dockerd cannot run: there is no Docker in the lab's cache (make lab), no busybox,"
            " or the user is not root"
        )
    subprocess.run(["tar", "-xzf", archives[-1], "-C", directory], check=True)
    if (real := LAB_CACHE / "host/runc").exists():  # the lab's own may be a wrapper
        shutil.copy(real, directory / "docker/runc")
    (directory / "daemon.json").write_text(json.dumps(config))
    server = f"unix://{directory}/socket"
    with (directory / "log").open("wb") as log:
        daemon = subprocess.Popen(
            [
                "unshare", "--net", "--mount",  # what it mounts ends with it
                directory / "docker/dockerd", "--config-file", directory / "daemon.json",
                "--data-root", directory / "data", "--exec-root", directory / "run", "--host", server,
                "--pidfile", directory / "pid", "--storage-driver=vfs",
            ],
            stdout=log, stderr=log,
            env={**os.environ, "PATH": f"{directory}/docker:{os.environ['PATH']}"},
        )  # fmt: skip
    command: list[str | Path] = [directory / "docker/docker", "--host", server]
    try:
        until = time.monotonic() + 180
        while subprocess.run([*command, "info"], capture_output=True, check=False).returncode:
            log_text = (directory / "log").read_text()
            assert daemon.poll() is None, log_text
            assert time.monotonic() < until, log_text
            time.sleep(0.3)
        yield Docker(command, daemon.pid)
    finally:
        daemon.terminate()
        daemon.wait()


def make_shell_image(docker: list[str | Path], directory: Path) -> None:
    """Import busybox with the libraries that it needs as the image `shell`."""
    assert BUSYBOX
    listed = subprocess.run(["ldd", BUSYBOX], capture_output=True, text=True, check=False).stdout
    files = [BUSYBOX, *(word for word in listed.split() if word.startswith("/"))]
    archive = directory / "shell.tar"
    pack = ["tar", "-chf", archive, "--transform", f"s,^{BUSYBOX[1:]}$,bin/sh,", "-C", "/"]
    subprocess.run([*pack, *(file[1:] for file in files)], check=True)
    subprocess.run([*docker, "import", archive, "shell"], check=True, capture_output=True)
