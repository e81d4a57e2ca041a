"""How a template is compiled and what filters it may use; the same for all of templates/."""

import base64
import json
import re
from functools import cache

import tomli_w
import yaml
from jinja2 import Environment, StrictUndefined, Template


@cache
def _environment() -> Environment:
    """Jinja as every template of the product is rendered."""
    environment = Environment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - plain files, not HTML
    )
    environment.filters["systemd"] = quote_systemd
    environment.filters["toml"] = lambda value: tomli_w.dumps(value).rstrip()
    environment.filters["yaml"] = dump_yaml
    environment.filters["base64"] = lambda text: base64.b64encode(f"{text}\n".encode()).decode()
    environment.filters["json"] = lambda value: json.dumps(value, indent=2, sort_keys=True)
    return environment


@cache
def compile_template(text: str) -> Template:
    """A template, compiled once for all nodes."""
    return _environment().from_string(text)


def quote_systemd(word: str) -> str:
    """One word of a systemd command line (systemd.service(5), COMMAND LINES)."""
    escaped = word.replace("%", "%%").replace("$", "$$")
    if any(character in escaped for character in " \t\"'\\;"):
        return '"' + escaped.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return escaped


def json_line(value: object) -> str:
    """JSON as Go writes it, on one line; durations such as `2m` in Go's full form, `2m0s`."""
    if isinstance(value, str) and (match := re.fullmatch(r"(\d+)(h|m|s)", value)):
        value = f"{match[1]}{match[2]}" + {"h": "0m0s", "m": "0s", "s": ""}[match[2]]
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def dump_yaml(value: object) -> str:
    """Block style, keys in the order given, no newline at the end."""
    return yaml.safe_dump(value, sort_keys=False, width=2**16).rstrip()
