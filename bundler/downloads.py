"""Downloads without a build: `bundler fetch`, `bundler lock`, and what `bundler cache` keeps."""

from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from bundler import log
from bundler.catalog import Artifact
from bundler.cluster.addons.manifests import find_kustomization
from bundler.cluster.plan import ClusterPlan
from bundler.formats.image_references import full_name
from bundler.progress import DownloadProgress
from bundler.project import (
    Inputs,
    Project,
    load,
    make_chart_options,
    make_fetch_options,
    resolve,
)
from bundler.sources.charts.proposals import propose_charts
from bundler.sources.charts.render import BY_HAND as HELM_BY_HAND
from bundler.sources.charts.render import NEED as HELM_NEED
from bundler.sources.charts.render import find_helm
from bundler.sources.fetch import ensure_artifacts, run_jobs
from bundler.sources.images.pull import Puller, list_cached
from bundler.sources.images.resolve import propose_images
from bundler.sources.images.wanted import open_files
from bundler.sources.kustomize import BY_HAND, NEED, find_kubectl
from bundler.sources.lock import TrustSource, first_uses, refuse_first_uses, write_lock
from bundler.sources.lock_update import (
    LockChange,
    list_sidecar_urls,
    make_lock,
    propose_artifacts,
)
from bundler.sources.packages.locked import is_fetched_entry, to_file
from bundler.sources.packages.resolve import propose_packages
from bundler.sources.resolved import Resolved
from bundler.sources.sidecars import find_cached_sidecars
from bundler.sources.tools import find_machine
from bundler.sources.trust import find_key


def fetch(inputs: Inputs) -> tuple[tuple[Artifact, Path], ...]:
    """Download every file of a cluster into the cache; makes no keys and no state directory."""
    project = load(inputs)
    resolved = resolve(project)
    artifacts = _list_files_with_url(project, resolved)
    with log.step(f"{len(artifacts)} upstream files"), DownloadProgress() as progress:
        paths = ensure_artifacts(artifacts, make_fetch_options(inputs, progress))
    with log.step(f"{len(resolved.images)} images"), DownloadProgress() as progress:
        pulled = make_puller(inputs, progress).pull(resolved.images)
    for file in (found.artifact for found in project.charts.values()):
        paths[file] = inputs.cache.blob_path(file.algorithm, file.digest)
    for file in (file for image in pulled for file in image.files):
        paths[file] = inputs.cache.blob_path(file.algorithm, file.digest)
    warn_about_first_uses(project, resolved)
    return tuple(paths.items())


def update_lock(
    inputs: Inputs, update: Collection[str], *, dry_run: bool = False
) -> tuple[LockChange, ...]:
    """Write the lock of a cluster, after downloading every file that is new in it."""
    project = load(inputs, locking=update)
    plan, old = project.plan, project.lock
    now = datetime.now(UTC).replace(microsecond=0)
    with log.step(f"locking the sources of {plan.name}"), DownloadProgress() as progress:
        options = make_fetch_options(inputs, progress)
        charts = make_chart_options(inputs, progress, old, update)
        update = {_normalize_image(name, plan) for name in update}
        proposals = [
            *propose_charts(project.cluster, project.charts, charts, now),
            *propose_artifacts(plan, options, now),
            *propose_images(plan, make_puller(inputs, progress, refresh=True), now),
            *propose_packages(plan, old, update, options, now),
        ]
        new, changes = make_lock(
            project.cluster, old, proposals, update, partial(run_jobs, options=options)
        )
    new = new.model_copy(update={"parts": dict(project.parts) or None})
    if inputs.strict:
        refuse_first_uses(new)
    if not dry_run:
        write_lock(new, project.lock_path)
    return changes


def list_files(project: Project, resolved: Resolved) -> tuple[Artifact, ...]:
    """List every file that a cluster downloads; sends no request.

    These are upstream files, programs of the build, the packages of the lock, the blobs of images
    whose manifests are in the cache, and the checksums and signatures that `bundler lock` fetched.
    """
    cache = project.inputs.cache
    blobs = {file.digest: file for image in resolved.images for file in list_cached(image, cache)}
    sidecars = _list_sidecars(project, resolved)
    tools = list_tools(project)
    charts = (found.artifact for found in project.charts.values())
    return (*_list_files_with_url(project, resolved), *tools, *charts, *sidecars, *blobs.values())


def list_tools(project: Project) -> tuple[Artifact, ...]:
    """List the programs that only the build runs: kubectl for kustomizations, helm for charts."""
    cluster, lock, tools = project.cluster, project.lock, []
    if any(
        map(find_kustomization, (addon.manifests for addon in cluster.addons if addon.manifests))
    ):
        tools.append(find_kubectl(cluster, lock, find_machine(NEED, BY_HAND))[0])
    if any(addon.chart for addon in cluster.addons):
        tools.append(find_helm(cluster, lock, find_machine(HELM_NEED, HELM_BY_HAND)))
    return tuple(tools)


def list_local_digests(project: Project, resolved: Resolved) -> frozenset[str]:
    """List the SHA-256 of the user's own files: layers of image files, packages of `dir`."""
    packages = resolved.packages or ()
    layers = (layer for image in open_files(project.plan).values() for layer in image.layers)
    return frozenset((
        *(entry.digest.partition(":")[2] for entry in packages if not is_fetched_entry(entry)),
        *(layer.descriptor.hexadecimal for layer in layers),
    ))  # fmt: skip


def warn_about_first_uses(project: Project, resolved: Resolved) -> None:
    """Warn about each digest whose only trust source is the first download."""
    for chart in () if project.lock else project.charts.values():
        if chart.origin is TrustSource.FIRST_USE:
            log.warning(
                f"{chart.artifact.label}: its repository states no digest; the first download is"
                " trusted, and `bundler lock` records its digest"
            )
    for image in () if project.lock else resolved.images:
        if not image.digest:
            log.warning(
                f"{image.label}: there is no digest for its tag; the first download is trusted,"
                " and `bundler lock` records its digest"
            )
    for entry in first_uses(project.lock) if project.lock else ():
        log.warning(
            f"{entry.name} {entry.version} ({entry.arch}): its digest in {project.lock_path.name}"
            " comes from the first download and has no other trust source; --strict refuses it"
        )


def make_puller(inputs: Inputs, progress: DownloadProgress, *, refresh: bool = False) -> Puller:
    """Make the client that pulls images into the cache."""
    return Puller(make_fetch_options(inputs, progress), inputs.registries, refresh=refresh)


def _list_files_with_url(project: Project, resolved: Resolved) -> tuple[Artifact, ...]:
    locked = (entry for entry in resolved.packages or () if is_fetched_entry(entry))
    of_release = project.cluster.list_packages()
    packages = (to_file(entry, of_release.get(entry.release)) for entry in locked)
    return (*resolved.artifacts.values(), *packages)


def _list_sidecars(project: Project, resolved: Resolved) -> Iterator[Artifact]:
    """Checksums and signatures that upstream publishes next to its files."""
    keys = project.cluster.upstream_keys
    for artifact in resolved.artifacts.values():
        for url in list_sidecar_urls(artifact, find_key(keys, artifact.component)):
            yield from find_cached_sidecars(artifact, url, project.inputs.cache)


def _normalize_image(name: str, plan: ClusterPlan) -> str:
    """Return the full name if `name` is an image of the cluster, else the name unchanged."""
    try:
        found = full_name(name)
    except ValueError:
        return name
    return found if found in {full_name(image.ref) for image in plan.cluster.images} else name
