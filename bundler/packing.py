"""The sixth step of a build: write the tarball of each node, the runbook and SHA256SUMS."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from bundler import log
from bundler.bundle.front import BundleFront
from bundler.bundle.layout import Layout, Media, arrange, is_in_base, is_shareable
from bundler.bundle.output import close_output, open_output, write_codes, write_shared
from bundler.bundle.pack import pack
from bundler.bundle.seal import SealKey, seal_tree
from bundler.bundle.seal_keys import Recipients
from bundler.bundle.signing import SIGNATURE, sign
from bundler.cache.payload import Payload
from bundler.cluster.plan import ClusterPlan, NodePlan
from bundler.formats.volumes import Written, joined_name
from bundler.render.bundle_manifest import BundleManifest, ContentSource, Seal
from bundler.render.completeness import check_images_complete
from bundler.render.node import list_payloads
from bundler.render.packages import make_package_files
from bundler.render.tree import MANIFEST, File, Tree
from bundler.sources.payloads import Payloads
from bundler.upgrade.runbook import make_runbook

PARALLEL_BUNDLES = 2
SMALL_FILES = 2 << 20  # bytes of a bundle's templates, keys and documents, at most
DEFAULT_MEDIA = Media()


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where and how bundles are written."""

    output: Path
    media: Media
    bases: Mapping[str, BundleManifest]  # node → the bundle that its host has
    earlier: tuple[BundleFront, ...]  # bundles in the output, and those that `since` names
    recipients: Recipients = field(default_factory=dict)  # of sealed bundles
    only: frozenset[str] = frozenset()  # nodes that get a bundle; empty: all
    key: EllipticCurvePrivateKey | None = field(repr=False)

    def list_nodes(self, plan: ClusterPlan) -> tuple[NodePlan, ...]:
        """List the nodes that get a bundle."""
        return tuple(node for node in plan.nodes if not self.only or node.name in self.only)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trees:
    """The trees of all nodes. `render` makes one at a time, to save memory."""

    plan: ClusterPlan
    mtime: int  # of every file
    as_of: date  # the day with which ends of life are compared
    state_id: str  # empty without secrets
    render: Callable[[NodePlan], tuple[Tree, dict[str, ContentSource]]]  # and the files left out
    join_before: datetime | None  # the end of the first bootstrap token


def pack_bundles(
    trees: Trees, payloads: Payloads, target: Target, seal_keys: Mapping[str, SealKey]
) -> tuple[Written, ...]:
    """Write all bundles, the runbook, the unseal codes and SHA256SUMS.

    SHA256SUMS is removed first and written last: a directory that has it is complete.
    """
    plan, media, output = trees.plan, target.media, target.output
    open_output(output)
    identity: str | None = None
    written: tuple[Written, ...] = ()
    if media.layout is Layout.SPLIT:
        large = _list_shared(plan, payloads, target)
        identity, written = write_shared(large, output, media.split)

    def pack_node(node: NodePlan) -> tuple[tuple[Written, ...], Seal | None]:
        name = bundle_name(plan, node, media)
        tree, seal = make_carried_tree(trees, node, target, identity, seal_keys.get(node.name))
        tarball = output / f"{name}.tar.gz"
        origins = [file.origin.partition("/")[0] for file in tree]
        log.detail(f"{name}: {len(origins)} files, overlays: {', '.join(sorted(set(origins)))}")
        return pack(tree, name, tarball, trees.mtime, split=media.split, mode=media.mode), seal

    seals = {}
    nodes = target.list_nodes(plan)
    packing = log.step(f"packing {len(nodes)} bundles")
    with packing, ThreadPoolExecutor(PARALLEL_BUNDLES) as pool:
        for node, (files, seal) in zip(nodes, pool.map(pack_node, nodes), strict=True):
            written += files
            if seal:
                seals[node.name] = seal
    is_signed = target.key is not None
    runbook = (
        None
        if media.public_only
        else make_runbook(
            plan,
            written,
            media,
            target.bases,
            seals,
            state_id=trees.state_id,
            signed=is_signed,
            join_before=trees.join_before,
            as_of=trees.as_of,
        )
    )
    if codes := {node: seal_keys[node] for node, seal in seals.items() if not seal.recipient}:
        write_codes(output, codes)
    return close_output(output, plan.name, written, runbook, target.key)


def estimate_space(plan: ClusterPlan, payloads: Payloads, target: Target) -> int:
    """Estimate how many more bytes the output needs, without rendering anything.

    New files are complete before old ones go, a bundle at a time for each thread.
    """
    is_split = target.media.layout is Layout.SPLIT
    sizes = []
    for node in plan.nodes:
        base = target.bases.get(node.name)
        files = [f for f in list_payloads(plan, node, payloads) if not is_in_base(f, base)]
        carried = [file for file in files if not (is_split and is_shareable(file))]
        sizes.append(SMALL_FILES + _sum_segments(carried) + _sum_packages(plan, node, payloads))
    if is_split:
        sizes.append(_sum_segments(_list_shared(plan, payloads, target)))
    names = {f"{bundle_name(plan, node, target.media)}.tar.gz" for node in plan.nodes}
    found = (path for path in target.output.glob("*") if joined_name(path.name) in names)
    old = [path.stat().st_size for path in found]
    replaced = sum(sizes) - sum(old) + PARALLEL_BUNDLES * max(sizes)
    return min(sum(sizes), replaced)


def _sum_packages(plan: ClusterPlan, node: NodePlan, payloads: Payloads) -> int:
    if not payloads.packages:
        return 0
    return _sum_segments(make_package_files(plan, node, payloads.packages))


def _sum_segments(files: Iterable[File]) -> int:
    """Add the compressed sizes of large files, each content once."""
    segments = {f.content.segment for f in files if isinstance(f.content, Payload)}
    return sum(segment.stat().st_size for segment in segments)


def make_carried_tree(
    trees: Trees, node: NodePlan, target: Target, payload: str | None, seal_key: SealKey | None
) -> tuple[Tree, Seal | None]:
    """Make the tree that a node's tarball holds: sealed, arranged and signed."""
    complete, absent = trees.render(node)
    check_images_complete(trees.plan, node, complete)
    seal: Seal | None = None
    if seal_key:
        signature = _sign_manifest(complete, target)
        complete, seal = seal_tree(complete, seal_key, trees.mtime, signature)
    tree = arrange(
        complete, base=target.bases.get(node.name), payload=payload, absent=absent, seal=seal
    )
    if signature := _sign_manifest(tree, target):
        tree.add(File(path=SIGNATURE, mode=0o644, content=signature, origin="signature"))
    return tree, seal


def _sign_manifest(tree: Tree, target: Target) -> bytes:
    """Return the signature of the tree's manifest; empty without a key."""
    return sign(target.key, _content_of(tree[MANIFEST])) if target.key else b""


def bundle_name(plan: ClusterPlan, node: NodePlan, media: Media = DEFAULT_MEDIA) -> str:
    """Name the tarball without .tar.gz, which is also the directory that it unpacks to."""
    return f"{plan.name}-{node.name}{'.public' if media.public_only else ''}"


def _list_shared(plan: ClusterPlan, payloads: Payloads, target: Target) -> Iterator[File]:
    """Yield the large files that at least one host does not have yet."""
    for node in target.list_nodes(plan):
        for file in list_payloads(plan, node, payloads):
            if is_shareable(file) and not is_in_base(file, target.bases.get(node.name)):
                yield file


def _content_of(file: File) -> bytes:
    """Return the bytes of a file that is made in memory."""
    if not isinstance(file.content, bytes):
        raise TypeError(f"{file.path} is a payload")
    return file.content
