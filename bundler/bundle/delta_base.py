"""`build --since`: the manifests of the bundles that hosts already have."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from bundler import log
from bundler.bundle.front import BundleFront, read_front, read_unpacked_front
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


def load_bases(arguments: Sequence[str], cluster: Cluster) -> dict[str, BundleFront]:
    """Map each node to the front of its installed bundle, or to its manifest alone.

    Raises ConfigError for an argument without a bundle of this cluster's nodes.

    An argument is a directory of bundles, unpacked or not; a bundle; or [NODE=]MANIFEST.
    """
    nodes = [node.name for node in cluster.nodes]
    bases: dict[str, BundleFront] = {}
    for argument in arguments:
        found = dict(_load(argument, cluster.name, nodes))
        unknown = sorted(found.keys() - set(nodes))
        if unknown:
            raise ConfigError(
                f"--since {argument}: {cluster.name} has no node {', '.join(unknown)}", hint=HOW
            )
        if not found:
            raise ConfigError(
                f"--since {argument}: holds no bundle for a node of {cluster.name}", hint=HOW
            )
        for node, front in found.items():
            if ContentSource.STATE in front.manifest.absent.values():
                raise ConfigError(
                    f"--since {argument}: was built with --public-only, which is not installed",
                    hint=HOW,
                )
            bases[node] = front
    for node in nodes:
        if arguments and node not in bases:
            log.info(f"  {node}: --since names no bundle of it, so its new bundle is complete")
    return bases


def _load(argument: str, cluster: str, nodes: Sequence[str]) -> Iterator[tuple[str, BundleFront]]:
    name, equals, rest = argument.partition("=")
    node = name if equals and name in nodes else ""
    path = Path(rest if node else argument)
    if path.is_dir() and (path / MANIFEST).is_file():
        front = read_unpacked_front(path)
        yield _agree(argument, node, front.node), front
    elif path.is_dir():
        for each in [node] if node else nodes:
            yield from _find_in(path, f"{cluster}-{each}", each)
    elif not path.is_file() and not list_volumes(path):
        raise ConfigError(f"--since {argument}: no such file or directory", hint=HOW)
    elif not path.is_file() or _is_gzip(path):
        front = read_front(path)
        yield _agree(argument, node, front.node), front
    elif node or len(nodes) == 1:
        yield node or nodes[0], BundleFront(path=path, manifest=_read_manifest(path))
    else:
        raise ConfigError(
            f"--since {argument}: the manifest does not name its node; give NODE=MANIFEST", hint=HOW
        )


def _agree(argument: str, node: str, found: str) -> str:
    """Return the node that a bundle names; raise ConfigError if the argument names another."""
    if node and found and node != found:
        raise ConfigError(f"--since {argument}: is the bundle of {found}", hint=HOW)
    return found or node


def _find_in(directory: Path, bundle: str, node: str) -> Iterator[tuple[str, BundleFront]]:
    """Find a node's bundle in a directory of bundles: packed, unpacked, or rendered."""
    tarball = directory / f"{bundle}.tar.gz"
    if tarball.is_file() or list_volumes(tarball):
        yield node, read_front(tarball)
        return
    for folder in (directory / bundle, directory / node):
        if (folder / MANIFEST).is_file():
            yield node, read_unpacked_front(folder)
            return


def _read_manifest(path: Path) -> BundleManifest:
    with explain_damage(path):
        return parse_manifest(path.read_bytes(), str(path))


def _is_gzip(path: Path) -> bool:
    with explain_damage(path), path.open("rb") as file:
        return file.read(2) == GZIP
