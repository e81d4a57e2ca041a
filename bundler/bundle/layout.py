"""Which files a node's tarball holds: all, without its base's, or without shared ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from bundler.cache.payload import Payload
from bundler.errors import ConfigError
from bundler.files import SECRET_MODE
from bundler.render.bundle_manifest import BundleManifest, ContentSource, Seal, make_header
from bundler.render.tree import MANIFEST, File, Tree

INSTALLED = "rootfs/"
PACKAGES = "packages/"
PUBLIC_MODE = 0o644


class Layout(StrEnum):
    """Where the large files of a dist directory are."""

    FULL = "full"  # in each node's tarball
    SPLIT = "split"  # in one payload file; the node tarballs are small


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """How a build writes its output."""

    layout: Layout = Layout.FULL
    split: int | None = None  # bytes of the largest file; None: no limit
    since: tuple[str, ...] = ()  # see load_bases
    public_only: bool = False
    seal: bool | None = None  # None: as the bundles of `since`
    seal_to: tuple[str, ...] = ()  # NODE=CERT; all other nodes are sealed too

    def __post_init__(self) -> None:
        """Refuse options that exclude each other."""
        for one, other, is_wrong in (
            ("--public-only", "--since", self.public_only and self.since),
            ("--public-only", "--seal", self.public_only and (self.seal or self.seal_to)),
            ("--no-seal", "--seal-to", self.seal is False and self.seal_to),
        ):
            if is_wrong:
                raise ConfigError(f"{one} and {other} exclude each other: choose one")

    @property
    def mode(self) -> int:
        """File mode of node tarballs: those with private keys are for their owner only."""
        return PUBLIC_MODE if self.public_only else SECRET_MODE


def is_shareable(file: File) -> bool:
    """Whether install.sh can read this file from a payload file: programs and image layers."""
    return isinstance(file.content, Payload) and file.path.startswith(INSTALLED)


def is_in_base(file: File, base: BundleManifest | None) -> bool:
    """Whether a host that has `base` has this large file.

    The host has programs and image layers at their installed paths, and it installed the
    packages. install.sh checks that no package is needed again.
    """
    if not base or not isinstance(file.content, Payload):
        return False
    known = {(e.path, e.sha256) for e in base.entries if e.path.startswith((INSTALLED, PACKAGES))}
    return (file.path, file.sha256) in known


def arrange(
    tree: Tree,
    *,
    base: BundleManifest | None = None,
    payload: str | None = None,
    absent: Mapping[str, ContentSource] | None = None,
    seal: Seal | None = None,
) -> Tree:
    """Make the tree that a tarball holds; its manifest says where all other files come from.

    `payload` is the identity of the payload file with every large file that is in no base;
    `absent` names files that the tree does not have, `seal` those that are sealed.
    """
    missing = dict(absent or {})
    carried = []
    for file in tree:
        if is_in_base(file, base):
            missing[file.path] = ContentSource.BASE
        elif payload and is_shareable(file):
            missing[file.path] = ContentSource.PAYLOAD
        elif file.path != MANIFEST:
            carried.append(file)
    sources = set(missing.values())
    header = make_header(
        missing,
        base=base.public_identity if base and ContentSource.BASE in sources else None,
        payload=payload if ContentSource.PAYLOAD in sources else None,
        seal=seal,
    )
    full = tree[MANIFEST]
    manifest = header + full.content if isinstance(full.content, bytes) else header
    return Tree([*carried, File(path=MANIFEST, mode=0o644, content=manifest, origin=full.origin)])
