"""Every image that a bundle's files name is in the bundles: nothing can be pulled inside."""

import re
from collections.abc import Iterator

from bundler.errors import ArtifactError
from bundler.images import normalize
from bundler.plan import Plan
from bundler.tree import Tree

NAMES_AN_IMAGE = (
    ("rootfs/etc/kubernetes/addons/", r"^\s*(?:- )?image: *['\"]?([^\s'\"]+)"),
    ("rootfs/etc/systemd/system/", r"--pod-infra-container-image=([^\s\"\\]+)"),
    ("rootfs/etc/containerd/config.toml", r"^sandbox(?:_image)? = \"([^\"]+)\""),
    ("node.env", r"^VERIFY_IMAGE='([^']+)'"),
)
"""Which files name images, and how."""


def check_images_complete(plan: Plan, tree: Tree) -> None:
    """Raise ArtifactError with every place that names an image which no archive brings."""
    brought = {normalize(image.ref) for image in plan.cluster.images}
    faults = [
        f"{path}:{line}: names {reference}, which `images` does not bring"
        for path, line, reference in _list_references(tree)
        if normalize(reference) not in brought
    ]
    if faults:
        raise ArtifactError(
            "\n".join(faults), hint="add the image's archive to `images` in cluster.yaml"
        )


def _list_references(tree: Tree) -> Iterator[tuple[str, int, str]]:
    """Path, line and reference, wherever a file names an image."""
    for file in tree:
        if not isinstance(file.content, bytes):
            continue
        for prefix, pattern in NAMES_AN_IMAGE:
            if file.path.startswith(prefix):
                text = file.content.decode()
                for match in re.finditer(pattern, text, re.MULTILINE):
                    yield file.path, text.count("\n", 0, match.start(1)) + 1, match[1]
