"""`bundler versions`."""

from difflib import get_close_matches
from typing import Annotated

import typer

from bundler import log
from bundler.catalog import COMPONENTS, find_artifact, list_versions
from bundler.cli.complete import complete_component
from bundler.cli.json_output import print_json
from bundler.cli.options import Json
from bundler.cluster.values import Arch
from bundler.errors import ConfigError


def versions_command(
    component: Annotated[
        str | None,
        typer.Argument(help="One component only.", autocompletion=complete_component),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the versions that have built-in pins.

    A pin is the URL and digest of an upstream file. Prints component, version and architectures.
    """
    if component is not None and component not in COMPONENTS:
        close = get_close_matches(component, COMPONENTS, n=1)
        raise ConfigError(
            f"{component}: unknown component; known: {', '.join(COMPONENTS)}",
            hint=f"did you mean '{close[0]}'?" if close else None,
        )
    found = [
        (name, version, [arch.value for arch in Arch if find_artifact(name, version, arch)])
        for name in ((component,) if component else COMPONENTS)
        for version in list_versions(name)
    ]
    if as_json:
        print_json(
            "versions",
            versions=[
                {"component": name, "version": version, "architectures": arches}
                for name, version, arches in found
            ],
        )
        return
    for name, version, arches in found:
        log.result(f"{name:18} {version:12} {' '.join(arches)}")
