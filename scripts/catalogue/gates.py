"""Feature gates of a source tree: stage, default, and whether the value is locked."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tree_sitter import Node

from scripts.catalogue.golang import Declaration, Go, text_of, walk
from scripts.catalogue.source import KUBERNETES

PACKAGES = (
    f"{KUBERNETES}/pkg/features",
    "k8s.io/apiextensions-apiserver/pkg/features",
    "k8s.io/apiserver/pkg/features",
    "k8s.io/apiserver/pkg/util/feature",  # AllAlpha, before 1.15
    "k8s.io/component-base/featuregate",  # AllAlpha, AllBeta
    "k8s.io/component-base/logs",  # 1.24
    "k8s.io/component-base/logs/api/v1",
    "k8s.io/component-base/metrics/features",
    "k8s.io/controller-manager/pkg/features",
    "k8s.io/kube-aggregator/pkg/features",
)
"""Packages that add gates to those of every component."""
CLIENT = "k8s.io/client-go/features"
"""Its gates count where pkg/features adds them."""
NAMES = re.compile(r"(^|_)features?\.go$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A feature gate of one minor."""

    stage: str  # alpha | beta | ga | deprecated
    default: str  # true | false
    is_locked: bool

    def describe(self) -> str:
        """Return `beta, true by default`, or that the value is locked."""
        return f"{self.stage}, {'locked at ' if self.is_locked else ''}{self.default}" + (
            "" if self.is_locked else " by default"
        )


def read_gates(go: Go, minor: str) -> dict[str, Gate]:
    """Return every feature gate that the components of the minor have."""
    found: dict[str, Gate] = {}
    own = go.package(PACKAGES[0])
    has_client = own is not None and any(CLIENT in file.imports.values() for file in own.files)
    for path in (*PACKAGES, *((CLIENT,) if has_client else ())):
        package = go.package(path)
        for file in package.files if package else ():
            place = Declaration(package=package, file=file, node=file.root)
            for literal in (one for one in walk(file.root) if one.type == "composite_literal"):
                kind = text_of(literal.child_by_field_name("type"))
                if re.fullmatch(r"map\[[\w.]*Feature\][\w.]*(FeatureSpec|VersionedSpecs)", kind):
                    found |= dict(_read(go, place, literal, minor))
    return found


def _read(go: Go, place: Declaration, literal: Node, minor: str) -> Iterator[tuple[str, Gate]]:
    """Yield the gates of a map from names to specifications."""
    for element in _elements(literal.child_by_field_name("body")):
        key, value = element
        name = go.constant(place, key, {})
        if not name:
            go.unread.add(f"{place.file.path}: the feature gate {text_of(key)} has no known name")
            continue
        inner = list(_elements(value))
        if inner:
            specs = [dict(_settings(value))]
        else:
            specs = [dict(_settings(one)) for one in _values(value)]
        specs = [spec for spec in specs if _is_reached(spec.get("Version", ""), minor)]
        if specs:
            last = specs[-1]
            stage = last.get("PreRelease", "").rpartition(".")[2].strip('"').lower() or "ga"
            locked = last.get("LockToDefault") == "true"
            yield name, Gate(stage=stage, default=last.get("Default", "false"), is_locked=locked)


def _is_reached(version: str, minor: str) -> bool:
    """Whether a specification `version.MustParse("1.27")` holds in the minor."""
    match = re.search(r"(\d+)\.(\d+)", version)
    return not match or (int(match[1]), int(match[2])) <= tuple(map(int, minor.split(".")))


def _elements(value: Node | None) -> Iterator[tuple[Node, Node]]:
    """Yield key and value of each keyed element of a literal."""
    for one in value.named_children if value is not None else ():
        if one.type == "keyed_element":
            key, inner = [child for child in one.named_children if child.type == "literal_element"]
            yield key.named_children[0], inner.named_children[0]


def _values(value: Node) -> Iterator[Node]:
    """Yield the literals of a list."""
    for one in value.named_children:
        if one.type == "literal_element":
            yield one.named_children[0]


def _settings(value: Node) -> Iterator[tuple[str, str]]:
    for key, inner in _elements(value):
        yield text_of(key), text_of(inner)
