"""The two documents in each bundle: the SBOM, and the provenance."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from bundler.bundle.inventory import BuildInputs, list_items
from bundler.bundle.provenance import PROVENANCE, make_provenance
from bundler.bundle.sbom import SBOM, make_sbom
from bundler.cluster.plan import ClusterPlan, NodePlan
from bundler.render.tree import File, Tree
from bundler.sources.artifacts import Artifacts
from bundler.sources.images.needed import Images
from bundler.sources.lock import LockEntry

ORIGIN = "bundler"


def make_describer(
    plan: ClusterPlan,
    artifacts: Artifacts,
    images: Images,
    locked: Sequence[LockEntry],
    inputs: Mapping[str, str],
    mtime: int,
) -> Callable[[NodePlan, Tree], Iterator[File]]:
    """Make a function that creates both documents for the tree of a node.

    `inputs` are the user's files by name, each with its SHA-256.
    """
    build = BuildInputs(artifacts=artifacts, images=images, locked=tuple(locked))
    return lambda node, tree: _make_documents(plan, node, tree, build, inputs, mtime)


def _make_documents(
    plan: ClusterPlan,
    node: NodePlan,
    tree: Tree,
    build: BuildInputs,
    inputs: Mapping[str, str],
    mtime: int,
) -> Iterator[File]:
    """Yield the SBOM of the tree, then the provenance of the tree and the SBOM."""
    items = list_items(plan, node, tree, build)
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
