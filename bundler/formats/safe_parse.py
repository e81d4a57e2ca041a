"""What others wrote, taken apart so that whatever is wrong with it is a ValueError."""

import json
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import yaml


def split_url(url: str) -> SplitResult:
    """The parts of a URL; ValueError where it cannot be asked, or leads to no path."""
    parts = urlsplit(url)
    host, _ = parts.hostname, parts.port  # what is no port is a ValueError of its own
    if parts.scheme in {"http", "https"} and not host:
        raise ValueError("the URL names no host")
    if "\0" in unquote(parts.path):
        raise ValueError("the URL holds %00, which no path can")
    return parts


def check_url(url: str) -> str:
    """The URL, for models; ValueError says to the user what it must be."""
    try:
        split_url(url)
    except ValueError as error:
        raise ValueError(f"must be a URL that can be asked: {error}") from error
    return url


def read_json(content: bytes) -> Any:
    """A JSON document, nested no deeper than Python reads it."""
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_yaml(text: str) -> Any:
    """A YAML document, nested no deeper than Python reads it; dates and numbers that are none."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    except RecursionError:
        raise ValueError("nested too deeply") from None
