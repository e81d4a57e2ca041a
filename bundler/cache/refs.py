"""What names were seen to mean: tags of images, and URLs of documents that nobody pins.

<folder>/<sha256 of the name>.json of the cache   the name, and the digest of the file it gave
"""

import hashlib
import json
from pathlib import Path

from bundler.cache.store import Cache
from bundler.files import write_atomically

TAGS = "references"
DOCUMENTS = "documents"
IMPORTED = "documents-imported"
"""Folders; what was imported is what another builder saw, on the word of who carried it."""


def remember(folder: str, name: str, digest: str, cache: Cache) -> None:
    """Keep what a name means today; `digest` is `sha256:…`."""
    record = {"name": name, "digest": digest}
    write_atomically(_path(folder, name, cache), json.dumps(record).encode())


def recall(folder: str, name: str, cache: Cache) -> str | None:
    """What a name was seen to mean; None where it never was."""
    return _read(_path(folder, name, cache))[1]


def list_names(folder: str, cache: Cache) -> dict[str, str]:
    """Every name and its digest, sorted."""
    records = map(_read, cache.directory(folder).glob("*.json"))
    return {name: digest for name, digest in sorted(records) if name and digest}


def forget(folder: str, name: str, cache: Cache) -> None:
    """Know nothing of a name."""
    _path(folder, name, cache).unlink(missing_ok=True)


def _read(path: Path) -> tuple[str, str | None]:
    """A record's name and digest; none where it cannot be read."""
    try:
        record = json.loads(path.read_bytes())
        return str(record.get("name", "")), str(record["digest"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "", None


def _path(folder: str, name: str, cache: Cache) -> Path:
    return cache.directory(folder) / f"{hashlib.sha256(name.encode()).hexdigest()}.json"
