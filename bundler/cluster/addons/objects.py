"""Text of manifests → objects of the Kubernetes API, each with its place."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bundler.cluster.addons.kinds import CLUSTER_SCOPED, group_of, list_builtin_groups
from bundler.cluster.addons.manifests import Text
from bundler.cluster.values import DNS_LABEL
from bundler.errors import ConfigError
from bundler.formats.bounded_yaml import (
    MANIFESTS,
    YamlDocument,
    YamlError,
    YamlPath,
    decode,
    read_manifests,
    show_path,
)

DEFAULT = "default"
FORMS = {
    "apiVersion": re.compile(r"([a-z0-9][-a-z0-9.]*/)?v[a-z0-9]+"),
    "kind": re.compile(r"[A-Z][A-Za-z0-9]*"),
    "metadata.name": re.compile(r"[A-Za-z0-9][-A-Za-z0-9._:@+~]*"),
    "metadata.namespace": DNS_LABEL,
}
"""Key of every object → what its value looks like. Hosts keep these words in lists."""

EXAMPLES = {
    "apiVersion": "apps/v1", "kind": "Deployment", "metadata.name": "controller",
    "metadata.namespace": "ingress",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """When kube-addons.service runs an object, and what becomes of it."""

    events: tuple[str, ...]  # pre-install, post-install, pre-upgrade, post-upgrade
    weight: int
    is_kept: bool = False  # an earlier one is changed in place, not deleted
    ends: bool = False  # it is deleted when it has succeeded


@dataclass(frozen=True, slots=True, kw_only=True)
class Object:
    """One object, with its namespace as the API will have it."""

    addon: str
    api: str  # apps/v1
    kind: str
    name: str
    namespace: str  # empty for kinds without one
    data: dict[str, Any]
    label: str  # of its text
    is_rendered: bool
    places: Mapping[YamlPath, tuple[int, int]] = field(repr=False)
    at: YamlPath = ()  # in its document
    hook: Hook | None = None  # if kube-addons.service runs it as one

    @property
    def title(self) -> str:
        """`Deployment/ingress/controller`, or `Namespace/ingress`."""
        return "/".join(part for part in (self.kind, self.namespace, self.name) if part)

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """What is unique in a cluster: group, kind, namespace and name."""
        return group_of(self.api), self.kind, self.namespace, self.name

    def describe(self, path: YamlPath = ()) -> str:
        """`file:line:column: path`, or for what is rendered `kustomization: KIND/NAME: path`."""
        shown = show_path(path)
        if self.is_rendered:
            return f"{self.label}: {self.title}{f': {shown}' if shown else ''}"
        line, column = self._find(path)
        return f"{self.label}:{line}:{column}: {shown or self.title}"

    def locate(self, path: YamlPath = ()) -> str:
        """`file:line`, or the kustomization."""
        return self.label if self.is_rendered else f"{self.label}:{self._find(path)[0]}"

    def _find(self, path: YamlPath) -> tuple[int, int]:
        whole = (*self.at, *path)
        while whole not in self.places and len(whole) > len(self.at):
            whole = whole[:-1]
        return self.places.get(whole, (1, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A mapping of a text that must be an object."""

    data: Any
    places: Mapping[YamlPath, tuple[int, int]]
    at: YamlPath = ()


def read_objects(addon: str, text: Text, namespace: str | None) -> Iterator[Object]:
    """Yield the objects of a text; raises ConfigError with every fault.

    `namespace` is for objects that name none. Whether a custom kind has one is decided later, by
    `set_scopes`.
    """
    try:
        documents = list(read_manifests(decode(text.content, MANIFESTS)))
    except YamlError as error:
        lines = (f"{text.label}:{fault}" for fault in error.faults)
        raise ConfigError("\n".join(lines)) from error
    faults: list[str] = []
    found: list[Object] = []
    for part in (part for document in documents for part in _flatten(document)):
        line, column = part.places.get(part.at, (1, 1))
        where = text.label if text.is_rendered else f"{text.label}:{line}:{column}"
        if fault := _find_fault(part.data):
            faults.append(f"{where}: {fault}")
            continue
        own = part.data["metadata"].get("namespace")
        found.append(
            Object(
                addon=addon,
                api=part.data["apiVersion"],
                kind=part.data["kind"],
                name=part.data["metadata"]["name"],
                namespace=own or namespace or DEFAULT,
                data=part.data,
                label=text.label,
                is_rendered=text.is_rendered,
                places=part.places,
                at=part.at,
            )
        )
    if faults:
        raise ConfigError("\n".join(faults))
    yield from found


def _flatten(document: YamlDocument) -> Iterator[_Part]:
    """The objects of a document: the items of a List are objects, and an empty one has none."""
    data = document.data
    if data is None:
        return
    is_list = isinstance(data, dict) and str(data.get("kind", "")).endswith("List")
    if is_list and isinstance(items := data.get("items"), list):
        for index, item in enumerate(items):
            yield _Part(data=item, places=document.places, at=("items", index))
    else:
        yield _Part(data=data, places=document.places)


def _find_fault(data: Any) -> str:
    """Why a document is no object; empty if it is one."""
    if not isinstance(data, dict):
        return "must be an object of Kubernetes: a mapping with apiVersion, kind and metadata"
    metadata = data.get("metadata")
    if isinstance(metadata, dict) and metadata.get("generateName") and not metadata.get("name"):
        return "has generateName: each run would make one more; give it a name"
    if not isinstance(metadata, dict):
        return "must be an object of Kubernetes, and has no metadata"
    for key, pattern in FORMS.items():
        first, dot, last = key.partition(".")
        value = data.get(first)
        value = value.get(last) if dot and isinstance(value, dict) else value
        if value is None and key != "metadata.namespace":
            return f"must be an object of Kubernetes, and has no {key}"
        if value is not None and not (isinstance(value, str) and pattern.fullmatch(value)):
            return f"{key} must be text such as {EXAMPLES[key]}"
    return ""


def find_scopes(objects: Sequence[Object]) -> Mapping[tuple[str, str], bool]:
    """Group and kind of each custom resource that the objects define → whether it is namespaced."""
    found = {}
    for each in objects:
        spec = each.data.get("spec")
        if each.kind == "CustomResourceDefinition" and isinstance(spec, dict):
            names = spec.get("names")
            kind = names.get("kind") if isinstance(names, dict) else None
            found[str(spec.get("group")), str(kind)] = spec.get("scope") != "Cluster"
    return found


def is_namespaced(
    each: Object, scopes: Mapping[tuple[str, str], bool], namespace: str | None
) -> bool:
    """Whether the object has a namespace; of a kind that nobody defines here, if one is given."""
    group = group_of(each.api)
    if group in list_builtin_groups():
        return each.kind not in CLUSTER_SCOPED
    is_given = bool(each.data["metadata"].get("namespace") or namespace)
    return scopes.get((group, each.kind), is_given)
