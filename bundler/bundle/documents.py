"""The two documents in each bundle that say what is in it, and out of what it was made."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bundler.bundle.inventory import BuildInputs, list_items
from bundler.bundle.provenance import PROVENANCE, make_provenance
from bundler.bundle.sbom import SBOM, make_sbom
from bundler.cluster.plan import ClusterPlan, NodePlan
from bundler.errors import ConfigError
from bundler.render.tree import File, Tree
from bundler.sources.artifacts import Artifacts
from bundler.sources.images.needed import Images
from bundler.sources.lock import read_lock

ORIGIN = "bundler"


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFiles:
    """The files that a user describes a build with; None: there is none."""

    description: Path
    lock: Path | None
    pins: Path | None


def make_describer(
    plan: ClusterPlan, artifacts: Artifacts, images: Images, files: InputFiles, mtime: int
) -> Callable[[NodePlan, Tree], Iterator[File]]:
    """What makes the documents of a node's tree; everything is read from disk now, and once."""
    named = {
        "cluster.yaml": files.description,
        "cluster.lock.yaml": files.lock,
        "pins.yaml": files.pins,
    }
    inputs = {name: _hash(path) for name, path in named.items() if path is not None}
    taken = BuildInputs(
        artifacts=artifacts,
        images=images,
        locked=read_lock(files.lock).entries if files.lock else (),
    )
    return lambda node, tree: _make_documents(plan, node, tree, taken, inputs, mtime)


def _make_documents(
    plan: ClusterPlan,
    node: NodePlan,
    tree: Tree,
    taken: BuildInputs,
    inputs: Mapping[str, str],
    mtime: int,
) -> Iterator[File]:
    """The SBOM of the tree as it is, then the provenance of the tree with the SBOM."""
    items = list_items(plan, node, tree, taken)
    names = {"cluster": plan.name, "node": node.name}
    facts = {
        **names,
        "arch": node.arch,
        "roles": " ".join(node.roles),
        "kubernetes": plan.cluster.kubernetes.version,
    }
    sbom = _make_file(SBOM, make_sbom(f"{plan.name}-{node.name}", facts, items, mtime))
    yield sbom
    provenance = make_provenance(names, inputs, items, Tree([*tree, sbom]), mtime)
    yield _make_file(PROVENANCE, provenance)


def _make_file(path: str, content: bytes) -> File:
    return File(path=path, mode=0o644, content=content, origin=ORIGIN)


def _hash(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
