"""Read YAML that anybody may have written: its size, depth and expanded aliases have bounds.

The parser yields events, and an alias counts with everything that it stands for. Nothing is built
beyond the bounds, so that a small file cannot keep bundler busy. Strings are single lines of
visible characters: what a reviewer of the file sees is what is rendered.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from bundler.formats.hidden_text import RAW, describe_hidden, find_hidden
from bundler.formats.yaml_scalars import MANIFEST_SCALARS, MERGE, RESOLVER, SCALARS, TAG, TEXT
from bundler.log import make_printable
from bundler.paths import STDIN

YamlPath = tuple[str | int, ...]

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The loader of libyaml if PyYAML has it: ten times as fast."""

FILES, CONTENT = "files", "content"
"""`files: {PATH: {content: …}}`: the only text that may have several lines."""
LINES = {ord("\n"): None, ord("\t"): None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The most that one file may hold."""

    size: int = 4 << 20  # bytes; thousands of nodes need far less
    values: int = 100_000  # each alias counts with all values that it stands for
    characters: int = 8 << 20  # of all texts, aliases expanded
    depth: int = 40


BOUNDS = Bounds()
MANIFESTS = Bounds(size=16 << 20, values=2_000_000, characters=64 << 20, depth=100)
"""Of Kubernetes manifests: the definitions of one operator's custom resources have megabytes."""


class NodeKind(Enum):
    """What a node is; the value is its usual tag."""

    TEXT = f"{TAG}str"
    LIST = f"{TAG}seq"
    MAPPING = f"{TAG}map"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong at a place of the text; `path` is empty where no key is known yet."""

    line: int
    column: int
    text: str
    path: YamlPath = ()

    def __str__(self) -> str:
        """`line:column: path: what`, to follow the file's name and a colon."""
        shown = f" {show_path(self.path)}:" if self.path else ""
        return f"{self.line}:{self.column}:{shown} {self.text}"


class YamlError(ValueError):
    """Text that is no YAML, or YAML that bundler does not accept, with every fault."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__("; ".join(map(str, faults)))
        self.faults = faults


@dataclass(slots=True, kw_only=True, eq=False)
class YamlNode:
    """One value of the text: a scalar's text, a list's items, or a mapping's pairs."""

    line: int
    column: int
    kind: NodeKind
    tag: str
    content: Any  # text, list of nodes, or list of (key, value)
    values: int = 1  # with those below it
    characters: int = 0
    height: int = 0


@dataclass(frozen=True, slots=True)
class YamlDocument:
    """One document's data, and line and column of each key and item."""

    data: Any
    places: dict[YamlPath, tuple[int, int]]
    raw: dict[YamlPath, str]  # the texts of values that are not text


def read_document(text: str, bounds: Bounds = BOUNDS) -> YamlDocument:
    """Read a single document; YamlError has every fault."""
    documents = compose_documents(text, bounds)
    root = next(documents, None)
    if second := next(documents, None):
        several = "several documents (---): keep one"
        raise YamlError(Fault(line=second.line, column=second.column, text=several))
    construction = _Construction()
    data = construction.construct(root, ()) if root else None
    if construction.faults:
        raise YamlError(*(construction.faults[place] for place in sorted(construction.faults)))
    return YamlDocument(data, construction.places, construction.raw)


def read_manifests(text: str, bounds: Bounds = MANIFESTS) -> Iterator[YamlDocument]:
    """Read each document of Kubernetes manifests; YamlError has every fault of the first wrong one.

    As kubectl reads them: texts may have several lines, and dates and sexagesimal numbers are text.
    """
    for root in compose_documents(text, bounds):
        construction = _Construction(scalars=MANIFEST_SCALARS, has_lines=True)
        data = construction.construct(root, ())
        if construction.faults:
            raise YamlError(*(construction.faults[place] for place in sorted(construction.faults)))
        yield YamlDocument(data, construction.places, construction.raw)


def read_bytes(path: Path, bounds: Bounds = BOUNDS) -> bytes:
    """The bytes of a file, or one more than `decode` accepts: a device has no size.

    The path `-` is standard input.
    """
    if path == STDIN:
        return sys.stdin.buffer.read(bounds.size + 1)
    with path.open("rb") as file:
        return file.read(bounds.size + 1)


def decode(content: bytes, bounds: Bounds = BOUNDS) -> str:
    """The text of a file; YamlError if it is too large or no text."""
    if len(content) > bounds.size:
        raise YamlError(Fault(line=1, column=1, text=f"larger than {bounds.size >> 20} MiB"))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise YamlError(
            Fault(line=1, column=1, text=f"not UTF-8 text (byte {error.start})")
        ) from error


def compose_documents(text: str, bounds: Bounds = BOUNDS) -> Iterator[YamlNode]:
    """The root of each document, without a check of its values; YamlError for the first fault."""
    if found := RAW.search(text):
        line, column = _find_place(text, found.start())
        raise YamlError(Fault(line=line, column=column, text=describe_hidden(found[0][0])))
    composition = _Composition(bounds)
    try:
        for event in yaml.parse(text, Loader=LOADER):
            composition.add(event)
            if composition.root:
                yield composition.root
                composition = _Composition(bounds)
    except yaml.YAMLError as error:
        raise YamlError(_explain(error, text)) from error


def show_path(path: YamlPath) -> str:
    """`nodes[1].address`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return make_printable(text)


@dataclass(slots=True)
class _Open:
    """A list or mapping whose end has not been read."""

    event: Any
    children: list[YamlNode] = field(default_factory=list)


@dataclass(slots=True)
class _Composition:
    """One document in the making."""

    bounds: Bounds
    root: YamlNode | None = None
    open: list[_Open] = field(default_factory=list)
    anchors: dict[str | None, YamlNode | None] = field(default_factory=dict)  # None: not complete
    values: int = 0
    characters: int = 0

    def add(self, event: yaml.Event) -> None:
        """Add what the event begins, ends or names."""
        if isinstance(event, yaml.ScalarEvent):
            tag = event.tag
            if tag in {None, "!"}:
                tag = RESOLVER.resolve(yaml.ScalarNode, event.value, event.implicit)
            node = _make_node(event, NodeKind.TEXT, tag, event.value)
            node.characters = len(event.value)
            self._count(event, 1, node.characters)
            self._close(event, node)
        elif isinstance(event, yaml.AliasEvent):
            self._close(event, self._find(event))
        elif isinstance(event, yaml.CollectionStartEvent):
            self._count(event, 1, 0)
            self.open.append(_Open(event))
            self._check_depth(event, 0)
            if event.anchor:
                self.anchors[event.anchor] = None
        elif isinstance(event, yaml.CollectionEndEvent):
            ended = self.open.pop()
            self._close(ended.event, _make_collection(ended))

    def _find(self, event: yaml.AliasEvent) -> YamlNode:
        name = make_printable(event.anchor or "")
        if event.anchor not in self.anchors:
            raise _fault(event, f"*{name}: there is no &{name} before it")
        node = self.anchors[event.anchor]
        if not node:
            raise _fault(event, f"*{name} is inside of &{name}: remove it")
        self._count(event, node.values, node.characters)
        self._check_depth(event, node.height)
        return node

    def _close(self, event: Any, node: YamlNode) -> None:
        if event.anchor and not isinstance(event, yaml.AliasEvent):
            self.anchors[event.anchor] = node
        if self.open:
            self.open[-1].children.append(node)
        else:
            self.root = node

    def _count(self, event: yaml.Event, values: int, characters: int) -> None:
        self.values += values
        self.characters += characters
        if self.values > self.bounds.values or self.characters > self.bounds.characters:
            raise _fault(
                event,
                f"more than {self.bounds.values} values or {self.bounds.characters} characters,"
                " each alias counted with all that it stands for: write less",
            )

    def _check_depth(self, event: yaml.Event, height: int) -> None:
        if len(self.open) + height > self.bounds.depth:
            raise _fault(event, f"nested deeper than {self.bounds.depth} levels: write less")


@dataclass(slots=True)
class _Construction:
    """Python data in the making, with the places and faults that were found."""

    places: dict[YamlPath, tuple[int, int]] = field(default_factory=dict)
    raw: dict[YamlPath, str] = field(default_factory=dict)
    faults: dict[tuple[int, int], Fault] = field(default_factory=dict)
    merged: dict[int, dict[str, tuple[YamlNode, YamlNode]]] = field(default_factory=dict)
    scalars: Mapping[str, Callable[[str], Any]] = field(default_factory=lambda: SCALARS)
    has_lines: bool = False  # every text may have several lines

    def construct(self, node: YamlNode, path: YamlPath) -> Any:
        """Make the data of a node; an alias becomes a copy of what it stands for."""
        self.places.setdefault(path, (node.line, node.column))
        if node.kind is NodeKind.TEXT:
            return self._construct_scalar(node, path)
        if node.tag != node.kind.value:
            return self._refuse_tag(node, path)
        if node.kind is NodeKind.LIST:
            return [self.construct(item, (*path, i)) for i, item in enumerate(node.content)]
        data = {}
        for name, (key, value) in self._list_entries(node, path).items():
            self.places[*path, name] = (key.line, key.column)
            data[name] = self.construct(value, (*path, name))
        return data

    def _construct_scalar(self, node: YamlNode, path: YamlPath) -> Any:
        if node.tag not in self.scalars:
            return self._refuse_tag(node, path)
        hidden = _find_raw(node.content) if self.has_lines else _leave_out_lines(node.content, path)
        if text := _refuse_hidden(hidden):
            return self._refuse(node, path, text)
        if node.tag not in {TEXT, f"{TAG}null"}:
            self.raw[path] = node.content
        try:
            return self.scalars[node.tag](node.content)
        except (ValueError, LookupError) as error:
            return self._refuse(node, path, f"{_shorten(node.content)}: {error}")

    def _list_entries(self, node: YamlNode, path: YamlPath) -> dict[str, tuple[YamlNode, YamlNode]]:
        """The entries of a mapping: own keys override merged ones, and earlier merges later."""
        if id(node) in self.merged:
            return self.merged[id(node)]
        own: dict[str, tuple[YamlNode, YamlNode]] = {}
        merges: list[YamlNode] = []
        for key, value in node.content:
            if key.tag == MERGE and not merges:
                merges = self._list_sources(value, path)
            elif text := _refuse_key(key, own):
                self._refuse(key, path, text)
            else:
                own[key.content] = (key, value)
        merged: dict[str, tuple[YamlNode, YamlNode]] = {}
        for source in merges:
            for name, entry in self._list_entries(source, path).items():
                merged.setdefault(name, entry)
        return self.merged.setdefault(id(node), merged | own)

    def _list_sources(self, value: YamlNode, path: YamlPath) -> list[YamlNode]:
        sources = value.content if value.kind is NodeKind.LIST else [value]
        if all(source.kind is NodeKind.MAPPING for source in sources):
            return list(sources)
        self._refuse(value, path, "<< takes a mapping, or a list of mappings")
        return []

    def _refuse_tag(self, node: YamlNode, path: YamlPath) -> None:
        tag = make_printable(node.tag.replace(TAG, "!!"))
        text = f"the tag {_shorten(tag)} is not supported: remove it, or write text in quotes"
        self._refuse(node, path, text)

    def _refuse(self, node: YamlNode, path: YamlPath, text: str) -> None:
        place = (node.line, node.column)
        self.faults.setdefault(
            place, Fault(line=node.line, column=node.column, text=text, path=path)
        )


def _make_node(event: Any, kind: NodeKind, tag: str, content: Any) -> YamlNode:
    mark = event.start_mark
    return YamlNode(line=mark.line + 1, column=mark.column + 1, kind=kind, tag=tag, content=content)


def _make_collection(ended: _Open) -> YamlNode:
    event, below = ended.event, ended.children
    kind = NodeKind.LIST if isinstance(event, yaml.SequenceStartEvent) else NodeKind.MAPPING
    pairs = zip(below[::2], below[1::2], strict=True) if kind is NodeKind.MAPPING else ()
    content = below if kind is NodeKind.LIST else list(pairs)
    node = _make_node(event, kind, kind.value if event.tag in {None, "!"} else event.tag, content)
    node.values += sum(child.values for child in below)
    node.characters = sum(child.characters for child in below)
    node.height = 1 + max((child.height for child in below), default=0)
    return node


def _refuse_key(key: YamlNode, own: dict[str, tuple[YamlNode, YamlNode]]) -> str:
    """Why a mapping cannot have the key; empty if it can."""
    if key.kind is not NodeKind.TEXT:
        return "a key must be text"
    if text := _refuse_hidden(key.content):
        return f"the key {_shorten(make_printable(key.content))} {text}"
    if key.tag == MERGE:
        return "<< twice: write << once, with a list of aliases"
    if key.tag != TEXT:
        return f"the key {_shorten(key.content)} is not text: write it in quotes"
    if key.content in own:
        first = own[key.content][0].line
        return f"duplicate key {_shorten(key.content)}, first in line {first}: keep one"
    return ""


def _find_raw(text: str) -> str:
    found = RAW.search(text)
    return found[0][0] if found else ""


def _leave_out_lines(text: str, path: YamlPath) -> str:
    """The text without the line breaks and tabs of a file that it becomes: a reviewer sees them."""
    is_file = path[-3:-2] == (FILES,) and path[-1] == CONTENT
    return text.translate(LINES) if is_file else text


def _refuse_hidden(text: str) -> str:
    hidden = find_hidden(text)
    return describe_hidden(hidden) if hidden else ""


def _shorten(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def _fault(event: Any, text: str) -> YamlError:
    mark = event.start_mark
    return YamlError(Fault(line=mark.line + 1, column=mark.column + 1, text=text))


def _explain(error: yaml.YAMLError, text: str) -> Fault:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or str(error).split("\n", maxsplit=1)[0]
    if not mark:
        return Fault(line=1, column=1, text=f"not valid YAML: {problem}")
    lines = text.split("\n")
    if mark.line < len(lines) and lines[mark.line][mark.column : mark.column + 1] == "\t":
        problem = "a tab cannot indent YAML: use spaces"
    return Fault(line=mark.line + 1, column=mark.column + 1, text=f"not valid YAML: {problem}")


def _find_place(text: str, index: int) -> tuple[int, int]:
    before = text[:index]
    return before.count("\n") + 1, index - before.rfind("\n")
