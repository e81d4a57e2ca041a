"""The whole description of one node, each value with the place where it is written."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bundler.cluster.fleet import list_shared
from bundler.cluster.loader import Loaded
from bundler.cluster.plan import choose_cgroup_driver, choose_etcd, runtime_versions
from bundler.cluster.problem import suggest
from bundler.cluster.schema import Cluster, Node
from bundler.cluster.sourced import Place, Value
from bundler.errors import ConfigError
from bundler.formats.bounded_yaml import YamlPath, show_path

CHOSEN: Mapping[str, Callable[[Cluster], str | None]] = {
    "etcd.version": choose_etcd,
    "runtime.cgroup_driver": choose_cgroup_driver,
    "runtime.version": lambda cluster: runtime_versions(cluster)[cluster.runtime.engine],
    "runtime.runc": lambda cluster: runtime_versions(cluster).get("runc"),
    "runtime.crictl": lambda cluster: runtime_versions(cluster).get("crictl"),
}
"""Keys without a value whose default depends on other keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One value of a node's description."""

    key: str  # runtime.data_root
    value: Any
    place: Place | None  # None: bundler's default


def list_settings(loaded: Loaded, name: str) -> tuple[Setting, ...]:
    """Every value that holds for a node; ConfigError for an unknown node."""
    nodes = {node.name: index for index, node in enumerate(loaded.cluster.nodes)}
    if name not in nodes:
        hint = suggest(name, list(nodes)).removeprefix("; ")
        raise ConfigError(
            f"{name}: the cluster has no such node",
            hint=hint or f"nodes: {', '.join(list(nodes)[:20])}",
        )
    index = nodes[name]
    host = loaded.cluster.on_host(loaded.cluster.nodes[index])
    return tuple(_list_settings(host, loaded.root, index))


def _list_settings(host: Cluster, root: Value, index: int) -> Iterator[Setting]:
    shared = list_shared()
    node = host.nodes[index].model_dump(mode="json", by_alias=True, exclude={*shared})
    ours = host.model_dump(mode="json", by_alias=True, include={*shared})
    written: Value = root.content["nodes"].content[index]
    for key in Node.model_fields:
        here = written.get(key)
        if key in shared and here is None:
            here = root.get(key)
        yield from _flatten((key,), (ours if key in shared else node)[key], here, host)


def _flatten(path: YamlPath, value: Any, written: Value | None, host: Cluster) -> Iterator[Setting]:
    """The values below a path. What is written there may be less: the rest are defaults."""
    below = written.content if written else None
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            found = below.get(key) if isinstance(below, dict) else None
            yield from _flatten((*path, key), inner, found, host)
    elif isinstance(value, list) and _is_told_apart(value, below):
        for index, inner in enumerate(value):
            found = below[index] if isinstance(below, list) else None
            yield from _flatten((*path, index), inner, found, host)
    else:
        key = show_path(path)
        if value is None and key in CHOSEN:
            value = CHOSEN[key](host)
        yield Setting(key=key, value=value, place=written.place if written else None)


def _is_told_apart(items: list[Any], written: Any) -> bool:
    """Whether items of a list are shown one by one: mappings, and what several layers added."""
    if any(isinstance(item, dict) for item in items):
        return True
    places = written if isinstance(written, list) else []
    return len({(item.place.file, item.place.line) for item in places}) > 1
