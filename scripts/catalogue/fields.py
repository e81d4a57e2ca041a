"""Fields of configuration files, from the Go types of their versions."""

import re
from collections.abc import Callable, Iterator

from tree_sitter import Node

from scripts.catalogue.golang import Declaration, Go, Type, text_of
from scripts.catalogue.source import KUBERNETES

FILES = {
    "kubelet": ("k8s.io/kubelet/config/v1beta1", "KubeletConfiguration"),
    "kube-proxy": ("k8s.io/kube-proxy/config/v1alpha1", "KubeProxyConfiguration"),
}
"""Component → package and type of its only version."""
SCHEDULER = "k8s.io/kube-scheduler/config/{version}"
SCHEDULER_KIND = "KubeSchedulerConfiguration"
SCHEME = f"{KUBERNETES}/pkg/scheduler/apis/config/scheme"
"""Imports the versions that the scheduler reads."""
BASIC = {
    "string": "string", "bool": "bool", "float32": "float", "float64": "float", "int": "int64",
    "int32": "int32", "int64": "int64", "uint32": "uint32", "int16": "int32", "uint16": "int32",
    "interface{}": "any", "any": "any",
}  # fmt: skip
READ_AS = {
    "Duration": "duration",
    "Quantity": "quantity",
    "QuantityValue": "quantity",
    "RawExtension": "any",
    "Time": "string",
    "TimeOrMetaDuration": "duration|int64",
    "Unknown": "any",
}
"""Types with a text form of their own → type of the field in the file."""

Key = tuple[str, str, str]
"""Component, API version (the scheduler's only) and field."""


def read_fields(go: Go, known: Callable[[Key], str]) -> dict[Key, str]:
    """Return every field of the kubelet's, kube-proxy's and kube-scheduler's files, with its type.

    `known` is the type that the table has for a field of an earlier minor: a field is written as
    its row is, in one row or in one for each field below it.
    """
    found: dict[Key, str] = {}
    places = [(name, "", kind) for name, kind in FILES.items()]
    places += [
        ("kube-scheduler", v, (SCHEDULER.format(version=v), SCHEDULER_KIND))
        for v in list_scheduler_versions(go)
    ]
    for component, api, kind in places:
        reader = _Reader(go, lambda field, c=component, a=api: known((c, a, field)))
        found |= {(component, api, field): of for field, of in reader.rows(kind, "")}
    return found


def list_scheduler_versions(go: Go) -> list[str]:
    """Return the versions of its configuration file that the scheduler reads, sorted."""
    scheme = go.package(SCHEME)
    paths = {path for file in scheme.files for path in file.imports.values()} if scheme else set()
    versions = {path.rpartition("/")[2] for path in paths if re.search(r"/config/v\d\w*$", path)}
    kinds = {v: go.package(SCHEDULER.format(version=v)) for v in versions}
    return sorted(v for v, package in kinds.items() if package and SCHEDULER_KIND in package.types)


class _Reader:
    """The fields of one file."""

    def __init__(self, go: Go, known: Callable[[str], str]) -> None:
        self.go, self.known = go, known

    def rows(self, kind: Type, above: str) -> Iterator[tuple[str, str]]:
        """Yield the rows of a struct's fields: dotted field, type."""
        for name, place, node in self.members(kind):
            yield from self.rows_of(place, node, f"{above}{name}")

    def rows_of(self, place: Declaration, node: Node, path: str) -> Iterator[tuple[str, str]]:
        """Yield the rows of one field."""
        inner = self.underlying(place, node)
        struct = inner if isinstance(inner, tuple) else None
        if struct and not self.known(f"{path}.*"):
            yield from self.rows(struct, f"{path}.")
            return
        text = self.text(place, node)
        item = self.item_of(place, node)
        if item and self.known(path) == "[]object":
            yield path, "[]object"
            yield from self.rows(item, f"{path}.")
        else:
            yield f"{path}.*" if re.search("[{]|map:", text) else path, text

    def members(self, kind: Type) -> Iterator[tuple[str, Declaration, Node]]:
        """Yield the fields of a struct as its file has them: name, where, type expression."""
        for key, item, owner in self.go.fields_of(kind):
            tag = re.search(r'json:"([^"]*)"', text_of(item.child_by_field_name("tag")))
            name, _, options = tag[1].partition(",") if tag else ("", "", "")
            node = item.child_by_field_name("type")
            is_private = not name and key[:1].islower()
            if name == "-" or not node or is_private:
                continue
            if not name and (not key or "inline" in options):
                inner = self.go.find_type(owner.file, owner.package.path, node)
                yield from self.members(inner) if inner else ()
            else:
                yield name or key, owner, node

    def underlying(self, place: Declaration, node: Node) -> Type | Node:
        """Return a struct's type, or the expression of another type, without names and pointers."""
        while node.type in {"pointer_type", "parenthesized_type"}:
            node = node.named_children[0]
        kind = self.go.find_type(place.file, place.package.path, node)
        if not kind or kind[1] in READ_AS:
            return node
        found = self.go.declaration_of(kind)
        body = found.node.child_by_field_name("type") if found else None
        if not found or not body:
            return node
        return kind if body.type == "struct_type" else node

    def item_of(self, place: Declaration, node: Node) -> Type | None:
        """Return the struct that a list's items are."""
        place, node = self.resolve(place, node)
        if node.type != "slice_type":
            return None
        inner = self.underlying(place, node.child_by_field_name("element"))
        return inner if isinstance(inner, tuple) else None

    def resolve(self, place: Declaration, node: Node) -> tuple[Declaration, Node]:
        """Return the expression that a name of a type stands for, and where that is."""
        while True:
            while node.type in {"pointer_type", "parenthesized_type"}:
                node = node.named_children[0]
            kind = self.go.find_type(place.file, place.package.path, node)
            found = self.go.declaration_of(kind) if kind and kind[1] not in READ_AS else None
            body = found.node.child_by_field_name("type") if found else None
            if not found or not body or body.type == "struct_type":
                return place, node
            place, node = found, body

    def text(self, place: Declaration, node: Node) -> str:
        """Return a type as the table writes it."""
        place, node = self.resolve(place, node)
        name = text_of(node).rpartition(".")[2]
        if node.type == "slice_type":
            inner = self.text(place, node.child_by_field_name("element"))
            return "string" if text_of(node) == "[]byte" else f"[]{inner}"
        if node.type == "map_type":
            return f"map:{self.text(place, node.child_by_field_name('value'))}"
        if self.go.find_type(place.file, place.package.path, node) == ("time", "Duration"):
            return "int64"
        if name in READ_AS or name in BASIC:
            return READ_AS.get(name) or BASIC[name]
        inner = self.underlying(place, node)
        if not isinstance(inner, tuple):
            return f"?{text_of(node)}"
        parts = {name: self.text(where, of) for name, where, of in self.members(inner)}
        return "{" + ",".join(f"{name}:{parts[name]}" for name in sorted(parts)) + "}"
