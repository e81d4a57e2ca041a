"""Names of the files in the cache, which stores them by digest only."""

import json
import re
from collections.abc import Iterator, Mapping

from bundler.cache.archive import Blob, list_blobs
from bundler.cache.refs import DOCUMENTS, TAGS, list_refs
from bundler.cache.store import Cache
from bundler.catalog import list_pin_rows
from bundler.formats.bounded_yaml import read_bytes
from bundler.formats.digests import DIGEST_LENGTHS
from bundler.urls import show_url

HEX = re.compile(r"[0-9a-f]+")
MAX_MANIFEST = 4 << 20  # bytes; larger files are not manifests
PART = ", part"
PARTS = ("config", "layers", "manifests")
"""The keys of an image's manifest or index that have descriptors of other files."""


def list_named_blobs(cache: Cache, known: Mapping[str, str]) -> Iterator[tuple[Blob, str]]:
    """Yield each file with its name; empty if nothing here has one for its digest.

    Names come from `known` (`sha256:…` → name), the built-in pins, and what downloads recorded:
    the tags of images with their parts, and URLs.
    """
    blobs = list_blobs(cache)
    pins = {
        f"{row['algorithm']}:{row['digest']}": "{component} {version} ({arch})".format(**row)
        for row in list_pin_rows()
    }
    urls = {digest: show_url(url) for url, digest in list_refs(DOCUMENTS, cache).items()}
    names = {**urls, **pins, **_name_images(cache), **known}
    for blob in blobs:
        yield blob, names.get(blob.name, "")


def _name_images(cache: Cache) -> dict[str, str]:
    """Name the manifests of known tags, and the configuration and layers below them."""
    names: dict[str, str] = {}
    left = [(digest, tag) for tag, digest in list_refs(TAGS, cache).items()]
    while left:
        digest, name = left.pop(0)
        if digest in names:
            continue
        names[digest] = name
        inner = f"{name.removesuffix(PART)}{PART}"
        left += [(part, inner) for part in _list_parts(digest, cache)]
    return names


def _list_parts(digest: str, cache: Cache) -> Iterator[str]:
    """List the digests that a manifest names; none for what is no manifest, or is not cached."""
    algorithm, _, hexadecimal = digest.partition(":")
    if algorithm not in DIGEST_LENGTHS or not HEX.fullmatch(hexadecimal):
        return
    path = cache.blob_path(algorithm, hexadecimal)
    try:
        if path.stat().st_size > MAX_MANIFEST:
            return
        manifest = json.loads(read_bytes(path))
        for key in PARTS:
            value = manifest.get(key) or []
            found = [value] if isinstance(value, dict) else value
            yield from (str(part["digest"]) for part in found)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return
