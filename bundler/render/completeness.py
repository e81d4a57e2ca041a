"""Check that the bundles contain every image that their files name: hosts cannot pull any."""

import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase

from bundler.cluster.plan import ClusterPlan, NodePlan, pulled_images_of
from bundler.cluster.schema import Containerd, Role
from bundler.errors import ArtifactError
from bundler.formats.bounded_yaml import MANIFESTS, NodeKind, YamlNode, compose_documents
from bundler.formats.image_references import parse_reference
from bundler.render.images import list_names
from bundler.render.tree import Tree

ImageName = tuple[int, str]
"""Line and image reference."""


def check_images_complete(plan: ClusterPlan, node: NodePlan, tree: Tree) -> None:
    """Raise ArtifactError with every line that names an image which no bundle contains.

    The files of a worker name images that this worker runs; those of other nodes, images that any
    worker may run.
    """
    explain = _make_explainer(plan, node)
    faults = [
        f"{path}:{line}: image {reference} {fault}"
        for path, line, reference in _list_references(tree)
        if (fault := explain(reference))
    ]
    if faults:
        raise ArtifactError("\n".join(faults), hint="add the image to `images` in cluster.yaml")


def _make_explainer(plan: ClusterPlan, node: NodePlan) -> Callable[[str], str]:
    """Make a function that explains why hosts do not have an image; empty if they do."""
    runners = (node,) if node.has(Role.WORKER) else plan.having(Role.WORKER)
    known = {runner.arch.value: _list_names(plan, runner) for runner in runners}
    has_digests = isinstance(plan.cluster.runtime, Containerd)

    def explain(text: str) -> str:
        if text in plan.cluster.images_not_needed:
            return ""
        try:
            reference = parse_reference(text)
        except ValueError as error:
            return str(error)
        if reference.digest and not has_digests:
            return "has a digest, but Docker finds loaded images only by tag: remove the digest"
        name, how = (
            (reference.by_digest, " by digest") if reference.digest else (reference.name, "")
        )
        missing = ", ".join(sorted(arch for arch, names in known.items() if name not in names))
        return f"is missing in `images`{how} for {missing}" if missing else ""

    return explain


def _list_names(plan: ClusterPlan, node: NodePlan) -> set[str]:
    """List the names that pods can use for images that the node has or pulls."""
    references = [parse_reference(image.ref) for image in pulled_images_of(plan, node)]
    digests = plan.image_digests
    return {n for each in references for n in list_names(each, digests.get(each.name))}


def _list_references(tree: Tree) -> Iterator[tuple[str, int, str]]:
    """Yield path, line and reference of every image name."""
    for file in tree:
        if not isinstance(file.content, bytes):
            continue
        for pattern, find in NAMES_AN_IMAGE.items():
            if fnmatchcase(file.path, pattern):
                for line, reference in find(file.content.decode(errors="replace")):
                    yield file.path, line, reference


def _find_in_manifest(text: str) -> Iterator[ImageName]:
    """Yield every `image:` of a Kubernetes manifest, at any depth and of any kind."""
    if not re.search(r"\bimage['\"]?\s*:", text):
        return  # most manifests name no image, and parsing is slow
    for document in compose_documents(text, MANIFESTS):
        yield from _walk(document)


def _walk(node: YamlNode) -> Iterator[ImageName]:
    if node.kind is NodeKind.LIST:
        for value in node.content:
            yield from _walk(value)
    if node.kind is NodeKind.MAPPING:
        for key, value in node.content:
            if key.content == "image" and value.kind is NodeKind.TEXT and value.content:
                yield value.line, value.content
            yield from _walk(value)


def _find_by(pattern: str) -> Callable[[str], Iterator[ImageName]]:
    def find(text: str) -> Iterator[ImageName]:
        for match in re.finditer(pattern, text, re.MULTILINE):
            yield text.count("\n", 0, match.start(1)) + 1, match[1]

    return find


NAMES_AN_IMAGE = {
    "rootfs/etc/kubernetes/*.yaml": _find_in_manifest,  # the * of fnmatch also matches /
    "rootfs/etc/systemd/system/*": _find_by(r"--pod-infra-container-image=([^\s\"\\]+)"),
    "rootfs/etc/containerd/config.toml": _find_by(r"^\s*sandbox(?:_image)? = \"([^\"]+)\""),
    "node.env": _find_by(r"^VERIFY_IMAGE='([^']+)'"),
}
"""The files that name images, and how to find the names."""
