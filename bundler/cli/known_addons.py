"""`bundler addon list` and `bundler addon show`: add-ons that were tried, for a minor."""

from difflib import get_close_matches
from typing import Annotated

import typer

from bundler import log
from bundler.cli.json_output import print_json
from bundler.cli.options import Json
from bundler.cluster.components import MINORS
from bundler.cluster.known_addons import (
    AddonRelease,
    KnownAddon,
    list_copies,
    list_images,
    list_known,
    make_keys,
    write_snippet,
)
from bundler.errors import ConfigError

Kubernetes = Annotated[
    str | None,
    typer.Option(
        "--kubernetes", metavar="MINOR",
        help="The Kubernetes minor, such as 1.36. Default: the newest release of each add-on.",
    ),
]  # fmt: skip


def list_command(kubernetes: Kubernetes = None, as_json: Json = False) -> None:
    """List add-ons that were rendered with bundler, and their versions.

    They were rendered from their projects' files.

    Prints name, version, the Kubernetes minors that the project supports, and what it is.

    docs/reference/json.md has the shape of --json.
    """
    _check_minor(kubernetes)
    found = [(known, known.find_release(kubernetes)) for known in list_known()]
    if as_json:
        print_json(
            "addon-list",
            addons=[
                {"name": known.name, "summary": known.summary, **_describe(release)}
                for known, release in found
                if release
            ],
        )
        return
    for known, release in found:
        if release:
            log.result(f"{known.name:21} {release.version:9} {release.span:15} {known.summary}")
        else:
            log.result(f"{known.name:21} {'-':9} {'':15} no known release for {kubernetes}")


def show_command(
    name: Annotated[str, typer.Argument(help="The name of a known add-on.")],
    kubernetes: Kubernetes = None,
    as_json: Json = False,
) -> None:
    """Print what to write into cluster.yaml for a known add-on.

    Comments say what to copy first, what to replace, and why nothing else is needed. Nothing is
    fetched.

    docs/reference/json.md has the shape of --json.
    """
    _check_minor(kubernetes)
    known = _find(name)
    release = known.find_release(kubernetes)
    if not release:
        spans = ", ".join(f"{each.version} for {each.span}" for each in known.releases)
        raise ConfigError(
            f"{name}: no known release for Kubernetes {kubernetes}; known: {spans}",
            hint="choose one that its project supports; docs/guides/addons.md says how it is added",
        )
    if as_json:
        print_json(
            "addon-show",
            name=known.name,
            summary=known.summary,
            project=known.project,
            **_describe(release),
            stated=release.stated,
            copy=list_copies(known, release) or None,
            images=list(list_images(known, release)),
            keys=make_keys(known, release),
            notes=list(known.notes),
            confirm=dict(known.confirm),
        )
        return
    log.result(write_snippet(known, release))


def _describe(release: AddonRelease) -> dict[str, str | None]:
    return {
        "version": release.version,
        "since": release.since,
        "until": release.until or None,
    }


def _check_minor(kubernetes: str | None) -> None:
    if kubernetes is not None and kubernetes not in MINORS:
        raise ConfigError(
            f"--kubernetes {kubernetes}: must be a minor from {MINORS[0]} to {MINORS[-1]}"
        )


def _find(name: str) -> KnownAddon:
    known = {each.name: each for each in list_known()}
    if name not in known:
        close = get_close_matches(name, known, n=1)
        raise ConfigError(
            f"{name}: unknown add-on; known: {', '.join(known)}",
            hint=f"did you mean '{close[0]}'?" if close else None,
        )
    return known[name]
