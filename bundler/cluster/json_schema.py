"""The JSON Schema of cluster.yaml, for editors and other programs.

It is made from the models of schema.py and from the catalog. It accepts every file that
`bundler check` accepts, except for null deep in the keys of a file with `include`, and refuses
unknown keys. What compares keys with one another is left to
`bundler check`, except for what depends on the Kubernetes minor: flags, fields and feature gates of
`extra`, and the proxy mode.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from bundler.catalog import COMPONENTS, default_kubernetes, list_available
from bundler.cluster.accepted import accepted_fields, accepted_flags, known_gates
from bundler.cluster.components import EXTRA_COMPONENTS, MINORS, PROXY_MODES, minor_of
from bundler.cluster.extra_checks import GATES_FIELD, GATES_OF_ALL, api_of
from bundler.cluster.fleet import DEFAULTS, GROUPS, OWN, list_shared
from bundler.cluster.os_packages import RELEASES
from bundler.cluster.parts import ANCHORS, INCLUDE, NODES, NODES_FROM
from bundler.cluster.schema import Cluster
from bundler.cluster.settings import OWN_MINORS
from bundler.cluster.values import DNS_LABEL, Arch

Schema = dict[str, Any]

DIALECT = "http://json-schema.org/draft-07/schema#"
"""The newest draft that the servers of editors know completely."""
LAX_TYPES: Mapping[str, Schema] = {
    # as pydantic reads a text in the place of a number or truth value
    "integer": {"type": ["integer", "string"], "pattern": r"^\s*[-+]?[0-9_]+(\.0*)?\s*$"},
    "boolean": {
        "type": ["boolean", "string", "integer"],
        "pattern": "^([0Ff1Tt]|[Oo][Nn]|[Oo][Ff][Ff]|[Nn]|[Nn][Oo]|[Yy]|[Yy][Ee][Ss]"
        "|[Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee])$",
        "minimum": 0,
        "maximum": 1,
    },
}
"""What a key takes that pydantic calls integer or boolean."""


def format_schema() -> str:
    """Format the schema as JSON; the same bundler gives the same bytes."""
    return json.dumps(make_schema(), indent=1, ensure_ascii=False) + "\n"


@cache
def make_schema() -> Schema:
    """Make the schema of a complete cluster.yaml."""
    schema = _simplify(Cluster.model_json_schema())
    definitions, keys = schema["$defs"], schema["properties"]
    _offer(definitions["Kubernetes"]["properties"], "version", _list_kubernetes())
    _offer(definitions["Packages"]["properties"], "os", list(RELEASES), is_complete=True)
    arches = [f"{name}/{arch}" for name in COMPONENTS for arch in Arch]
    keys["artifacts"]["propertyNames"] = {"enum": [*COMPONENTS, *arches]}
    keys["upstream_keys"]["propertyNames"] = {"enum": list(COMPONENTS)}
    keys["extra"] = {
        **{key: value for key, value in keys["extra"].items() if key == "description"},
        "type": "object",
        "properties": {name: _make_extra(name, definitions) for name in EXTRA_COMPONENTS},
        "additionalProperties": False,
    }
    _describe_layers(keys, definitions)
    whole = {"required": schema.pop("required")}
    return {
        "$schema": DIALECT,
        "title": "cluster.yaml of bundler",
        **{key: value for key, value in schema.items() if key != "title"},
        "patternProperties": {f"^{ANCHORS}": {}},
        "allOf": [
            {"if": {"required": [INCLUDE]}, "else": _need_nodes(whole)},
            *_make_minor_rules(),
        ],
    }


def _need_nodes(whole: Schema) -> Schema:
    """A file that includes none has all required keys; nodes may come from a list in a file."""
    required = [key for key in whole["required"] if key != NODES]
    return {"required": required, "anyOf": [{"required": [NODES]}, {"required": [NODES_FROM]}]}


def _describe_layers(keys: Schema, definitions: Schema) -> None:
    """Give nodes, `defaults` and groups the same keys; null drops what they inherit."""
    for name in (INCLUDE, NODES_FROM):
        one = keys[name].pop("items")
        keys[name] |= {"type": ["array", "string", "null"], "items": one}
    node = definitions["Node"]
    node["required"] = [key for key in OWN if key in node["required"]]
    for name, differing in list_shared().items():
        places = keys[name].get("oneOf") or keys[name].get("anyOf") or [keys[name]]
        known: Schema = {}
        for place in places:
            known |= _follow(place, definitions).get("properties", {})
        node["properties"][name] = {
            "description": node["properties"][name]["description"],
            "type": "object",
            "properties": {k: v for k, v in known.items() if differing is None or k in differing},
            "additionalProperties": False,
        }
    layer = _in_layer(node, definitions)
    own = {name: node["properties"][name] for name in OWN}
    shared = {name: value for name, value in layer["properties"].items() if name not in OWN}
    same = {name: {"$ref": f"#/$defs/Layer/properties/{name}"} for name in shared}
    definitions["Node"] = {**node, "properties": own | same}
    definitions["Layer"] = {
        **{key: value for key, value in layer.items() if key != "required"},
        "properties": shared,
    }
    here = _or_null({"$ref": "#/$defs/Layer"})
    keys[DEFAULTS] = {"description": keys[DEFAULTS]["description"], **here}
    keys[GROUPS] = {
        "description": keys[GROUPS]["description"],
        "type": ["object", "null"],
        "propertyNames": {"pattern": f"^{DNS_LABEL.pattern}$"},
        "additionalProperties": here,
    }


def _in_layer(part: Any, definitions: Schema) -> Any:
    """A copy without references, in which every key may be null, and the first item of a list."""
    part = _follow(part, definitions) if isinstance(part, dict) else part
    if isinstance(part, list):
        return [_in_layer(item, definitions) for item in part]
    if not isinstance(part, dict):
        return part
    made = {
        key: {name: _or_null(_in_layer(inner, definitions)) for name, inner in value.items()}
        if key == "properties"
        else _in_layer(value, definitions)
        for key, value in part.items()
    }
    if "items" in made:
        made["items"] = _or_null(made["items"])
        made.pop("minItems", None)
    return made


def _follow(part: Schema, definitions: Schema) -> Schema:
    """What a reference stands for, with what is written next to it."""
    if "$ref" not in part:
        return part
    found = definitions[part["$ref"].rpartition("/")[2]]
    return {**found, **{key: value for key, value in part.items() if key != "$ref"}}


def _or_null(part: Schema) -> Schema:
    about = {key: value for key, value in part.items() if key in {"description", "default"}}
    bare = {key: value for key, value in part.items() if key not in about}
    return {**about, "anyOf": [bare, {"type": "null"}]}


def _simplify(part: Any) -> Any:
    """Leave out titles and nested defaults, and accept what pydantic accepts as a number."""
    if isinstance(part, list):
        return [_simplify(item) for item in part]
    if not isinstance(part, dict):
        return part
    made = {
        key: {name: _simplify(inner) for name, inner in value.items()}
        if key in {"properties", "$defs", "patternProperties"}
        else _simplify(value)
        for key, value in part.items()
        if not (key == "title" and isinstance(value, str))
        and not (key == "default" and isinstance(value, dict | list))
        and key != "discriminator"
    }
    kind = str(made.get("type"))
    return (
        {**LAX_TYPES[kind], **made, "type": LAX_TYPES[kind]["type"]} if kind in LAX_TYPES else made
    )


def _offer(keys: Schema, name: str, values: list[str], *, is_complete: bool = False) -> None:
    """Let editors offer these values of a key; with `is_complete` no other is accepted."""
    about = {key: value for key, value in keys[name].items() if key in {"description", "default"}}
    bare = {key: value for key, value in keys[name].items() if key not in about}
    keys[name] = about | ({"enum": values} if is_complete else {"anyOf": [{"enum": values}, bare]})


def _list_kubernetes() -> list[str]:
    return [*reversed(list_available("kubernetes-server", Arch.AMD64))]


def _make_extra(component: str, definitions: Schema) -> Schema:
    """Make the schema of `extra.COMPONENT`: with every flag and field of any minor."""
    target, keys = EXTRA_COMPONENTS[component], definitions["Extra"]["properties"]
    none = "has no flags here: use config", "has no configuration file: use flags"
    flags, config = (_refuse_all(f"{component} {text}.") for text in none)
    if target.has_flags:
        (pattern, value), *_ = keys["flags"]["patternProperties"].items()
        names = _names_by_minor(_flags_of, component)
        kept = {key: inner for key, inner in keys["flags"].items() if key != "patternProperties"}
        definitions["FlagValue"] = value
        known = {"properties": {name: {"$ref": "#/$defs/FlagValue"} for name in sorted(names)}}
        flags = kept | (known if names else {"patternProperties": {pattern: value}})
        flags["additionalProperties"] = False
    if target.has_config:
        names = _names_by_minor(_fields_of, component)
        config = dict(keys["config"])
        if names:
            config["properties"] = {name: {} for name in sorted(names)}
            config["additionalProperties"] = False
        if GATES_FIELD in names:
            gates = sorted({*_names_by_minor(_gates_of, component), *GATES_OF_ALL})
            config["properties"][GATES_FIELD] = {
                "type": ["object", "null"],
                "properties": {gate: {} for gate in gates},
                "additionalProperties": False,
            }
    return {
        "description": definitions["Extra"]["description"],
        "type": "object",
        "properties": {"flags": flags, "config": config},
        "additionalProperties": False,
    }


def _refuse_all(why: str) -> Schema:
    return {"description": why, "type": "object", "maxProperties": 0}


def _names_by_minor(
    names_of: Callable[[str, str], Iterable[str]], component: str
) -> dict[str, frozenset[str]]:
    """Map each name to the Kubernetes minors that have it.

    Empty for programs whose tables have minors of their own, or that have no table.
    """
    if component in OWN_MINORS or not all(names_of(component, minor) for minor in MINORS):
        return {}
    found: dict[str, set[str]] = {}
    for minor in MINORS:
        for name in names_of(component, minor):
            found.setdefault(name, set()).add(minor)
    return {name: frozenset(minors) for name, minors in found.items()}


def _flags_of(component: str, minor: str) -> frozenset[str]:
    return accepted_flags(component, minor)


def _fields_of(component: str, minor: str) -> frozenset[str]:
    """The names at the top of the configuration file."""
    if not EXTRA_COMPONENTS[component].has_config:
        return frozenset()
    fields = accepted_fields(component, minor, api_of(component, minor))
    return frozenset(field.partition(".")[0] for field in fields)


def _gates_of(_component: str, minor: str) -> frozenset[str]:
    return frozenset(known_gates(minor)) - GATES_OF_ALL


def _make_minor_rules() -> Iterator[Schema]:
    """Refuse what a minor does not have: one rule for everything that the same minors have."""
    rules: dict[frozenset[str], Schema] = {}
    for minors, path, refusal in _list_refusals():
        if minors != frozenset(MINORS):
            _put(rules.setdefault(minors, {}), path, refusal)
    for minors, keys in rules.items():
        yield {"if": _match_other_minors(minors), "then": keys}


def _list_refusals() -> Iterator[tuple[frozenset[str], tuple[str, ...], bool | Schema]]:
    """List keys with the minors that have them, and what refuses them in others."""
    for component in EXTRA_COMPONENTS:
        where = ("extra", component)
        has_gates = GATES_FIELD in _names_by_minor(_fields_of, component)
        places = (
            (("flags",), _flags_of),
            (("config",), _fields_of),
            *(((("config", GATES_FIELD), _gates_of),) if has_gates else ()),
        )
        for place, names_of in places:
            for name, minors in sorted(_names_by_minor(names_of, component).items()):
                yield minors, (*where, *place, name), False
    for mode, span in PROXY_MODES.items():
        minors = frozenset(minor for minor in MINORS if span.holds_for(minor))
        yield minors, ("network", "proxy_mode"), {"not": {"const": mode}}


def _put(keys: Schema, path: tuple[str, ...], value: bool | Schema) -> None:
    for part in path[:-1]:
        keys = keys.setdefault("properties", {}).setdefault(part, {})
    keys.setdefault("properties", {})[path[-1]] = value


def _match_other_minors(minors: frozenset[str]) -> Schema:
    """Make the schema of a cluster.yaml with another minor than these."""
    numbers = "|".join(minor.partition(".")[2] for minor in MINORS if minor not in minors)
    version: Schema = {"properties": {"version": {"pattern": rf"^v?1\.({numbers})\."}}}
    condition: Schema = {"properties": {"kubernetes": version}}
    if minor_of(default_kubernetes()) in minors:  # a file without a version is not meant
        condition["required"] = ["kubernetes"]
        version["required"] = ["version"]
    return condition
