"""Types of configuration fields: whether the program can read a value of `extra`.

The kubelet, kube-proxy and kube-scheduler end at their start when a field has a value of another
type. A type is written as in accepted-fields.tsv:

string, bool, int32, int64, uint32, float, duration, quantity, any; `a|b` is either of two
[]T              a list of T
map:T            a mapping from free keys to T
{a:T,b:T}        a mapping with only these keys
[]object         a list of mappings, whose fields have rows of their own
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

Path = tuple[str | int, ...]
Fault = tuple[Path, str]
"""The place below the field, and what is wrong with its value."""

# Go's time.ParseDuration, and Kubernetes' resource.ParseQuantity
DURATION = re.compile(r"[-+]?(0|((\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h))+)", re.ASCII)
QUANTITY = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][-+]?\d+)?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """A type without parts."""

    words: str
    accepts: Callable[[object], bool]


def _is_whole(least: int, most: int) -> Callable[[object], bool]:
    return lambda value: (
        isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


SCALARS = {
    "string": Scalar(words="text", accepts=lambda value: isinstance(value, str)),
    "bool": Scalar(words="true or false", accepts=lambda value: isinstance(value, bool)),
    "int32": Scalar(words="a whole number of 32 bits", accepts=_is_whole(-(2**31), 2**31 - 1)),
    "int64": Scalar(words="a whole number", accepts=_is_whole(-(2**63), 2**63 - 1)),
    "uint32": Scalar(words="a whole number from 0 on", accepts=_is_whole(0, 2**32 - 1)),
    "float": Scalar(words="a number", accepts=_is_number),
    "duration": Scalar(
        words="a duration such as 30s or 1h30m",
        accepts=lambda value: isinstance(value, str) and bool(DURATION.fullmatch(value)),
    ),
    "quantity": Scalar(
        words="a quantity such as 500m or 2Gi",
        accepts=lambda value: (
            _is_number(value) or (isinstance(value, str) and bool(QUANTITY.fullmatch(value)))
        ),
    ),
    "any": Scalar(words="anything", accepts=lambda _: True),
}


def check_fields(
    config: Mapping[str, object], types: Mapping[str, str], above: Path = ()
) -> Iterator[Fault]:
    """Every value of a configuration file that its program cannot read.

    `types` are those of the dotted fields; fields without a type are left out.
    """
    for key, value in config.items():
        path = (*above, key)
        dotted = ".".join(part for part in path if isinstance(part, str))
        kind = types.get(dotted, "")
        if value is None:  # as if the field were not there
            continue
        if kind == "[]object":
            yield from ((path, text) for _, text in check_value(value, "[]map:any"))
            items = value if isinstance(value, list) else []
            for index, item in enumerate(items):
                if isinstance(item, dict):
                    yield from check_fields(item, types, (*path, index))
        elif kind:
            yield from ((path + inner, text) for inner, text in check_value(value, kind))
        elif any(name.startswith(f"{dotted}.") for name in types):
            if isinstance(value, dict):
                yield from check_fields(value, types, path)
            else:
                yield path, f"must be a mapping, not {show(value)}"


def check_like(config: object, own: object) -> Iterator[Fault]:
    """Every value that is not of the type that bundler's own value at the same place has.

    For programs whose fields no table lists.
    """
    if isinstance(own, dict):
        if not isinstance(config, dict):
            yield (), f"must be a mapping, not {show(config)}"
            return
        for key in config.keys() & own.keys():
            yield from (((key, *path), text) for path, text in check_like(config[key], own[key]))
    elif isinstance(own, list):
        yield from check_value(config, "[]any")
    elif not (isinstance(own, str) and "{{" in own):
        yield from check_value(config, {bool: "bool", int: "int64"}.get(type(own), "string"))


def check_value(value: object, kind: str) -> Iterator[Fault]:
    """Every part of a value that is not of its type."""
    if kind.startswith("[]"):
        if not isinstance(value, list):
            yield (), f"must be a list, not {show(value)}"
            return
        parts: list[tuple[str | int, object, str]] = [
            (index, item, kind[2:]) for index, item in enumerate(value)
        ]
    elif kind.startswith(("map:", "{")):
        if not isinstance(value, dict):
            yield (), f"must be a mapping, not {show(value)}"
            return
        members = _split_members(kind)
        parts = [
            (str(key), item, members.get(str(key), "") if members else kind[4:])
            for key, item in value.items()
        ]
    else:
        yield from _check_scalar(value, kind)
        return
    for key, item, inner in parts:
        if not inner:
            yield (key,), f"is not a field; fields: {', '.join(_split_members(kind))}"
        elif item is not None:
            yield from (((key, *path), text) for path, text in check_value(item, inner))


def _check_scalar(value: object, kind: str) -> Iterator[Fault]:
    scalars = [SCALARS[name] for name in kind.split("|")]
    if any(scalar.accepts(value) for scalar in scalars):
        return
    words = " or ".join(scalar.words for scalar in scalars)
    yield (), f"must be {words}, not {show(value)}{_suggest(value, scalars)}"


def _suggest(value: object, scalars: list[Scalar]) -> str:
    """Return what to write instead, if only the quotes are wrong."""
    if isinstance(value, str):
        bare = value.lower() if value.lower() in {"true", "false"} else value
        number = int(bare) if re.fullmatch(r"-?[0-9]{1,18}", bare) else None
        plain = {"true": True, "false": False}.get(bare, number)
        if plain is not None and any(scalar.accepts(plain) for scalar in scalars):
            return f": write {bare} without quotes"
    elif isinstance(value, bool | int | float) and SCALARS["string"] in scalars:
        return f": write '{str(value).lower()}' with quotes"
    return ""


def show(value: object) -> str:
    """Return a value as a message shows it."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return f"'{value}'" if isinstance(value, str) else str(value).lower()


def _split_members(kind: str) -> dict[str, str]:
    """Split `{a:T,b:{c:T}}` into its members; empty for `map:T`."""
    members: dict[str, str] = {}
    depth, start = 0, 1
    for at, char in enumerate(kind) if kind.startswith("{") else ():
        depth += (char == "{") - (char == "}")
        if (char == "," and depth == 1) or (char == "}" and depth == 0):
            name, _, inner = kind[start:at].partition(":")
            members[name] = inner
            start = at + 1
    return members
