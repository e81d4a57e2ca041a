"""Parse JSON and URLs from others: every fault is a ValueError."""

import json
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit


def split_url(url: str) -> SplitResult:
    """The parts of a URL; ValueError if it has no host or its path is not possible on disk."""
    parts = urlsplit(url)
    host, _ = parts.hostname, parts.port  # a bad port is a ValueError of urllib's
    if parts.scheme in {"http", "https"} and not host:
        raise ValueError("the URL has no host")
    if "\0" in unquote(parts.path):
        raise ValueError("the URL contains %00, which no path can")
    return parts


def check_url(url: str) -> str:
    """The URL, for models; ValueError says what it must be."""
    try:
        split_url(url)
    except ValueError as error:
        raise ValueError(f"must be a valid URL: {error}") from error
    return url


def read_json(content: bytes) -> Any:
    """A JSON document; ValueError also if it is nested deeper than Python can read."""
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("nested too deeply") from None
