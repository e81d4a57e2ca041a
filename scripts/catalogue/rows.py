"""Rows of the catalog, changed so that they say of one minor what its sources say."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bundler.cluster.accepted import is_within
from bundler.cluster.components import key_of

Row = dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of the catalog, and its columns besides since and until."""

    name: str
    key: tuple[str, ...]
    value: tuple[str, ...] = ()
    """Another value is another row: it starts where the earlier one ends."""


TABLES = {
    "flags": Table(name="accepted-flags.tsv", key=("component", "flag")),
    "fields": Table(name="accepted-fields.tsv", key=("component", "api", "field"), value=("type",)),
    "gates": Table(name="feature-gates.tsv", key=("gate",)),
    "apis": Table(name="apis.tsv", key=("api", "kind")),
}


def update_rows(
    table: Table,
    rows: Iterable[Row],
    seen: Iterable[Sequence[str]],
    minor: str,
    minors: Sequence[str],
) -> list[Row]:
    """Return the rows with the spans that make them hold in the minor exactly if they were seen.

    `rows` are those that the sources say something about, `seen` the key and value of each row
    that the minor has, and `minors` all supported ones, the minor included. A name that several
    spans hold for gets a row for each.
    """
    columns = (*table.key, *table.value)
    present = {tuple(one) for one in seen}
    former: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        former.setdefault(tuple(row[column] for column in columns), []).append(row)
    result: list[Row] = []
    for identity in sorted(former.keys() | present):
        spans = former.get(identity, [])
        held = {m for m in minors for row in spans if is_within(row["since"], row["until"], m)}
        is_right = (minor in held) == (identity in present)
        if is_right:
            result += spans
            continue
        held ^= {minor}
        names = dict(zip(columns, identity, strict=True))
        for since, until in _spans(held, minors, spans):
            extra = next((row for row in spans if row["until"] == until), {})
            rest = {key: value for key, value in extra.items() if key not in names}
            result.append({**names, **rest, "since": since, "until": until})
    return sort_rows(table, result)


def sort_rows(table: Table, rows: Iterable[Row]) -> list[Row]:
    """Return rows in the order of the table: by key, then by first minor."""
    return sorted(rows, key=lambda row: ([row[one] for one in table.key], _minor_key(row["since"])))


def _minor_key(minor: str) -> tuple[int, ...]:
    return tuple(map(int, minor.split("."))) if minor else ()


def _spans(
    held: set[str], minors: Sequence[str], former: Sequence[Row]
) -> Iterator[tuple[str, str]]:
    """Yield since and until of each run of minors; an end after the last minor is kept."""
    later = [row["until"] for row in former if row["until"] and row["until"] not in minors]
    later = [until for until in later if key_of(until) > key_of(minors[-1])]
    runs: list[list[str]] = []
    for index, minor in enumerate(minors):
        if minor in held:
            if index and minors[index - 1] in held:
                runs[-1].append(minor)
            else:
                runs.append([minor])
    for run in runs:
        after = minors.index(run[-1]) + 1
        since = "" if run[0] == minors[0] else run[0]
        end = minors[after] if after < len(minors) else next(iter(later), "")
        yield since, end


def lock_gates(
    rows: Iterable[Row], locked: Mapping[str, str], minor: str, minors: Sequence[str]
) -> list[Row]:
    """Return the gates' rows with the first minor in which the value is locked.

    `locked` are the gates that the minor locks, with their value.
    """
    result = []
    for row in rows:
        gate = {"locked": "", "value": "", **row}
        if is_within(gate["since"], gate["until"], minor):
            is_locked = bool(gate["locked"]) and is_within(gate["locked"], None, minor)
            value = locked.get(gate["gate"])
            if value is not None and (not is_locked or gate["value"] != value):
                gate |= {"locked": minor, "value": value}
            elif not value and is_locked:
                after = minors[minors.index(minor) + 1 :]
                first = next((m for m in after if is_within(gate["since"], gate["until"], m)), "")
                gate |= {"locked": first, "value": gate["value"] if first else ""}
        result.append(gate)
    return result


def write_rows(columns: Sequence[str], rows: Iterable[Row]) -> str:
    """Return a table's text."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, delimiter="\t", lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
