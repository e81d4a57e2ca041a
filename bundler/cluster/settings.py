"""Flags and configuration fields: the catalog's rows for a minor, with `extra` merged over them."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from bundler.catalog import default_version
from bundler.cluster.accepted import is_within
from bundler.cluster.components import (
    EXTRA_COMPONENTS,
    MINORS,
    has_feature,
    minor_of,
)
from bundler.cluster.handlers import make_handlers
from bundler.cluster.plan import (
    choose_etcd,
    choose_flannel,
    choose_kube_router,
    features_of,
    runtime_versions,
)
from bundler.cluster.schema import Cluster
from bundler.cluster.values import FlagValue
from bundler.errors import ConfigError
from bundler.formats.bounded_yaml import read_document

OWN_MINORS = frozenset({"etcd", "flanneld", "kube-router", "cri-dockerd", "docker"})
"""Components whose rows have their own minors, not Kubernetes'."""

TYPED = "| tojson }}"
"""The end of an expression whose value is not text."""

Render = Callable[[str], str]
"""Renders the text of a Jinja expression for a node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagRow:
    """One flag that bundler sets: its value as a template, the reason, and its minors.

    Minors are Kubernetes', or the component's own (OWN_MINORS).
    """

    flag: str
    value: str
    why: str
    fixed: bool = False
    since: str | None = None
    until: str | None = None
    feature: str | None = None  # only if the cluster has this feature
    on_host: bool = False  # not in the unit: a script on the host adds it
    repeated: bool = False  # a line of the value is a flag of its own

    def holds_for(self, minor: str) -> bool:
        """Whether bundler sets the flag in a minor."""
        return is_within(self.since, self.until, minor)


def make_flags(
    cluster: Cluster, component: str, render: Render, more: frozenset[str] = frozenset()
) -> tuple[str, ...]:
    """`--flag=value` for each flag, sorted; `extra` replaces bundler's values.

    `more` are features of the node, next to those of the cluster.
    """
    minor, features = minor_of(version_of(cluster, component)), features_of(cluster) | more
    values: dict[str, list[str]] = {}
    for row in list_flags(component):
        if row.holds_for(minor) and has_feature(row.feature, features) and not row.on_host:
            text = render(row.value)
            values[row.flag] = text.splitlines() if row.repeated else [text]
    extra = cluster.extra.get(component)
    if extra:
        values |= {flag: [_text(value)] for flag, value in extra.flags.items()}
    return tuple(f"--{flag}={value}" for flag in sorted(values) for value in values[flag])


def version_of(cluster: Cluster, component: str) -> str:
    """The version by which a component's rows are chosen: Kubernetes', or its own."""
    kubernetes = minor_of(cluster.kubernetes.version)
    own = {
        "etcd": choose_etcd(cluster),
        "flanneld": choose_flannel(cluster) if cluster.network.plugin == "flannel" else "0.11.0",
        "kube-router": choose_kube_router(cluster),
        "coredns": cluster.dns.version or default_version("coredns", kubernetes),
        **runtime_versions(cluster),
    }
    return own.get(component, cluster.kubernetes.version)


def make_config(
    cluster: Cluster, component: str, render: Render, more: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """A component's configuration file as data; `extra` is merged over bundler's fields.

    `more` are features of the node, next to those of the cluster.
    """
    minor, features = minor_of(version_of(cluster, component)), features_of(cluster) | more
    fields: dict[str, Any] = {}
    for row in list_fields(component, minor):
        if has_feature(row.get("feature"), features):
            fields = _merge(fields, _render_tree(row["fields"], render))
    fields = _merge(fields, make_handlers(cluster, component))
    extra = cluster.extra.get(component)
    return _merge(fields, extra.config) if extra else fields


def list_flags(component: str) -> tuple[FlagRow, ...]:
    """The catalog's flags of one component, for all minors."""
    return tuple(FlagRow(**row) for row in _load("flags.yaml").get(component, ()))


def list_components() -> tuple[str, ...]:
    """The components that get command-line flags."""
    return tuple(name for name, target in EXTRA_COMPONENTS.items() if target.has_flags)


def explain(component: str, version: str) -> tuple[FlagRow, ...]:
    """The flags of a component at a version or minor, sorted; ConfigError for an unknown one."""
    names = list_components()
    if component not in names:
        raise ConfigError(
            f"{component}: not a component with flags; known: {', '.join(names)}",
            hint="leave --version out for a key of cluster.yaml",
        )
    parts = version.removeprefix("v").split(".")
    if len(parts) < 2 or not all(part.isdigit() for part in parts[:2]):
        raise ConfigError(f"--version {version}: must be a version such as 1.20 or 1.20.2")
    minor = ".".join(parts[:2])
    if component not in OWN_MINORS and minor not in MINORS:
        raise ConfigError(
            f"--version {version}: no flags are known for Kubernetes {minor};"
            f" choose {MINORS[0]} to {MINORS[-1]}"
        )
    return tuple(sorted((r for r in list_flags(component) if r.holds_for(minor)), key=_flag_of))


def _flag_of(row: FlagRow) -> str:
    return row.flag


def list_fields(component: str, minor: str) -> list[dict[str, Any]]:
    """A component's rows for a minor; later rows are merged over earlier ones."""
    rows: list[dict[str, Any]] = _load("fields.yaml")[component]
    return [row for row in rows if is_within(row.get("since"), row.get("until"), minor)]


def list_own_fields(component: str, minor: str) -> dict[str, Any]:
    """Bundler's own fields of a component, with expressions that are not rendered."""
    fields: dict[str, Any] = {}
    for row in list_fields(component, minor):
        fields = _merge(fields, row["fields"])
    return fields


def _render_tree(value: Any, render: Render) -> Any:
    if isinstance(value, dict):
        return {key: _render_tree(inner, render) for key, inner in value.items()}
    if isinstance(value, list):
        return [_render_tree(inner, render) for inner in value]
    if isinstance(value, str) and "{{" in value:
        text = render(value)
        return json.loads(text) if TYPED in value else text
    return value


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        inner = merged.get(key)
        merged[key] = (
            _merge(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
        )
    return merged


def _text(value: FlagValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@cache
def _load(name: str) -> dict[str, Any]:
    text = (files("bundler.catalog") / name).read_text(encoding="utf-8")
    document: dict[str, Any] = read_document(text).data
    return document
