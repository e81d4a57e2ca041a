"""`bundler state …`: export and import of the state directory."""

from pathlib import Path
from typing import Annotated

import typer

from bundler import log
from bundler.cli.options import CLUSTER_YAML, Description, State, ask_secret
from bundler.cluster.loader import read_cluster_name
from bundler.errors import ConfigError
from bundler.paths import default_state
from bundler.state.archive import export_state, import_state
from bundler.state.directory import check_is_state
from bundler.state.state_id import SHOWN, read_state_id

PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        help="Read the passphrase from the first line of this file. Default: ask for it.",
    ),
]


def export_command(
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.")],
    passphrase_file: PassphraseFile = None,
    config: Description = CLUSTER_YAML,
    state: State = None,
) -> None:
    """Write the state directory into one file, encrypted with a passphrase.

    Without the state directory you cannot add a node, renew a certificate or rebuild a bundle. Keep
    the file and the passphrase in different places: see docs/guides/backup.md.
    """
    directory = _find_state(config, state)
    check_is_state(directory)
    passphrase = ask_secret(passphrase_file, "Passphrase", confirm=True)
    count = export_state(directory, output, passphrase)
    log.info(f"{output}: {count} files of {_describe(directory)}, encrypted")


def import_command(
    file: Annotated[Path, typer.Argument(help="A file that `bundler state export` wrote.")],
    passphrase_file: PassphraseFile = None,
    config: Description = CLUSTER_YAML,
    state: State = None,
) -> None:
    """Restore the state directory from an exported file.

    An existing state directory is never overwritten.
    """
    directory = _find_state(config, state)
    count = import_state(file, directory, ask_secret(passphrase_file, "Passphrase"))
    log.info(f"{directory}: {count} files of {_describe(directory)}")


def _describe(directory: Path) -> str:
    """Name a state by its id, which cluster.lock.yaml and bundles record."""
    return f"state {(read_state_id(directory) or 'without keys')[:SHOWN]}"


def _find_state(config: Path, state: Path | None) -> Path:
    """Find the state directory; of cluster.yaml only the name is needed, and without --state."""
    if state:
        return state
    try:
        return default_state(config, read_cluster_name(config))
    except ConfigError as error:
        raise ConfigError(
            error.message, hint="correct it, or name the state directory itself: --state DIR"
        ) from error
