"""`bundler show`: one node's whole description, and where each value is written."""

import json
from typing import Annotated, Any

import typer

from bundler import log
from bundler.cli.complete import complete_node
from bundler.cli.json_output import print_json
from bundler.cli.options import CLUSTER_YAML, Description, Json
from bundler.cluster.effective import Setting, list_settings
from bundler.cluster.loader import load_cluster
from bundler.formats.bounded_yaml import show_path
from bundler.urls import hide_secrets

DEFAULT = "default"
LONGEST_VALUE = 30  # characters: longer ones move the place of their line only


def show_command(
    node: Annotated[
        str,
        typer.Argument(metavar="NODE", help="The name of a node.", autocompletion=complete_node),
    ],
    config: Description = CLUSTER_YAML,
    as_json: Json = False,
) -> None:
    """Show everything that holds for one node, each value with the file and line it comes from.

    The values are those of the node itself, of its groups in their order, of `defaults` and of the
    cluster, in this order of precedence. `default` means that no file has the value.

    docs/reference/json.md has the shape of --json.
    """
    loaded = load_cluster(config)
    settings = list_settings(loaded, node)
    if as_json:
        values = [_as_data(setting) for setting in settings]
        print_json("show", cluster=loaded.cluster.name, node=node, values=values)
        return
    rows = [(each.key, _format(each.value), _locate(each)) for each in settings]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for key, value, place in rows:
        log.result(f"{key:{widths[0]}}  {value:{min(widths[1], LONGEST_VALUE)}}  {place}")


def _as_data(setting: Setting) -> dict[str, Any]:
    place = setting.place
    return {
        "key": setting.key,
        "value": json.loads(hide_secrets(json.dumps(setting.value))),
        "file": str(place.file) if place else None,
        "line": place.line if place else None,
        "column": place.column if place else None,
        "from": show_path(place.path) if place else DEFAULT,
    }


def _format(value: Any) -> str:
    """The value on one line, as in YAML's flow style; `-` where no value is set."""
    if value in (None, [], {}):
        return "-"
    if isinstance(value, list):
        return f"[{', '.join(map(_format, value))}]"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if not text.isprintable():  # several lines, a tab: one line of the table, as YAML quotes it
        text = json.dumps(text, ensure_ascii=False)
    return hide_secrets(text)


def _locate(setting: Setting) -> str:
    """File and line, and the group, node or `defaults` there."""
    place = setting.place
    if not place:
        return DEFAULT
    layer = f".{show_path(place.path)}".removesuffix(f".{setting.key}").removeprefix(".")
    return f"{place.file}:{place.line} {layer}".rstrip()
