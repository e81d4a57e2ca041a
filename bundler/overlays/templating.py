"""Jinja for all of templates/: filters, compiling, rendering."""

import base64
import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import tomli_w
import yaml
from jinja2 import Environment, StrictUndefined, Template, UndefinedError
from jinja2 import TemplateError as JinjaError

from bundler.errors import TemplateError


class NeedsStateError(UndefinedError):
    """A template used a value that only the state directory has."""


def make_unknown(name: str) -> Any:
    """Make a placeholder for a value of the state directory: any use raises NeedsStateError."""
    return StrictUndefined(f"{name} is in the state directory", exc=NeedsStateError)


def render_template(content: bytes, origin: str, context: Mapping[str, Any]) -> str:
    """Render a template; raises TemplateError that names `origin`, or NeedsStateError."""
    try:
        return compile_template(content.decode()).render(context)
    except NeedsStateError:
        raise
    except JinjaError as error:
        raise TemplateError(f"{origin}: {error}") from error


@cache
def compile_template(text: str) -> Template:
    """Compile a template, once for all nodes."""
    return _environment().from_string(text)


@cache
def _environment() -> Environment:
    """Make the Jinja environment of all templates."""
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


def quote_systemd(word: str) -> str:
    """Quote one word of a systemd command line (systemd.service(5), COMMAND LINES)."""
    escaped = word.replace("%", "%%").replace("$", "$$")
    if any(character in escaped for character in " \t\"'\\;"):
        return '"' + escaped.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return escaped


def json_line(value: object) -> str:
    """Dump JSON on one line as Go does; a duration such as `2m` is written in full, `2m0s`."""
    if isinstance(value, str) and (match := re.fullmatch(r"(\d+)(h|m|s)", value)):
        value = f"{match[1]}{match[2]}" + {"h": "0m0s", "m": "0s", "s": ""}[match[2]]
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def dump_yaml(value: object) -> str:
    """Dump YAML in block style, keys in the given order, without a newline at the end."""
    return yaml.safe_dump(value, sort_keys=False, width=2**16).rstrip()
