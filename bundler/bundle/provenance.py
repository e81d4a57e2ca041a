"""Out of what a bundle was made: an in-toto statement with a SLSA provenance predicate.

Sources: in-toto/attestation spec/v1, slsa.dev/spec/v1.0/provenance. The statement is not signed by
itself: the bundle's manifest holds its digest, and the signature is over the manifest.
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
"""The kind of build: `bundler build`, whose parameters are those of `make_provenance`."""
CODE = frozenset({".py", ".tsv", ".yaml"})

Digests = dict[str, str]


def make_provenance(
    names: Mapping[str, str],
    inputs: Mapping[str, str],
    items: Sequence[Item],
    tree: Tree,
    mtime: int,
) -> bytes:
    """The statement about the files of `tree`.

    `names` say which cluster and node it is; `inputs` are the user's files, by name, with their
    sha256. Subjects are all files but the secret ones, of which not even a digest leaves the
    bundle with this statement. What comes after it cannot be a subject: the statement itself, and
    the manifest, which has the statement's digest.
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
                "resolvedDependencies": [*list_own(), *map(_describe, _list_taken(items))],
            },
            "runDetails": {"builder": {"id": BUILDER, "version": {"bundler": __version__}}},
        },
    }
    return (json.dumps(statement, indent=2) + "\n").encode()


def hash_directory(files: Iterable[tuple[str, Path]]) -> str:
    """in-toto's `dirHash` of files by name: Go's Hash1, in hexadecimal."""
    lines = (
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}\n"
        for name, path in sorted(files, key=lambda file: file[0].encode())
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@cache
def list_own() -> tuple[dict[str, str | Digests], ...]:
    """bundler itself: its code with the catalogue, and the templates."""
    package, templates = PACKAGE, templates_directory()
    code = (path for path in package.rglob("*") if path.suffix in CODE)
    outside = (path for path in code if not path.is_relative_to(package / "_templates"))
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
    for path in root.rglob("*") if paths is None else paths:
        if path.is_file():
            yield path.relative_to(root).as_posix(), path


def _list_taken(items: Sequence[Item]) -> Iterator[Item]:
    """What was fetched or handed in; programs and layers are parts of it."""
    return (item for item in items if item.kind not in {ItemKind.PROGRAM, ItemKind.LAYER})


def _describe(item: Item) -> dict[str, str | Digests]:
    """A resource descriptor: where it is from, and what it must be."""
    algorithm, _, digest = item.digest.partition(":")
    words = (item.name, item.version, f"({item.arch})" if item.arch else "")
    return {
        "name": " ".join(word for word in words if word),
        **({"uri": item.url or item.purl} if item.url or item.purl else {}),
        "digest": {algorithm: digest},
    }
