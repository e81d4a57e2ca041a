"""`bundler diff`: the changes as text or JSON, with the exit codes of diff(1)."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from bundler import log
from bundler.cli.json_output import Value, print_json
from bundler.cli.options import Json
from bundler.errors import BundlerError
from bundler.upgrade.change import BundleChange, ChangeKind
from bundler.upgrade.diff import Pair, compare_pair, pair_bundles

DIFFERENT, FAILED = 1, 2
SIGNS = {ChangeKind.ADDED: "+", ChangeKind.REMOVED: "-", ChangeKind.CHANGED: "~"}


def diff_command(
    before: Annotated[
        Path, typer.Argument(metavar="A", help="A tarball, or a directory of bundles.")
    ],
    after: Annotated[Path, typer.Argument(metavar="B", help="The one to compare it with.")],
    text: Annotated[
        bool,
        typer.Option("--text", help="Show the changed lines of text files; secrets are redacted."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Show the differences between two bundles, or two directories of bundles.

    Compares versions and other facts, components, images, and all files with mode and size. For
    files with secrets it only shows that they differ. Each bundle must match its manifest.

    Exit codes, as for diff(1): 0 same bytes, 1 different, 2 error.
    """
    try:
        found = []
        for pair in pair_bundles(before, after):
            changes = compare_pair(pair, text=text)
            found.append((pair, changes))
            if not as_json:
                for line in _format_changes(pair, changes):
                    log.result(log.make_printable(line, keep="\t"))
    except BundlerError as error:
        log.error(error.message, error.hint)
        raise typer.Exit(FAILED) from error
    if as_json:
        print_json("diff", bundles=[_as_data(pair, changes) for pair, changes in found])
    if any(changes for _, changes in found):
        raise typer.Exit(DIFFERENT)


def _format_changes(pair: Pair, changes: tuple[BundleChange, ...]) -> Iterator[str]:
    """Yield a heading for the pair, one for each section, and a line for each change."""
    if not changes:
        yield f"same  {pair.name}"
        return
    yield f"{pair.name}"
    section = ""
    for change in changes:
        if change.section != section:
            section = change.section
            yield f"  {section}"
        words = " → ".join(word for word in (change.before, change.after) if word)
        yield f"    {SIGNS[change.what]} {change.name}{': ' if words else ''}{words}"
        yield from (f"        {line}" for line in change.text)


def _as_data(pair: Pair, changes: tuple[BundleChange, ...]) -> dict[str, Value]:
    return {
        "name": pair.name,
        "same": not changes,
        "changes": [dataclasses.asdict(change) for change in changes],
    }
