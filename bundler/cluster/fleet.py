"""The effective description of each node: what defaults, its groups and the node itself say.

The result is one mapping for each node, before any model sees it, so that every key of a node may
stand in `defaults` and in groups. Each value keeps the place where it is written.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from pydantic import BaseModel

from bundler.cluster.components import EXTRA_COMPONENTS
from bundler.cluster.parts import NODES, Description, Fault
from bundler.cluster.problem import suggest
from bundler.cluster.schema import Cluster, Node
from bundler.cluster.sourced import Place, Rules, Value, count, merge
from bundler.cluster.values import DNS_LABEL, Joins, PerHost, SameAs, find_mark, models_in
from bundler.errors import ConfigError
from bundler.formats.bounded_yaml import YamlPath, read_document

DEFAULTS, GROUPS = "defaults", "groups"
EXTRA = "extra"
OWN = ("name", "address", GROUPS)
"""Keys of a node that no two nodes share."""
MOST_VALUES = 1_000_000  # of all nodes, with what they inherit


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """A description in which each node has everything that it inherits."""

    root: Value
    faults: tuple[Fault, ...]
    unused: tuple[Value, ...]  # of each group without a node, what its nodes would have


@dataclass(slots=True, kw_only=True)
class _Layers:
    """What nodes inherit."""

    root: Value
    defaults: Value | None
    groups: Mapping[str, Value]
    faults: list[Fault] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    values: int = 0


@cache
def list_shared() -> Mapping[str, frozenset[str] | None]:
    """The cluster's keys that a node may have too → what in them may differ; None: everything."""
    shared: dict[str, frozenset[str] | None] = {}
    for name, own in Node.model_fields.items():
        if find_mark(own, SameAs):
            theirs = Cluster.model_fields[name]
            shared[name] = None if find_mark(theirs, PerHost) else frozenset(
                inner
                for model in models_in(theirs.annotation)
                for inner, key in model.model_fields.items()
                if find_mark(key, PerHost)
            )  # fmt: skip
    shared[EXTRA] = frozenset(name for name, each in EXTRA_COMPONENTS.items() if each.per_host)
    return shared


@cache
def list_joined() -> Mapping[str, str]:
    """Dotted path of each list that later layers add to → the key that identifies its items."""
    return dict((*_find_joined(Cluster, ""), *_find_joined(Node, "")))


def _find_joined(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str]]:
    for name, key in model.model_fields.items():
        path = f"{prefix}{key.alias or name}"
        if mark := find_mark(key, Joins):
            yield path, mark.identity
        for inner in models_in(key.annotation):
            yield from _find_joined(inner, f"{path}.")


def _find_join(path: YamlPath) -> str | None:
    return list_joined().get(".".join(map(str, _strip_layer(path))))


def _keeps_null(path: YamlPath) -> bool:
    """Fields of `extra`: null leaves them to the program's own default."""
    inner = _strip_layer(path)
    return inner[:1] == (EXTRA,) and inner[2:3] == ("config",) and len(inner) > 3


def _strip_layer(path: YamlPath) -> YamlPath:
    """The path in a node of a path in `defaults` or a group."""
    return path[{DEFAULTS: 1, GROUPS: 2}.get(str(path[0]), 0) if path else 0 :]


RULES = Rules(find_join=_find_join, keeps_null=_keeps_null)


def read_cell(column: str, text: str) -> tuple[YamlPath, object]:
    """The path and value of a cell of a CSV file; ValueError for a column that is none.

    A column is a key of a node, a path of keys joined by dots, or the name of a label.
    """
    first, _, rest = column.partition(".")
    if first not in Node.model_fields:
        if hint := suggest(column, [*Node.model_fields]):
            raise ValueError(f"unknown column{hint} A label has the column labels.{column}")
        return ("labels", column), text
    if first in {"labels", "annotations", "sysctls"} and rest:
        return (first, rest), text
    path = tuple(column.split("."))
    if path[0] == EXTRA:  # programs tell numbers from text
        return path, read_document(text).data
    return path, text.split() if _is_list(path) else text


def _is_list(path: tuple[str, ...]) -> bool:
    models: list[type[BaseModel]] = [Node]
    for name in path[:-1]:
        models = [
            inner
            for model in models
            if name in model.model_fields
            for inner in models_in(model.model_fields[name].annotation)
        ]
    fields = (model.model_fields.get(path[-1]) for model in models)
    return any("tuple[" in str(each.annotation) for each in fields if each)


def expand(description: Description) -> Fleet:
    """Merge into each node what it inherits; ConfigError if that is too much."""
    content = dict(description.root.content)
    faults: list[Fault] = []
    defaults = content.pop(DEFAULTS, None)
    groups = _as_mapping(content.pop(GROUPS, None), "name: {keys of a node}", faults)
    layers = _Layers(
        root=description.root,
        defaults=_read_layer(defaults, faults) if defaults else None,
        groups={name: _read_layer(group, faults) for name, group in groups.content.items()},
        faults=faults,
    )
    for name, group in layers.groups.items():
        if not DNS_LABEL.fullmatch(name):
            faults.append((group.place, "must be a DNS label: lower-case letters, digits and '-'"))
    nodes = content.get(NODES)
    if nodes and isinstance(nodes.content, list):
        expanded = [_expand(node, layers) for node in nodes.content]
        content[NODES] = Value(expanded, nodes.place)
    return Fleet(
        root=Value(content, description.root.place),
        faults=tuple(dict.fromkeys(faults)),
        unused=tuple(
            _merge_layers([group], layers)
            for name, group in layers.groups.items()
            if name not in layers.used
        ),
    )


def _as_mapping(value: Value | None, wanted: str, faults: list[Fault]) -> Value:
    """The value if it is a mapping; an empty one for nothing, and for what is a fault."""
    if value and isinstance(value.content, dict):
        return value
    place = value.place if value else Place(Path(), 1, 1, ())
    if value and value.content is not None:
        faults.append((place, f"must be a mapping: {wanted}"))
    return Value({}, place)


def _read_layer(value: Value, faults: list[Fault]) -> Value:
    """What nodes inherit of a group or of `defaults`; the faults are noted."""
    layer = _as_mapping(value, "keys of a node", faults)
    faults += [
        (layer.content[key].place, f"each node has its own {key}: write it there")
        for key in OWN
        if key in layer.content
    ]
    faults += _refuse_equal(layer)
    kept = {key: inner for key, inner in layer.content.items() if key not in OWN}
    return Value(kept, layer.place)


def _refuse_equal(layer: Value) -> Iterator[Fault]:
    """Keys of a node, a group or `defaults` that only the whole cluster can have."""
    for key, value in layer.content.items():
        if key in Node.model_fields:
            yield from _refuse_equal_parts(key, value)
        elif key in Cluster.model_fields:
            yield value.place, f"must be equal on all hosts: write {key} at the top of the file"


def _refuse_equal_parts(key: str, value: Value) -> Iterator[Fault]:
    differing = list_shared().get(key)
    if differing is None or not isinstance(value.content, dict):
        return
    known = EXTRA_COMPONENTS if key == EXTRA else _list_fields(key)
    for name, inner in value.content.items():
        if name in known and name not in differing:
            text = (
                f"must be equal on all hosts: write {key}.{name} at the top of the file; of {key}"
                f" may differ: {', '.join(sorted(differing))}"
            )
            yield inner.place, text


def _list_fields(key: str) -> frozenset[str]:
    models = models_in(Cluster.model_fields[key].annotation)
    return frozenset(name for model in models for name in model.model_fields)


def _expand(node: Value, layers: _Layers) -> Value:
    """One node with what it inherits."""
    if not isinstance(node.content, dict):
        return node
    layers.faults += _refuse_equal(node)
    expanded = _merge_layers([*_list_groups(node, layers), node], layers)
    layers.values += count(expanded)
    if layers.values > MOST_VALUES:
        text = f"all nodes together have more than {MOST_VALUES} values: write less in groups"
        raise ConfigError(node.place.describe(text))
    return expanded


def _list_groups(node: Value, layers: _Layers) -> Iterator[Value]:
    """The groups of a node, in the order in which it lists them."""
    named = node.get(GROUPS)
    items = named.content if named else None
    seen: set[str] = set()
    for item in items if isinstance(items, list) else ():
        name = item.content
        if not isinstance(name, str):
            continue  # the model refuses it
        if name in seen:
            layers.faults.append((item.place, f"{name} is listed twice: keep one"))
        elif name not in layers.groups:
            known = sorted(layers.groups)
            hint = suggest(name, known) or f"; groups: {', '.join(known) or 'none'}"
            layers.faults.append((item.place, f"there is no group {name}{hint}"))
        else:
            layers.used.add(name)
            yield layers.groups[name]
        seen.add(name)


def _merge_layers(own: Sequence[Value], layers: _Layers) -> Value:
    """Defaults, and the given layers over them; shared keys over what the cluster has."""
    several = [*([layers.defaults] if layers.defaults else []), *own]
    place = own[-1].place
    merged = Value({}, place)
    bases = {}
    for key in list_shared():
        if any(key in layer.content for layer in several):
            base, bases[key] = _split(layers.root.get(key), key)
            if base:
                merged.content[key] = base
    for layer in several:
        merged = merge(merged, layer, RULES)
    for key in merged.content.keys() & (Cluster.model_fields.keys() - Node.model_fields.keys()):
        del merged.content[key]  # refused already
    for key, rest in bases.items():
        here = merged.content.get(key)
        if rest and (here is None or isinstance(here.content, dict)):
            both = {**rest.content, **(here.content if here else {})}
            merged.content[key] = Value(both, here.place if here else rest.place)
        elif here is None:
            merged.content[key] = Value(None, _find_null(key, several))
    return Value(merged.content, place)


def _split(value: Value | None, key: str) -> tuple[Value | None, Value | None]:
    """What of a key of the cluster a node may have otherwise, and the rest."""
    if value is None or not isinstance(value.content, dict):
        return None, None
    differing = list_shared()[key]
    if differing is None:
        return value, None
    parts: tuple[dict[str, Value], dict[str, Value]] = ({}, {})
    for name, inner in value.content.items():
        parts[name not in differing][name] = inner
    mine, rest = (Value(part, value.place) if part else None for part in parts)
    return mine, rest


def _find_null(key: str, layers: Sequence[Value]) -> Place:
    place: Place = next(
        layer.content[key].place for layer in reversed(layers) if key in layer.content
    )
    return place
