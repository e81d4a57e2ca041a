"""Overlays + context → a node's tree.

In a template folder, `x.j2` is rendered to `x`, `x.fetch` holds "COMPONENT MEMBER" and stands for
that member of that upstream archive ("COMPONENT": for the upstream file itself), and every other
file is copied as it is.
"""

import fnmatch
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import TemplateError as JinjaError

from bundler.cache.payload import Payload
from bundler.cluster.plan import ClusterPlan, NodePlan
from bundler.errors import TemplateError
from bundler.overlays.selection import overlays_of
from bundler.overlays.templating import compile_template
from bundler.paths import templates_directory
from bundler.render.bundle_manifest import ContentSource
from bundler.render.context import (
    NeedsStateError,
    Secrets,
    make_context,
)
from bundler.render.images import ImageFiles, make_image_files
from bundler.render.packages import PackageFiles, make_package_files
from bundler.render.registries import make_registry_files
from bundler.render.tree import File, Tree, make_manifest

Describe = Callable[[NodePlan, Tree], Iterable[File]]
"""Makes files that tell of a node's finished tree."""

SECRET_NAMES = (
    "*.key",
    "*.kubeconfig",
    "*/encryption-config.yaml",
    "*/bootstrap-tokens.yaml",
    "*/metrics-server.yaml",
)
"""Files that only root may read, by their names."""

SECRET_MODE = 0o600

SECRET_MARKS = (
    b"PRIVATE KEY-----",
    b"client-key-data:",
    b"token-secret:",
    b"    token:",
    b"tls.key:",
)
"""What betrays a secret, whatever the file is called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A file that comes out of an upstream archive."""

    path: str
    component: str
    member: str  # empty: the upstream file is no archive but the program itself
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Payloads:
    """The large files of all nodes."""

    member: Callable[[str, str, str], Payload]  # (component, arch, member)
    images: ImageFiles
    packages: PackageFiles | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Template:
    """One file of templates/."""

    path: str  # in the bundle, without .j2 and .fetch
    origin: str
    suffix: str  # .j2, .fetch or nothing
    mode: int
    content: bytes


def render_node(
    plan: ClusterPlan,
    node: NodePlan,
    secrets: Secrets,
    payloads: Payloads | None = None,
    describe: Describe | None = None,
) -> Tree:
    """The node's whole bundle with its manifest; without `payloads` only what is text.

    `describe` makes files about all the others.
    """
    context = make_context(plan, node, secrets)
    tree = Tree(_make_file(template, context) for template in _list_texts(plan, node))
    return _complete(tree, plan, node, payloads, describe)


def render_public(
    plan: ClusterPlan, node: NodePlan, payloads: Payloads
) -> tuple[Tree, dict[str, ContentSource]]:
    """What of the node's bundle is no secret and needs no state directory; and the other paths.

    The lines of its manifest are the same as those of the whole bundle's. `plan` has pod subnets
    of `make_unknown` where the state directory gives them out.
    """
    context = make_context(plan, node, None)
    tree = Tree()
    absent = {}
    for template in _list_texts(plan, node):
        if file := _make_public_file(template, context):
            tree.add(file)
        else:
            absent[template.path] = ContentSource.STATE
    return _complete(tree, plan, node, payloads), absent


def list_payloads(plan: ClusterPlan, node: NodePlan, payloads: Payloads) -> Iterator[File]:
    """The large files of a node's bundle; nothing in them is secret."""
    yield from _list_programs(plan, node, payloads)
    for file in make_image_files(plan, node, payloads.images):
        if isinstance(file.content, Payload):
            yield file


def _list_programs(plan: ClusterPlan, node: NodePlan, payloads: Payloads) -> Iterator[File]:
    for fetched in list_fetched(plan, node):
        content = payloads.member(fetched.component, node.arch, fetched.member)
        yield File(path=fetched.path, mode=0o755, content=content, origin=fetched.origin)


def _complete(
    tree: Tree,
    plan: ClusterPlan,
    node: NodePlan,
    payloads: Payloads | None,
    describe: Describe | None = None,
) -> Tree:
    """The same tree with what is no template, and with its manifest."""
    for file in make_registry_files(plan, node):
        tree.add(_check_open(file))
    if payloads is not None:
        for file in _list_programs(plan, node, payloads):
            tree.add(file)
        for file in make_image_files(plan, node, payloads.images):
            tree.add(file)
        for file in make_package_files(plan, node, payloads.packages) if payloads.packages else ():
            tree.add(file)
    for file in tuple(describe(node, tree)) if describe else ():
        tree.add(file)
    tree.add(make_manifest(tree))
    return tree


def list_fetched(plan: ClusterPlan, node: NodePlan) -> tuple[Fetched, ...]:
    """What the node's bundle takes out of upstream archives."""
    found = []
    for template in _list_templates(plan, node):
        if template.suffix == ".fetch":
            text = _render(template, {"plan": plan, "node": node}).strip()
            component, _, member = text.partition(" ")
            found.append(
                Fetched(path=template.path, component=component, member=member, origin=text)
            )
    return tuple(found)


def _list_texts(plan: ClusterPlan, node: NodePlan) -> Iterator[_Template]:
    return (t for t in _list_templates(plan, node) if t.suffix != ".fetch")


def _list_templates(plan: ClusterPlan, node: NodePlan) -> tuple[_Template, ...]:
    return tuple(t for overlay in overlays_of(plan, node) for t in _read_overlay(overlay))


@cache
def _read_overlay(name: str) -> tuple[_Template, ...]:
    root = templates_directory() / name
    if not root.is_dir():
        raise TemplateError(f"there is no template folder {name}", hint="install bundler anew")
    return tuple(_read_template(path, root) for path in sorted(root.rglob("*")) if path.is_file())


def _read_template(path: Path, root: Path) -> _Template:
    suffix = path.suffix if path.suffix in {".j2", ".fetch"} else ""
    inside = path.relative_to(root).as_posix().removesuffix(suffix)
    is_program = bool(path.stat().st_mode & 0o100)
    return _Template(
        path=inside,
        origin=f"{root.name}/{path.relative_to(root).as_posix()}",
        suffix=suffix,
        mode=SECRET_MODE if _is_secret(inside) else 0o755 if is_program else 0o644,
        content=path.read_bytes(),
    )


def _is_secret(path: str) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in SECRET_NAMES)


def _make_file(template: _Template, context: Mapping[str, Any]) -> File:
    if template.suffix != ".j2":
        return File(
            path=template.path, mode=template.mode, content=template.content, origin=template.origin
        )
    content = _render(template, context).encode()
    return _check_open(
        File(path=template.path, mode=template.mode, content=content, origin=template.origin)
    )


def _check_open(file: File) -> File:
    """The same file; TemplateError where it holds a secret and others may read it."""
    content = file.content if isinstance(file.content, bytes) else b""
    if file.mode != SECRET_MODE and any(mark in content for mark in SECRET_MARKS):
        raise TemplateError(f"{file.origin}: a secret in a file that others may read")
    return file


def _make_public_file(template: _Template, context: Mapping[str, Any]) -> File | None:
    """None where the file is secret, or says something that only the state directory knows."""
    if template.mode == SECRET_MODE:
        return None
    try:
        return _make_file(template, context)
    except NeedsStateError:
        return None


def _render(template: _Template, context: Mapping[str, Any]) -> str:
    try:
        return compile_template(template.content.decode()).render(context)
    except NeedsStateError:
        raise
    except JinjaError as error:
        raise TemplateError(f"{template.origin}: {error}") from error
