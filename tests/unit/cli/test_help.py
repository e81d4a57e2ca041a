"""Help: in panels, at most 60 lines at 80 columns; `bundler help` shows everything."""

import inspect
import re

import pytest
from support.command import run_bundler

from bundler.cli.commands import COMMANDS, PANELS
from bundler.cli.lazy import CommandRow, LazyCommand
from bundler.cli.panels import LINES, OPTION_PANELS

NAMES = [
    "",
    *COMMANDS,
    *(f"{name} {inner}" for name, row in COMMANDS.items() if not isinstance(row, CommandRow) for inner in row.commands),
]  # fmt: skip
SHORT = {"COLUMNS": "80", "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}


def help_of(name: str) -> str:
    return run_bundler([*name.split(), "--help"], text=True, env=SHORT, check=True).stdout


@pytest.mark.parametrize("name", NAMES)
def test_help_fits_on_a_screen(name: str) -> None:
    lines = help_of(name).splitlines()
    assert len(lines) <= LINES
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("name", [name for name in NAMES if name])
def test_every_option_is_in_the_short_help_and_every_word_in_the_long_one(name: str) -> None:
    short = help_of(name)
    done = run_bundler(["help", *name.split()], text=True, env=SHORT, check=True)
    full = " ".join(done.stdout.split())
    row = COMMANDS[name.split(maxsplit=1)[0]]
    for inner in name.split()[1:]:
        row = row.commands[inner]  # type: ignore[union-attr]
    if not isinstance(row, CommandRow):
        return
    command = LazyCommand(name.rsplit(maxsplit=1)[-1], row).load()
    for word in inspect.cleandoc(command.help or "").split():
        assert word in full
    for parameter in command.params:
        if parameter.param_type_name == "option" and not parameter.hidden:
            assert all(option in short for option in parameter.opts), parameter.opts
            assert "".join((parameter.help or "").split()) in "".join(full.split())
    if len(short.splitlines()) < len(done.stdout.splitlines()):
        assert f"bundler help {name}" in short


def test_options_are_in_panels() -> None:
    text = help_of("build")
    assert re.findall(r"^(\w+):$", text, re.MULTILINE) == [*OPTION_PANELS, "Examples"]


def test_every_command_is_in_one_panel() -> None:
    assert sorted(name for names in PANELS.values() for name in names) == sorted(COMMANDS)


def test_help_of_an_unknown_command_says_where_the_list_is() -> None:
    done = run_bundler(["help", "certs", "biuld"], text=True)
    assert done.returncode == 2
    assert "certs biuld: no such command" in done.stderr
