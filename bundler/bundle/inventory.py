"""The upstream files, images and packages in a bundle, and where each came from.

SOURCES has one function for each kind. The SBOM and the provenance list the same items.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from packageurl import PackageURL

from bundler.catalog import Artifact
from bundler.catalog.licences import find_upstream_project, is_published_by_project
from bundler.cluster.plan import ClusterPlan, NodePlan
from bundler.cluster.schema import Role
from bundler.formats.image_references import DOCKER_HUB
from bundler.overlays.files import FetchedFile, list_fetched
from bundler.render.images import BLOBS
from bundler.render.tree import Tree
from bundler.sources.artifacts import Artifacts
from bundler.sources.images.needed import FROM_TAG, IN_CONFIGURATION, Images, Needed, list_needed
from bundler.sources.lock import LockEntry, LockKind, TrustSource
from bundler.sources.mirrors import WEB
from bundler.urls import show_url

UPSTREAM_SOURCES = frozenset({TrustSource.UPSTREAM_SIGNATURE, TrustSource.UPSTREAM_CHECKSUM})
PURL_TYPES = {".deb": "deb", ".rpm": "rpm"}
VERSION = re.compile(r"\d+\.\d+\.\d+")


class ItemKind(StrEnum):
    """The kind of an item."""

    ARTIFACT = "artifact"  # an upstream file that programs are extracted from
    PROGRAM = "program"
    IMAGE = "image"
    LAYER = "layer"
    PACKAGE = "package"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing in a bundle; an empty field is not known."""

    kind: ItemKind
    name: str
    version: str = ""
    arch: str = ""
    digest: str  # sha256:… or sha512:…; an image: of its configuration; a layer: as packed
    path: str = ""  # in the bundle
    url: str = ""  # of the web, without user, password and query
    purl: str = ""
    licence: str = ""  # SPDX, as its project declares it
    evidence: str = ""  # the trust source of the digest
    parts: tuple["Item", ...] = ()  # programs of an artifact, layers of an image


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildInputs:
    """What a build uses for all nodes."""

    artifacts: Artifacts
    images: Images
    locked: tuple[LockEntry, ...] = ()  # entries of the lock file, if there is one


def list_items(
    plan: ClusterPlan, node: NodePlan, tree: Tree, build: BuildInputs
) -> tuple[Item, ...]:
    """List every item of a node's bundle, in the order of SOURCES."""
    return tuple(item for source in SOURCES for item in source(plan, node, tree, build))


def _list_artifacts(
    plan: ClusterPlan, node: NodePlan, tree: Tree, build: BuildInputs
) -> Iterator[Item]:
    entries = {entry.key: entry for entry in build.locked}
    programs: dict[str, list[FetchedFile]] = {}
    for fetched in list_fetched(plan, node):
        programs.setdefault(fetched.component, []).append(fetched)
    for component, members in sorted(programs.items()):
        artifact = build.artifacts[component, node.arch]
        entry = entries.get((LockKind.ARTIFACT, component, node.arch))
        is_confirmed = entry is not None and entry.origin in UPSTREAM_SOURCES
        is_release = is_published_by_project(artifact, is_confirmed=is_confirmed)
        project = find_upstream_project(component) if is_release else None
        yield Item(
            kind=ItemKind.ARTIFACT,
            name=component,
            version=_known_version(artifact),
            arch=node.arch,
            digest=f"{artifact.algorithm}:{artifact.digest}",
            url=_public_url(artifact.url),
            purl=_artifact_purl(artifact, project.repository if project else ""),
            licence=project.licence if project else "",
            evidence=f"{entry.origin}: {entry.evidence}" if entry else artifact.source,
            parts=tuple(
                _make_program(artifact, fetched, tree, is_release=is_release) for fetched in members
            ),
        )


def _make_program(
    artifact: Artifact, fetched: FetchedFile, tree: Tree, *, is_release: bool
) -> Item:
    name = fetched.path.rpartition("/")[2]
    project = find_upstream_project(artifact.component, name)
    return Item(
        kind=ItemKind.PROGRAM,
        name=name,
        version=_known_version(artifact) if project and project.is_versioned else "",
        arch=artifact.arch,
        digest=f"sha256:{tree[fetched.path].sha256}",
        path=fetched.path,
        licence=project.licence if project and is_release else "",
    )


def _known_version(artifact: Artifact) -> str:
    """Return the version, or "" if the address in a user's pin names only other versions."""
    named = VERSION.findall(urlsplit(artifact.url).path)
    return artifact.version if not named or artifact.version in named else ""


def _artifact_purl(artifact: Artifact, repository: str) -> str:
    """Make a purl: pkg:github for a release of the project, else pkg:generic (purl-spec)."""
    if repository:
        owner, _, name = repository.lower().partition("/")
        return PackageURL("github", owner, name, f"v{artifact.version}").to_string()
    url = _public_url(artifact.url)
    qualifiers = {
        "arch": artifact.arch,
        "checksum": f"{artifact.algorithm}:{artifact.digest}",
        **({"download_url": url} if url else {}),
    }
    version = _known_version(artifact) or None
    return PackageURL("generic", None, artifact.component, version, qualifiers).to_string()


def _list_images(plan: ClusterPlan, node: NodePlan, _: Tree, build: BuildInputs) -> Iterator[Item]:
    entries = {entry.key: entry for entry in build.locked}
    for needed in list_needed(plan) if node.has(Role.WORKER) else ():
        if needed.arch != node.arch:
            continue
        reference = needed.reference
        image = build.images[reference.name, needed.arch]
        entry = entries.get((LockKind.IMAGE, reference.name, needed.arch))
        repository = f"{reference.registry}/{reference.repository}"
        yield Item(
            kind=ItemKind.IMAGE,
            name=repository,
            version=reference.tag or "",
            arch=image.architecture,
            digest=image.image_id,
            path=f"{BLOBS}/{image.manifest.descriptor.hexadecimal}",
            url="" if needed.image.file else reference.url,
            purl=_image_purl(repository, image.image_id),
            evidence=_image_evidence(needed, entry),
            parts=tuple(
                Item(
                    kind=ItemKind.LAYER,
                    name=layer.descriptor.digest,
                    digest=layer.descriptor.digest,
                    path=f"{BLOBS}/{layer.descriptor.hexadecimal}",
                )
                for layer in image.layers
            ),
        )


def _image_evidence(needed: Needed, entry: LockEntry | None) -> str:
    if entry and not needed.image.file:
        return f"{entry.origin}: {entry.evidence}"
    is_stated = needed.image.file or needed.reference.digest
    return IN_CONFIGURATION if is_stated else f"{TrustSource.FIRST_USE}: {FROM_TAG}"


def _image_purl(repository: str, image_id: str) -> str:
    """Make a pkg:docker purl with the image's id, which purl-spec prefers, since tags move."""
    registry, _, path = repository.partition("/")
    namespace, _, name = path.rpartition("/")
    where = {} if registry == DOCKER_HUB else {"repository_url": registry}
    return PackageURL("docker", namespace or None, name, image_id, where).to_string()


def _list_packages(
    plan: ClusterPlan, _: NodePlan, tree: Tree, build: BuildInputs
) -> Iterator[Item]:
    """List the locked packages whose file is in the bundle."""
    locked = {entry.digest: entry for entry in build.locked if entry.kind is LockKind.PACKAGE}
    for file in tree:
        if entry := locked.get(f"sha256:{file.sha256}"):
            yield Item(
                kind=ItemKind.PACKAGE,
                name=entry.name,
                version=entry.version,
                arch=entry.arch,
                digest=entry.digest,
                path=file.path,
                url=_public_url(entry.url),
                purl=_package_purl(
                    entry,
                    plan.cluster.packages.os if plan.cluster.packages else "",
                    PURL_TYPES[Path(file.path).suffix],
                ),
                evidence=f"{entry.origin}: {entry.evidence}",
            )


def _package_purl(entry: LockEntry, release: str, kind: str) -> str:
    """Make a pkg:deb or pkg:rpm purl with the distribution as namespace (purl-spec)."""
    where = {"arch": entry.arch, "distro": release}
    namespace = release.partition("-")[0]
    return PackageURL(kind, namespace, entry.name, entry.version, where).to_string()


SOURCES: tuple[Callable[[ClusterPlan, NodePlan, Tree, BuildInputs], Iterator[Item]], ...] = (
    _list_artifacts,
    _list_images,
    _list_packages,
)
"""One function for each kind of item."""


def _public_url(url: str) -> str:
    """Return a web address without password and query; nothing for a file of the builder."""
    return show_url(url) if url.startswith(WEB) else ""
