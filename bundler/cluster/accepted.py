"""What the real programs take: flags, configuration fields, feature gates and APIs by minor.

accepted-flags.tsv   component, flag, since, until; printed by the programs themselves (etcd: read
                     from its sources, in etcd's own minors)
deprecated-flags.tsv component, flag, since, what to take instead: a flag, or a field of its file;
                     only flags that have a successor, out of the programs' own words
accepted-fields.tsv  component, API version (the scheduler's only), field, since, until; out of the
                     Go types. Fields of a list's members stand below the list. `a.*` is a map with
                     free keys or a type not looked into: the scheduler's plugins and extenders,
                     taints, reserved memory, shutdown periods. Names only, no types of values
feature-gates.tsv    gate, since, until, the minor that locked it, and at what
apis.tsv             group/version, kind, since, until

`until` is the first minor without it; empty spans are open.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from bundler.cluster.components import key_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A feature gate, and from when on it has but one value."""

    gate: str
    since: str
    until: str
    locked: str
    value: str


@cache
def accepted_flags(component: str, minor: str) -> frozenset[str]:
    """Every flag that the program of that minor takes; empty where no table lists them."""
    return frozenset(
        row["flag"]
        for row in _read("accepted-flags.tsv")
        if row["component"] == component and is_within(row["since"], row["until"], minor)
    )


@cache
def deprecated_flags(component: str, minor: str) -> dict[str, str]:
    """Flags that a successor has replaced by that minor: the successor, by flag."""
    return {
        row["flag"]: row["successor"]
        for row in _read("deprecated-flags.tsv")
        if row["component"] == component and is_within(row["since"], None, minor)
    }


@cache
def accepted_fields(component: str, minor: str, api: str = "") -> frozenset[str]:
    """Every field of its configuration file, dotted; empty where no table lists them."""
    return frozenset(
        row["field"]
        for row in _read("accepted-fields.tsv")
        if (row["component"], row["api"]) == (component, api)
        and is_within(row["since"], row["until"], minor)
    )


def takes_field(accepted: frozenset[str], path: tuple[str, ...]) -> bool:
    """Whether a field, or what may stand below one, is among the accepted."""
    dotted = [".".join(path[: length + 1]) for length in range(len(path))]
    return (
        dotted[-1] in accepted
        or any(f"{above}.*" in accepted for above in dotted)
        or any(name.startswith(f"{dotted[-1]}.") for name in accepted)
    )


@cache
def known_gates(minor: str) -> dict[str, Gate]:
    """The feature gates of a minor, by name."""
    gates = (Gate(**row) for row in _read("feature-gates.tsv"))
    return {gate.gate: gate for gate in gates if is_within(gate.since, gate.until, minor)}


@cache
def served_apis(minor: str) -> frozenset[tuple[str, str]]:
    """(group/version, kind) that a minor's API server serves or reads."""
    return frozenset(
        (row["api"], row["kind"])
        for row in _read("apis.tsv")
        if is_within(row["since"], row["until"], minor)
    )


def is_within(since: str | None, until: str | None, minor: str) -> bool:
    """Whether the minor is in the span; what is None or empty is open."""
    return (not since or key_of(since) <= key_of(minor)) and (
        not until or key_of(minor) < key_of(until)
    )


def _read(name: str) -> Iterator[dict[str, str]]:
    text = (files("bundler.catalog") / name).read_text(encoding="utf-8")
    yield from csv.DictReader(text.splitlines(), delimiter="\t")
