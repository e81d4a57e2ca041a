"""Small bundles with files that a test chooses."""

from pathlib import Path

from bundler.bundle.inventory import Item
from bundler.bundle.pack import pack
from bundler.bundle.sbom import SBOM, make_sbom
from bundler.bundle.signing import SIGNATURE
from bundler.render.tree import File, Tree, make_manifest

Files = dict[str, tuple[int, bytes]]


def write_bundle(
    path: Path,
    files: Files,
    items: tuple[Item, ...] | None = (),
    *,
    env: str = "NODE='one'\nKUBERNETES_VERSION='1.20.2'\n",
    mtime: int = 0,
    signature: bytes = b"",
) -> Path:
    """Write a small bundle; without an SBOM if `items` is None."""
    everything = {"node.env": (0o644, env.encode()), **files}
    if items is not None:
        everything[SBOM] = (0o644, make_sbom("lab-one", {}, items, 0))
    tree = Tree(
        File(path=name, mode=mode, content=content, origin="a test")
        for name, (mode, content) in everything.items()
    )
    tree.add(make_manifest(tree))
    if signature:
        tree.add(File(path=SIGNATURE, mode=0o644, content=signature, origin="a test"))
    path.parent.mkdir(exist_ok=True)
    pack(tree, "lab-one", path, mtime)
    return path
