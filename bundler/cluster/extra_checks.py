"""Checks of `extra`: no flag or field that bundler sets itself or that the program does not have,
and no value of a field that the program cannot read.

The kubelet and kube-proxy only log a warning about an unknown field; bundler refuses it.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from bundler.catalog import list_versions, read_table
from bundler.cluster.accepted import (
    accepted_fields,
    accepted_flags,
    field_types,
    is_accepted_field,
    is_within,
    known_gates,
)
from bundler.cluster.components import EXTRA_COMPONENTS, MINORS, minor_of
from bundler.cluster.field_types import check_fields, check_like
from bundler.cluster.problem import Problem
from bundler.cluster.schema import Cluster, Extra
from bundler.cluster.settings import (
    OWN_MINORS,
    list_fields,
    list_flags,
    list_own_fields,
    version_of,
)
from bundler.cluster.values import FlagValue

GATES_FLAG, GATES_FIELD = "feature-gates", "featureGates"
SET_BY_BUNDLER = "bundler sets this itself, from other keys of cluster.yaml: remove it"
WITHOUT_NULL = frozenset({"containerd"})
"""Components whose configuration file is TOML."""

SET_BY_KEY = "cluster.yaml has {key}, which sets this: use that key, and remove this one"
GATES_OF_ALL = frozenset({"AllAlpha", "AllBeta"})
TRUTH = {"1": "true", "t": "true", "true": "true", "0": "false", "f": "false", "false": "false"}
"""Values of --feature-gates (Go's strconv.ParseBool), in lower case."""


def check_extra(cluster: Cluster) -> Iterator[Problem]:
    """Every flag or field of `extra` that bundler sets itself or that the program does not have."""
    if minor_of(cluster.kubernetes.version) not in MINORS:
        return
    for component, extra in cluster.extra.items():
        if component not in EXTRA_COMPONENTS:
            continue
        minor = minor_of(version_of(cluster, component))
        yield from _check_keys(cluster, component, extra)
        yield from _check_flags(component, extra.flags, minor)
        if EXTRA_COMPONENTS[component].has_config:
            yield from _check_fields(component, extra.config, minor)
            yield from _check_types(component, extra.config, minor)


def _check_keys(cluster: Cluster, component: str, extra: Extra) -> Iterator[Problem]:
    """Flags and fields that a key of cluster.yaml sets: catalog/key-settings.tsv.

    key        the key that sets it, dotted; `extra` may set it where that key is not given
    setting    `--flag`, or a field of the configuration file with everything below it
    """
    for row in read_table("key-settings.tsv"):
        if row["component"] != component or not is_given(cluster, row["key"]):
            continue
        text = SET_BY_KEY.format(key=row["key"])
        flag = row["setting"].removeprefix("--")
        if flag != row["setting"] and flag in extra.flags:
            yield Problem(path=("extra", component, "flags", flag), text=text)
        if flag == row["setting"] and flag in extra.config:
            yield Problem(path=("extra", component, "config", flag), text=text)


def is_given(cluster: Cluster, key: str) -> bool:
    """Whether cluster.yaml has a key, dotted, with another value than nothing."""
    value: object = cluster
    for name in key.split("."):
        value = getattr(value, name)
        if value in (None, (), {}):
            return False
    return True


def _check_flags(component: str, flags: Mapping[str, FlagValue], minor: str) -> Iterator[Problem]:
    rows = list_flags(component)
    fixed = {row.flag for row in rows if row.fixed and is_within(row.since, row.until, minor)}
    known = accepted_flags(component, minor)
    for flag, value in flags.items():
        where = ("extra", component, "flags", flag)
        if flag in fixed:
            yield Problem(path=where, text=SET_BY_BUNDLER)
        elif known and flag not in known:
            minors = [m for m in _minors_of(component) if flag in accepted_flags(component, m)]
            hint = _hint(flag, known, minors)
            yield Problem(path=where, text=f"{component} {minor} has no flag --{flag}{hint}")
        elif flag == GATES_FLAG and known:
            yield from _check_gates(where, _split_gates(str(value)), minor)


def _check_fields(component: str, config: Mapping[str, object], minor: str) -> Iterator[Problem]:
    fixed = [name for row in list_fields(component, minor) for name in row.get("fixed", ())]
    known = _fields_of(component, minor)
    for path, value in _leaves(config):
        names = tuple(part for part in path if isinstance(part, str))
        dotted = ".".join(names)
        where = ("extra", component, "config", *path)
        if any(dotted == name or dotted.startswith(f"{name}.") for name in fixed):
            yield Problem(path=where, text=SET_BY_BUNDLER)
        elif known and not is_accepted_field(known, names):
            minors = [
                m
                for m in _minors_of(component)
                if is_accepted_field(_fields_of(component, m), names)
            ]
            hint = _hint_mapping(names, known) or _hint(dotted, known, minors)
            yield Problem(path=where, text=f"{component} {minor} has no field {dotted}{hint}")
        elif component in WITHOUT_NULL and _has_null(value):
            yield Problem(path=where, text=f"the file of {component} has no null: remove the key")
    if GATES_FIELD in config and known and is_accepted_field(known, (GATES_FIELD,)):
        where = ("extra", component, "config", GATES_FIELD)
        gates = config[GATES_FIELD]
        if isinstance(gates, dict):
            readable = {name: value for name, value in gates.items() if isinstance(value, bool)}
            yield from _check_gates(where, readable, minor)


def _hint_mapping(names: tuple[str, ...], known: frozenset[str]) -> str:
    """How to write a key with a dot as the fields that it means; empty if it means none."""
    for index, name in enumerate(names):
        outer, dot, inner = name.partition(".")
        if dot and is_accepted_field(known, (*names[:index], outer, inner, *names[index + 1 :])):
            return f" with a dot in its name; write {outer}: {{{inner}: …}}"
    return ""


def _check_types(component: str, config: Mapping[str, object], minor: str) -> Iterator[Problem]:
    """Values that the program cannot read; fields that are refused already are left out."""
    fixed = {name for row in list_fields(component, minor) for name in row.get("fixed", ())}
    types = field_types(component, minor, api_of(component, minor))
    own = {} if types else list_own_fields(component, minor)
    faults = check_fields(config, types) if types else check_like(config, own)
    for path, text in faults:
        dotted = ".".join(part for part in path if isinstance(part, str))
        if dotted not in fixed:
            yield Problem(path=("extra", component, "config", *path), text=text)


def _check_gates(
    where: tuple[str, ...], gates: Mapping[str, object], minor: str
) -> Iterator[Problem]:
    """Feature gates that the minor does not have, with a wrong value, or locked at another."""
    known = known_gates(minor)
    for name, value in gates.items():
        text = str(value).lower()
        gate = known.get(name)
        if not gate and name not in GATES_OF_ALL:
            minors = [m for m in MINORS if name in known_gates(m)]
            hint = _hint(name, known, minors)
            yield Problem(path=where, text=f"Kubernetes {minor} has no feature gate {name}{hint}")
        elif text not in {"true", "false"}:
            yield Problem(path=where, text=f"{name} must be true or false, not '{value}'")
        elif gate and gate.locked and is_within(gate.locked, None, minor) and text != gate.value:
            locked = f"{name} is locked at {gate.value} from {gate.locked} on: remove it"
            yield Problem(path=where, text=locked)


def _split_gates(text: str) -> dict[str, str]:
    """`A=true,B=false` as the programs parse it: without spaces and empty parts."""
    pairs = (part.partition("=") for part in text.split(",") if part.strip())
    return {
        gate.strip(): TRUTH.get(value.strip().lower(), value.strip()) for gate, _, value in pairs
    }


def _minors_of(component: str) -> tuple[str, ...]:
    """Kubernetes' minors, or those of the component's own pinned versions."""
    if component not in OWN_MINORS:
        return MINORS
    return tuple(dict.fromkeys(minor_of(version) for version in list_versions(component)))


def _fields_of(component: str, minor: str) -> frozenset[str]:
    """The accepted fields of a minor, in the API version that bundler writes."""
    return accepted_fields(component, minor, api_of(component, minor))


def api_of(component: str, minor: str) -> str:
    """The API version of the scheduler's configuration file; the others have one only."""
    if component != "kube-scheduler":
        return ""
    return str(list_own_fields(component, minor)["apiVersion"]).rpartition("/")[2]


def _hint(name: str, known: Iterable[str], minors: Sequence[str]) -> str:
    """Which minors have the name; if none has it, the nearest known name."""
    if minors:
        span = f"{minors[0]} to {minors[-1]} have" if len(minors) > 1 else f"{minors[0]} has"
        return f"; {span} it"
    names = sorted({entry.removesuffix(".*") for entry in known})
    parts = [entry for entry in names if entry.rpartition(".")[2] == name.rpartition(".")[2]]
    top = sorted({entry.partition(".")[0] for entry in names})
    close = (
        difflib.get_close_matches(name, parts, n=1, cutoff=0)
        or difflib.get_close_matches(name, names, n=1)
        or difflib.get_close_matches(name.partition(".")[0], top, n=1)
    )
    return f"; did you mean '{close[0]}'?" if close else ""


def _leaves(
    value: object, path: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], object]]:
    """Path and value of every leaf, also inside lists of maps."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, str(key)))
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        for index, inner in enumerate(value):
            yield from _leaves(inner, (*path, index))
    elif path:
        yield path, value


def _has_null(value: object) -> bool:
    return value is None or (isinstance(value, list) and any(map(_has_null, value)))
