"""`bundler state …`: the crown jewel, carried and kept safe."""

from pathlib import Path
from typing import Annotated

import typer

from bundler import log
from bundler.cli.options import (
    CLUSTER_YAML,
    Description,
    Pins,
    State,
    make_inputs,
)
from bundler.errors import ConfigError
from bundler.project import check
from bundler.state.archive import export_state, import_state

app = typer.Typer(
    no_args_is_help=True,
    help="The state directory (keys, certificates, tokens): **back it up**, encrypted.",
)

PassphraseFile = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help="Its first line is the passphrase; else it is asked."),
]


@app.command("export")
def export_command(
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.")],
    passphrase_file: PassphraseFile = None,
    config: Description = CLUSTER_YAML,
    pins: Pins = None,
    state: State = None,
) -> None:
    """Write the state directory as one file, encrypted with a passphrase.

    Without the state no node can be added, no certificate renewed and no bundle rebuilt: see
    docs/guides/backup.md. Keep the file and the passphrase apart.
    """
    directory = _find_state(config, pins, state)
    count = export_state(directory, output, _ask(passphrase_file, confirm=True))
    log.info(f"{output}: {count} files of {directory}, encrypted")


@app.command("import")
def import_command(
    file: Annotated[Path, typer.Argument(help="What `state export` wrote.")],
    passphrase_file: PassphraseFile = None,
    config: Description = CLUSTER_YAML,
    pins: Pins = None,
    state: State = None,
) -> None:
    """Make the state directory out of an exported file; one that exists is never overwritten."""
    directory = _find_state(config, pins, state)
    count = import_state(file, directory, _ask(passphrase_file, confirm=False))
    log.info(f"{directory}: {count} files")


def _find_state(config: Path, pins: Path | None, state: Path | None) -> Path:
    """Where --state says; else beside the description, by the cluster's name."""
    return state or check(make_inputs(config, pins=pins)).state_path


def _ask(file: Path | None, *, confirm: bool) -> str:
    if file is None:
        return str(
            typer.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm, err=True)
        )
    try:
        return file.read_text(encoding="utf-8").partition("\n")[0]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read as text") from error
