"""Scripts run under every shell that a host may have as /bin/sh."""

import os
import subprocess
from pathlib import Path

import pytest
from support.descriptions import write_description
from support.shells import PINS, SHELLS, Sh
from support.trees import Trees

from bundler.cache.store import Cache
from bundler.pipeline import render
from bundler.project import Inputs


@pytest.fixture(params=SHELLS, ids=[shell[0] for shell in SHELLS])
def sh(request: pytest.FixtureRequest) -> Sh:
    """One of the shells, ready to run scripts."""

    def run(script: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*request.param, str(script), *arguments],
            capture_output=True, text=True, check=False, env={**os.environ, **environment}, timeout=120,
            start_new_session=True,  # without a terminal
        )  # fmt: skip

    return run


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("rendered")
    description = write_description(directory)
    inputs = Inputs(
        description=description, cache=Cache(directory / "cache"), offline=True, pins=PINS
    )
    render(inputs, directory / "trees", text_only=True)
    return directory / "trees"


@pytest.fixture
def trees(rendered: Path, tmp_path: Path) -> Trees:
    """The example's bundles, unpacked, without binaries and images."""
    directory = tmp_path / "trees"
    directory.mkdir()
    return Trees(rendered, directory)
