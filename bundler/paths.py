"""Paths of the templates, the examples, the cache and the state directory."""

import os
from pathlib import Path

PACKAGE = Path(__file__).parent
"""The directory of bundler's own code."""
STDIN = Path("-")
"""The cluster.yaml of `-c -`: standard input. Its relative paths are of the working directory."""
RESOURCES = PACKAGE / "resources"
"""Templates of files that accompany bundles but are not in one."""


def templates_directory() -> Path:
    """Return templates/ next to the package in a checkout, or inside it in an installed wheel."""
    return _find_directory("templates")


def examples_directory() -> Path:
    """Return examples/ next to the package in a checkout, or inside it in an installed wheel."""
    return _find_directory("examples")


def _find_directory(name: str) -> Path:
    inside = PACKAGE / f"_{name}"
    return inside if inside.is_dir() else PACKAGE.parent / name


def default_cache() -> Path:
    """Return $BUNDLER_CACHE, or bundler/ in $XDG_CACHE_HOME or ~/.cache."""
    if chosen := os.environ.get("BUNDLER_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "bundler"


def default_state(description: Path, cluster: str) -> Path:
    """Return NAME.state next to cluster.yaml."""
    return description.absolute().parent / f"{cluster}.state"
