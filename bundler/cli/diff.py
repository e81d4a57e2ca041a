"""`bundler diff`: prints changes in words or as JSON, with diff(1)'s exit codes."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from bundler import log
from bundler.errors import BundlerError
from bundler.upgrade.change import BundleChange, ChangeKind
from bundler.upgrade.diff import Pair, compare_pair, pair_bundles

DIFFER, FAULT = 1, 2
SIGNS = {ChangeKind.ADDED: "+", ChangeKind.REMOVED: "-", ChangeKind.CHANGED: "~"}


def diff_command(
    before: Annotated[Path, typer.Argument(metavar="A", help="A tarball, or a dist directory.")],
    after: Annotated[Path, typer.Argument(metavar="B", help="Another.")],
    text: Annotated[
        bool,
        typer.Option("--text", help="Show the lines of text files that differ, secrets masked."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Say what differs between two bundles, or two directories of them.

    That is: versions and other facts, components, images, files with mode and size. Of files that
    hold secrets it is only said that they differ. Each bundle must be what its manifest says.

    Exit codes as of diff(1): 0 the same bytes, 1 different, 2 fault.
    """
    try:
        found = []
        for pair in pair_bundles(before, after):
            changes = compare_pair(pair, text=text)
            found.append((pair, changes))
            if not as_json:
                print("\n".join(map(_printable, _tell(pair, changes))))
    except BundlerError as error:
        log.error(error.message, error.hint)
        raise typer.Exit(FAULT) from error
    if as_json:
        print(json.dumps([_as_data(pair, changes) for pair, changes in found], indent=2))
    if any(changes for _, changes in found):
        raise typer.Exit(DIFFER)


def _tell(pair: Pair, changes: tuple[BundleChange, ...]) -> Iterator[str]:
    """A heading for the pair, one for each section, and a line for each change."""
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


def _printable(line: str) -> str:
    """Without what a terminal would obey: what is compared may be anybody's."""
    return "".join(c if c.isprintable() or c == "\t" else f"\\x{ord(c):02x}" for c in line)


def _as_data(pair: Pair, changes: tuple[BundleChange, ...]) -> dict[str, object]:
    return {
        "name": pair.name,
        "same": not changes,
        "changes": [dataclasses.asdict(change) for change in changes],
    }
