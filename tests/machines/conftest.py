"""The machine that the tests of a run share in turn."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.machine_disks import Installed, install_on_a_hardened_host, install_with_a_web_server
from support.machines import MACHINES, the_only_machine
from support.paths import LAB_CACHE

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.machine)


@pytest.fixture(scope="session", autouse=True)
def alone() -> Iterator[None]:
    """One run at a time, and one machine at a time."""
    if not (LAB_CACHE / ".complete").exists():
        pytest.skip("machines cannot run: there are no artifacts in the lab's cache (make lab)")
    with the_only_machine():
        yield


@pytest.fixture(scope="session")
def project() -> Path:
    """A directory for descriptions and their state, kept: with the same keys bundles are the same."""
    directory = MACHINES / "project"
    directory.mkdir(exist_ok=True)
    return directory


@pytest.fixture(scope="session")
def installed(project: Path) -> Installed:
    """The disk of a Debian 12 machine with every role, which verify.sh found green."""
    return install_on_a_hardened_host(project)


@pytest.fixture(scope="session")
def open_host(project: Path) -> Installed:
    """The disk of a Debian 12 machine with a web server, and firewalls and NetworkManager off."""
    return install_with_a_web_server(project)
