"""The machine that the tests of a run share in turn."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.machine_clusters import Installed, install_on_a_hardened_host
from support.machines import the_only_machine
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
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory for descriptions, with a link to the lab's image archives."""
    directory = tmp_path_factory.mktemp("machines")
    (directory / "images").symlink_to(LAB_CACHE / "images")
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def installed(project: Path) -> Installed:
    """The disk of a Debian 12 machine with every role, which verify.sh found green."""
    return install_on_a_hardened_host(project)
