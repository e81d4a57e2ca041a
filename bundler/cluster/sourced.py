"""Values of a description with the place where each is written, and how layers of them merge."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bundler.formats.bounded_yaml import YamlPath, show_path


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value is written: the file, line and column, and its path in that file."""

    file: Path
    line: int
    column: int
    path: YamlPath

    def describe(self, text: str) -> str:
        """`file:line:column: path: text`."""
        shown = f" {show_path(self.path)}:" if self.path else ""
        return f"{self.file}:{self.line}:{self.column}:{shown} {text}"


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A value with its place. `content` is a scalar, a list of values or a mapping of them."""

    content: Any
    place: Place
    text: str | None = None  # as written, of a scalar that YAML does not read as text

    def get(self, key: str) -> "Value | None":
        """The value of a key; None if this is no mapping, or does not have the key."""
        return self.content.get(key) if isinstance(self.content, dict) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How lists and nulls merge, by path."""

    find_join: Callable[[YamlPath], str | None]
    """Of a list that a later one is appended to: the key that identifies its items, empty if they
    are no mappings. None: the later list replaces the earlier one."""
    keeps_null: Callable[[YamlPath], bool]
    """Whether null is a value there; elsewhere it drops what is under it."""


def make_value(
    data: Any,
    file: Path,
    places: Mapping[YamlPath, tuple[int, int]],
    raw: Mapping[YamlPath, str],
    path: YamlPath = (),
) -> Value:
    """The values of a document, of which `places` and `raw` are those of `read_document`."""
    content = data
    if isinstance(data, dict):
        content = {k: make_value(v, file, places, raw, (*path, k)) for k, v in data.items()}
    elif isinstance(data, list):
        content = [make_value(v, file, places, raw, (*path, i)) for i, v in enumerate(data)]
    return Value(content, Place(file, *places.get(path, (1, 1)), path), raw.get(path))


def merge(under: Value, over: Value, rules: Rules, path: YamlPath = ()) -> Value:
    """`under` with `over` merged over it: mappings by key, null drops what is under it."""
    if isinstance(under.content, dict) and isinstance(over.content, dict):
        merged = dict(under.content)
        for key, value in over.content.items():
            inner = (*path, key)
            if value.content is None and not rules.keeps_null(inner):
                merged.pop(key, None)
            elif key in merged:
                merged[key] = merge(merged[key], value, rules, inner)
            else:
                merged[key] = without_nulls(value, rules, inner)
        return Value(merged, over.place)
    identity = rules.find_join(path) if isinstance(over.content, list) else None
    if identity is not None and isinstance(under.content, list) and not _begins_anew(over):
        items = _join(under.content, without_nulls(over, rules, path).content, identity, rules)
        return Value(items, over.place)
    return without_nulls(over, rules, path)


def _join(under: list[Value], over: list[Value], identity: str, rules: Rules) -> list[Value]:
    """Both lists; an item of `over` replaces the one with the same identity, in its position."""
    items = list(under)
    for item in over:
        key = _identify(item, identity)
        same = [i for i, other in enumerate(items) if key and _identify(other, identity) == key]
        if not same:
            items.append(item)
        elif identity:
            items[same[0]] = merge(items[same[0]], item, rules, ("",))
    return items


def _identify(item: Value, identity: str) -> str:
    """What makes an item of a list unique; empty if nothing does."""
    found = item.get(identity) if identity else item
    return found.content if found and isinstance(found.content, str) else ""


def without_nulls(value: Value, rules: Rules, path: YamlPath = ()) -> Value:
    """A value without what only says that something under it is dropped."""
    if isinstance(value.content, dict):
        kept = {
            key: without_nulls(inner, rules, (*path, key))
            for key, inner in value.content.items()
            if inner.content is not None or rules.keeps_null((*path, key))
        }
        return Value(kept, value.place)
    if _begins_anew(value) and rules.find_join(path) is not None:
        return Value(value.content[1:], value.place)
    return value


def _begins_anew(value: Value) -> bool:
    """Whether a list has null as its first item: it replaces what it would be appended to."""
    items = value.content
    return isinstance(items, list) and bool(items) and items[0].content is None


def make_plain(value: Value) -> Any:
    """The data without places."""
    if isinstance(value.content, dict):
        return {key: make_plain(inner) for key, inner in value.content.items()}
    if isinstance(value.content, list):
        return [make_plain(inner) for inner in value.content]
    return value.content


def list_texts(value: Value, path: YamlPath = ()) -> Iterator[tuple[YamlPath, str]]:
    """Path and text of every scalar that YAML does not read as text."""
    if isinstance(value.content, dict):
        for key, inner in value.content.items():
            yield from list_texts(inner, (*path, key))
    elif isinstance(value.content, list):
        for index, inner in enumerate(value.content):
            yield from list_texts(inner, (*path, index))
    elif value.text is not None:
        yield path, value.text


def count(value: Value) -> int:
    """How many values it holds, itself included."""
    below = value.content
    if isinstance(below, dict):
        below = list(below.values())
    return 1 + (sum(map(count, below)) if isinstance(below, list) else 0)


def locate(root: Value, path: YamlPath) -> Place:
    """The place of the value at a path; else that of the nearest one around it.

    The place's own path has the rest of `path`, too: it says what is missing there.
    """
    here = root
    for index, part in enumerate(path):
        below = here.content
        if isinstance(below, list):
            below = dict(enumerate(below))
        if not isinstance(below, dict) or part not in below:
            return replace(here.place, path=here.place.path + path[index:])
        here = below[part]
    return here.place
