"""The command line starts fast: a command imports only what it uses."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.small_builds import make_site
from typer.core import TyperGroup
from typer.main import get_command

from bundler.cli.app import app
from bundler.cli.commands import COMMANDS
from bundler.cli.lazy import CommandRow, LazyCommand

LIST_MODULES = """
import json, sys
from bundler.cli.app import main
sys.argv[0] = "bundler"
try:
    main()
finally:
    sys.stdout.flush()
    print("\\n" + json.dumps(sorted(sys.modules)))
"""
HEAVY = {"cryptography", "cyclonedx", "pysequoia", "requests", "sigstore", "urllib3"}
RENDERING = {"jinja2", "rich", "yaml", "bundler.cluster"}


def list_modules(*arguments: str) -> set[str]:
    """Run the command line; the modules that it imported."""
    done = subprocess.run(
        [sys.executable, "-c", LIST_MODULES, *arguments],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["certs", "--help"]])
def test_version_and_help_import_no_heavy_library(arguments: list[str]) -> None:
    assert list_modules(*arguments).isdisjoint(HEAVY | RENDERING)


@pytest.mark.slow
def test_check_imports_no_library_for_downloads_or_certificates(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    arguments = ("check", "-c", str(tmp_path / "cluster.yaml"), "--pins", str(site.inputs.pins))
    assert list_modules(*arguments).isdisjoint(HEAVY)


def list_rows() -> list[tuple[str, CommandRow]]:
    return [
        (f"{name} {inner}".strip(), row)
        for name, outer in COMMANDS.items()
        for inner, row in (
            {"": outer} if isinstance(outer, CommandRow) else dict(outer.commands)
        ).items()
    ]


@pytest.mark.parametrize(("name", "row"), list_rows(), ids=[name for name, _ in list_rows()])
def test_the_list_of_commands_has_the_first_sentence_of_each_help(
    name: str, row: CommandRow
) -> None:
    command = LazyCommand(name.rsplit(maxsplit=1)[-1], row).load()
    assert (command.help or "").partition("\n\n")[0].replace("\n", " ") == row.help


@pytest.mark.parametrize(("name", "row"), list_rows(), ids=[name for name, _ in list_rows()])
def test_the_examples_of_a_command_are_valid_command_lines(name: str, row: CommandRow) -> None:
    for example in row.examples:
        words = example.split(" > ")[0].split()[1:]
        command: object = get_command(app)
        while isinstance(command, TyperGroup):
            command = command.commands[words.pop(0)]
        assert isinstance(command, LazyCommand)
        with command.load().make_context("x", words):
            pass


@pytest.mark.parametrize(
    ("words", "expected"), [("bundler ce", "certs"), ("bundler certs re", "renew")]
)
def test_the_shell_completes_commands(words: str, expected: str) -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "bundler"],
        env={
            "_BUNDLER_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
            "PATH": "/usr/bin:/bin",
        },
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert expected in done.stdout.split(), done.stderr


@pytest.mark.slow
def test_the_shell_completes_options() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "bundler"],
        env={
            "_BUNDLER_COMPLETE": "complete_bash",
            "COMP_WORDS": "bundler build --lay",
            "COMP_CWORD": "2",
            "PATH": "/usr/bin:/bin",
        },
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "--layout" in done.stdout.split(), done.stderr
