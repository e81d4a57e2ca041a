"""The files of the overlays, read once, and the programs that they take from upstream files.

In a folder of templates/, `x.j2` is rendered to `x`. `x.fetch` holds "COMPONENT MEMBER": the file
`x` is that member of that component's archive ("COMPONENT": the upstream file itself). A program
of Kubernetes may come from its own upstream file instead. Every other file is copied unchanged.
"""

import fnmatch
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from bundler.catalog.kubernetes import choose_file
from bundler.cluster.cis import list_closed_paths
from bundler.cluster.components import minor_of
from bundler.cluster.plan import ClusterPlan, NodePlan
from bundler.errors import TemplateError
from bundler.files import CLOSED_MODE, SECRET_MODE
from bundler.overlays.selection import OVERLAYS, overlays_of
from bundler.paths import templates_directory

RENDERED = ".j2"
FETCHED = ".fetch"
SECRET_NAMES = (
    "*.key",
    "*.kubeconfig",
    "*/encryption-config.yaml",
    "*/bootstrap-tokens.yaml",
    "*/metrics-server.yaml",
    "*/kubernetes/admin.conf",
)
"""Files that only root may read, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayFile:
    """One file of templates/."""

    path: str  # in the bundle, without .j2 and .fetch
    origin: str  # OVERLAY/PATH, for messages
    suffix: str  # .j2, .fetch or empty
    mode: int
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedFile:
    """A file of the bundle that comes from an upstream file."""

    path: str
    component: str
    member: str  # empty: the upstream file is the program itself, not an archive
    origin: str


def list_files(plan: ClusterPlan, node: NodePlan) -> tuple[OverlayFile, ...]:
    """Every file of the node's overlays that is copied or rendered."""
    return tuple(file for file in _list_all(plan, node) if file.suffix != FETCHED)


def list_paths() -> frozenset[str]:
    """The path of every file of every overlay, of all nodes and choices."""
    return frozenset(file.path for overlay, _, _ in OVERLAYS for file in _read_overlay(overlay))


def list_fetched(plan: ClusterPlan, node: NodePlan) -> tuple[FetchedFile, ...]:
    """Every file that the node's bundle takes from an upstream file."""
    from bundler.overlays.templating import render_template  # noqa: PLC0415 - slow to import

    version = plan.cluster.kubernetes.version
    pinned = plan.cluster.list_pinned(node.arch)
    found = []
    for file in _list_all(plan, node):
        if file.suffix == FETCHED:
            text = render_template(file.content, file.origin, {"plan": plan, "node": node}).strip()
            component, _, member = text.partition(" ")
            component, member = choose_file(component, member, version, node.arch, pinned)
            found.append(
                FetchedFile(path=file.path, component=component, member=member, origin=text)
            )
    return tuple(found)


def _list_all(plan: ClusterPlan, node: NodePlan) -> tuple[OverlayFile, ...]:
    files = (file for overlay in overlays_of(plan, node) for file in _read_overlay(overlay))
    cluster = plan.cluster
    if not cluster.profile:
        return tuple(files)
    closed = list_closed_paths(minor_of(cluster.kubernetes.version), cluster.profile)
    return tuple(_close(file, closed) for file in files)


def _close(file: OverlayFile, closed: frozenset[str]) -> OverlayFile:
    """The file, readable by root only if the profile says so; it is no secret."""
    is_closed = f"/{file.path.removeprefix('rootfs/')}" in closed
    return replace(file, mode=CLOSED_MODE) if is_closed else file


@cache
def _read_overlay(name: str) -> tuple[OverlayFile, ...]:
    root = templates_directory() / name
    if not root.is_dir():
        raise TemplateError(f"{root}: the template folder is missing", hint="reinstall bundler")
    return tuple(_read_file(path, root) for path in sorted(root.rglob("*")) if path.is_file())


def _read_file(path: Path, root: Path) -> OverlayFile:
    suffix = path.suffix if path.suffix in {RENDERED, FETCHED} else ""
    inside = path.relative_to(root).as_posix().removesuffix(suffix)
    is_program = bool(path.stat().st_mode & 0o100)
    return OverlayFile(
        path=inside,
        origin=f"{root.name}/{path.relative_to(root).as_posix()}",
        suffix=suffix,
        mode=SECRET_MODE if _is_secret(inside) else 0o755 if is_program else 0o644,
        content=path.read_bytes(),
    )


def _is_secret(path: str) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in SECRET_NAMES)
