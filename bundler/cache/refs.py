"""Names and the digests that they stood for: tags of images, charts, URLs of files without a pin.

The cache stores each as <folder>/<sha256 of the name>.json: the name, and the digest of its file.
"""

import hashlib
import json
from pathlib import Path

from bundler.cache.store import Cache
from bundler.files import write_atomically
from bundler.private_files import read_note

TAGS = "references"
CHARTS = "charts"
DOCUMENTS = "documents"
IMPORTED = "documents-imported"
"""Folders. IMPORTED has unverified records from another builder (`bundler cache import`)."""


def write_ref(folder: str, name: str, digest: str, cache: Cache) -> None:
    """Store the current digest of a name; `digest` is `sha256:…`."""
    record = {"name": name, "digest": digest}
    write_atomically(_path(folder, name, cache), json.dumps(record).encode())


def read_ref(folder: str, name: str, cache: Cache) -> str | None:
    """The stored digest of a name, or None."""
    known, digest = _read(_path(folder, name, cache))
    return digest if known == name else None


def list_refs(folder: str, cache: Cache) -> dict[str, str]:
    """Every name and its digest, sorted."""
    records = map(_read, cache.directory(folder).glob("*.json"))
    return {name: digest for name, digest in sorted(records) if name and digest}


def remove_ref(folder: str, name: str, cache: Cache) -> None:
    """Remove what is stored for a name."""
    _path(folder, name, cache).unlink(missing_ok=True)


def _read(path: Path) -> tuple[str, str | None]:
    """The name and digest of a record; empty if it cannot be read, or another user wrote it."""
    try:
        record = json.loads(read_note(path) or b"null")
        return str(record.get("name", "")), str(record["digest"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return "", None


def _path(folder: str, name: str, cache: Cache) -> Path:
    return cache.directory(folder) / f"{hashlib.sha256(name.encode()).hexdigest()}.json"
