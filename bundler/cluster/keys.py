"""Every key of cluster.yaml with type, default and description, read from the schema's models."""

import difflib
import enum
import re
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from bundler.cluster.components import EXTRA_COMPONENTS
from bundler.cluster.schema import Cluster, Node
from bundler.cluster.values import Kind, PerHost, SameAs, find_mark, models_in
from bundler.errors import ConfigError

TYPE_NAMES = {
    "str": "text",
    "int": "number",
    "float": "number",
    "bool": "true or false",
    "object": "any value",
    "Path": "path",
    "IPv4Address": "IPv4 address",
    "IPv4Network": "IPv4 range (CIDR)",
}
COMPONENT_MAP = "mapping of component to object"
NAME_MAP = "mapping of name to object"
PLACEHOLDERS = {COMPONENT_MAP: "COMPONENT", NAME_MAP: "NAME"}
"""Kind of a mapping → what stands for its keys in paths."""
VARIANT_KEYS = ("engine", "kind")
"""Keys whose value decides which other keys an object has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key of cluster.yaml."""

    path: str  # runtime.registries.mirrors; COMPONENT stands for the name of any component
    variant: str  # "engine: docker" if only that variant of the object has the key
    kind: str  # its type in words, with the allowed values in backticks
    default: str | None  # None: the key is required; empty: nothing, or what the description says
    description: str
    models: tuple[type[BaseModel], ...]  # the schema of an object, or of a list's objects
    per_host: bool  # `defaults`, groups and nodes may have their own

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]

    @property
    def inner_path(self) -> str:
        """The path that the paths of its children start with."""
        placeholder = PLACEHOLDERS.get(self.kind)
        return f"{self.path}.{placeholder}" if placeholder else self.path

    @property
    def has_described_default(self) -> bool:
        """Whether only the description says what the default is."""
        return self.default == "" and "Default:" in self.description

    @property
    def allowed(self) -> tuple[str, ...]:
        """The values that the kind names."""
        return tuple(re.findall(r"`([^`]+)`", self.kind))


def list_children(key: Key | None) -> tuple[Key, ...]:
    """The keys of an object; None: the keys at the top of cluster.yaml."""
    if not key:
        return tuple(_keys_of(Cluster, "", ""))
    several = len(key.models) > 1
    return tuple(
        child
        for model in key.models
        for child in _keys_of(model, key.inner_path, _variant(model) if several else key.variant)
    )


def find_keys(path: str) -> tuple[Key, ...]:
    """The key with that path, once for each variant; ConfigError for an unknown path."""
    wanted = _strip_layers(re.sub(r"\[\w*\]", "", path))  # nodes[0].roles
    found = tuple(
        key
        for key in walk_keys()
        if _is_path_of(key.path, wanted) or _is_path_of(key.inner_path, wanted)
    )
    if not found:
        close = _find_close(wanted)
        known = ", ".join(key.name for key in list_children(None))
        raise ConfigError(
            f"{path}: neither a key of cluster.yaml nor a component with flags",
            hint=f"did you mean '{close}'?" if close else f"the top keys are {known}",
        )
    return found


def _strip_layers(path: str) -> str:
    """`groups.NAME.KEY` → `nodes.KEY`, and of a key that nodes share with the cluster that one."""
    of_node = re.sub(r"^(defaults|groups\.[^.]+)\.", "nodes.", path)
    first, _, rest = of_node.removeprefix("nodes.").partition(".")
    field = Node.model_fields.get(first) if of_node.startswith("nodes.") else None
    return f"{first}.{rest}" if rest and field and find_mark(field, SameAs) else of_node


def walk_keys(key: Key | None = None) -> Iterator[Key]:
    """Every key below one, each before its own children."""
    for child in list_children(key):
        yield child
        yield from walk_keys(child)


def _keys_of(model: type[BaseModel], parent: str, variant: str) -> Iterator[Key]:
    for name, field in model.model_fields.items():
        path = ".".join(part for part in (parent, field.alias or name) if part)
        kind = _describe_type(field.annotation, field.metadata) + _describe_limits(field.metadata)
        is_same = find_mark(field, SameAs) is not None
        yield Key(
            path=path,
            variant=variant,
            kind=f"what may differ of {name}" if is_same else kind,
            default=_describe_default(field),
            description=field.description or "",
            models=() if is_same else tuple(models_in(field.annotation)),
            per_host=find_mark(field, PerHost) is not None,
        )


def _variant(model: type[BaseModel]) -> str:
    """`engine: docker` of the model Docker."""
    for name in VARIANT_KEYS:
        if field := model.model_fields.get(name):
            return f"{name}: {get_args(field.annotation)[0]}"
    return ""


def _is_path_of(path: str, wanted: str) -> bool:
    """Whether a user's path is that key's: COMPONENT and NAME stand for any name."""
    parts, given = path.split("."), wanted.split(".")
    return len(parts) == len(given) and all(
        part in {*PLACEHOLDERS.values(), other} for part, other in zip(parts, given, strict=True)
    )


def _find_close(wanted: str) -> str | None:
    """A path or component that resembles it; else a path whose last part does."""
    paths = list(dict.fromkeys(key.path for key in walk_keys()))
    if close := difflib.get_close_matches(wanted, [*paths, *EXTRA_COMPONENTS], n=1, cutoff=0.8):
        return close[0]
    names = {path.rpartition(".")[2]: path for path in reversed(paths)}
    close = difflib.get_close_matches(wanted.rpartition(".")[2], names, n=1, cutoff=0.7)
    return names[close[0]] if close else None


def _describe_type(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """`list of URLs`, `mapping of name to text`: a type in words."""
    named = next((item.words for item in metadata if isinstance(item, Kind)), None)
    if named:
        return named
    inner = [part for part in get_args(annotation) if part is not type(None)]
    words: dict[Any, Callable[[], str]] = {
        Annotated: lambda: _describe_type(inner[0], annotation.__metadata__),
        Literal: lambda: " or ".join(f"`{value}`" for value in inner),
        Union: lambda: " or ".join(dict.fromkeys(_describe_type(part) for part in inner)),
        types.UnionType: lambda: " or ".join(dict.fromkeys(_describe_type(part) for part in inner)),
        tuple: lambda: f"list of {_plural(_describe_type(inner[0]))}",
        dict: lambda: (
            (COMPONENT_MAP if inner[0] is str else NAME_MAP)
            if list(models_in(inner[1]))
            else f"mapping of name to {_describe_type(inner[1])}"
        ),
    }
    if (origin := get_origin(annotation)) in words:
        return words[origin]()
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "object"
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return " or ".join(f"`{member.value}`" for member in annotation)
    name = getattr(annotation, "__name__", str(annotation))
    return TYPE_NAMES.get(name, name)


def _plural(kind: str) -> str:
    if kind.startswith("`") or kind == "text":
        return kind
    if kind.endswith("y"):
        return f"{kind.removesuffix('y')}ies"
    return f"{kind}es" if kind.endswith("s") else f"{kind}s"


def _describe_limits(metadata: Iterable[Any]) -> str:
    least = next((bound.ge for bound in metadata if isinstance(bound, Ge)), None)
    most = next((bound.le for bound in metadata if isinstance(bound, Le)), None)
    return f" from {least} to {most}" if least is not None and most is not None else ""


def _describe_default(field: FieldInfo) -> str | None:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return None
    if isinstance(value, BaseModel):
        return "{}"
    if value in (None, (), {}):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else str(value)
