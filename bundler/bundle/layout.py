"""How a node's tree is carried: whole, without what its base has, without what nodes share."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from bundler.cache.payload import Payload
from bundler.errors import ConfigError
from bundler.files import SECRET_MODE
from bundler.render.bundle_manifest import BundleManifest, ContentSource, make_header
from bundler.render.tree import MANIFEST, File, Tree

INSTALLED = "rootfs/"
PACKAGES = "packages/"
PUBLIC_MODE = 0o644


class Layout(StrEnum):
    """Where the large files of a dist directory are."""

    FULL = "full"  # in each node's tarball
    SPLIT = "split"  # in one payload file beside small node tarballs


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """How `build` writes its result."""

    layout: Layout = Layout.FULL
    split: int | None = None  # bytes of the largest file; None: as large as they are
    since: tuple[str, ...] = ()  # see load_bases
    public_only: bool = False

    def __post_init__(self) -> None:
        """Refuse what does not go together."""
        if self.public_only and self.since:
            raise ConfigError(
                "--public-only and --since do not go together: it is of whole bundles"
            )

    @property
    def mode(self) -> int:
        """Of the nodes' tarballs: whole ones hold private keys."""
        return PUBLIC_MODE if self.public_only else SECRET_MODE


def is_shareable(file: File) -> bool:
    """Whether install.sh takes this file out of a payload file: programs and images' layers."""
    return isinstance(file.content, Payload) and file.path.startswith(INSTALLED)


def is_in_base(file: File, base: BundleManifest | None) -> bool:
    """Whether a host that has `base` has this large file.

    A program or a layer of an image is where it was installed, and a package of the operating
    system's was installed from. install.sh checks that none is wanted again.
    """
    if base is None or not isinstance(file.content, Payload):
        return False
    known = {(e.path, e.sha256) for e in base.entries if e.path.startswith((INSTALLED, PACKAGES))}
    return (file.path, file.sha256) in known


def arrange(
    tree: Tree,
    *,
    base: BundleManifest | None = None,
    payload: str | None = None,
    absent: Mapping[str, ContentSource] | None = None,
) -> Tree:
    """The tree as its tarball carries it, with a manifest that says where all else comes from.

    `payload` is the identity of the payload file that has every large file which no base has;
    `absent` names what is not in the tree to begin with.
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
        base=base.identity if base and ContentSource.BASE in sources else None,
        payload=payload if ContentSource.PAYLOAD in sources else None,
    )
    whole = tree[MANIFEST]
    manifest = header + whole.content if isinstance(whole.content, bytes) else header
    return Tree([*carried, File(path=MANIFEST, mode=0o644, content=manifest, origin=whole.origin)])
