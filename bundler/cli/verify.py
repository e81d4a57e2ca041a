"""`bundler verify`."""

from pathlib import Path
from typing import Annotated

import typer

from bundler.bundle.verify import compare, verify
from bundler.cli.media import print_verdicts


def verify_command(
    directory: Annotated[Path, typer.Argument(help="A directory that `bundler build` wrote.")],
    trust: Annotated[
        list[Path] | None,
        typer.Option(
            "--trust",
            help="Require a signature by this public key. May be repeated: any of them will do.",
            metavar="PUB",
        ),
    ] = None,
    public: Annotated[
        Path | None,
        typer.Option(
            "--public",
            help="Compare with a directory that `bundler build --public-only` wrote.",
            metavar="DIR",
        ),
    ] = None,
) -> None:
    """Check all bundles of a directory against SHA256SUMS and their manifests.

    With --trust, SHA256SUMS and each manifest must have a signature by one of the given keys. With
    --public, every file that is not secret must match the build of a second person.

    Exit code 6 if a check fails.
    """
    verdicts = tuple(print_verdicts("ok", verify(directory, tuple(trust or ()))))
    if public:
        others = tuple(print_verdicts("ok", verify(public)))
        verdicts += others + tuple(print_verdicts("same", compare(directory, verdicts, others)))
    if any(verdict.faults for verdict in verdicts):
        raise typer.Exit(6)
