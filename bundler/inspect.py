"""What a finished bundle says about itself, checked file by file against its manifest."""

import gzip
import hashlib
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from bundler.errors import OutputError
from bundler.signing import SIGNATURE
from bundler.tree import MANIFEST

CHUNK = 1 << 20
FACTS = (
    "CLUSTER",
    "NODE",
    "ADDRESS",
    "ARCH",
    "ROLES",
    "KUBERNETES_VERSION",
    "TOOL_VERSION",
    "UNITS",
)
"""The lines of node.env worth showing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file of a bundle as its manifest has it."""

    path: str
    mode: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A bundle's facts, files, and every fault found."""

    facts: dict[str, str]
    entries: tuple[Entry, ...]
    faults: tuple[str, ...]
    manifest: bytes = b""
    signature: bytes | None = None


def inspect(path: Path) -> Report:
    """Read a bundle from beginning to end; OutputError where it is no bundle at all."""
    seen: dict[str, tuple[int, int, str]] = {}
    texts: dict[str, bytes] = {}
    try:
        # not "r|gz": tarfile's own reader ends with the first of a file's gzip members
        with gzip.open(path) as unzipped, tarfile.open(fileobj=unzipped, mode="r|") as tar:
            for member in tar:
                _, _, name = member.name.partition("/")
                file = tar.extractfile(member) if member.isreg() else None
                if file is None:
                    continue
                hasher = hashlib.sha256()
                while chunk := file.read(CHUNK):
                    hasher.update(chunk)
                    if name in {MANIFEST, SIGNATURE, "node.env"} and member.size <= CHUNK * 4:
                        texts[name] = texts.get(name, b"") + chunk
                seen[name] = (member.mode, member.size, hasher.hexdigest())
    except OSError as error:
        if isinstance(error, gzip.BadGzipFile):
            raise OutputError(f"{path}: not a gzip file") from error
        raise OutputError(f"{path}: {error.strerror or error}") from error
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise OutputError(f"{path}: damaged or cut off: {error}") from error
    if MANIFEST not in texts or "node.env" not in texts:
        raise OutputError(f"{path}: no bundle: it holds no {MANIFEST} and node.env")
    entries = tuple(_parse(line) for line in texts[MANIFEST].decode().splitlines())
    return Report(
        facts=_read_facts(texts["node.env"].decode()),
        entries=entries,
        faults=_compare(entries, seen),
        manifest=texts[MANIFEST],
        signature=texts.get(SIGNATURE),
    )


def _parse(line: str) -> Entry:
    sha256, mode, size, path = line.split(" ", 3)
    return Entry(path=path, mode=int(mode, 8), size=int(size), sha256=sha256)


def _read_facts(text: str) -> dict[str, str]:
    lines = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
    return {key: value.strip("'") for key, _, value in lines if key in FACTS}


def _compare(entries: tuple[Entry, ...], seen: dict[str, tuple[int, int, str]]) -> tuple[str, ...]:
    faults = []
    for entry in entries:
        if entry.path not in seen:
            faults.append(f"{entry.path}: missing")
        elif seen[entry.path] != (entry.mode, entry.size, entry.sha256):
            faults.append(f"{entry.path}: not what the manifest says")
    listed = {entry.path for entry in entries} | {MANIFEST, SIGNATURE}
    faults += [f"{name}: not in the manifest" for name in sorted(seen) if name not in listed]
    return tuple(faults)
