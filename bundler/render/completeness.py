"""Every image that a bundle's files name is in the bundles: nothing can be pulled inside."""

import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase

import yaml

from bundler.cluster.plan import ClusterPlan, NodePlan, images_of
from bundler.cluster.schema import Containerd, Role
from bundler.errors import ArtifactError
from bundler.formats.image_references import parse_reference
from bundler.render.tree import Tree

Place = tuple[int, str]
"""Line and reference."""


def check_images_complete(plan: ClusterPlan, node: NodePlan, tree: Tree) -> None:
    """Raise ArtifactError with every place that names an image which the bundles do not bring.

    A worker's own files name what it runs itself, those of another node what any worker may run.
    """
    explain = _make_judge(plan, node)
    faults = [
        f"{path}:{line}: names {reference}, {fault}"
        for path, line, reference in _list_references(tree)
        if (fault := explain(reference))
    ]
    if faults:
        raise ArtifactError("\n".join(faults), hint="add the image to `images` in cluster.yaml")


def _make_judge(plan: ClusterPlan, node: NodePlan) -> Callable[[str], str]:
    """What is wrong with a reference; nothing where hosts will have the image under it."""
    runners = (node,) if node.has(Role.WORKER) else plan.having(Role.WORKER)
    known = {runner.arch.value: _list_names(plan, runner) for runner in runners}
    has_digests = isinstance(plan.cluster.runtime, Containerd)

    def explain(text: str) -> str:
        try:
            reference = parse_reference(text)
        except ValueError as error:
            return f"which {error}"
        if reference.digest and not has_digests:
            return "and Docker knows loaded images by their tags only: leave the digest out there"
        name, how = (
            (reference.by_digest, " by digest") if reference.digest else (reference.name, "")
        )
        lacking = ", ".join(sorted(arch for arch, names in known.items() if name not in names))
        return f"which `images` does not bring{how} for {lacking}" if lacking else ""

    return explain


def _list_names(plan: ClusterPlan, node: NodePlan) -> set[str | None]:
    """What pods may call the images that the node loads."""
    references = [parse_reference(image.ref) for image in images_of(plan, node)]
    return {name for reference in references for name in (reference.name, reference.by_digest)}


def _list_references(tree: Tree) -> Iterator[tuple[str, int, str]]:
    """Path, line and reference, wherever a file names an image."""
    for file in tree:
        if not isinstance(file.content, bytes):
            continue
        for pattern, find in NAMES_AN_IMAGE.items():
            if fnmatchcase(file.path, pattern):
                for line, reference in find(file.content.decode()):
                    yield file.path, line, reference


def _find_in_manifest(text: str) -> Iterator[Place]:
    """Every `image:` of a Kubernetes manifest, at whatever depth, of any kind."""
    if not re.search(r"\bimage['\"]?\s*:", text):
        return  # most name none, and parsing is slow
    for document in yaml.compose_all(text, Loader=yaml.SafeLoader):
        yield from _walk(document)


def _walk(node: yaml.Node) -> Iterator[Place]:
    if isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _walk(value)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == "image" and isinstance(value, yaml.ScalarNode) and value.value:
                yield value.start_mark.line + 1, value.value
            yield from _walk(value)


def _find_by(pattern: str) -> Callable[[str], Iterator[Place]]:
    def find(text: str) -> Iterator[Place]:
        for match in re.finditer(pattern, text, re.MULTILINE):
            yield text.count("\n", 0, match.start(1)) + 1, match[1]

    return find


NAMES_AN_IMAGE = {
    "rootfs/etc/kubernetes/*.yaml": _find_in_manifest,  # fnmatch's * goes into folders, too
    "rootfs/etc/systemd/system/*": _find_by(r"--pod-infra-container-image=([^\s\"\\]+)"),
    "rootfs/etc/containerd/config.toml": _find_by(r"^\s*sandbox(?:_image)? = \"([^\"]+)\""),
    "node.env": _find_by(r"^VERIFY_IMAGE='([^']+)'"),
}
"""Which files name images, and how."""
