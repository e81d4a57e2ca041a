"""Reads the files that a description consists of: cluster.yaml, what it includes, lists of nodes.

Only regular files are read, below one directory, each once, within bounds.
"""

import csv
import difflib
import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bundler.cluster.sourced import Place, Rules, Value, locate, make_value, merge
from bundler.errors import ConfigError
from bundler.formats.bounded_yaml import (
    BOUNDS,
    YamlError,
    YamlPath,
    decode,
    read_bytes,
    read_document,
)
from bundler.formats.hidden_text import RAW, describe_hidden, find_hidden

INCLUDE, NODES_FROM, NODES = "include", "nodes_from", "nodes"
ANCHORS = "x-"
"""Top keys that begin like this hold anchors for merge keys (`<<: *NAME`), and nothing else."""
MOST_FILES = 64
MOST_BYTES = 4 * BOUNDS.size  # of all files
MOST_COLUMNS = 200

ReadCell = Callable[[str, str], tuple[YamlPath, object]]
"""Column and text of a cell → path below the node, and the value; ValueError says what is wrong."""
Fault = tuple[Place, str]


@dataclass(frozen=True, slots=True)
class YamlFile:
    """One YAML file: its values with their places, and its digest."""

    path: Path
    root: Value
    sha256: str

    def describe(self, path: YamlPath, text: str) -> str:
        """`file:line:column: path: text`."""
        return locate(self.root, path).describe(text)


@dataclass(frozen=True, slots=True)
class Description:
    """A cluster.yaml, merged with everything that it includes."""

    root: Value
    digests: Mapping[str, str]  # file, as seen from the directory of cluster.yaml → SHA-256


@dataclass(slots=True, kw_only=True)
class _Reading:
    """What has been read, and what was wrong."""

    rules: Rules
    read_cell: ReadCell
    allowed: Path  # every file is below this directory
    digests: dict[str, str] = field(default_factory=dict)
    named: dict[Path, Place] = field(default_factory=dict)  # real path → where it is named
    open: list[Path] = field(default_factory=list)  # the files that include one another now
    size: int = 0
    faults: list[str] = field(default_factory=list)

    def refuse(self, place: Place, text: str) -> None:
        """Note a fault."""
        self.faults.append(place.describe(text))


def read_description(path: Path, rules: Rules, read_cell: ReadCell) -> Description:
    """Read cluster.yaml and every file that it names; ConfigError has every fault of the files.

    The result has no `include`, `nodes_from` and anchors: a file is merged over those that it
    includes, and listed nodes follow its own.
    """
    document, content = _read(path)
    reading = _Reading(rules=rules, read_cell=read_cell, allowed=_find_allowed(path))
    reading.size = len(content)
    reading.digests[path.name] = document.sha256
    real = path.resolve()
    reading.named[real] = document.root.place
    root = _resolve(document, real, Path(), reading)
    if reading.faults:
        raise ConfigError("\n".join(reading.faults))
    return Description(root, reading.digests)


def read_yaml(path: Path, wanted: str) -> YamlFile:
    """Read one YAML file, a mapping with the keys that `wanted` names; raises ConfigError."""
    document, _ = _read(path, wanted)
    return document


def _read(path: Path, wanted: str = "apiVersion, name and nodes") -> tuple[YamlFile, bytes]:
    try:
        content = read_bytes(path)
    except OSError as error:
        hint = (
            "create it: bundler init, or bundler init --example NAME" if not path.exists() else None
        )
        raise ConfigError(f"{path}: {error.strerror or error}", hint=hint) from error
    document = _parse(content, path)
    if not isinstance(document.root.content, dict):
        raise ConfigError(f"{path}:1:1: must be a mapping with {wanted}")
    return document, content


def _parse(content: bytes, path: Path) -> YamlFile:
    try:
        read = read_document(decode(content))
    except YamlError as error:
        raise ConfigError("\n".join(f"{path}:{fault}" for fault in error.faults)) from error
    root = make_value(read.data, path, read.places, read.raw)
    return YamlFile(path, root, hashlib.sha256(content).hexdigest())


def _find_allowed(path: Path) -> Path:
    """The directory that holds all files: the git work tree, or that above cluster.yaml's own."""
    own = path.resolve().parent
    trees = (place for place in (own, *own.parents) if (place / ".git").exists())
    return next(trees, own.parent)


def _resolve(document: YamlFile, real: Path, folder: Path, reading: _Reading) -> Value:
    """The document merged over what it includes, with the nodes of its lists.

    `folder` is the directory of the document, as seen from that of cluster.yaml.
    """
    own = dict(document.root.content)
    includes, lists = own.pop(INCLUDE, None), own.pop(NODES_FROM, None)
    under: Value | None = None
    reading.open.append(real)
    for place, name in _list_names(includes, reading):
        if included := _include(place, name, document, folder, reading):
            under = merge(under, included, reading.rules) if under else included
    reading.open.pop()
    rows: list[Value] = []
    for place, name in _list_names(lists, reading):
        rows += _read_rows(place, name, document, folder, reading)
    nodes = own.get(NODES)
    if rows and (nodes is None or nodes.content is None):
        own[NODES] = Value(rows, lists.place if lists else document.root.place)
    elif nodes and isinstance(nodes.content, list):
        own[NODES] = Value([*nodes.content, *rows], nodes.place)
    kept = {key: value for key, value in own.items() if not key.startswith(ANCHORS)}
    root = Value(kept, document.root.place)
    return merge(under, root, reading.rules) if under else root


def _include(
    place: Place, name: str, document: YamlFile, folder: Path, reading: _Reading
) -> Value | None:
    real = _find(place, name, document, reading)
    content = _load(place, name, real, folder, reading) if real else None
    if real is None or content is None:
        return None
    try:
        included = _parse(content, document.path.parent / name)
    except ConfigError as error:
        reading.faults += error.message.splitlines()
        return None
    if not isinstance(included.root.content, dict):
        reading.refuse(included.root.place, "must be a mapping with keys of cluster.yaml")
        return None
    return _resolve(included, real, folder / Path(name).parent, reading)


def _read_rows(
    place: Place, name: str, document: YamlFile, folder: Path, reading: _Reading
) -> list[Value]:
    suffix = Path(name).suffix
    if suffix not in READERS:
        reading.refuse(place, f"{name}: must end in .csv, .yaml or .yml")
        return []
    real = _find(place, name, document, reading)
    content = _load(place, name, real, folder, reading) if real else None
    if content is None:
        return []
    path = document.path.parent / name
    try:
        return list(READERS[suffix](content, path, reading))
    except ConfigError as error:
        reading.faults += error.message.splitlines()
        return []


def _list_names(value: Value | None, reading: _Reading) -> Iterator[tuple[Place, str]]:
    """The files that a key names: one, or a list of them."""
    if value is None or value.content is None:
        return
    for item in value.content if isinstance(value.content, list) else [value]:
        if isinstance(item.content, str) and item.content:
            yield item.place, item.content
        else:
            reading.refuse(item.place, "must be the path of a file, or a list of paths")


def _find(place: Place, name: str, document: YamlFile, reading: _Reading) -> Path | None:
    """The real path of a file that a description names; None if it may not be read."""
    path = document.path.parent / name
    if Path(name).is_absolute():
        reading.refuse(
            place, f"{name}: must be relative to {document.path.name}: then a checkout can move"
        )
        return None
    try:
        real = path.resolve(strict=True)
        kind = real.stat().st_mode
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: links in a circle
        reason = getattr(error, "strerror", None) or error
        reading.refuse(place, f"{name}: {reason} ({path})")
        return None
    if not real.is_relative_to(reading.allowed):
        text = (
            f"{name} is outside of {reading.allowed}: files must be in the git work tree of"
            " cluster.yaml, or without one below the directory above it"
        )
        reading.refuse(place, text)
    elif not stat.S_ISREG(kind):
        reading.refuse(place, f"{name}: must be a regular file")
    elif real in reading.open:
        circle = " → ".join(each.name for each in (*reading.open, real))
        reading.refuse(place, f"{name} includes itself: {circle}: remove one include")
    elif first := reading.named.get(real):
        where = f"{first.file}:{first.line}" if first.path else str(first.file)
        reading.refuse(place, f"{name} is read already, named in {where}: keep one")
    elif len(reading.named) >= MOST_FILES:
        reading.refuse(place, f"{name}: more than {MOST_FILES} files: merge some")
    else:
        reading.named[real] = place
        return real
    return None


def _load(place: Place, name: str, real: Path, folder: Path, reading: _Reading) -> bytes | None:
    try:
        content = read_bytes(real)
    except OSError as error:
        reading.refuse(place, f"{name}: {error.strerror or error}")
        return None
    reading.size += len(content)
    if reading.size > MOST_BYTES:
        reading.refuse(place, f"{name}: all files together are larger than {MOST_BYTES >> 20} MiB")
        return None
    seen = Path(os.path.normpath(folder / name)).as_posix()
    reading.digests[seen] = hashlib.sha256(content).hexdigest()
    return content


def _read_yaml_rows(content: bytes, path: Path, reading: _Reading) -> Iterator[Value]:
    document = _parse(content, path)
    if not isinstance(document.root.content, list):
        reading.refuse(document.root.place, "must be a list of nodes: - {name: …, address: …}")
        return
    yield from document.root.content


def _read_csv_rows(content: bytes, path: Path, reading: _Reading) -> Iterator[Value]:
    """One node for each line below the names of the columns; an empty cell is as if not there."""
    lines = _split_csv(content, path)
    header = next(lines, None)
    if header is None:
        raise ConfigError(Place(path, 1, 1, ()).describe("is empty: the first line names columns"))
    columns = _check_header([cell.strip() for cell in header.cells], path, header.line)
    for row in lines:
        place = Place(path, row.line, 1, ())
        if len(row.cells) != len(columns):
            text = f"{len(row.cells)} cells for {len(columns)} columns: quote cells with a comma"
            reading.refuse(place, text)
            continue
        cells = dict(zip(columns, (cell.strip() for cell in row.cells), strict=True))
        name = cells.get("name") or f"line {row.line}"
        node = Value({}, Place(path, row.line, 1, (name,)))
        for index, (column, text) in enumerate(cells.items()):
            if not text:
                continue
            at = Place(path, row.line, row.find_column(index), (name, column))
            if hidden := find_hidden(text):
                reading.refuse(at, describe_hidden(hidden))
                continue
            try:
                inner, value = reading.read_cell(column, text)
            except ValueError as error:
                reading.refuse(at, str(error))
                continue
            if not _put(node, inner, _at(value, at)):
                reading.refuse(at, "another column has a value in its place: remove one column")
        yield node


READERS: Mapping[str, Callable[[bytes, Path, _Reading], Iterable[Value]]] = {
    ".csv": _read_csv_rows,
    ".yaml": _read_yaml_rows,
    ".yml": _read_yaml_rows,
}
"""End of a file's name → how its nodes are read."""


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of a CSV file."""

    line: int
    cells: list[str]
    is_quoted: bool

    def find_column(self, index: int) -> int:
        """The column of a cell in its line; 1 if quotes hide it."""
        return 1 if self.is_quoted else 1 + sum(len(cell) + 1 for cell in self.cells[:index])


def _split_csv(content: bytes, path: Path) -> Iterator[_Row]:
    """The lines that are not empty. The separator is a comma, or what the first line has."""
    try:
        text = decode(content)
    except YamlError as error:
        raise ConfigError("\n".join(f"{path}:{fault}" for fault in error.faults)) from error
    if found := RAW.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise ConfigError(Place(path, line, 1, ()).describe(describe_hidden(found[0][0])))
    sources = text.split("\n")
    separator = next((s for s in ";\t" if s in sources[0] and "," not in sources[0]), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    line = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield _Row(line, cells, '"' in sources[line - 1])
            line = reader.line_num + 1
    except csv.Error as error:
        raise ConfigError(Place(path, line, 1, ()).describe(f"not valid CSV: {error}")) from error


def _check_header(columns: list[str], path: Path, line: int) -> list[str]:
    """The names of the columns; ConfigError if one is missing, or there twice."""
    place = Place(path, line, 1, ())
    faults = [
        place.describe(f"column {number} has no name: give it one")
        for number, column in enumerate(columns, 1)
        if not column
    ]
    faults += [
        place.describe(f"two columns have the name {column}: keep one")
        for column in dict.fromkeys(columns)
        if column and columns.count(column) > 1
    ]
    if "name" not in columns:
        close = difflib.get_close_matches("name", columns, n=1)
        wrong = f", not {close[0]}" if close else ""
        faults.append(place.describe(f"the first line must name columns, one of them name{wrong}"))
    if len(columns) > MOST_COLUMNS:
        faults.append(place.describe(f"more than {MOST_COLUMNS} columns: write less"))
    if faults:
        raise ConfigError("\n".join(faults))
    return columns


def _at(value: object, place: Place) -> Value:
    items = [_at(item, place) for item in value] if isinstance(value, list) else value
    return Value(items, place)


def _put(node: Value, path: YamlPath, value: Value) -> bool:
    """Set a value below a node; False if there is one already."""
    here = node
    for part in path[:-1]:
        below = here.content.setdefault(part, Value({}, value.place))
        if not isinstance(below.content, dict):
            return False
        here = below
    if path[-1] in here.content:
        return False
    here.content[path[-1]] = value
    return True
