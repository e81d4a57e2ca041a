"""What all layers share."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.descriptions import write_archive, write_description

from bundler import log


@pytest.fixture(autouse=True)
def own_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test says to the program's -q ends with the test."""
    monkeypatch.setattr(log, "_quiet", False)


@pytest.fixture
def make_archive() -> Callable[[Path, str], str]:
    return write_archive


@pytest.fixture
def description(tmp_path: Path) -> Path:
    """examples/lab.yaml with its image archives, in a directory of its own."""
    return write_description(tmp_path)
