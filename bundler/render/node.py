"""Overlays + context → a node's tree."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from bundler.cache.payload import Payload
from bundler.cluster.plan import ClusterPlan, NodePlan
from bundler.errors import TemplateError
from bundler.files import SECRET_MODE
from bundler.overlays.files import RENDERED, OverlayFile, list_fetched, list_files
from bundler.overlays.templating import NeedsStateError, render_template
from bundler.render.bundle_manifest import ContentSource
from bundler.render.context import Secrets, make_context
from bundler.render.images import make_image_files
from bundler.render.packages import make_package_files
from bundler.render.registries import make_registry_files
from bundler.render.tree import File, Tree, make_manifest
from bundler.sources.payloads import Payloads

Describe = Callable[[NodePlan, Tree], Iterable[File]]
"""Makes files that tell of a node's finished tree."""

SECRET_MARKS = (
    b"PRIVATE KEY-----",
    b"client-key-data:",
    b"token-secret:",
    b"    token:",
    b"tls.key:",
)
"""What betrays a secret, whatever the file is called."""


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
    tree = Tree(_make_file(template, context) for template in list_files(plan, node))
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
    for template in list_files(plan, node):
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
    """The same file; TemplateError where it holds a secret and others may read it."""
    content = file.content if isinstance(file.content, bytes) else b""
    if file.mode != SECRET_MODE and any(mark in content for mark in SECRET_MARKS):
        raise TemplateError(f"{file.origin}: a secret in a file that others may read")
    return file


def _make_public_file(template: OverlayFile, context: Mapping[str, Any]) -> File | None:
    """None where the file is secret, or says something that only the state directory knows."""
    if template.mode == SECRET_MODE:
        return None
    try:
        return _make_file(template, context)
    except NeedsStateError:
        return None
