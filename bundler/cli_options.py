"""Options that several commands share, and the inputs that they make."""

from pathlib import Path
from typing import Annotated

import typer

from bundler.cache import Cache
from bundler.gather import Inputs
from bundler.paths import default_cache

Description = Annotated[
    Path, typer.Option("-c", "--config", help="The cluster description.", show_default=True)
]
CachePath = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        help="Where upstream files are kept. Default: $BUNDLER_CACHE or ~/.cache/bundler.",
    ),
]
Mirrors = Annotated[
    list[str] | None,
    typer.Option(
        "--mirror",
        help="Directory or URL that holds each file as MIRROR/UPSTREAM-HOST/PATH; "
        "tried in the order given, before upstream. May be repeated.",
    ),
]
Offline = Annotated[bool, typer.Option("--offline", help="Never open a network connection.")]
Pins = Annotated[
    Path | None,
    typer.Option("--pins", help="A YAML file whose `artifacts` are put over cluster.yaml's."),
]
State = Annotated[
    Path | None,
    typer.Option(
        "--state",
        help="Keys, certificates and tokens: **secret, keep and back up**. "
        "Default: NAME.state beside cluster.yaml.",
    ),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict", help="Refuse a digest that was only seen on first use, and to do without lock."
    ),
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Only warnings and errors.")]
CLUSTER_YAML = Path("cluster.yaml")


def make_inputs(
    config: Path,
    cache: Path | None,
    mirror: list[str] | None,
    pins: Path | None,
    state: Path | None,
    *,
    offline: bool,
    strict: bool = False,
) -> Inputs:
    """What a command was told, with defaults."""
    return Inputs(
        description=config,
        cache=Cache(cache or default_cache()),
        mirrors=tuple(mirror or ()),
        offline=offline,
        pins=pins,
        state=state,
        strict=strict,
    )


def shown(path: Path) -> Path:
    """Relative where that is shorter to read."""
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path
