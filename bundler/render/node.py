"""Overlays + context → a node's tree."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from bundler.cache.payload import Payload
from bundler.cluster.plan import ClusterPlan, NodePlan
from bundler.errors import TemplateError
from bundler.files import SECRET_MODE
from bundler.formats.secret_shapes import find_secret_marker
from bundler.overlays.files import RENDERED, OverlayFile, list_fetched, list_files
from bundler.overlays.templating import NeedsStateError, render_template
from bundler.render.addons import make_addon_files
from bundler.render.audit import make_audit_files
from bundler.render.bundle_manifest import ContentSource
from bundler.render.context import make_context
from bundler.render.images import make_image_files
from bundler.render.packages import make_package_files
from bundler.render.policy import make_policy_files
from bundler.render.registries import make_registry_files
from bundler.render.registry import make_user_files
from bundler.render.site_files import make_site_files
from bundler.render.state_values import Secrets
from bundler.render.tree import File, Tree, make_manifest
from bundler.sources.payloads import Payloads

Describe = Callable[[NodePlan, Tree], Iterable[File]]
"""Makes the files that describe a complete tree, such as the SBOM."""


def render_node(
    plan: ClusterPlan,
    node: NodePlan,
    secrets: Secrets,
    payloads: Payloads | None = None,
    describe: Describe | None = None,
) -> Tree:
    """Render the complete bundle of a node with its manifest; without `payloads` only text files.

    `describe` makes the files that describe all others.
    """
    context = make_context(plan, node, secrets)
    tree = Tree(_make_file(template, context) for template in list_files(plan, node))
    for file in _list_site_files(plan, node):
        tree.add(file)
    return _complete(tree, plan, node, payloads, describe)


def render_public(
    plan: ClusterPlan, node: NodePlan, payloads: Payloads
) -> tuple[Tree, dict[str, ContentSource]]:
    """Render the files of a bundle that need no secret and no state directory.

    Returns them and the paths of the other files. The manifest has the same lines for them as the
    manifest of the complete bundle. Pod subnets from the state directory are `make_unknown` in
    `plan`.
    """
    context = make_context(plan, node, None)
    tree = Tree()
    absent = {}
    for template in list_files(plan, node):
        if file := _make_public_file(template, context):
            tree.add(file)
        else:
            absent[template.path] = ContentSource.STATE
    public, secret = sort_site_files(plan, node)
    for file in public:
        tree.add(file)
    return _complete(tree, plan, node, payloads), absent | secret


def sort_site_files(
    plan: ClusterPlan, node: NodePlan
) -> tuple[list[File], dict[str, ContentSource]]:
    """Sort the files that no template makes: public ones, and the paths of secret ones."""
    files = list(_list_site_files(plan, node))
    secret = {file.path: ContentSource.STATE for file in files if file.mode == SECRET_MODE}
    return [file for file in files if file.path not in secret], secret


def list_payloads(plan: ClusterPlan, node: NodePlan, payloads: Payloads) -> Iterator[File]:
    """Yield the large files of a node's bundle; none of them is secret."""
    yield from _list_programs(plan, node, payloads)
    for file in make_image_files(plan, node, payloads.images):
        if isinstance(file.content, Payload):
            yield file


def _list_programs(plan: ClusterPlan, node: NodePlan, payloads: Payloads) -> Iterator[File]:
    for fetched in list_fetched(plan, node):
        content = payloads.member(fetched.component, node.arch, fetched.member)
        yield File(path=fetched.path, mode=0o755, content=content, origin=fetched.origin)


def _list_site_files(plan: ClusterPlan, node: NodePlan) -> Iterator[File]:
    """Yield the files that are made of cluster.yaml and files that it names, without templates."""
    for make in (
        make_registry_files, make_user_files, make_audit_files, make_policy_files, make_addon_files
    ):  # fmt: skip
        yield from map(_check_open, make(plan, node))
    yield from map(_check_open, make_site_files(node))


def _complete(
    tree: Tree,
    plan: ClusterPlan,
    node: NodePlan,
    payloads: Payloads | None,
    describe: Describe | None = None,
) -> Tree:
    """Add the large files, those that describe all others, and the manifest."""
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


def _make_file(template: OverlayFile, context: Mapping[str, Any]) -> File:
    if template.suffix != RENDERED:
        return File(
            path=template.path, mode=template.mode, content=template.content, origin=template.origin
        )
    content = render_template(template.content, template.origin, context).encode()
    return _check_open(
        File(path=template.path, mode=template.mode, content=content, origin=template.origin)
    )


def _check_open(file: File) -> File:
    """Return the file; raises TemplateError if it has a secret and others may read it.

    The content tells, in case the name is not in SECRET_NAMES.
    """
    content = file.content if isinstance(file.content, bytes) else b""
    if file.mode != SECRET_MODE and find_secret_marker(content):
        raise TemplateError(f"{file.origin}: has a secret, but its mode lets others read it")
    return file


def _make_public_file(template: OverlayFile, context: Mapping[str, Any]) -> File | None:
    """Render the file; None if it is secret or needs a value from the state directory."""
    if template.mode == SECRET_MODE:
        return None
    try:
        return _make_file(template, context)
    except NeedsStateError:
        return None
