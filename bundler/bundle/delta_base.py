"""What is on the hosts already: the manifests that `build --since` makes a change to."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from bundler import log
from bundler.bundle.inspect import NODE_ENV, read_facts, read_front
from bundler.cluster.schema import Cluster
from bundler.errors import ConfigError
from bundler.formats.bundle_archives import explain_damage
from bundler.formats.volumes import list_volumes
from bundler.render.bundle_manifest import BundleManifest, ContentSource, parse_manifest
from bundler.render.tree import MANIFEST

GZIP = b"\x1f\x8b"
HOW = (
    "give the directory that the earlier build wrote, one of its bundles, or NODE=MANIFEST with"
    " the file /opt/k8s/bundle/MANIFEST of that host"
)


def load_bases(arguments: Sequence[str], cluster: Cluster) -> dict[str, BundleManifest]:
    """node → what it has; ConfigError where an argument says nothing about any node.

    An argument is a directory of bundles, unpacked or not; a bundle; or [NODE=]MANIFEST.
    """
    nodes = [node.name for node in cluster.nodes]
    bases: dict[str, BundleManifest] = {}
    for argument in arguments:
        found = dict(_load(argument, cluster.name, nodes))
        strangers = sorted(found.keys() - set(nodes))
        if strangers or not found:
            why = f"it is of {', '.join(strangers)}" if strangers else "it holds no bundle"
            raise ConfigError(f"--since {argument}: {why}, of no node of {cluster.name}", hint=HOW)
        for node, manifest in found.items():
            if ContentSource.STATE in manifest.absent.values():
                raise ConfigError(f"--since {argument}: made by --public-only", hint=HOW)
            bases[node] = manifest
    for node in nodes:
        if arguments and node not in bases:
            log.info(f"  {node}: no earlier bundle was given, so its new one is whole")
    return bases


def _load(
    argument: str, cluster: str, nodes: Sequence[str]
) -> Iterator[tuple[str, BundleManifest]]:
    name, equals, rest = argument.partition("=")
    node = name if equals and name in nodes else ""
    path = Path(rest if node else argument)
    if path.is_dir() and (path / MANIFEST).is_file():
        yield _agree(argument, node, _read_node(path / NODE_ENV)), _read_manifest(path / MANIFEST)
    elif path.is_dir():
        for each in [node] if node else nodes:
            yield from _find_in(path, f"{cluster}-{each}", each)
    elif not path.is_file() and not list_volumes(path):
        raise ConfigError(f"--since {argument}: there is no such file or directory", hint=HOW)
    elif not path.is_file() or _is_gzip(path):
        manifest, found = read_front(path)
        yield _agree(argument, node, found), manifest
    elif node or len(nodes) == 1:
        yield node or nodes[0], _read_manifest(path)
    else:
        raise ConfigError(f"--since {argument}: of which node is it?", hint=HOW)


def _agree(argument: str, node: str, found: str) -> str:
    """The node that a bundle names itself; ConfigError where the argument names another."""
    if node and found and node != found:
        raise ConfigError(f"--since {argument}: it is of {found}", hint=HOW)
    return found or node


def _find_in(directory: Path, bundle: str, node: str) -> Iterator[tuple[str, BundleManifest]]:
    """A node's bundle in a directory of them: packed, unpacked, or rendered."""
    tarball = directory / f"{bundle}.tar.gz"
    if tarball.is_file() or list_volumes(tarball):
        yield node, read_front(tarball)[0]
        return
    for folder in (directory / bundle, directory / node):
        if (folder / MANIFEST).is_file():
            yield node, _read_manifest(folder / MANIFEST)
            return


def _read_manifest(path: Path) -> BundleManifest:
    with explain_damage(path):
        return parse_manifest(path.read_bytes(), str(path))


def _read_node(path: Path) -> str:
    with explain_damage(path):
        return read_facts(path.read_text()).get("NODE", "")


def _is_gzip(path: Path) -> bool:
    with explain_damage(path), path.open("rb") as file:
        return file.read(2) == GZIP
