"""The pipeline: description → plan → verified artifacts → PKI → trees → one tarball per node."""

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from bundler import log
from bundler.bundle.delta_base import load_bases
from bundler.bundle.documents import InputFiles, make_describer
from bundler.bundle.layout import (
    Layout,
    Media,
    arrange,
    is_in_base,
    is_shareable,
)
from bundler.bundle.output import (
    close_output,
    open_output,
    write_shared,
)
from bundler.bundle.pack import pack
from bundler.bundle.provenance import PROVENANCE
from bundler.bundle.sbom import SBOM
from bundler.bundle.signing import SIGNATURE, load_signing_key, sign
from bundler.cache.store import Cache
from bundler.catalog import Artifact
from bundler.cluster.plan import (
    ClusterPlan,
    NodePlan,
    make_plan,
    worker_names,
)
from bundler.cluster.schema import Cluster, Role
from bundler.errors import ConfigError
from bundler.files import ensure_directory
from bundler.formats.volumes import Written
from bundler.overlays.templating import make_unknown
from bundler.paths import default_state
from bundler.pki.external_ca.pending import check_signed
from bundler.pki.store import ensure_pki
from bundler.project import (
    Inputs,
    check,
    gather_payloads,
    resolve,
    warn_of_first_uses,
)
from bundler.render.bundle_manifest import BundleManifest, ContentSource
from bundler.render.completeness import check_images_complete
from bundler.render.context import Secrets
from bundler.render.node import (
    Describe,
    Payloads,
    list_payloads,
    render_node,
    render_public,
)
from bundler.render.tree import (
    MANIFEST,
    File,
    Tree,
    write_tree,
)
from bundler.sources.lock_update import lock_path
from bundler.state.directory import open_state
from bundler.upgrade.runbook import make_runbook

WARNING = "warning: "
PARALLEL = 2
WHOLE = Media()


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a build would do."""

    cluster: Cluster
    artifacts: tuple[tuple[Artifact, bool], ...]  # and whether it is in the cache already
    state: Path | None  # None: it is not needed
    bundles: tuple[str, ...]
    bases: Mapping[str, BundleManifest]  # bundle → what it is a change to


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A build of which nothing lacks but the state."""

    inputs: Inputs
    cluster: Cluster
    payloads: Payloads
    bases: Mapping[str, BundleManifest]  # node → what it has
    media: Media
    output: Path
    key: EllipticCurvePrivateKey | None = field(repr=False)


def preview(inputs: Inputs, media: Media = WHOLE) -> Preview:
    """What `build` would fetch, create and write."""
    cluster = check(inputs)
    bases = load_bases(media.since, cluster)
    plan = make_plan(cluster, {})
    artifacts = resolve(plan, inputs)
    return Preview(
        cluster=cluster,
        artifacts=tuple(
            (artifact, _is_cached(artifact, inputs.cache)) for artifact in artifacts.values()
        ),
        state=None if media.public_only else state_path(inputs, cluster),
        bundles=tuple(bundle_name(plan, node, media) for node in plan.nodes),
        bases={
            bundle_name(plan, node, media): bases[node.name]
            for node in plan.nodes
            if node.name in bases
        },
    )


def build(
    inputs: Inputs, output: Path, *, signing_key: Path | None = None, media: Media = WHOLE
) -> tuple[Written, ...]:
    """Write every node's tarball and SHA256SUMS into `output`, signed if there is a key."""
    return write_bundles(prepare(inputs, output, signing_key=signing_key, media=media))


def prepare(
    inputs: Inputs, output: Path, *, signing_key: Path | None = None, media: Media = WHOLE
) -> Prepared:
    """All of a build that can fail for what was given: it is checked, and everything fetched."""
    key = load_signing_key(signing_key) if signing_key else None
    cluster = check(inputs)
    bases = load_bases(media.since, cluster)
    if not media.public_only:
        check_signed(state_path(inputs, cluster), make_plan(cluster, {}))  # before any download
    payloads = gather_payloads(cluster, inputs)
    ensure_directory(output)
    return Prepared(
        inputs=inputs,
        cluster=cluster,
        payloads=payloads,
        bases=bases,
        media=media,
        output=output.absolute(),
        key=key,
    )


def write_bundles(ready: Prepared) -> tuple[Written, ...]:
    """Write what was prepared, of the state as it is now.

    SHA256SUMS is taken away first and written last: while it is there, it is true.
    """
    inputs, cluster, payloads, media = ready.inputs, ready.cluster, ready.payloads, ready.media
    bases, key, output = ready.bases, ready.key, ready.output
    with _open_trees(cluster, inputs, payloads, media) as (plan, make_tree, mtime):
        open_output(output)
        identity: str | None = None
        written: tuple[Written, ...] = ()
        if media.layout is Layout.SPLIT:
            large = _list_shared(plan, payloads, bases)
            identity, written = write_shared(large, output, media.split)

        def make(node: NodePlan) -> tuple[Written, ...]:
            name = bundle_name(plan, node, media)
            whole, absent = make_tree(node)
            check_images_complete(plan, node, whole)
            tree = arrange(whole, base=bases.get(node.name), payload=identity, absent=absent)
            if key:
                signature = sign(key, _content(tree[MANIFEST]))
                tree.add(File(path=SIGNATURE, mode=0o644, content=signature, origin="signature"))
            target = output / f"{name}.tar.gz"
            return pack(tree, name, target, mtime, split=media.split, mode=media.mode)

        packing = log.step(f"packing {len(plan.nodes)} bundles")
        with packing, ThreadPoolExecutor(PARALLEL) as pool:
            for files in pool.map(make, plan.nodes):
                written += files
        runbook = (
            None
            if media.public_only
            else make_runbook(plan, written, media, bases, signed=key is not None)
        )
    everything = close_output(output, cluster.name, written, runbook, key)
    warn_of_first_uses(plan, inputs)
    return everything


def render(inputs: Inputs, output: Path, *, text_only: bool) -> tuple[Path, ...]:
    """Write every node's tree as plain files below `output`/NODE."""
    cluster = check(inputs)
    payloads = None if text_only else gather_payloads(cluster, inputs)
    with open_secrets(cluster, inputs) as (plan, secrets):
        describe = (
            _make_describer(plan, inputs, payloads, _choose_mtime(secrets)) if payloads else None
        )
        directories = []
        for node in plan.nodes:
            directory = output / node.name
            _refuse_stranger(directory)
            write_tree(render_node(plan, node, secrets, payloads, describe), directory)
            directories.append(directory)
    return tuple(directories)


def bundle_name(plan: ClusterPlan, node: NodePlan, media: Media = WHOLE) -> str:
    """The tarball's name without .tar.gz, and the directory that it unpacks to."""
    return f"{plan.name}-{node.name}{'.public' if media.public_only else ''}"


@contextmanager
def _open_trees(
    cluster: Cluster, inputs: Inputs, payloads: Payloads, media: Media
) -> Iterator[tuple[ClusterPlan, Callable[[NodePlan], tuple[Tree, dict[str, ContentSource]]], int]]:
    """The plan, how a node's tree is made (and what is left out of it), and every member's time."""
    if media.public_only:
        subnets = dict.fromkeys(_static_workers(cluster), make_unknown("a pod subnet"))
        plan = make_plan(cluster, subnets)

        def make(node: NodePlan) -> tuple[Tree, dict[str, ContentSource]]:
            tree, absent = render_public(plan, node, payloads)
            return tree, absent | dict.fromkeys((SBOM, PROVENANCE), ContentSource.STATE)

        yield plan, make, _choose_mtime(None)
        return
    with open_secrets(cluster, inputs) as (plan, secrets):
        mtime = _choose_mtime(secrets)
        describe = _make_describer(plan, inputs, payloads, mtime)
        yield plan, lambda node: (render_node(plan, node, secrets, payloads, describe), {}), mtime


def _list_shared(
    plan: ClusterPlan, payloads: Payloads, bases: Mapping[str, BundleManifest]
) -> Iterator[File]:
    """The large files that some node has not yet."""
    for node in plan.nodes:
        for file in list_payloads(plan, node, payloads):
            if is_shareable(file) and not is_in_base(file, bases.get(node.name)):
                yield file


def _static_workers(cluster: Cluster) -> list[str]:
    """The nodes that are given a pod subnet; flannel gives subnets out by itself."""
    return worker_names(cluster) if cluster.network.plugin == "static" else []


@contextmanager
def open_secrets(cluster: Cluster, inputs: Inputs) -> Iterator[tuple[ClusterPlan, Secrets]]:
    """The plan with the state's decisions, and the cluster's secrets; the state stays locked."""
    with open_state(state_path(inputs, cluster)) as state:
        network = cluster.network
        workers = worker_names(cluster)
        planned = _static_workers(cluster)
        subnets = state.ensure_pod_subnets(planned, network.pod_cidr, network.pod_subnet_prefix)
        plan = make_plan(cluster, subnets)
        founders = state.ensure_etcd_founders([node.name for node in plan.having(Role.ETCD)])
        with log.step(f"keys and certificates in {state.directory}"):
            pki = ensure_pki(state, plan, datetime.now(UTC))
            for note in pki.notes:
                if note.startswith(WARNING):
                    log.warning(note.removeprefix(WARNING))
                else:
                    log.info(f"  {note}")
        yield (
            plan,
            Secrets(
                pki=pki,
                tokens=state.ensure_tokens(workers),
                revoked_tokens=state.list_revoked_tokens(workers),
                encryption_key=state.ensure_encryption_key(),
                etcd_founders=founders,
            ),
        )


def _make_describer(plan: ClusterPlan, inputs: Inputs, payloads: Payloads, mtime: int) -> Describe:
    lock = lock_path(inputs.description)
    files = InputFiles(
        description=inputs.description, lock=lock if lock.exists() else None, pins=inputs.pins
    )
    artifacts = resolve(plan, inputs)
    return make_describer(plan, artifacts, payloads.images.images, files, mtime)


def _content(file: File) -> bytes:
    """The bytes of a file that is made in memory."""
    if not isinstance(file.content, bytes):
        raise TypeError(f"{file.path} is a payload")
    return file.content


def state_path(inputs: Inputs, cluster: Cluster) -> Path:
    return inputs.state or default_state(inputs.description, cluster.name)


def _is_cached(artifact: Artifact, cache: Cache) -> bool:
    return (cache.root / "blobs" / artifact.algorithm / artifact.digest).is_file()


def _choose_mtime(secrets: Secrets | None) -> int:
    """SOURCE_DATE_EPOCH, else when the cluster's authority was made: the same at every build."""
    chosen = os.environ.get("SOURCE_DATE_EPOCH")
    if chosen is None:
        authority = secrets.pki.authorities["kubernetes-ca"] if secrets else None
        return int(authority.not_before.timestamp()) if authority else 0
    if not chosen.isdigit():
        raise ConfigError(f"SOURCE_DATE_EPOCH is {chosen!r}, not a number of seconds")
    return int(chosen)


def _refuse_stranger(directory: Path) -> None:
    """Overwrite an earlier rendering only, never somebody's files."""
    if directory.is_dir() and any(directory.iterdir()) and not (directory / "MANIFEST").is_file():
        raise ConfigError(
            f"{directory} holds other files than a rendered tree",
            hint="choose another directory with -o",
        )
