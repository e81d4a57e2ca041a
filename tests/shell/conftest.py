"""Scripts run under every shell that a host may have as /bin/sh."""

import os
import subprocess
import zlib
from pathlib import Path

import pytest
from support.descriptions import write_description
from support.shells import CHOSEN, PINS, SHELLS, Sh
from support.trees import Trees

from bundler.cache.store import Cache
from bundler.pipeline import render
from bundler.project import Inputs

NAMES = tuple(shell[0] for shell in SHELLS)
SLOWEST = "bash"  # it takes twice the time of the others


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Each case runs under dash, and under busybox or bash in turn; a slow one under dash or busybox, in turn.

    `make test-long` runs all under all shells.
    """
    if CHOSEN != [""]:
        return
    ids = {item.nodeid for item in items}
    left_out = {item for item in items if not _is_its_turn(item, ids)}
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]


def _is_its_turn(item: pytest.Item, ids: set[str]) -> bool:
    test, _, parameters = item.nodeid.partition("[")
    shell = next((name for name in NAMES if name in parameters.rstrip("]").split("-")), None)
    if not shell:
        return True
    same_case = {name: f"{test}[{parameters.replace(shell, name, 1)}" for name in NAMES}
    slow = item.get_closest_marker("slow") is not None
    always, in_turn = ((), ("dash", "busybox")) if slow else (("dash",), ("busybox", "bash"))
    shells = [name for name in in_turn if same_case[name] in ids] or [SLOWEST]
    chosen = shells[zlib.crc32(same_case[NAMES[0]].encode()) % len(shells)]
    return shell in (*always, chosen)


@pytest.fixture(params=SHELLS, ids=NAMES)
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
