"""Flags, configuration fields and feature gates that the real programs accept, by minor.

accepted-flags.tsv   component, flag, since, until: from the programs' own --help (etcd: from its
                     source code, by etcd's own minors)
accepted-fields.tsv  component, API version (the scheduler's only), field, type, since, until: from
                     the Go types of each minor's release branch. Fields of a list's items are below
                     the list. `a.*` is a map with free keys, or a type whose fields are in the
                     column `type` (bundler/cluster/field_types.py has its syntax). Docker's,
                     by its own minors, are from moby's tags 17.03 to 29.1
feature-gates.tsv    gate, since, until, the minor from which its value is locked, and that value

Two tables are read by tests only:

deprecated-flags.tsv component, flag, since, successor: a flag, or a field of the configuration
                     file; only flags with a successor, as the programs themselves name it
apis.tsv             group/version, kind, since, until

`since` is the first minor that has it, `until` the first one that no longer has it. Empty: open.
"""

from dataclasses import dataclass
from functools import cache

from bundler.catalog import read_table
from bundler.cluster.components import key_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A feature gate, and the minor from which its value is locked."""

    gate: str
    since: str
    until: str
    locked: str
    value: str


@cache
def accepted_flags(component: str, minor: str) -> frozenset[str]:
    """Every flag that the program of that minor accepts; empty if no table lists them."""
    return frozenset(
        row["flag"]
        for row in read_table("accepted-flags.tsv")
        if row["component"] == component and is_within(row["since"], row["until"], minor)
    )


@cache
def accepted_fields(component: str, minor: str, api: str = "") -> frozenset[str]:
    """Every field of its configuration file, dotted; empty if no table lists them."""
    return frozenset(
        row["field"]
        for row in read_table("accepted-fields.tsv")
        if (row["component"], row["api"]) == (component, api)
        and is_within(row["since"], row["until"], minor)
    )


@cache
def field_types(component: str, minor: str, api: str = "") -> dict[str, str]:
    """Every field of its configuration file, dotted and without `.*` → its type."""
    return {
        row["field"].removesuffix(".*"): row["type"]
        for row in read_table("accepted-fields.tsv")
        if (row["component"], row["api"]) == (component, api)
        and is_within(row["since"], row["until"], minor)
    }


def is_accepted_field(accepted: frozenset[str], path: tuple[str, ...]) -> bool:
    """Whether a field is accepted, has accepted fields below it, or is in a map with free keys.

    No field has a dot in its own name: `logging.format` as one key is not `format` in `logging`.
    """
    dotted = [".".join(path[: length + 1]) for length in range(len(path))]
    with_dot = next((index for index, name in enumerate(path) if "." in name), None)
    if with_dot is not None:
        return any(f"{above}.*" in accepted for above in dotted[:with_dot])
    return (
        dotted[-1] in accepted
        or any(f"{above}.*" in accepted for above in dotted)
        or any(name.startswith(f"{dotted[-1]}.") for name in accepted)
    )


@cache
def known_gates(minor: str) -> dict[str, Gate]:
    """The feature gates of a minor, by name."""
    gates = (Gate(**row) for row in read_table("feature-gates.tsv"))
    return {gate.gate: gate for gate in gates if is_within(gate.since, gate.until, minor)}


def is_within(since: str | None, until: str | None, minor: str) -> bool:
    """Whether the minor is in the span; an empty or missing end is open."""
    return (not since or key_of(since) <= key_of(minor)) and (
        not until or key_of(minor) < key_of(until)
    )
