"""What the user sees while it works: everything on stderr, so that stdout can be piped."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

_console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
_quiet = False


def set_quiet(quiet: bool) -> None:
    """Leave out everything but warnings and errors."""
    global _quiet  # noqa: PLW0603 - one process, one terminal
    _quiet = quiet


def is_quiet() -> bool:
    """Whether only warnings and errors are shown."""
    return _quiet


def is_terminal() -> bool:
    """Whether stderr is a terminal."""
    return _console.is_terminal


def console() -> Console:
    """The console on stderr, for progress bars."""
    return _console


def info(text: str) -> None:
    """One line of progress."""
    if not _quiet:
        _console.print(text)


def warning(text: str) -> None:
    """One line that the user should act on some day."""
    _console.print(f"warning: {text}", style="yellow")


def error(text: str, hint: str | None = None) -> None:
    """The reason for giving up, and the fix."""
    _console.print(f"error: {text}", style="red")
    if hint:
        _console.print(f"  fix: {hint}")
    sys.stderr.flush()


@contextmanager
def step(text: str) -> Iterator[None]:
    """Say what is being done, and at the end how long it took."""
    started = time.monotonic()
    info(f"• {text}")
    yield
    taken = time.monotonic() - started
    if taken >= 1:
        info(f"  {taken:.1f} s")
