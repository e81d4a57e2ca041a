"""Jinja for all of templates/: filters, compiling, rendering."""

import base64
import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import tomli_w
from jinja2 import Environment, StrictUndefined, Template, UndefinedError
from jinja2 import TemplateError as JinjaError

from bundler.errors import TemplateError
from bundler.formats.hidden_text import describe_hidden, find_hidden
from bundler.formats.shell_settings import quote_setting
from bundler.formats.yaml_output import dump_yaml


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
    environment.filters["shell"] = quote_shell
    environment.filters["systemd"] = quote_systemd
    environment.filters["awk_regex"] = quote_awk_regex
    environment.filters["toml"] = lambda value: tomli_w.dumps(value).rstrip()
    environment.filters["yaml"] = dump_yaml
    environment.filters["base64"] = lambda text: base64.b64encode(f"{text}\n".encode()).decode()
    environment.filters["json"] = dump_json
    return environment


def quote_shell(value: object) -> str:
    """Quote one word for sh, as `text_field` of lib/core/common.sh and bundler read it too."""
    return quote_setting(_check_line(str(value)))


def quote_systemd(value: object) -> str:
    """Quote one word of a systemd command line (systemd.service(5), COMMAND LINES)."""
    word = _check_line(str(value)).replace("%", "%%").replace("$", "$$")
    if not word or word[0] == "#" or any(character in word for character in " \"'\\;"):
        return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return word


def _check_line(text: str) -> str:
    """The text; raises TemplateError if it is not a single line of visible characters."""
    if hidden := find_hidden(text):
        raise TemplateError(f"a value {describe_hidden(hidden)}")
    return text


def dump_json(value: object) -> str:
    """Dump JSON, sorted and indented."""
    return json.dumps(value, indent=2, sort_keys=True, allow_nan=False)


def quote_awk_regex(pattern: str) -> str:
    """Write a regular expression as every awk reads it, also a slash in brackets."""
    return "/" + pattern.replace("/", "\\057") + "/"


def json_line(value: object) -> str:
    """Dump JSON on one line as Go does; a duration such as `2m` is written in full, `2m0s`."""
    if isinstance(value, str) and (match := re.fullmatch(r"(\d+)(h|m|s)", value)):
        value = f"{match[1]}{match[2]}" + {"h": "0m0s", "m": "0s", "s": ""}[match[2]]
    return json.dumps(value, separators=(",", ":"), sort_keys=True)
