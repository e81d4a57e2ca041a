"""What the user's `extra` may say: nothing that the plan decides, nothing that no program knows.

The kubelet and kube-proxy only warn about fields that they do not know: the builder refuses them.
"""

import difflib
from collections.abc import Iterator, Mapping

from bundler.accepted import accepted_fields, accepted_flags, is_within, known_gates, takes_field
from bundler.checks import Problem
from bundler.components import EXTRA_COMPONENTS, MINORS, minor_of
from bundler.config import Cluster, FlagValue
from bundler.settings import list_fields, list_flags, version_of

GATES_FLAG, GATES_FIELD = "feature-gates", "featureGates"


def check_extra(cluster: Cluster) -> Iterator[Problem]:
    """Every flag or field of `extra` that clashes with the plan, or that no program knows."""
    if minor_of(cluster.kubernetes.version) not in MINORS:
        return
    for component, extra in cluster.extra.items():
        if component not in EXTRA_COMPONENTS:
            continue
        minor = minor_of(version_of(cluster, component))
        yield from _check_flags(component, extra.flags, minor)
        if EXTRA_COMPONENTS[component].has_config:
            yield from _check_fields(component, extra.config, minor)


def _check_flags(component: str, flags: Mapping[str, FlagValue], minor: str) -> Iterator[Problem]:
    rows = list_flags(component)
    fixed = {row.flag for row in rows if row.fixed and is_within(row.since, row.until, minor)}
    known = accepted_flags(component, minor)
    for flag, value in flags.items():
        where = ("extra", component, "flags", flag)
        if flag in fixed:
            yield Problem(path=where, text="follows from the plan, and cannot be set here")
        elif known and flag not in known:
            text = f"{component} {minor} knows no --{flag}{_suggest(flag, known)}"
            yield Problem(path=where, text=text + _name_minors(flag, component, "flag"))
        elif flag == GATES_FLAG and known:
            gates = (part.partition("=") for part in str(value).split(","))
            pairs = {gate: text.lower() for gate, _, text in gates}
            yield from _check_gates(where, pairs, minor)


def _check_fields(component: str, config: Mapping[str, object], minor: str) -> Iterator[Problem]:
    rows = list_fields(component, minor)
    fixed = [name for row in rows for name in row.get("fixed", ())]
    versions = [row["fields"]["apiVersion"] for row in rows if "apiVersion" in row["fields"]]
    api = versions[-1].rpartition("/")[2] if component == "kube-scheduler" else ""
    known = accepted_fields(component, minor, api)
    for path in _leaves(config):
        dotted = ".".join(path)
        where = ("extra", component, "config", *path)
        if any(dotted == name or dotted.startswith(f"{name}.") for name in fixed):
            yield Problem(path=where, text="follows from the plan, and cannot be set here")
        elif known and not takes_field(known, path):
            text = f"{component} {minor} knows no field {dotted}{_suggest(dotted, known)}"
            yield Problem(path=where, text=text + _name_minors(dotted, component, "field", api))
    gates = config.get(GATES_FIELD)
    if known and isinstance(gates, dict):
        pairs = {str(gate): str(value).lower() for gate, value in gates.items()}
        yield from _check_gates(("extra", component, "config", GATES_FIELD), pairs, minor)


def _check_gates(where: tuple[str, ...], pairs: Mapping[str, str], minor: str) -> Iterator[Problem]:
    known = known_gates(minor)
    for name, value in pairs.items():
        if name in {"AllAlpha", "AllBeta"}:
            continue
        gate = known.get(name)
        if gate is None:
            text = f"Kubernetes {minor} has no feature gate {name}{_suggest(name, known)}"
            yield Problem(path=where, text=text)
        elif gate.locked and is_within(gate.locked, None, minor) and value != gate.value:
            text = f"{name} is locked at {gate.value} from {gate.locked} on: leave it out"
            yield Problem(path=where, text=text)


def _suggest(name: str, known: Mapping[str, object] | frozenset[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def _name_minors(name: str, component: str, kind: str, api: str = "") -> str:
    """In which minors it is known, where it is in some."""

    def is_known(minor: str) -> bool:
        if kind == "flag":
            return name in accepted_flags(component, minor)
        return name in accepted_fields(component, minor, api)

    minors = [minor for minor in MINORS if is_known(minor)]
    return f"; {minors[0]} to {minors[-1]} have it" if minors else ""


def _leaves(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, str(key)))
    elif path:
        yield path
