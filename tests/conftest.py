"""What all layers share."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.descriptions import write_archive, write_description
from support.lab import FIGURES

from bundler import log

PRIVATE = Path.home() / ".cache" / "bundler-tests"
"""Where tmp_path is. In /tmp, which every user can write, install.sh refuses to run."""


def pytest_configure() -> None:
    PRIVATE.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(PRIVATE))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the figures of a worker of xdist to the process that reports."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["figures"] = FIGURES


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    FIGURES.extend(getattr(node, "workeroutput", {}).get("figures", ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if FIGURES:
        terminalreporter.section("figures")
        for figure in FIGURES:
            terminalreporter.line(figure)


@pytest.fixture(autouse=True)
def own_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test says to the program's -q ends with the test."""
    monkeypatch.setattr(log, "_quiet", False)


@pytest.fixture
def no_line_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """--strict compares ends of life with 2017, so that no version is refused, this year or later."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1500000000")


@pytest.fixture
def make_archive() -> Callable[[Path, str], str]:
    return write_archive


@pytest.fixture
def description(tmp_path: Path) -> Path:
    """scripts/lab.yaml with its image archives, in a directory of its own."""
    return write_description(tmp_path)
