"""The documents in each bundle: the SBOM, OpenVEX statements, and the provenance."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from bundler.bundle.inventory import BuildInputs, list_items
from bundler.bundle.provenance import PROVENANCE, make_provenance
from bundler.bundle.sbom import SBOM, make_sbom
from bundler.cluster.plan import ClusterPlan, NodePlan
from bundler.render.tree import File, Tree
from bundler.sources.artifacts import Artifacts
from bundler.sources.lock import LockEntry
from bundler.sources.payloads import Payloads

ORIGIN = "bundler"
VEX = "openvex.json"
DOCUMENTS = (SBOM, VEX, PROVENANCE)
"""Files that describe all others."""


def make_describer(
    plan: ClusterPlan,
    artifacts: Artifacts,
    payloads: Payloads,
    locked: Sequence[LockEntry],
    inputs: Mapping[str, str],
    mtime: int,
    make_vex: Callable[[str, Mapping[str, bytes], int], bytes],
) -> Callable[[NodePlan, Tree], Iterator[File]]:
    """Make a function that creates the documents for the tree of a node.

    `inputs` are the user's files by name, each with its SHA-256. `make_vex` makes the statements
    from a bundle's name, its small files by path (the SBOM among them), and `mtime`.
    """
    packages = payloads.packages
    build = BuildInputs(
        artifacts=artifacts,
        images=payloads.images.images,
        locked=tuple(locked),
        image_packages=payloads.images.packages,
        packages={packages.payload(file).sha256: file for file in packages.files}
        if packages
        else {},
    )
    return lambda node, tree: _make_documents(plan, node, tree, build, inputs, mtime, make_vex)


def _make_documents(
    plan: ClusterPlan,
    node: NodePlan,
    tree: Tree,
    build: BuildInputs,
    inputs: Mapping[str, str],
    mtime: int,
    make_vex: Callable[[str, Mapping[str, bytes], int], bytes],
) -> Iterator[File]:
    """Yield the SBOM of the tree, statements about it, then the provenance of all of them."""
    items = list_items(plan, node, tree, build)
    names = {"cluster": plan.name, "node": node.name}
    facts = {
        **names,
        "arch": node.arch,
        "roles": " ".join(node.roles),
        "kubernetes": plan.cluster.kubernetes.version,
    }
    name = f"{plan.name}-{node.name}"
    sbom = _make_file(SBOM, make_sbom(name, facts, items, mtime))
    texts = {one.path: one.content for one in (*tree, sbom) if isinstance(one.content, bytes)}
    vex = _make_file(VEX, make_vex(name, texts, mtime))
    yield sbom
    yield vex
    provenance = make_provenance(names, inputs, items, Tree([*tree, sbom, vex]), mtime)
    yield _make_file(PROVENANCE, provenance)


def _make_file(path: str, content: bytes) -> File:
    return File(path=path, mode=0o644, content=content, origin=ORIGIN)
