"""`bundler images`: each image of a cluster, and where it comes from."""

from collections.abc import Iterable
from typing import Annotated, Any

import typer

from bundler import log
from bundler.cli.json_output import print_json
from bundler.cli.options import (
    CLUSTER_YAML,
    CachePath,
    Description,
    Json,
    Offline,
    Pins,
    make_inputs,
)
from bundler.cluster.addons.proof import ImageUse, Proof
from bundler.errors import ConfigError
from bundler.formats.image_references import full_name
from bundler.project import load

Why = Annotated[
    str | None,
    typer.Option("--why", metavar="REF", help="Every place that one image comes from."),
]


def images_command(
    config: Description = CLUSTER_YAML,
    why: Why = None,
    pins: Pins = None,
    cache: CachePath = None,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """List every image that the bundles carry, and the place that it comes from.

    These are the images of cluster.yaml, those that the cluster itself needs, and those that
    add-ons name: in containers, environment variables, arguments, custom resources, ConfigMaps
    and annotations. What cannot be proved to be carried is marked: `build` refuses it, and says
    what to do.

    docs/reference/json.md has the shape of --json.
    """
    inputs = make_inputs(config, pins=pins, cache=cache, offline=offline, quiet=True)
    uses = load(inputs, quiet=True, unproved=True).image_uses
    if why:
        uses = tuple(use for use in uses if use.name in {why, _complete(why)})
        if not uses:
            raise ConfigError(
                f"{why}: no place of this cluster names it", hint="list all with: bundler images"
            )
    if as_json:
        print_json("images", images=list(_as_data(uses)))
        return
    for name, places in _by_name(uses).items():
        shown = places if why else places[:1]
        more = len(places) - len(shown)
        log.result(name)
        for use in shown:
            addon = f"add-on {use.addon}: " if use.addon else ""
            note = "" if use.proof is Proof.CARRIED else f" [{use.proof}]"
            others = f" and {more} more place{'s' if more > 1 else ''}" if more else ""
            log.result(f"    {addon}{use.place} ({use.why}){note}{others}")


def _complete(text: str) -> str:
    try:
        return full_name(text)
    except ValueError:
        return text


def _by_name(uses: Iterable[ImageUse]) -> dict[str, list[ImageUse]]:
    found: dict[str, list[ImageUse]] = {}
    for use in uses:
        found.setdefault(use.name, []).append(use)
    return found


def _as_data(uses: Iterable[ImageUse]) -> Iterable[dict[str, Any]]:
    for name, places in _by_name(uses).items():
        yield {
            "image": name,
            "proof": min((use.proof for use in places), key=list(Proof).index).value,
            "places": [
                {"addon": use.addon or None, "place": use.place, "why": use.why} for use in places
            ],
        }
