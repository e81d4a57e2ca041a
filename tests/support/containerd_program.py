"""A containerd with directories of its own, for one test."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NEEDS_CONTAINERD = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("ctr"),
    reason="containerd cannot run: it is not installed, or the user is not root",
)


@contextmanager
def run_containerd(directory: Path) -> Iterator[str]:
    """Start it without CRI; yields the path of its socket."""
    with tempfile.TemporaryDirectory(dir="/tmp") as short:  # a socket's path has at most 104 bytes
        address = f"{short}/c.sock"
        config = directory / "containerd.toml"
        config.write_text(
            f'version = 2\nroot = "{directory}/root"\nstate = "{short}/state"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'[grpc]\naddress = "{address}"\n'
        )
        log = directory / "containerd.log"
        with log.open("wb") as file:
            process = subprocess.Popen(["containerd", "-c", config], stdout=file, stderr=file)
        try:
            for _ in range(200):
                assert process.poll() is None, log.read_text()
                if "containerd successfully booted" in log.read_text():
                    break
                time.sleep(0.1)
            yield address
        finally:
            process.terminate()
            process.wait()
