"""Checks of add-ons: names and needs, what the minor's API has, objects in two add-ons."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bundler.cluster.accepted import is_within
from bundler.cluster.addons.kinds import (
    NOT_STORED,
    OF_HOSTS,
    OF_TOOLS,
    OWN_OBJECTS,
    group_of,
    list_apis,
    list_builtin_groups,
    list_spans,
)
from bundler.cluster.addons.objects import Object
from bundler.cluster.components import key_of
from bundler.cluster.handlers import list_classes
from bundler.cluster.needed_addons import list_needed
from bundler.cluster.problem import Problem, suggest
from bundler.cluster.schema import Cluster

BUILT_IN_NAMESPACES = frozenset(("default", "kube-node-lease", "kube-public", "kube-system"))
OWN_PREFIXES = ("bundler:", "bundler-")


def check_names(cluster: Cluster) -> Iterator[Problem]:
    """Two add-ons of one name, and needs of add-ons that do not exist or need one another."""
    names = [addon.name for addon in cluster.addons]
    needs = {addon.name: addon.needs for addon in cluster.addons}
    for index, addon in enumerate(cluster.addons):
        where = ("addons", index)
        if addon.name in names[:index]:
            yield Problem(path=(*where, "name"), text=f"{addon.name} is listed twice: rename one")
        for number, need in enumerate(addon.needs):
            path = (*where, "needs", number)
            if need not in needs:
                text = f"there is no add-on {need}{suggest(need, names)}"
                yield Problem(path=path, text=text)
            elif addon.name in list_needed(need, needs):
                text = f"{need} needs {addon.name}, so neither is ever applied: remove one"
                yield Problem(path=path, text=text)


def check_objects(
    objects: Sequence[Object], scopes: Mapping[tuple[str, str], bool], minor: str
) -> Iterator[tuple[str, str]]:
    """Add-on and text of each object that the API of the minor does not take, or takes twice."""
    aggregated = {_get(each, "spec", "group") for each in objects if each.kind == "APIService"}
    first: dict[tuple[str, str, str, str], Object] = {}
    for each in objects:
        fault = _find_fault(each, scopes, aggregated, minor)
        if fault:
            yield each.addon, f"{each.describe()}: {fault}"
        if (other := first.setdefault(each.identity, each)) is not each:
            of = f"add-on {other.addon}, " if other.addon != each.addon else ""
            text = f"{each.title} is already in {of}{other.locate()}: keep one"
            yield each.addon, f"{each.describe()}: {text}"


def check_own(objects: Sequence[Object], cluster: Cluster) -> Iterator[tuple[str, str]]:
    """Add-on and text of each object that kube-apply.service makes too: they would take turns."""
    keys = {
        "dns": cluster.dns.provider == "coredns",
        "metrics_server": bool(cluster.metrics_server),
    }
    own = {title: key for key, titles in OWN_OBJECTS.items() if keys[key] for title in titles}
    own |= {f"RuntimeClass/{name}": "runtime.handlers" for name in list_classes(cluster)}
    for each in objects:
        if key := own.get(each.title):
            fix = "set `dns: {provider: none}`" if key == "dns" else "remove the key"
            text = f"bundler makes it for `{key}`: leave the object out of the add-on, or {fix}"
            yield each.addon, f"{each.describe()}: {text}"


def _find_fault(
    each: Object, scopes: Mapping[tuple[str, str], bool], aggregated: set[Any], minor: str
) -> str:
    group = group_of(each.api)
    if group in OF_TOOLS:
        return f"{each.api} {each.kind} is no object of the API: {OF_TOOLS[group]}"
    if group not in list_builtin_groups():
        if (group, each.kind) in scopes or group in aggregated:
            return ""
        return (
            f"Kubernetes {minor} has no {each.api} {each.kind}, and no add-on has its"
            " CustomResourceDefinition: add the definition to an add-on"
        )
    since, until = list_spans().get((each.api, each.kind), ("99.0", ""))
    if not is_within(since, until, minor):
        return _explain_missing(each, since, until, minor)
    return _find_foreign(each)


def _find_foreign(each: Object) -> str:
    """Why a kind or a name is not the user's; empty if it is."""
    if each.kind in NOT_STORED:
        return f"{each.kind} is a request, and nothing of it stays: remove it"
    if each.kind in OF_HOSTS:
        return f"{each.kind} cannot be in an add-on: {OF_HOSTS[each.kind]}"
    if each.name.startswith(OWN_PREFIXES):
        return f"names that begin with {each.name[:8]} are of bundler: choose another"
    return ""


def _explain_missing(each: Object, since: str, until: str, minor: str) -> str:
    """Why the minor does not have the kind, and which group/version has it."""
    others = list_apis(minor).get(each.kind, ())
    stable = sorted(others, key=lambda api: ("alpha" in api, "beta" in api, api))
    fix = f"use {stable[0]}" if stable else "remove it"
    if until and key_of(until) <= key_of(minor):
        return f"Kubernetes {until} removed {each.api} {each.kind}: {fix}"
    if since != "99.0":
        return f"{each.api} {each.kind} comes with Kubernetes {since}, and this is {minor}: {fix}"
    return f"Kubernetes {minor} has no {each.api} {each.kind}: {fix}"


def check_namespaces(objects: Sequence[Object], made: set[str]) -> Iterator[tuple[str, str]]:
    """Add-on and text of each namespace that no add-on has; `made` are those that bundler makes."""
    known = BUILT_IN_NAMESPACES | made | {o.name for o in objects if o.kind == "Namespace"}
    missing = {o.namespace: o for o in reversed(objects) if o.namespace not in {"", *known}}
    for namespace, each in missing.items():
        text = (
            f"no add-on has the Namespace {namespace}: set `namespace: {namespace}` of the add-on,"
            " or add the Namespace; else somebody must create it"
        )
        yield each.addon, f"{each.describe()}: {text}"


def _get(each: Object, *path: str) -> Any:
    value: Any = each.data
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value
