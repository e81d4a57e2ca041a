"""Add-ons that are Helm charts: their values, and what Helm makes of them.

Nothing here runs Helm: that is RenderChart, which a command provides.
"""

import difflib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bundler.cluster.addons.images import ANNOTATIONS
from bundler.cluster.addons.kinds import list_apis
from bundler.cluster.addons.manifests import Text, read_file, show_file
from bundler.cluster.addons.objects import Object
from bundler.cluster.problem import suggest
from bundler.cluster.schema import Cluster
from bundler.cluster.schema_addons import Addon
from bundler.errors import ConfigError
from bundler.formats.bounded_yaml import MANIFESTS, YamlError, YamlPath, decode, read_manifests
from bundler.formats.chart_packages import ChartPackage

SOURCE = "# Source: "
GLOBAL = "global"


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """One file of values, or the key `set`, as Helm gets it."""

    label: str  # in messages
    content: bytes = field(repr=False)
    data: Mapping[str, Any] = field(repr=False)
    is_file: bool = True

    @property
    def digest(self) -> str:
        """The SHA-256 of the content."""
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedChart:
    """What Helm made of a chart."""

    package: ChartPackage
    content: bytes = field(repr=False)  # YAML: definitions, objects and hooks
    url: str = ""  # of its package; empty for a path
    evidence: str = ""  # the trust source of its digest

    @property
    def label(self) -> str:
        """`chart ingress-nginx 4.13.2`."""
        return f"chart {self.package.name} {self.package.version}"

    @property
    def digest(self) -> str:
        """The SHA-256 of what Helm made."""
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartRequest:
    """A chart to render."""

    addon: Addon
    cluster: Cluster
    values: tuple[Values, ...]  # later ones win
    apis: tuple[str, ...]  # group/versions and kinds that the cluster has: `apps/v1/Deployment`


RenderChart = Callable[[ChartRequest], RenderedChart]
"""Raises BundlerError."""


def read_values(addon: Addon, base: Path) -> Iterator[tuple[YamlPath, Values | ConfigError]]:
    """Yield the values of an add-on in order, each with its key, or what is wrong with it."""
    for number, path in enumerate(addon.values):
        try:
            yield ("values", number), _read_values(path, base)
        except ConfigError as error:
            yield ("values", number), error
    if addon.set:
        content = json.dumps(addon.set).encode()
        yield ("set",), Values(label="set", content=content, data=addon.set, is_file=False)


def _read_values(path: Path, base: Path) -> Values:
    label = show_file(path, base)
    content = read_file(path)
    try:
        documents = [each.data for each in read_manifests(decode(content, MANIFESTS))]
    except YamlError as error:
        raise ConfigError("\n".join(f"{label}:{fault}" for fault in error.faults)) from error
    data = documents[0] if documents else None
    if len(documents) > 1 or not isinstance(data, dict | None):
        raise ConfigError(f"{label}: must be one mapping of values")
    return Values(label=label, content=content, data=data or {})


def list_unknown(values: Values, package: ChartPackage) -> Iterator[str]:
    """Texts about keys that the chart does not have: Helm ignores them.

    A chart may use keys that its values.yaml does not have, so deeper keys are reported only if a
    similar one exists. With a schema the chart decides itself.
    """
    if package.has_schema:
        return
    others = {GLOBAL, *package.subcharts}
    for key in values.data:
        if package.values and key not in package.values and key not in others:
            known = (*package.values, *others)
            yield f"{values.label}: {package.name} has no value {key}{suggest(key, known)}"
    yield from (
        f"{values.label}: {package.name} has no value {path}; did you mean '{close}'?"
        for key, below in values.data.items()
        for path, close in _list_misspelt(below, package.values.get(key), key)
    )


def _list_misspelt(given: Any, known: Any, path: str) -> Iterator[tuple[str, str]]:
    if not isinstance(given, dict) or not isinstance(known, dict):
        return
    for key, below in given.items():
        if key in known:
            yield from _list_misspelt(below, known[key], f"{path}.{key}")
        elif close := difflib.get_close_matches(key, known, n=1, cutoff=0.8):
            yield f"{path}.{key}", close[0]


def list_capabilities(minor: str, objects: Sequence[Object]) -> tuple[str, ...]:
    """The APIs of a minor, and of the custom resources that `objects` define."""
    found = {api for apis in list_apis(minor).values() for api in apis}
    found |= {f"{api}/{kind}" for kind, apis in list_apis(minor).items() for api in apis}
    for each in objects:
        spec = each.data.get("spec")
        if each.kind != "CustomResourceDefinition" or not isinstance(spec, dict):
            continue
        names = spec.get("names")
        kind = names.get("kind") if isinstance(names, dict) else None
        versions = spec.get("versions")
        listed = [v.get("name") for v in versions if isinstance(v, dict)] if (
            isinstance(versions, list)
        ) else [spec.get("version")]  # fmt: skip
        for version in listed:
            api = f"{spec.get('group')}/{version}"
            found |= {api, f"{api}/{kind}"}
    return tuple(sorted(found))


def split_sources(chart: RenderedChart) -> Iterator[Text]:
    """Yield what each template made: Helm writes its path before each document.

    A line `---` begins a document in any place: no text of YAML can have it.
    """
    sources: dict[str, list[str]] = {}
    for template, part in _split(chart.content):
        sources.setdefault(template or chart.label, []).append(part)
    for name, parts in sources.items():
        yield Text(label=name, content="\n---".join(parts).encode(), is_rendered=True)


def _split(content: bytes) -> Iterator[tuple[str, str]]:
    """Yield the template and the text of each document."""
    template = ""
    for part in f"\n{content.decode(errors='replace')}".split("\n---"):
        first = part.lstrip("\n").split("\n", maxsplit=1)[0]
        if first.startswith(SOURCE):
            template = first.removeprefix(SOURCE).strip()
        if part.strip():
            yield template, part


def make_chart_object(addon: Addon, chart: RenderedChart) -> Object | None:
    """Chart.yaml as an object, if its annotations list images; nothing of it is applied."""
    annotations = {
        key: text for key, text in chart.package.annotations.items() if key in ANNOTATIONS
    }
    if not annotations:
        return None
    name = chart.package.name
    data = {
        "apiVersion": "v2", "kind": "Chart", "metadata": {"name": name, "annotations": annotations},
    }  # fmt: skip
    return Object(
        addon=addon.name, api="v2", kind="Chart", name=name, namespace="", data=data,
        label=f"{name}/Chart.yaml", is_rendered=True, places={},
    )  # fmt: skip


def find_differences(first: bytes, second: bytes) -> tuple[tuple[str, str, str], ...]:
    """Template, object and path of each field in which two renderings differ.

    Raises YamlError if one is no YAML.
    """
    ours, theirs = _by_title(first), _by_title(second)
    found = []
    for key in dict.fromkeys((*ours, *theirs)):
        template, title = key
        if key not in ours or key not in theirs:
            found.append((template, title, ""))
            continue
        found += [(template, title, path) for path in _compare(ours[key], theirs[key], "")]
    return tuple(found)


def _by_title(content: bytes) -> dict[tuple[str, str], Any]:
    found: dict[tuple[str, str], Any] = {}
    for template, part in _split(content):
        for document in read_manifests(decode(part.encode(), MANIFESTS)):
            data = document.data
            metadata = data.get("metadata") if isinstance(data, dict) else None
            name = metadata.get("name") if isinstance(metadata, dict) else ""
            kind = data.get("kind") if isinstance(data, dict) else ""
            title = f"{kind}/{name}"
            while (template, title) in found:
                title += "'"
            found[template, title] = data
    return found


def _compare(one: Any, other: Any, path: str) -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys((*one, *other)):
            below = f"{path}.{key}" if path else key
            if key in one and key in other:
                yield from _compare(one[key], other[key], below)
            else:
                yield below
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, (left, right) in enumerate(zip(one, other, strict=True)):
            yield from _compare(left, right, f"{path}[{index}]")
    elif one != other:
        yield path
