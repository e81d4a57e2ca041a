"""Flags and configuration fields: the catalogue's rows of a minor, the user's `extra` on top."""

import csv
import difflib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from bundler.catalog import default_version
from bundler.checks import Problem
from bundler.components import EXTRA_COMPONENTS, MINORS, has_feature, key_of, minor_of
from bundler.config import Cluster, FlagValue
from bundler.errors import ConfigError
from bundler.plan import choose_etcd, choose_flannel, features_of, runtime_versions

OWN_MINORS = frozenset({"etcd", "flanneld", "cri-dockerd"})
"""Components whose rows hold for minors of their own, and not for Kubernetes'."""

Render = Callable[[str], str]
"""Renders one Jinja expression's text for a node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagRow:
    """One flag that bundler sets: its value as a template, why, and in which minors.

    Minors are Kubernetes', or the component's own (OWN_MINORS).
    """

    flag: str
    value: str
    why: str
    fixed: bool = False
    since: str | None = None
    until: str | None = None
    feature: str | None = None  # only where the cluster has chosen it

    def holds_for(self, minor: str) -> bool:
        """Whether a minor takes it."""
        return _holds(self.since, self.until, minor)


def make_flags(cluster: Cluster, component: str, render: Render) -> tuple[str, ...]:
    """`--flag=value` for each, sorted, the user's over bundler's."""
    minor, features = minor_of(version_of(cluster, component)), features_of(cluster)
    values: dict[str, str] = {
        row.flag: render(row.value)
        for row in list_flags(component)
        if row.holds_for(minor) and has_feature(row.feature, features)
    }
    extra = cluster.extra.get(component)
    if extra:
        values |= {flag: _text(value) for flag, value in extra.flags.items()}
    return tuple(f"--{flag}={value}" for flag, value in sorted(values.items()))


def version_of(cluster: Cluster, component: str) -> str:
    """The version of the program whose flags or fields are meant: Kubernetes', or its own."""
    kubernetes = minor_of(cluster.kubernetes.version)
    own = {
        "etcd": choose_etcd(cluster),
        "flanneld": choose_flannel(cluster) if cluster.network.plugin == "flannel" else "0.11.0",
        "coredns": cluster.dns.version or default_version("coredns", kubernetes),
        **runtime_versions(cluster),
    }
    return own.get(component, cluster.kubernetes.version)


def make_config(cluster: Cluster, component: str, render: Render) -> dict[str, Any]:
    """A component's configuration file as data, the user's fields merged over bundler's."""
    minor, features = minor_of(version_of(cluster, component)), features_of(cluster)
    fields: dict[str, Any] = {}
    for row in _list_fields(component, minor):
        if has_feature(row.get("feature"), features):
            fields = _merge(fields, _render_tree(row["fields"], render))
    extra = cluster.extra.get(component)
    return _merge(fields, extra.config) if extra else fields


def check_extra(cluster: Cluster) -> Iterator[Problem]:
    """Every flag or field of `extra` that clashes with the plan, or that no program knows."""
    minor = minor_of(cluster.kubernetes.version)
    if minor not in MINORS:
        return
    for component, extra in cluster.extra.items():
        if component not in EXTRA_COMPONENTS:
            continue
        program_minor = minor_of(version_of(cluster, component))
        yield from _check_flags(component, extra.flags, program_minor)
        if EXTRA_COMPONENTS[component].has_config:
            yield from _check_fields(component, extra.config, program_minor)


def list_flags(component: str) -> tuple[FlagRow, ...]:
    """The catalogue's rows of one component."""
    return tuple(FlagRow(**row) for row in _load("flags.yaml").get(component, ()))


def explain(component: str, version: str) -> tuple[FlagRow, ...]:
    """The rows that hold for a version or minor, sorted; ConfigError for names that are none."""
    names = [name for name, target in EXTRA_COMPONENTS.items() if target.has_flags]
    if component not in names:
        raise ConfigError(f"{component}: unknown component; known: {', '.join(names)}")
    parts = version.removeprefix("v").split(".")
    if len(parts) < 2 or not all(part.isdigit() for part in parts[:2]):
        raise ConfigError(f"{version} is no version such as 1.20 or 1.20.2")
    minor = ".".join(parts[:2])
    if component not in OWN_MINORS and minor not in MINORS:
        raise ConfigError(f"there are no rows for {minor}: take {MINORS[0]} to {MINORS[-1]}")
    return tuple(sorted((r for r in list_flags(component) if r.holds_for(minor)), key=_flag_of))


def _flag_of(row: FlagRow) -> str:
    return row.flag


@cache
def accepted_flags(component: str, minor: str) -> frozenset[str]:
    """Every flag that the real program of that minor takes; empty where no table lists them."""
    text = (files("bundler.catalog") / "accepted-flags.tsv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines(), delimiter="\t")
    return frozenset(
        row["flag"]
        for row in rows
        if row["component"] == component and _holds(row["since"], row["until"] or None, minor)
    )


def _check_flags(component: str, flags: Mapping[str, FlagValue], minor: str) -> Iterator[Problem]:
    fixed = {row.flag for row in list_flags(component) if row.fixed and row.holds_for(minor)}
    known = accepted_flags(component, minor)
    for flag in flags:
        where = ("extra", component, "flags", flag)
        if flag in fixed:
            yield Problem(path=where, text="follows from the plan, and cannot be set here")
        elif known and flag not in known:
            close = difflib.get_close_matches(flag, sorted(known), n=1)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            yield Problem(path=where, text=f"{component} {minor} knows no --{flag}{hint}")


def _check_fields(component: str, config: Mapping[str, object], minor: str) -> Iterator[Problem]:
    fixed = [name for row in _list_fields(component, minor) for name in row.get("fixed", ())]
    for path in _leaves(config):
        dotted = ".".join(path)
        if any(dotted == name or dotted.startswith(f"{name}.") for name in fixed):
            where = ("extra", component, "config", *path)
            yield Problem(path=where, text="follows from the plan, and cannot be set here")


def _list_fields(component: str, minor: str) -> list[dict[str, Any]]:
    """The rows that hold for a minor, in order: later ones are merged over earlier ones."""
    rows: list[dict[str, Any]] = _load("fields.yaml")[component]
    return [row for row in rows if _holds(row.get("since"), row.get("until"), minor)]


def _leaves(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, str(key)))
    else:
        yield path


def _render_tree(value: Any, render: Render) -> Any:
    if isinstance(value, dict):
        return {key: _render_tree(inner, render) for key, inner in value.items()}
    if isinstance(value, list):
        return [_render_tree(inner, render) for inner in value]
    if isinstance(value, str) and "{{" in value:
        return _typed(render(value))
    return value


def _typed(text: str) -> Any:
    """A number, truth value, list or quoted string where the expression gives one, else text."""
    if text.isdigit() or text in {"true", "false"} or text.startswith(("[", '"')):
        return json.loads(text)
    return text


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


def _holds(since: str | None, until: str | None, minor: str) -> bool:
    return (since is None or key_of(since) <= key_of(minor)) and (
        until is None or key_of(minor) < key_of(until)
    )


@cache
def _load(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(
        (files("bundler.catalog") / name).read_text(encoding="utf-8")
    )
    return document
