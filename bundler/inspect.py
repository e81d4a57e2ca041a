"""What a finished bundle says about itself, checked file by file against its manifest."""

import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bundler.errors import OutputError
from bundler.provenance import PROVENANCE
from bundler.sbom import SBOM
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
KEPT = frozenset({MANIFEST, SIGNATURE, "node.env", SBOM, PROVENANCE})
"""The files whose content every report has."""


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
    texts: Mapping[str, bytes] = field(default_factory=dict)  # of KEPT, and those asked for


def read_document(path: Path, report: Report, name: str) -> bytes:
    """The SBOM or the provenance of a bundle; OutputError where it has none."""
    if name not in report.texts:
        raise OutputError(
            f"{path}: holds no {name}", hint="it was made by an older bundler: build it anew"
        )
    return report.texts[name]


def inspect(path: Path, *, keep: int = 0) -> Report:
    """Read a bundle from beginning to end; OutputError where it is no bundle at all.

    The report has the content of every file of up to `keep` bytes.
    """
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
                texts.pop(name, None)  # of two members with one name the last counts, as for tar
                while chunk := file.read(CHUNK):
                    hasher.update(chunk)
                    if member.size <= (CHUNK * 4 if name in KEPT else keep):
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
    try:
        entries = tuple(_parse(line) for line in texts[MANIFEST].decode().splitlines())
        facts = _read_facts(texts["node.env"].decode())
    except ValueError as error:
        raise OutputError(f"{path}: its {MANIFEST} or node.env cannot be read: {error}") from error
    return Report(
        facts=facts,
        entries=entries,
        faults=_compare(entries, seen),
        manifest=texts[MANIFEST],
        signature=texts.get(SIGNATURE),
        texts=texts,
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
