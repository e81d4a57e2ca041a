"""Fixtures that the tests of renewal and rotation share, and those of external CAs."""

import shutil
from pathlib import Path

import pytest
from support.external_ca_site import Site, make_site
from support.offline_root import OfflineRoot
from support.pki_plans import ensure_state


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory with every certificate; tests use copies."""
    path: Path = tmp_path_factory.mktemp("made") / "state"
    ensure_state(path)
    return path


@pytest.fixture
def state(made: Path, tmp_path: Path) -> Path:
    """A copy of `made` that the test may change."""
    return Path(shutil.copytree(made, tmp_path / "state"))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path)


@pytest.fixture(scope="session")
def signed_leaves(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A request for every certificate, signed but not imported; tests use copies."""
    site = make_site(tmp_path_factory.mktemp("signed"))
    site.request(leaves=True)
    site.sign()
    return site


@pytest.fixture
def leaves(signed_leaves: Site, tmp_path: Path) -> Site:
    """A copy of `signed_leaves` that the test may change."""
    directory = tmp_path / "copy"
    shutil.copytree(signed_leaves.directory, directory)
    root = OfflineRoot.load(directory / "bank")
    return Site(directory=directory, root=root, plan=signed_leaves.plan)
