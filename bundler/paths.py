"""Paths of the templates, the cache and the state directory."""

import os
from pathlib import Path

PACKAGE = Path(__file__).parent
"""The directory of bundler's own code."""
RESOURCES = PACKAGE / "resources"
"""Templates of files that accompany bundles but are not in one."""


def templates_directory() -> Path:
    """Return templates/ next to the package in a checkout, or inside it in an installed wheel."""
    inside = PACKAGE / "_templates"
    return inside if inside.is_dir() else PACKAGE.parent / "templates"


def default_cache() -> Path:
    """Return $BUNDLER_CACHE, or bundler/ in $XDG_CACHE_HOME or ~/.cache."""
    if chosen := os.environ.get("BUNDLER_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "bundler"


def default_state(description: Path, cluster: str) -> Path:
    """Return NAME.state next to cluster.yaml."""
    return description.absolute().parent / f"{cluster}.state"
