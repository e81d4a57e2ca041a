"""The upstream files, images and packages in a bundle, and where each came from.

SOURCES has one function for each kind. The SBOM and the provenance list the same items.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from packageurl import PackageURL

from bundler.catalog import Artifact
from bundler.catalog.licences import find_upstream_project, is_published_by_project
from bundler.cluster.os_packages import release_of
from bundler.cluster.plan import ClusterPlan, NodePlan
from bundler.cluster.planned_addons import AddonSource
from bundler.cluster.schema import Role
from bundler.cluster.site_files import ROOTFS
from bundler.formats.image_packages import ImagePackage, ImagePackages
from bundler.formats.image_references import DOCKER_HUB
from bundler.overlays.files import FetchedFile, list_fetched
from bundler.render.addons import DIRECTORY as ADDONS
from bundler.render.images import BLOBS
from bundler.render.tree import Tree
from bundler.sources.artifacts import Artifacts
from bundler.sources.images.needed import FROM_TAG, IN_CONFIGURATION, Images, Needed, list_needed
from bundler.sources.lock import LockEntry, LockKind, TrustSource
from bundler.sources.mirrors import WEB
from bundler.sources.packages.files import PackageFile
from bundler.urls import show_url

UPSTREAM_SOURCES = frozenset({TrustSource.UPSTREAM_SIGNATURE, TrustSource.UPSTREAM_CHECKSUM})
PURL_TYPES = {".deb": "deb", ".rpm": "rpm"}
NAMESPACES = {"rhel": "redhat"}
"""Distribution → its namespace in purls, where that is another name."""
VERSION = re.compile(r"\d+\.\d+\.\d+")
NOT_READ = ImagePackages(unread="it was not read")


class ItemKind(StrEnum):
    """The kind of an item."""

    ARTIFACT = "artifact"  # an upstream file that programs are extracted from
    PROGRAM = "program"
    IMAGE = "image"
    LAYER = "layer"
    IMAGE_PACKAGE = "image-package"  # of a distribution, in an image
    PACKAGE = "package"
    FILE = "file"  # of the site
    ADDON = "addon"
    MANIFEST = "manifest"  # a file of an add-on: manifests, or values of its chart
    CHART = "chart"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing in a bundle; an empty field is not known."""

    kind: ItemKind
    name: str
    version: str = ""
    arch: str = ""
    digest: str = ""  # sha256:… or sha512:…; an image: of its configuration; a layer: as packed
    path: str = ""  # in the bundle
    url: str = ""  # of the web, without user, password and query
    purl: str = ""
    licence: str = ""  # SPDX, as its project declares it
    evidence: str = ""  # the trust source of the digest
    unread: str = ""  # of an image: why its packages are not known
    made_from: tuple[str, ...] = ()  # of an artifact: purls of a distribution's packages
    parts: tuple["Item", ...] = ()  # programs of an artifact, layers of an image, an add-on's files


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildInputs:
    """What a build uses for all nodes."""

    artifacts: Artifacts
    images: Images
    locked: tuple[LockEntry, ...] = ()  # entries of the lock file, if there is one
    image_packages: Mapping[str, ImagePackages] = field(default_factory=dict)  # by image ID
    packages: Mapping[str, PackageFile] = field(default_factory=dict)  # OS packages, by SHA-256


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
        entry = entries.get((LockKind.ARTIFACT, component, node.arch, ""))
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
            made_from=artifact.made_from,
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
    for needed in list_needed(plan):
        has = node.has(Role.WORKER) and needed.arch == node.arch
        if not (node.has(Role.REGISTRY) if needed.image.where == "registry" else has):
            continue
        reference = needed.reference
        image = build.images[reference.name, needed.arch]
        packages = build.image_packages.get(image.image_id, NOT_READ)
        entry = entries.get((LockKind.IMAGE, reference.name, needed.arch, ""))
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
            unread=packages.unread,
            parts=(
                *(
                    Item(
                        kind=ItemKind.LAYER,
                        name=layer.descriptor.digest,
                        digest=layer.descriptor.digest,
                        path=f"{BLOBS}/{layer.descriptor.hexadecimal}",
                    )
                    for layer in image.layers
                ),
                *(_make_image_package(package, packages.release) for package in packages.packages),
            ),
        )


def _make_image_package(package: ImagePackage, release: str) -> Item:
    return Item(
        kind=ItemKind.IMAGE_PACKAGE,
        name=package.name,
        version=package.version,
        arch=package.arch,
        purl=_package_purl(
            package.kind, package.name, package.version, package.arch, release, package.source
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
    plan: ClusterPlan, node: NodePlan, tree: Tree, build: BuildInputs
) -> Iterator[Item]:
    """List the OS packages whose file is in the bundle; the lock says where they come from."""
    release = release_of(plan, node)
    packages = (entry for entry in build.locked if entry.kind is LockKind.PACKAGE)
    locked = {entry.digest: entry for entry in packages if entry.release == release}
    for file in tree:
        entry = locked.get(f"sha256:{file.sha256}")
        package = build.packages.get(file.sha256)
        known = package or entry
        if not known:
            continue
        yield Item(
            kind=ItemKind.PACKAGE,
            name=known.name,
            version=known.version,
            arch=known.arch,
            digest=f"sha256:{file.sha256}",
            path=file.path,
            url=_public_url(entry.url) if entry else "",
            purl=_package_purl(
                PURL_TYPES[Path(file.path).suffix],
                known.name,
                known.version,
                known.arch,
                release,
                package.source if package else "",
            ),
            evidence=f"{entry.origin}: {entry.evidence}" if entry else "",
        )


def _package_purl(kind: str, name: str, version: str, arch: str, release: str, source: str) -> str:
    """Make a pkg:deb, rpm or apk purl with the distribution as namespace (purl-spec).

    The qualifier `upstream` names the source package, as syft writes it: advisories are about it.
    An epoch is a qualifier for rpm, and a part of the version for deb.
    """
    epoch, _, rest = version.rpartition(":") if kind == "rpm" else ("", "", version)
    where = {"arch": arch, "distro": release, "epoch": epoch, "upstream": source}
    given = {key: value for key, value in where.items() if value}
    family = release.partition("-")[0]
    return PackageURL(kind, NAMESPACES.get(family, family), name, rest, given).to_string()


def _list_site_files(
    plan: ClusterPlan, node: NodePlan, tree: Tree, build: BuildInputs
) -> Iterator[Item]:
    """Yield the files of cluster.yaml; a digest of a secret must not leave the bundle."""
    del plan, build
    for each in node.files:
        path = ROOTFS + each.path
        yield Item(
            kind=ItemKind.FILE,
            name=each.path,
            path=path,
            digest="" if each.is_secret else f"sha256:{tree[path].sha256}",
            evidence="files of cluster.yaml",
        )


def _list_addons(
    plan: ClusterPlan, node: NodePlan, tree: Tree, build: BuildInputs
) -> Iterator[Item]:
    """Yield the add-ons of a control plane, each with what it was made from."""
    del tree, build
    for addon in plan.addons if node.has(Role.CONTROL_PLANE) else ():
        chart = next((each for each in addon.sources if each.kind == ItemKind.CHART), None)
        yield Item(
            kind=ItemKind.ADDON,
            name=addon.name,
            version=chart.version if chart else "",
            path=f"{ADDONS}/{addon.name}",
            parts=tuple(_make_source(each, addon.name) for each in addon.sources),
        )


def _make_source(source: AddonSource, addon: str) -> Item:
    is_chart = source.kind == ItemKind.CHART
    digest = f"sha256:{source.digest}" if source.digest else ""
    qualifiers = {"checksum": digest, **({"download_url": source.url} if source.url else {})}
    purl = PackageURL("generic", None, source.name, source.version, qualifiers)
    return Item(
        kind=ItemKind(source.kind),
        name=source.name,
        version=source.version,
        digest=digest,
        url=_public_url(source.url),
        purl=purl.to_string() if is_chart else "",
        evidence=source.evidence or f"addons.{addon} of cluster.yaml",
    )


SOURCES: tuple[Callable[[ClusterPlan, NodePlan, Tree, BuildInputs], Iterator[Item]], ...] = (
    _list_artifacts,
    _list_images,
    _list_packages,
    _list_site_files,
    _list_addons,
)
"""One function for each kind of item."""


def _public_url(url: str) -> str:
    """Return a web address without password and query; nothing for a file of the builder."""
    return show_url(url) if url.startswith(WEB) else ""
