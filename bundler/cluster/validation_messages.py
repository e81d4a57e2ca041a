"""pydantic's errors in plain words: one message for each fault, with the value to write."""

import difflib
import re
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from bundler.catalog import COMPONENTS, list_available
from bundler.cluster.values import Arch, NotAVersionError, models_in
from bundler.formats.bounded_yaml import YamlPath
from bundler.urls import hide_secrets

Found = Mapping[str, Any]
"""One of pydantic's errors: type, loc, msg, input, ctx."""

WHOLE, NUMBER, TRUTH, TEXT = "a whole number", "a number", "true or false", "text"
NOUNS: Mapping[str, str] = {
    "int_type": WHOLE,
    "int_parsing": WHOLE,
    "int_from_float": WHOLE,
    "float_type": NUMBER,
    "float_parsing": NUMBER,
    "bool_type": TRUTH,
    "bool_parsing": TRUTH,
    "string_type": TEXT,
    "path_type": TEXT,
    "tuple_type": "a list",
    "model_type": "a mapping (key: value)",
    "dict_type": "a mapping (key: value)",
    "model_attributes_type": "a mapping (key: value)",
}
"""Type of an error → what the value must be."""

SENTENCES: Mapping[str, Callable[[Found], str]] = {
    "missing": lambda _: "is missing",
    "union_tag_not_found": lambda _: "is missing: give nginx-keepalived, node-local or external",
    "union_tag_invalid": lambda found: f"must be one of {found['ctx']['expected_tags']}",
    "value_error": lambda found: str(found["ctx"]["error"]),
    "too_short": lambda _: "must not be empty",
}
"""Type of an error → its message; other types get pydantic's own text."""

VERSIONS: Mapping[YamlPath, str] = {
    ("kubernetes", "version"): "kubernetes-server",
    ("network", "flannel", "version"): "flanneld",
    ("network", "policy", "version"): "kube-router",
    ("runtime", "cri_dockerd"): "cri-dockerd",
}
"""Key of a version → its component, where the key does not have the component's name."""


def explain(
    error: ValidationError,
    data: object,
    raw: Mapping[YamlPath, str],
    model: type[BaseModel],
    origin: Callable[[YamlPath], Hashable] = tuple,
) -> Iterator[tuple[YamlPath, str]]:
    """Each fault as (path below data, message).

    `raw` has the texts of values that YAML reads as something else than text. Of several places
    that have one `origin`, such as all nodes of a group, only the first is explained.
    """
    faults: dict[YamlPath, list[Found]] = {}
    for found in error.errors():
        faults.setdefault(_find_path(found, data), []).append(dict(found))
    around = {path[:length] for path in faults for length in range(len(path))}
    seen: set[Hashable] = set()
    for where, several in faults.items():
        if where in around or (same := origin(where)) in seen:
            continue  # such as a list that is empty only because its one item is wrong
        seen.add(same)
        text = raw.get(where)
        yield where, _explain_one(where, several, data, text, model)


def _explain_one(
    where: YamlPath, several: list[Found], data: object, text: str | None, model: type[BaseModel]
) -> str:
    """The message of all errors at one place: a union has one of each of its types."""
    first = several[0]
    if first["type"] == "extra_forbidden":
        return _explain_unknown_key(where, model)
    if isinstance(first.get("ctx", {}).get("error"), NotAVersionError):
        return _explain_version(where, first, data, text)
    as_text: list[Found] = []
    if text is not None:
        as_text = _validate_as_text(where, text, data, model)
        if as_text and as_text[0]["type"] != first["type"]:
            return _explain_one(where, as_text, data, None, model)
    shown = text or _short(first["input"])
    if len(several) > 1:
        words = dict.fromkeys(_noun_of(found) for found in several)
        *most, last = words
        message = f"must be {', '.join(most)}{' or ' * bool(most)}{last}, not {shown}"
    elif first["type"] in NOUNS:
        message = f"must be {NOUNS[first['type']]}, not {shown}"
    else:
        message = SENTENCES.get(first["type"], _quote_pydantic)(first)
    return f'{message}: write "{text}", in quotes' if text is not None and not as_text else message


def _noun_of(found: Found) -> str:
    if found["type"] == "literal_error":
        return str(found["ctx"]["expected"])
    return NOUNS.get(found["type"], found["msg"].removeprefix("Input should be "))


def _quote_pydantic(found: Found) -> str:
    if found["type"] in {"literal_error", "enum"}:
        return f"must be {found['ctx']['expected']}, not {_short(found['input'])}"
    if found["type"] == "string_pattern_mismatch":
        return f"must match {found['ctx']['pattern']}, not {_short(found['input'])}"
    text = found["msg"].removeprefix("Value error, ")
    if text.startswith("Input is not "):
        return f"{_short(found['input'])} {text.removeprefix('Input ')}"
    return f"must be {text.removeprefix('Input should be ')}, not {_short(found['input'])}"


def _explain_version(where: YamlPath, found: Found, data: object, text: str | None) -> str:
    """The newest pinned version that begins like the given one; YAML reads 1.30 as 1.3."""
    given = text or str(found["input"])
    component = VERSIONS.get(where, str(where[-2] if where[-1] == "version" else where[-1]))
    if component == "runtime" and isinstance(data, dict):
        component = (data.get("runtime") or {}).get("engine", "containerd")
    begin = re.match(r"v?(\d+(?:\.\d+)?)", given)
    known = list_available(component, Arch.AMD64) if component in COMPONENTS else ()
    close = [v for v in known if begin and f"{v}.".startswith(f"{begin[1]}.")]
    if close:
        return f"must be a full version, not {_short(given)}: write {close[-1]}, or another patch"
    return f"{found['ctx']['error']}, not {_short(given)}"


def _validate_as_text(
    where: YamlPath, text: str, data: object, model: type[BaseModel]
) -> list[Found]:
    """The errors there if the value were in quotes; none if that is the fix."""
    changed = _replace(data, where, text)
    try:
        model.model_validate(changed)
    except ValidationError as error:
        return [dict(found) for found in error.errors() if _find_path(found, changed) == where]
    return []


def _replace(data: Any, where: YamlPath, value: object) -> Any:
    if not where:
        return value
    inner = _replace(data[where[0]], where[1:], value)
    if isinstance(data, dict):
        return {**data, where[0]: inner}
    return [*data[: where[0]], inner, *data[where[0] + 1 :]]  # type: ignore[operator]


def _find_path(found: Any, data: object) -> YamlPath:
    """The path in the file: without pydantic's parts that are no keys (`[key]`, tags of unions)."""
    path: list[str | int] = []
    here: Any = data
    for index, part in enumerate(found["loc"]):
        last = index == len(found["loc"]) - 1
        if isinstance(here, dict) and (part in here or (last and _is_key(found, part))):
            if part == "[key]":
                continue
            path.append(part)
            here = here.get(part)
        elif isinstance(here, list) and isinstance(part, int) and part < len(here):
            path.append(part)
            here = here[part]
    if found["type"] in {"union_tag_not_found", "union_tag_invalid"}:
        path.append("kind" if found["ctx"]["discriminator"] == "'kind'" else "engine")
    return tuple(path)


def _is_key(found: Any, part: object) -> bool:
    return isinstance(part, str) and found["type"] in {"missing", "extra_forbidden"}


def _explain_unknown_key(where: YamlPath, model: type[BaseModel]) -> str:
    allowed = _allowed_keys(where[:-1], model)
    if where[-1] in allowed:
        return "unknown key here: it belongs to another `engine` or `kind`: remove it, or name that"
    close = difflib.get_close_matches(str(where[-1]), allowed, n=1, cutoff=0.6)
    if close:
        return f"unknown key; did you mean '{close[0]}'?"
    return f"unknown key; allowed: {', '.join(allowed)}"


def _allowed_keys(where: YamlPath, model: type[BaseModel]) -> list[str]:
    """The keys that the schema allows at a path of the file."""
    models: list[Any] = [model]
    for part in where:
        if isinstance(part, int):
            continue
        models = [
            inner
            for model in models
            for name, field in model.model_fields.items()
            if (field.alias or name) == part
            for inner in models_in(field.annotation)
        ] or models
    return sorted({f.alias or name for m in models for name, f in m.model_fields.items()})


def _short(value: object) -> str:
    text = hide_secrets(repr(value) if isinstance(value, str) else f"{value}")
    return text if len(text) <= 60 else f"{text[:57]}..."
