"""What the shell offers after Tab: names out of cluster.yaml, the catalog and the examples.

A completion prints nothing but what it offers: without a readable cluster.yaml it offers nothing.
The shells evaluate what is offered, so only plain words are.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from bundler.cluster.schema import Cluster

PLAIN = re.compile(r"[A-Za-z0-9][-A-Za-z0-9._/=:@]*")
"""Words that no shell expands."""
DEFAULT = "cluster.yaml"

Words = Callable[[typer.Context], Iterable[str]]
Completion = Callable[[typer.Context, str], list[str]]


def _complete(words: Words) -> Completion:
    """Make a completion: the words that begin with what is typed, without those given already."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        try:
            given = {
                word
                for value in ctx.params.values()
                if isinstance(value, list | tuple)
                for word in map(str, value)
            }
            found = sorted(set(words(ctx)) - given) if not _is_pathlike(incomplete) else []
        except Exception:  # noqa: BLE001 - whatever is wrong, the shell's line must stay as it is
            return []
        return [word for word in found if word.startswith(incomplete) and PLAIN.fullmatch(word)]

    return complete


def _is_pathlike(incomplete: str) -> bool:
    return incomplete.startswith(("/", "./", "../", "~"))


def _load(ctx: typer.Context) -> "Cluster":
    """Load the cluster.yaml of -c; all that a completion imports is imported when it runs."""
    from bundler.cluster.loader import load_cluster  # noqa: PLC0415

    return load_cluster(_config_of(ctx)).cluster


def _config_of(ctx: typer.Context) -> Path:
    given = ctx.params.get("config") or DEFAULT
    return Path(given[0] if isinstance(given, list | tuple) else given)


def _list_nodes(ctx: typer.Context) -> Iterator[str]:
    """List the nodes, also of a cluster.yaml that has faults elsewhere."""
    from bundler.errors import ConfigError  # noqa: PLC0415

    try:
        yield from (node.name for node in _load(ctx).nodes)
    except ConfigError:
        from bundler.formats.bounded_yaml import decode, read_bytes, read_document  # noqa: PLC0415

        data = read_document(decode(read_bytes(_config_of(ctx)))).data
        yield from (str(node["name"]) for node in data["nodes"] if "name" in node)


def _list_addons(ctx: typer.Context) -> Iterator[str]:
    """List the add-ons, without reading their manifests and charts."""
    from bundler.formats.bounded_yaml import decode, read_bytes, read_document  # noqa: PLC0415

    data = read_document(decode(read_bytes(_config_of(ctx)))).data
    yield from (str(addon["name"]) for addon in data.get("addons", ()) if "name" in addon)


def _list_workers(ctx: typer.Context) -> Iterator[str]:
    from bundler.cluster.plan import worker_names  # noqa: PLC0415

    yield from worker_names(_load(ctx))


def _list_certificates(ctx: typer.Context) -> Iterator[str]:
    from bundler.cluster.plan import make_plan  # noqa: PLC0415
    from bundler.pki.declarations import list_certificates, list_owners  # noqa: PLC0415
    from bundler.pki.key_pairs import leaf_directory  # noqa: PLC0415

    plan = make_plan(_load(ctx))
    for spec in list_certificates(plan):
        for owner in list_owners(spec, plan):
            yield leaf_directory(Path("pki"), spec, owner).as_posix()


def _list_authorities(ctx: typer.Context) -> Iterable[str]:
    from bundler.cluster.plan import make_plan  # noqa: PLC0415
    from bundler.pki.declarations import KUBELET_CA, list_site_ca_names  # noqa: PLC0415

    return (*list_site_ca_names(make_plan(_load(ctx))), KUBELET_CA)


def _list_lock_names(ctx: typer.Context) -> Iterator[str]:
    from bundler.sources.lock import lock_path, parse_lock  # noqa: PLC0415

    path = lock_path(_config_of(ctx))
    yield from ("all", "images", "packages", "artifacts")
    if path.is_file():
        names = (entry.name for entry in parse_lock(path.read_bytes(), path).entries)
        yield from (name for name in names if ":" not in name)  # bash splits words there


def _list_components(_ctx: typer.Context) -> Iterable[str]:
    from bundler.catalog import COMPONENTS  # noqa: PLC0415

    return COMPONENTS


def _list_keys(_ctx: typer.Context) -> Iterator[str]:
    from bundler.cluster.components import EXTRA_COMPONENTS  # noqa: PLC0415
    from bundler.cluster.keys import walk_keys  # noqa: PLC0415

    yield from (key.path for key in walk_keys())
    yield from EXTRA_COMPONENTS


def _list_minors(ctx: typer.Context) -> Iterable[str]:
    """List the minors of `explain COMPONENT --version`."""
    from bundler.catalog import COMPONENTS, list_versions  # noqa: PLC0415
    from bundler.cluster.components import MINORS, minor_of  # noqa: PLC0415
    from bundler.cluster.settings import OWN_MINORS  # noqa: PLC0415

    component = str(ctx.params.get("name") or "")
    if component in OWN_MINORS and component in COMPONENTS:
        return map(minor_of, list_versions(component))
    return MINORS


def _list_kubernetes(_ctx: typer.Context) -> Iterable[str]:
    from bundler.catalog import list_available  # noqa: PLC0415

    return list_available("kubernetes-server", "amd64")


def _list_releases(_ctx: typer.Context) -> Iterable[str]:
    from bundler.cluster.os_packages import RELEASES  # noqa: PLC0415

    return RELEASES


def _list_examples(_ctx: typer.Context) -> Iterable[str]:
    from bundler.starter import list_examples  # noqa: PLC0415

    return list_examples()


def _list_node_prefixes(ctx: typer.Context) -> Iterator[str]:
    yield from (f"{name}=" for name in _list_nodes(ctx))


complete_node = _complete(_list_nodes)
complete_addon = _complete(_list_addons)
complete_worker = _complete(_list_workers)
complete_node_value = _complete(_list_node_prefixes)
complete_certificate = _complete(_list_certificates)
complete_authority = _complete(_list_authorities)
complete_lock_name = _complete(_list_lock_names)
complete_component = _complete(_list_components)
complete_key = _complete(_list_keys)
complete_minor = _complete(_list_minors)
complete_kubernetes = _complete(_list_kubernetes)
complete_release = _complete(_list_releases)
complete_example = _complete(_list_examples)
