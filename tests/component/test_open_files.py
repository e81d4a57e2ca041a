"""Real dockerd: containers get the number of open files that daemon.json names."""

import json
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.docker_program import make_shell_image, run_dockerd, short_directory

from bundler.paths import PACKAGE


def default_ulimits() -> dict[str, dict[str, object]]:
    rows = yaml.safe_load((PACKAGE / "catalog/fields.yaml").read_text())["docker"]
    limits: dict[str, dict[str, object]] = rows[0]["fields"]["default-ulimits"]
    return limits


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as made:
        yield made


@pytest.fixture
def docker(directory: Path) -> Iterator[list[str | Path]]:
    """The command line of docker for a dockerd without a network; nothing is pulled."""
    limits = default_ulimits()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # without CAP_SYS_RESOURCE
    for key in ("Hard", "Soft"):
        limits["nofile"][key] = min(int(str(limits["nofile"][key])), most - 1)
    config = {"default-ulimits": limits, "bridge": "none", "iptables": False}
    with run_dockerd(directory, config) as running:
        yield running.command


def test_containers_of_docker_get_the_number_of_open_files_of_daemon_json(
    docker: list[str | Path], directory: Path
) -> None:
    make_shell_image(docker, directory)
    done = subprocess.run(
        [*docker, "run", "--rm", "--network=none", "shell", "/bin/sh", "-c", "ulimit -Sn; ulimit -Hn"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    configured = json.loads((directory / "daemon.json").read_text())["default-ulimits"]["nofile"]
    assert done.stdout.split() == [str(configured["Soft"]), str(configured["Hard"])], done.stderr
