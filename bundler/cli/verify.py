"""`bundler verify`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from bundler.bundle.verify import Verdict, compare, verify
from bundler.cli.json_output import Value, print_json
from bundler.cli.media import print_verdicts
from bundler.cli.options import Json


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
    as_json: Json = False,
) -> None:
    """Check the bundles of a directory against SHA256SUMS and manifests.

    With --trust, SHA256SUMS and each manifest must have a signature by one of the given keys. With
    --public, every file that is not secret must match the build of a second person.

    Exit code 6 if a check fails.
    """
    show = _pass_on if as_json else print_verdicts
    verdicts = tuple(show("ok", verify(directory, tuple(trust or ()))))
    if public:
        others = tuple(show("ok", verify(public)))
        verdicts += others + tuple(show("same", compare(directory, verdicts, others)))
    is_good = not any(verdict.faults for verdict in verdicts)
    if as_json:
        print_json("verify", ok=is_good, checks=[_as_data(verdict) for verdict in verdicts])
    if not is_good:
        raise typer.Exit(6)


def _pass_on(_word: str, verdicts: Iterable[Verdict]) -> Iterable[Verdict]:
    return verdicts


def _as_data(verdict: Verdict) -> dict[str, Value]:
    return {
        "name": verdict.name,
        "ok": not verdict.faults,
        "files": verdict.files,
        "left_out": {source.value: count for source, count in sorted(verdict.elsewhere.items())},
        "faults": list(verdict.faults),
        "notes": list(verdict.notes),
    }
