"""A build in six steps: load → resolve → fetch → secrets → render → pack."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from bundler import log
from bundler.audit.openvex import make_bundle_vex
from bundler.bundle.delta_base import load_bases
from bundler.bundle.documents import DOCUMENTS, make_describer
from bundler.bundle.front import BundleFront, check_no_other_cluster, list_fronts
from bundler.bundle.layout import Media
from bundler.bundle.output import UNSEAL
from bundler.bundle.seal_keys import choose_recipients, ensure_seal_keys
from bundler.bundle.signing import load_signing_key
from bundler.cache.store import Cache
from bundler.catalog import Artifact
from bundler.catalog.lifecycles import READ
from bundler.cluster.plan import NodePlan, assign_pod_subnets, worker_names
from bundler.cluster.schema import Cluster, Role
from bundler.downloads import make_puller, warn_about_first_uses
from bundler.errors import ConfigError
from bundler.files import LEFTOVER_AGE, check_space, ensure_directory, remove_leftovers
from bundler.formats.volumes import Written
from bundler.overlays.templating import make_unknown
from bundler.packing import (
    DEFAULT_MEDIA,
    Target,
    Trees,
    bundle_name,
    estimate_space,
    make_carried_tree,
    pack_bundles,
)
from bundler.pki.cluster_pki import ensure_pki
from bundler.pki.pending import check_signed
from bundler.progress import DownloadProgress
from bundler.project import (
    Inputs,
    Project,
    check_state,
    load,
    make_fetch_options,
    read_source_date,
    record_state,
    resolve,
)
from bundler.render.bundle_manifest import BundleManifest, ContentSource
from bundler.render.node import Describe, render_node, render_public
from bundler.render.state_values import Secrets, get_not_before
from bundler.render.tree import MANIFEST, Tree, write_tree
from bundler.sources.payloads import Payloads, ensure_payloads, fetch_sources
from bundler.sources.resolved import Resolved
from bundler.state.directory import State, open_state
from bundler.state.encryption import (
    check_encryption_keys,
    check_resources,
    ensure_encryption_keys,
    note_stage,
)
from bundler.state.state_id import SHOWN, read_state_id
from bundler.state.tokens import ensure_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What `build` would fetch, create and write."""

    cluster: Cluster
    artifacts: tuple[tuple[Artifact, bool], ...]  # True: in the cache
    state: Path | None  # None with --public-only
    bundles: tuple[str, ...]
    bases: Mapping[str, BundleManifest]  # bundle → the bundle that it is a delta to
    is_sealed: bool


def build(
    inputs: Inputs,
    output: Path,
    *,
    signing_key: Path | None = None,
    media: Media = DEFAULT_MEDIA,
) -> tuple[Written, ...]:
    """Load the project and build it."""
    return build_project(load(inputs), output, signing_key=signing_key, media=media)


def build_project(
    project: Project,
    output: Path,
    *,
    signing_key: Path | None = None,
    media: Media = DEFAULT_MEDIA,
    change_state: Callable[[], None] = lambda: None,
    choose_nodes: Callable[[Iterator[tuple[str, Tree]]], frozenset[str]] | None = None,
) -> tuple[Written, ...]:
    """Write the tarball of every node and SHA256SUMS into `output`, signed if there is a key.

    `change_state` runs when everything that can fail has been checked and fetched, just before the
    secrets are read. `choose_nodes` sees what the tarball of each node would hold, and returns
    the nodes that get one; if that is none, nothing is written.
    """
    key = load_signing_key(signing_key) if signing_key else None
    resolved = resolve(project)
    target = make_target(project, output, media, key)
    may_create = media.public_only or check_state(project, target.earlier)
    payloads = fetch(project, resolved)
    ensure_directory(output)
    check_space(output, estimate_space(project.plan, payloads, target))
    change_state()
    with (
        nullcontext()
        if media.public_only
        else open_state(project.state_path, create=may_create) as state
    ):
        secrets = ensure_secrets(project, state) if state else None
        seal_keys = ensure_seal_keys(state, target.recipients) if state else {}
        if secrets:
            project = record_state(project, secrets.state_id)
            _note_earlier(target.earlier, secrets)
        trees = render_trees(project, resolved, payloads, secrets)
        if choose_nodes:
            chosen = choose_nodes(
                (
                    node.name,
                    make_carried_tree(trees, node, target, None, seal_keys.get(node.name))[0],
                )
                for node in trees.plan.nodes
            )
            if not chosen:
                return ()
            target = replace(target, only=chosen)
        written = pack_bundles(trees, payloads, target, seal_keys)
    warn_about_first_uses(project, resolved)
    return written


def preview(inputs: Inputs, output: Path, media: Media = DEFAULT_MEDIA) -> Preview:
    """List what `build` would fetch, create and write; writes nothing."""
    project = load(inputs)
    resolved = resolve(project)
    target = make_target(project, output, media, None)
    if not media.public_only:
        check_state(project, target.earlier)
    names = {node.name: bundle_name(project.plan, node, media) for node in project.plan.nodes}
    return Preview(
        cluster=project.cluster,
        artifacts=tuple(
            (artifact, _is_cached(artifact, inputs.cache))
            for artifact in resolved.artifacts.values()
        ),
        state=None if media.public_only else project.state_path,
        bundles=tuple(names.values()),
        bases={name: target.bases[node] for node, name in names.items() if node in target.bases},
        is_sealed=bool(target.recipients),
    )


def render(inputs: Inputs, output: Path, *, text_only: bool) -> tuple[Path, ...]:
    """Write the tree of every node as plain files to `output`/NODE."""
    project = load(inputs)
    resolved = resolve(project)
    may_create = check_state(project, tuple(list_fronts(output, project.plan.name)))
    payloads = None if text_only else fetch(project, resolved)
    with open_secrets(project, create=may_create) as secrets:
        project = record_state(project, secrets.state_id)
        trees = render_trees(project, resolved, payloads, secrets)
        directories = []
        for node in trees.plan.nodes:
            directory = output / node.name
            _check_replaceable(directory)
            tree, _ = trees.render(node)
            write_tree(tree, directory)
            directories.append(directory)
    return tuple(directories)


def make_target(
    project: Project, output: Path, media: Media, key: EllipticCurvePrivateKey | None
) -> Target:
    """Load the fronts of earlier bundles, and check imported certificates."""
    check_no_other_cluster(output, project.plan.name)
    bases = load_bases(media.since, project.cluster)
    if not media.public_only:
        check_signed(project.state_path, project.plan)
    manifests = {node: front.manifest for node, front in bases.items()}
    nodes = [node.name for node in project.plan.nodes]
    recipients = choose_recipients(media, nodes, manifests, project.state_path)
    if not recipients and media.seal is None and (output / UNSEAL).is_file():
        log.warning(
            f"{output}: the bundles were sealed, and this build does not seal them. Add --seal, or"
            " --no-seal to say that this is right"
        )
    return Target(
        output=output.absolute(),
        media=media,
        bases=manifests,
        earlier=(*list_fronts(output, project.plan.name), *bases.values()),
        recipients=recipients,
        key=key,
    )


def fetch(project: Project, resolved: Resolved) -> Payloads:
    """Download every large file into the cache, verify it and compress it."""
    inputs, plan = project.inputs, project.plan
    remove_leftovers(inputs.cache.directory("segments"), older_than=LEFTOVER_AGE)
    with DownloadProgress() as progress:
        options, puller = make_fetch_options(inputs, progress), make_puller(inputs, progress)
        fetched = fetch_sources(plan, resolved, options, puller)
    with log.step("compressing new files"):
        return ensure_payloads(plan, resolved, fetched, inputs.cache)


@contextmanager
def open_secrets(project: Project, *, create: bool) -> Iterator[Secrets]:
    """Load the secrets of the cluster and create the missing ones; the state stays locked.

    Without `create` raises PkiError if there is no state.
    """
    with open_state(project.state_path, create=create) as state:
        yield ensure_secrets(project, state)


def ensure_secrets(project: Project, state: State) -> Secrets:
    """Load the secrets of the cluster from an open state, and create the missing ones."""
    plan, network = project.plan, project.cluster.network
    workers = worker_names(project.cluster)
    pod_subnets = state.ensure_pod_subnets(
        _list_subnet_owners(project.cluster), network.pod_cidr, network.pod_subnet_prefix
    )
    members = state.ensure_initial_etcd_members([node.name for node in plan.having(Role.ETCD)])
    now = datetime.now(UTC)
    with log.step(f"keys and certificates in {state.directory}"):
        pki = ensure_pki(state, plan, now)
        tokens = ensure_tokens(state, workers, now, project.cluster.pki.token_days)
        keys = ensure_encryption_keys(state)
        check_resources(state, project.cluster.encryption)
        wanted = check_encryption_keys(keys, project.cluster.encryption)
        stages = tuple(note_stage(state.directory)) or tuple([wanted] if wanted else [])
        for note in (*pki.notes, *tokens.notes, *stages):
            log.note(note, indent="  ")
    return Secrets(
        state_id=read_state_id(state.directory) or "",
        pki=pki,
        pod_subnets=pod_subnets,
        tokens=tokens,
        encryption_keys=keys,
        initial_etcd_members=members,
    )


def render_trees(
    project: Project, resolved: Resolved, payloads: Payloads | None, secrets: Secrets | None
) -> Trees:
    """Prepare the trees of all nodes: text only without `payloads`, public only without `secrets`.

    A text-only tree has no SBOM and no provenance.
    """
    mtime = _choose_mtime(secrets)
    if not secrets:
        if not payloads:
            raise TypeError("a public tree needs payloads")
        return _make_public_trees(project, payloads, mtime)
    plan = assign_pod_subnets(project.plan, secrets.pod_subnets)
    describe: Describe | None = None
    if payloads:
        locked = project.lock.entries if project.lock else ()
        describe = make_describer(
            plan, resolved.artifacts, payloads, locked, project.digests, mtime, make_bundle_vex
        )
    return Trees(
        plan=plan,
        mtime=mtime,
        as_of=_choose_day(),
        state_id=secrets.state_id,
        render=lambda node: (render_node(plan, node, secrets, payloads, describe), {}),
        join_before=min((t.expires for t in secrets.tokens.current.values()), default=None),
    )


def _note_earlier(earlier: Sequence[BundleFront], secrets: Secrets) -> None:
    """Say that bundles do not name their state, or have newer certificates than it."""
    if earlier and not any(front.state_id for front in earlier):
        state_id = secrets.state_id[:SHOWN]
        log.note(f"{earlier[0].path} does not name its state; taken as made with state {state_id}")
    for front in earlier:
        if front.node in secrets.pki.nodes and front.state_id in {secrets.state_id, ""}:
            newest = get_not_before(secrets.pki, front.node)
            if newest < front.not_before:
                times = (datetime.fromtimestamp(t, UTC) for t in (front.not_before, newest))
                there, here = (f"{time:%Y-%m-%d %H:%M}" for time in times)
                log.warning(
                    f"{front.path} has a certificate from {there} UTC, the state directory none"
                    f" after {here}: it was restored from an older export. Fix: restore the newest"
                    " one, or hosts get back what was renewed since"
                )
                return


def _make_public_trees(project: Project, payloads: Payloads, mtime: int) -> Trees:
    subnets = dict.fromkeys(_list_subnet_owners(project.cluster), make_unknown("a pod subnet"))
    plan = assign_pod_subnets(project.plan, subnets)

    def render_one(node: NodePlan) -> tuple[Tree, dict[str, ContentSource]]:
        tree, absent = render_public(plan, node, payloads)
        return tree, absent | dict.fromkeys(DOCUMENTS, ContentSource.STATE)

    return Trees(
        plan=plan,
        mtime=mtime,
        as_of=_choose_day(),
        state_id="",
        render=render_one,
        join_before=None,
    )


def _list_subnet_owners(cluster: Cluster) -> list[str]:
    """List the nodes that get a pod subnet from the state directory; flannel assigns its own."""
    return worker_names(cluster) if cluster.network.plugin == "static" else []


def _is_cached(artifact: Artifact, cache: Cache) -> bool:
    return (cache.root / "blobs" / artifact.algorithm / artifact.digest).is_file()


def _choose_mtime(secrets: Secrets | None) -> int:
    """Return SOURCE_DATE_EPOCH, or else the start of the CA's validity: the same in every build."""
    chosen = read_source_date()
    if chosen is None:
        ca = secrets.pki.cas["kubernetes-ca"] if secrets else None
        return int(ca.not_before.timestamp()) if ca else 0
    return chosen


def _choose_day() -> date:
    """Return the day of SOURCE_DATE_EPOCH, or else that of the table: the same in every build."""
    chosen = read_source_date()
    return READ if chosen is None else datetime.fromtimestamp(chosen, UTC).date()


def _check_replaceable(directory: Path) -> None:
    """Raise ConfigError unless the directory is empty or holds an earlier rendered tree."""
    if directory.is_dir() and any(directory.iterdir()) and not (directory / MANIFEST).is_file():
        raise ConfigError(
            f"{directory} is not empty, and it is not a rendered tree",
            hint="choose another directory with -o",
        )
