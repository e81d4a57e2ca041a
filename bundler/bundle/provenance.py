"""The provenance of a bundle: an in-toto statement with a SLSA provenance predicate.

Sources: in-toto/attestation spec/v1, slsa.dev/spec/v1.0/provenance. The statement has no signature
of its own: the bundle's manifest holds its digest, and the manifest is signed.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from bundler import __version__
from bundler.bundle.inventory import Item, ItemKind
from bundler.cache.segments import COMPRESSOR
from bundler.files import SECRET_MODE
from bundler.paths import PACKAGE, templates_directory
from bundler.render.tree import Tree

PROVENANCE = "provenance.intoto.json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILDER = "pkg:generic/bundler-k8s"
BUILD = f"{BUILDER}#build/v1"
"""The build type of `bundler build`; its parameters are those of `make_provenance`."""
CODE = frozenset({".py", ".tsv", ".yaml"})
COPIED = frozenset({"_templates", "_examples"})
"""Directories that a wheel has inside the package, and a checkout next to it."""

Digests = dict[str, str]


def make_provenance(
    names: Mapping[str, str],
    inputs: Mapping[str, str],
    items: Sequence[Item],
    tree: Tree,
    mtime: int,
) -> bytes:
    """Make the statement about the files of `tree`.

    `names` are the cluster and the node; `inputs` maps the user's files to their sha256. The
    subjects are all files without secrets: a digest of a secret must not leave the bundle. The
    statement itself and the manifest, which holds its digest, cannot be subjects.
    """
    subject = [
        {"name": file.path, "digest": {"sha256": file.sha256}}
        for file in tree
        if file.mode != SECRET_MODE
    ]
    given = [{"name": name, "digest": {"sha256": digest}} for name, digest in inputs.items()]
    statement = {
        "_type": STATEMENT,
        "subject": subject,
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD,
                "externalParameters": {**names, "inputs": given},
                "internalParameters": {"compressor": COMPRESSOR, "mtime": mtime},
                "resolvedDependencies": [*list_program(), *map(_describe, _list_inputs(items))],
            },
            "runDetails": {"builder": {"id": BUILDER, "version": {"bundler": __version__}}},
        },
    }
    return (json.dumps(statement, indent=2) + "\n").encode()


def hash_directory(files: Iterable[tuple[str, Path]]) -> str:
    """Hash files by name as in-toto's `dirHash`: Go's Hash1, in hexadecimal."""
    lines = (
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}\n"
        for name, path in sorted(files, key=lambda file: file[0].encode())
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@cache
def list_program() -> tuple[dict[str, str | Digests], ...]:
    """List bundler itself: its code with the catalog, and the templates."""
    package, templates = PACKAGE, templates_directory()
    code = (path for path in package.rglob("*") if path.suffix in CODE)
    outside = (path for path in code if path.relative_to(package).parts[0] not in COPIED)
    own = {"bundler": _by_name(package, outside), "templates": _by_name(templates)}
    return tuple(
        {
            "name": name,
            "uri": f"{BUILDER}@{__version__}#{name}",
            "digest": {"dirHash": hash_directory(files)},
        }
        for name, files in own.items()
    )


def _by_name(root: Path, paths: Iterable[Path] | None = None) -> Iterator[tuple[str, Path]]:
    for path in paths if paths is not None else root.rglob("*"):
        if path.is_file():
            yield path.relative_to(root).as_posix(), path


def _list_inputs(items: Sequence[Item]) -> Iterator[Item]:
    """List the files that the build downloaded or was given; their parts are not inputs.

    Without a digest is a secret file of the site, or of an add-on.
    """
    parts = {ItemKind.PROGRAM, ItemKind.LAYER}
    for item in items:
        if item.kind is ItemKind.ADDON:
            yield from (part for part in item.parts if part.digest)
        elif item.kind not in parts and item.digest:
            yield item


def _describe(item: Item) -> dict[str, str | Digests]:
    """Make a resource descriptor: the source of an item, and its digest."""
    algorithm, _, digest = item.digest.partition(":")
    words = (item.name, item.version, f"({item.arch})" if item.arch else "")
    return {
        "name": " ".join(word for word in words if word),
        **({"uri": item.url or item.purl} if item.url or item.purl else {}),
        "digest": {algorithm: digest},
    }
