"""`bundler help`: the complete help of a command."""

from typing import Annotated

import typer

from bundler import log
from bundler.cli.lazy import ExamplesCommand, LazyCommand
from bundler.errors import ConfigError


def help_command(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[COMMAND]...", help="A command, such as `certs renew`."),
    ] = None,
) -> None:
    """Show everything about a command; --help shows at most 60 lines.

    docs/reference/cli.md has the same text for all commands.
    """
    root = ctx.parent
    assert root is not None  # noqa: S101 - the context of `bundler` itself
    command, inner = root.command, root
    for number, word in enumerate(words or (), 1):
        found = getattr(command, "commands", {}).get(word)
        if not found:
            given = " ".join((words or [])[:number])
            raise ConfigError(f"{given}: no such command", hint="bundler --help lists them")
        command = found.load() if isinstance(found, LazyCommand) else found
        inner = type(root)(command, info_name=word, parent=inner)
    if isinstance(command, ExamplesCommand):
        log.result(command.get_full_help(inner))
    else:
        log.result(command.get_help(inner))
