"""`bundler addon bundle`: what changes on a node, and whether it all belongs to one add-on.

The new tree of the node is compared with the manifest of its installed bundle, file by file. Files
that hold settings of several things are compared by their content.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from bundler.bundle.documents import DOCUMENTS
from bundler.bundle.front import NODE_ENV, STATE_ENV, BundleFront, read_small_files
from bundler.cluster.addons.proof import ImageUse, Proof
from bundler.cluster.schema import Cluster
from bundler.formats.image_references import full_name, parse_reference
from bundler.formats.shell_settings import read_settings
from bundler.render.addons import DIRECTORY, TABLE, VERIFY_TABLE
from bundler.render.bundle_manifest import parse_manifest
from bundler.render.images import BLOBS, LIST, directory_name
from bundler.render.images import DIRECTORY as IMAGES
from bundler.render.tree import MANIFEST, Tree

DERIVED = frozenset((*DOCUMENTS, LIST))
"""Files that are made from others: what changes in them is in those too."""
TOKENS = frozenset(
    f"rootfs/etc/kubernetes/{name}"
    for name in ("bootstrap.kubeconfig", "bootstrap-tokens.yaml", "revoked-tokens", "tokens.tsv")
)
"""Every build replaces tokens that ended unused."""
INDEX = "index.json"
"""The names of an image: pods of an add-on may give an image that is there one more."""
SETTINGS: Mapping[str, Mapping[str, frozenset[str] | None]] = {
    NODE_ENV: {"ADDONS_WAIT": None, "ADDON_PORTS": None, "FEATURES": frozenset({"addons"})},
    STATE_ENV: {"TOKEN_EXPIRES": None},
}
"""File → settings that may change → the words in them that may come or go; None: all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnImages:
    """The images that may change with an add-on, by their directory in the bundle."""

    references: Mapping[str, str]
    shared: Collection[str]  # directories of those that something else uses too


@dataclass(frozen=True, slots=True, kw_only=True)
class AddonChange:
    """What changes on a node since its installed bundle."""

    node: str
    files: int  # of the add-on
    images: tuple[str, ...]  # that come, or have new content or names
    images_removed: tuple[str, ...]
    has_new_tokens: bool
    others: tuple[str, ...]  # `PATH: what`: it does not belong to the add-on

    @property
    def needs_bundle(self) -> bool:
        """Whether the host has to get something of the add-on."""
        return bool(self.files or self.images or self.images_removed)


def choose_images(cluster: Cluster, uses: Iterable[ImageUse], addon: str) -> OwnImages:
    """Choose the images that the add-on names, and those of `images` that nothing else needs."""
    own, others = set(), set()
    for use in uses:
        if use.proof is Proof.CARRIED and use.addon == addon:
            own.add(use.name)
        elif use.proof is Proof.CARRIED and (use.addon or use.place == "the cluster"):
            others.add(use.name)
    listed = {full_name(image.ref) for image in cluster.images if not image.use}
    names = {name: directory_name(parse_reference(name)) for name in own | (listed - others)}
    return OwnImages(
        references={directory: name for name, directory in names.items()},
        shared=frozenset(names[name] for name in own & others),
    )


def compare_node(
    addon: str, images: OwnImages, node: str, tree: Tree, base: BundleFront
) -> AddonChange:
    """Compare the tree that a tarball of the node would hold with its installed bundle.

    Of a base that is only a manifest no file can be read.
    """
    manifest = parse_manifest(_content_of(tree, MANIFEST), MANIFEST)
    seals = [each.seal and each.seal.key_id for each in (base.manifest, manifest)]
    ours = {entry.path: entry for entry in base.manifest.list_contents()}
    theirs = {entry.path: entry for entry in manifest.list_contents()}
    changed = [path for path in sorted(ours | theirs) if ours.get(path) != theirs.get(path)]
    wanted = {LIST, *COMPARED}.intersection(changed, ours)
    before = read_small_files(base.path, wanted) if wanted and base.node else {}
    own = f"{DIRECTORY}/{addon}/"
    old_images, new_images = (_list_directories(paths) for paths in (ours, theirs))

    def explain(path: str) -> str:
        """Say what changes in a file that is not of the add-on; empty if that is allowed."""
        if path in DERIVED | TOKENS or path.startswith((own, f"{BLOBS}/")):
            return ""
        if path.startswith(f"{IMAGES}/"):
            return _explain_image(path, images, ours, new_images)
        if path in COMPARED:
            if path in ours and path not in before:
                return "differs, and a MANIFEST alone does not say in what: give the bundle itself"
            new = _read(tree, path) if path in theirs else ""
            return COMPARED[path](path, before.get(path, b"").decode(), new, addon)
        if path not in theirs:
            return "is gone"
        return "has other content" if path in ours else "is new"

    others = [f"{path}: {why}" for path in changed if (why := explain(path))]
    if len(set(seals)) > 1:
        others = [f"{MANIFEST}: the secrets are sealed with another code, and cannot be compared"]
    touched = _list_directories(changed)
    names = dict(_read_names(before.get(LIST, b"").decode()))
    return AddonChange(
        node=node,
        files=sum(path.startswith((own, TABLE, VERIFY_TABLE)) for path in changed),
        images=tuple(images.references.get(each, each) for each in sorted(touched & new_images)),
        images_removed=tuple(names.get(name, name) for name in sorted(old_images - new_images)),
        has_new_tokens=not TOKENS.isdisjoint(changed),
        others=tuple(others),
    )


def _list_directories(paths: Iterable[str]) -> set[str]:
    """List the directories of images."""
    inside = (path for path in paths if path.startswith(f"{IMAGES}/"))
    return {path.split("/")[4] for path in inside if not path.startswith(f"{BLOBS}/")}


def _explain_image(
    path: str, images: OwnImages, ours: Collection[str], new: Collection[str]
) -> str:
    """Explain a changed file of an image; images that leave cluster.yaml may go."""
    directory, part = path.split("/")[4:6]
    if directory not in new:
        return ""
    if directory not in images.references:
        return "belongs to an image that the add-on does not use"
    is_name = path not in ours or part == INDEX
    if directory in images.shared and not is_name:
        return "belongs to an image that the cluster or another add-on uses too"
    return ""


def _compare_settings(path: str, before: str, after: str, addon: str) -> str:
    """Name the settings that differ and may not."""
    del addon
    old, new = read_settings(before), read_settings(after)
    allowed = SETTINGS[path]
    names = []
    for name in sorted(old.keys() | new.keys()):
        one, other = old.get(name, ""), new.get(name, "")
        words = set(one.split()) ^ set(other.split())
        free = allowed.get(name, frozenset())
        if one != other and free is not None and not (words and words <= free):
            names.append(name)
    return f"has other values of {', '.join(names)}" if names else ""


def _compare_tables(path: str, before: str, after: str, addon: str) -> str:
    """Say that rows of other add-ons differ, in content or order."""
    del path
    old, new = (
        [line for line in text.splitlines() if line[:1] != "#" and line.partition("\t")[0] != addon]
        for text in (before, after)
    )
    return "" if old == new else "has other rows of other add-ons"


COMPARED: Mapping[str, Callable[[str, str, str, str], str]] = {
    **dict.fromkeys(SETTINGS, _compare_settings),
    **dict.fromkeys((TABLE, VERIFY_TABLE), _compare_tables),
}
"""Files that are compared by their content: path, before, after, add-on → what differs."""


def _read_names(text: str) -> Iterator[tuple[str, str]]:
    """Yield directory and reference of each image; a directory's first reference is its name."""
    rows = [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
    yield from ((row[0], row[1]) for row in reversed(rows) if len(row) > 1)


def _read(tree: Tree, path: str) -> str:
    return _content_of(tree, path).decode()


def _content_of(tree: Tree, path: str) -> bytes:
    content = tree[path].content
    assert isinstance(content, bytes)  # noqa: S101 - narrows the type
    return content
