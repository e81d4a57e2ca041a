"""Mirrors: other places than upstream for a file, for every upstream host or for one."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from bundler.errors import ConfigError
from bundler.formats.safe_parse import split_url
from bundler.urls import show_url

WEB = ("http://", "https://")
HINT = "use DIR, URL, HOST=DIR or HOST=URL"
HOST = re.compile(r"(?P<host>[A-Za-z0-9.-]+(:[0-9]+)?)=(?P<base>.*)", re.DOTALL)
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True, slots=True)
class Mirror:
    """A directory or URL, for every upstream host or only for `host`.

    A mirror for every host has files as `<base>/<upstream host>/<upstream path>`, a mirror for one
    host as `<base>/<upstream path>`.
    """

    base: str
    host: str = ""


def parse_mirror(text: str) -> Mirror:
    """`DIR`, `URL` or `HOST=DIR|URL`; ConfigError for anything else."""
    match = HOST.fullmatch(text)
    host, base = (match["host"].lower(), match["base"]) if match else ("", text)
    if not base:
        raise ConfigError(f"--mirror {text!r}: not a directory or URL", hint=HINT)
    if not base.startswith(WEB):
        if SCHEME.match(base):
            raise ConfigError(
                f"--mirror {text}: neither a directory nor an http or https URL",
                hint=HINT,
            )
        return Mirror(base, host)
    try:
        split_url(base)
    except ValueError as error:
        raise ConfigError(f"--mirror {show_url(base)}: {error}") from error
    return Mirror(base, host)


def list_sources(url: str, mirrors: Sequence[Mirror], *, offline: bool) -> Iterator[str]:
    """The sources of an upstream file in order: URLs and paths.

    First the mirrors for its host, then those for every host, then upstream; with `offline` only
    directories.
    """
    parts = urlsplit(url)
    own = [mirror for mirror in mirrors if mirror.host and mirror.host == _host_of(parts)]
    for mirror in (*own, *(mirror for mirror in mirrors if not mirror.host)):
        is_url = mirror.base.startswith(WEB)
        if is_url and offline:
            continue
        tail = _tail(parts, with_host=not mirror.host)
        yield f"{mirror.base.rstrip('/')}/{tail if is_url else unquote(tail)}"
    if parts.scheme == "file":
        yield unquote(parts.path)
    elif not offline:
        yield url


def _tail(parts: SplitResult, *, with_host: bool) -> str:
    path, host = parts.path.lstrip("/"), parts.netloc.rpartition("@")[2]
    return f"{host}/{path}" if with_host and host else path


def _host_of(parts: SplitResult) -> str:
    """Host and port, without user and password."""
    return parts.netloc.rpartition("@")[2].lower()
