"""Compare the catalog with the sources of a Kubernetes minor, and show or write the changes.

    python -m scripts.catalogue MINOR SOURCE [--revision REVISION] [--write]

SOURCE is a directory, a tar archive or a git directory. Exit code 0: the rows are shown (or
written); 2: the source cannot be read. What could not be read from the source is named on stderr:
look at it before the rows are taken over.
"""

import argparse
import difflib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from bundler.catalog import read_table
from bundler.cluster.accepted import is_within, known_gates
from bundler.cluster.components import MINORS
from bundler.errors import BundlerError
from scripts.catalogue.apis import read_apis
from scripts.catalogue.explained import find_reason
from scripts.catalogue.fields import FILES, Key, read_fields
from scripts.catalogue.flags import COMMANDS, read_flags
from scripts.catalogue.gates import Gate, read_gates
from scripts.catalogue.golang import Go
from scripts.catalogue.rows import (
    TABLES,
    Row,
    Table,
    lock_gates,
    sort_rows,
    update_rows,
    write_rows,
)
from scripts.catalogue.source import open_source

CATALOG = Path(__file__).parents[2] / "bundler" / "catalog"


def main() -> int:
    """Show the rows that the sources of a minor change."""
    parser = argparse.ArgumentParser(prog="make catalogue")
    parser.add_argument("minor", help="1.38")
    parser.add_argument("source", type=Path, help="directory, tar archive or git directory")
    parser.add_argument("--revision", default="", help="commit, branch or tag of a git directory")
    parser.add_argument("--write", action="store_true", help="write the rows into the catalog")
    options = parser.parse_args()
    try:
        minors = list_minors(options.minor)
        go = Go(open_source(options.source, options.revision, options.minor))
        gates = read_gates(go, options.minor)
        texts = make_tables(go, options.minor, minors, gates)
    except BundlerError as error:
        print(f"catalogue: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"catalogue: fix: {error.hint}", file=sys.stderr)
        return 2
    changed = {name: text for name, text in texts.items() if text != _read(name)}
    for name, text in sorted(changed.items()):
        sys.stdout.writelines(_diff(name, text))
        if options.write:
            (CATALOG / name).write_text(text, encoding="utf-8")
    for name in sorted(gates.keys() - known_gates(options.minor).keys()):
        if not find_reason(TABLES["gates"].name, (name,), options.minor):
            print(f"# {name}: {gates[name].describe()}")
    print(f"catalogue: {len(changed)} of {len(texts)} tables change", file=sys.stderr)
    if go.unread:
        print("catalogue: not read from the source; look at each:", file=sys.stderr)
        print(*(f"  {place}" for place in sorted(go.unread)), sep="\n", file=sys.stderr)
    return 0


def list_minors(minor: str) -> tuple[str, ...]:
    """Return the supported minors and the given one, which may be the one after them."""
    if minor in MINORS:
        return MINORS
    major, _, last = MINORS[-1].partition(".")
    following = f"{major}.{int(last) + 1}"
    if minor != following:
        raise BundlerError(
            f"{minor} is neither a supported minor nor the next one",
            hint=f"give one of {MINORS[0]} to {following}: minors are added in order",
        )
    return (*MINORS, minor)


def make_tables(
    go: Go, minor: str, minors: tuple[str, ...], gates: dict[str, Gate]
) -> dict[str, str]:
    """Return the text of each table, with the rows that the sources say."""
    seen: dict[str, set[tuple[str, ...]]] = {
        "flags": {(one, flag) for one in COMMANDS for flag in read_flags(go, one)},
        "fields": {(*key, kind) for key, kind in read_fields(go, _type_in_table()).items()},
        "gates": {(name,) for name in gates},
        "apis": set(read_apis(go, minor)),
    }
    subjects = {"flags": set(COMMANDS) - go.without, "fields": {*FILES, "kube-scheduler"}}
    texts = {}
    for kind, table in TABLES.items():
        every = list(read_table(table.name))
        own = [row for row in every if row.get("component", "") in subjects.get(kind, {""})]
        others = [row for row in every if row not in own]
        kept = _keep_explained(table, own, seen[kind], minor)
        rows = update_rows(table, own, kept, minor, minors)
        if kind == "gates":
            rows = lock_gates(rows, _locked(gates), minor, minors)
        texts[table.name] = write_rows(list(every[0]), sort_rows(table, [*rows, *others]))
    return texts


def _keep_explained(
    table: Table, rows: list[Row], seen: set[tuple[str, ...]], minor: str
) -> set[tuple[str, ...]]:
    """Return what was seen, but as the table has it where a difference is explained."""
    columns = (*table.key, *table.value)
    held = {
        tuple(row[column] for column in columns)
        for row in rows
        if is_within(row["since"], row["until"], minor)
    }
    explained = {one for one in held ^ seen if find_reason(table.name, one, minor)}
    return (seen - explained) | (held & explained)


def _locked(gates: dict[str, Gate]) -> dict[str, str]:
    return {name: gate.default for name, gate in gates.items() if gate.is_locked}


def _type_in_table() -> Callable[[Key], str]:
    """Return the type that the table has for a field, in its last row."""
    types = {
        (row["component"], row["api"], row["field"]): row["type"]
        for row in read_table("accepted-fields.tsv")
    }
    return lambda key: types.get(key, "")


def _read(name: str) -> str:
    return (CATALOG / name).read_text(encoding="utf-8")


def _diff(name: str, text: str) -> Iterator[str]:
    former, new = _read(name).splitlines(keepends=True), text.splitlines(keepends=True)
    yield from difflib.unified_diff(
        former, new, f"a/bundler/catalog/{name}", f"b/bundler/catalog/{name}", n=0
    )


if __name__ == "__main__":
    sys.exit(main())
