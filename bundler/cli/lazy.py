"""Commands whose modules are imported when they run, so that `bundler --help` starts fast."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from bundler.cli.panels import write_help


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandRow:
    """A command: where its function is, its line in the list of commands, and examples."""

    target: str  # MODULE:FUNCTION, below bundler.cli
    help: str
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRow:
    """A group of commands, such as `bundler certs`."""

    help: str
    commands: Mapping[str, CommandRow]


class ExamplesCommand(TyperCommand):
    """A command whose help ends with examples."""

    examples: tuple[str, ...] = ()

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help in panels, shortened if it would be long."""
        write_help(self, ctx, formatter, self.examples, full=False)

    def get_full_help(self, ctx: Any) -> str:
        """Return the help with everything."""
        formatter = ctx.make_formatter()
        write_help(self, ctx, formatter, self.examples, full=True)
        return str(formatter.getvalue()).rstrip("\n")


class LazyCommand(TyperCommand):
    """Stands for a command in a list; loads it as soon as its arguments are parsed."""

    def __init__(self, name: str, row: CommandRow) -> None:
        super().__init__(name, help=row.help, short_help=row.help, rich_markup_mode=None)
        self._row = row

    def load(self) -> TyperCommand:
        """Import the module and make the real command."""
        module, _, function = self._row.target.partition(":")
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command(self.name, cls=ExamplesCommand)(
            getattr(import_module(f"bundler.cli.{module}"), function)
        )
        command = typer.main.get_command(app)
        assert isinstance(command, ExamplesCommand)  # noqa: S101 - the class that was given above
        command.examples = self._row.examples
        return command

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        """Parse the arguments with the real command, which the context then belongs to."""
        return self.load().make_context(info_name, args, parent, **extra)


def make_commands(
    rows: Mapping[str, CommandRow | GroupRow],
) -> dict[str, LazyCommand | TyperGroup]:
    """Make the commands and groups of a table."""
    return {
        name: LazyCommand(name, row)
        if isinstance(row, CommandRow)
        else TyperGroup(
            name=name,
            help=row.help,
            short_help=row.help,
            commands=make_commands(row.commands),  # type: ignore[arg-type]
            no_args_is_help=True,
            rich_markup_mode=None,
        )
        for name, row in rows.items()
    }
