"""Where things are: the templates, the cache, the state directory."""

import os
from pathlib import Path

PACKAGE = Path(__file__).parent
"""Where bundler's own code is."""
RESOURCES = PACKAGE / "resources"
"""Templates of files that accompany bundles and are not part of one."""


def templates_directory() -> Path:
    """Beside the package in a checkout, inside it in an installed wheel."""
    inside = PACKAGE / "_templates"
    return inside if inside.is_dir() else PACKAGE.parent / "templates"


def default_cache() -> Path:
    """$BUNDLER_CACHE, or bundler/ below $XDG_CACHE_HOME or ~/.cache."""
    if chosen := os.environ.get("BUNDLER_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "bundler"


def default_state(description: Path, cluster: str) -> Path:
    """<cluster>.state beside cluster.yaml."""
    return description.absolute().parent / f"{cluster}.state"
