"""Write docs/cluster-yaml.md from the models (a test says when it is stale)."""

import enum
import inspect
import types
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from bundler.cluster.schema import Cluster

TARGET = Path(__file__).parents[1] / "docs" / "cluster-yaml.md"
HEAD = """# cluster.yaml

Every key that bundler reads, generated from `bundler/cluster/config.py` by `make docs`. Keys
without a default must be given. Unknown keys, duplicate keys and values of the wrong kind are
faults; all faults are told at once, each as `file:line:col: path: what, and the fix`.

[examples/lab.yaml](../examples/lab.yaml) shows most of it in use.
"""


WORDS = {
    "str": "text",
    "int": "number",
    "float": "number",
    "bool": "true or false",
    "object": "anything",
    "Path": "path",
    "IPv4Address": "IPv4 address",
    "IPv4Network": "CIDR",
}


def models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in models_in(inner)]


def describe(annotation: Any) -> str:
    """A type in a reader's words."""
    inner = [part for part in get_args(annotation) if part is not type(None)]
    known: dict[Any, Callable[[], str]] = {
        Annotated: lambda: describe(inner[0]),
        Literal: lambda: " or ".join(f"`{value}`" for value in inner),
        Union: lambda: " or ".join(dict.fromkeys(describe(part) for part in inner)),
        types.UnionType: lambda: " or ".join(dict.fromkeys(describe(part) for part in inner)),
        tuple: lambda: f"list of {describe(inner[0])}",
        dict: lambda: f"mapping of name to {describe(inner[1])}",
    }
    if (origin := get_origin(annotation)) in known:
        return known[origin]()
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return " or ".join(f"`{member.value}`" for member in annotation)
    name = getattr(annotation, "__name__", str(annotation))
    return WORDS.get(name, name)


def limits(metadata: list[Any]) -> str:
    least = "".join(f", at least {bound.ge}" for bound in metadata if isinstance(bound, Ge))
    most = "".join(f", at most {bound.le}" for bound in metadata if isinstance(bound, Le))
    return least + most


def default(value: Any) -> str:
    if value is PydanticUndefined:
        return "**must be given**"
    if isinstance(value, BaseModel):
        return "its own defaults"
    if value in (None, (), {}):
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{list(value)}`" if isinstance(value, tuple) else f"`{value}`"


def section(model: type[BaseModel]) -> str:
    lines = [f"\n## {model.__name__}\n", f"{inspect.cleandoc(model.__doc__ or '')}\n"]
    lines += ["| key | value | default |", "| --- | --- | --- |"]
    for name, field in model.model_fields.items():
        value = describe(field.annotation) + limits(field.metadata)
        preset = default(field.get_default(call_default_factory=True))
        lines.append(f"| `{field.alias or name}` | {value} | {preset} |")
    return "\n".join(lines) + "\n"


def make_reference() -> str:
    seen: dict[type[BaseModel], None] = {}
    waiting: list[type[BaseModel]] = [Cluster]
    while waiting:
        model = waiting.pop(0)
        if model in seen:
            continue
        seen[model] = None
        for field in model.model_fields.values():
            waiting += models_in(field.annotation)
    return HEAD + "".join(section(model) for model in seen)


if __name__ == "__main__":
    TARGET.write_text(make_reference(), encoding="utf-8")
