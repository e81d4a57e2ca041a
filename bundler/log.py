"""What the user sees: results on stdout, messages on stderr, so that stdout can be piped.

Text from bundles, registries and files of others may be in it, so control characters are escaped.
URLs are shown without user, password and query.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bundler.urls import hide_secrets

if TYPE_CHECKING:
    from rich.console import Console

WARNING = "warning: "

_console: "Console | None" = None
_quiet = False
_verbose = False
_collected: list[str] | None = None  # warnings of a command that prints them itself


def set_quiet(quiet: bool) -> None:
    """Show only warnings and errors."""
    global _quiet  # noqa: PLW0603 - one process, one terminal
    _quiet = quiet


def set_verbose(verbose: bool) -> None:
    """Show also details: which source, which file of the cache, how long."""
    global _verbose  # noqa: PLW0603 - one process, one terminal
    _verbose = verbose


@contextmanager
def collect_warnings(into: list[str]) -> Iterator[None]:
    """Append warnings to a list instead of showing them."""
    global _collected  # noqa: PLW0603 - one process, one terminal
    _collected = into
    try:
        yield
    finally:
        _collected = None


def is_quiet() -> bool:
    """Whether only warnings and errors are shown."""
    return _quiet


def is_terminal() -> bool:
    """Whether stderr is a terminal."""
    return console().is_terminal


def console() -> "Console":
    """Return the console on stderr. It is made on first use, because rich is slow to import."""
    global _console  # noqa: PLW0603 - one process, one terminal
    if not _console:
        from rich.console import Console  # noqa: PLC0415

        _console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    return _console


def result(text: str = "", *, end: str = "\n") -> None:
    """Print a result of the command on stdout."""
    print(make_printable(hide_secrets(text), keep="\t\n"), end=end)  # noqa: T201 - the only place that prints


def info(text: str) -> None:
    """Show a line of progress."""
    if not _quiet:
        _print(text)


def detail(text: str) -> None:
    """Show a detail, with --verbose."""
    if _verbose:
        _print(f"    {text}", style="dim")


def warning(text: str) -> None:
    """Show something that the user should fix, but that does not stop the command."""
    if _collected is not None:
        _collected.append(text)
        return
    _print(f"{WARNING}{text}", style="yellow")


def note(text: str, indent: str = "") -> None:
    """Show a line that is a warning if it starts with `warning: `."""
    if text.startswith(WARNING):
        warning(text.removeprefix(WARNING))
    else:
        info(f"{indent}{text}")


def error(text: str, hint: str | None = None) -> None:
    """Show why the command fails, and the fix."""
    _print(f"error: {text}", style="red")
    if hint:
        _print(f"  fix: {hint}")
    sys.stderr.flush()


@contextmanager
def step(text: str) -> Iterator[None]:
    """Show what is done now, and at its end how long it took."""
    started = time.monotonic()
    info(f"• {text}")
    yield
    taken = time.monotonic() - started
    if taken >= 1 or _verbose:
        info(f"  {taken:.1f} s")


def make_printable(text: str, *, keep: str = "") -> str:
    """Escape what could control a terminal or forge a line: control and invisible characters."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escape(c) for c in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _print(text: str, style: str | None = None) -> None:
    console().print(make_printable(hide_secrets(text), keep="\t\n"), style=style)
