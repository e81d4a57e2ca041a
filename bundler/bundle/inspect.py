"""What a finished bundle says about itself, checked file by file against its manifest."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bundler.bundle.provenance import PROVENANCE
from bundler.bundle.sbom import SBOM
from bundler.bundle.shared_payload import payload_name
from bundler.bundle.signing import SIGNATURE
from bundler.errors import OutputError
from bundler.formats.bundle_archives import (
    explain_damage,
    read_tar_gz,
    read_text,
)
from bundler.formats.digests import HashingReader
from bundler.render.bundle_manifest import (
    BundleManifest,
    ContentSource,
    ManifestEntry,
    parse_manifest,
)
from bundler.render.tree import MANIFEST

NODE_ENV = "node.env"
FACTS = (
    "CLUSTER",
    "NODE",
    "ADDRESS",
    "ARCH",
    "ROLES",
    "KUBERNETES_VERSION",
    "ETCD_VERSION",
    "TOOL_VERSION",
    "UNITS",
)
"""The lines of node.env worth showing."""
KEPT = frozenset({MANIFEST, SIGNATURE, "node.env", SBOM, PROVENANCE})
"""The files whose content every report has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleReport:
    """A bundle's facts, files, and every fault found."""

    facts: dict[str, str]
    entries: tuple[ManifestEntry, ...]
    faults: tuple[str, ...]
    manifest: bytes = b""
    signature: bytes | None = None
    parsed: BundleManifest = field(default_factory=lambda: BundleManifest(entries=(), identity=""))
    texts: Mapping[str, bytes] = field(default_factory=dict)  # of KEPT, and those asked for


def read_document(path: Path, report: BundleReport, name: str) -> bytes:
    """The SBOM or the provenance of a bundle; OutputError where it has none."""
    if name not in report.texts:
        raise OutputError(
            f"{path}: holds no {name}", hint="it was made by an older bundler: build it anew"
        )
    return report.texts[name]


def inspect(path: Path, *, keep: int = 0) -> BundleReport:
    """Read a bundle, or its volumes, from beginning to end; OutputError where it is none at all.

    The report has the content of every file of up to `keep` bytes.
    """
    seen: dict[str, tuple[int, int, str]] = {}
    texts: dict[str, bytes] = {}
    with explain_damage(path):
        for name, mode, content in read_tar_gz(path):
            reader = HashingReader(content)
            texts.pop(name, None)  # of two members with one name the last counts, as for tar
            if name in KEPT:
                texts[name] = read_text(reader)
            elif keep and len(begin := reader.read(keep + 1)) <= keep:
                texts[name] = begin
            digest = reader.finish()
            seen[name] = (mode, reader.size, digest)
    if MANIFEST not in texts:
        raise OutputError(f"{path}: no bundle: it holds no {MANIFEST}")
    manifest = parse_manifest(texts[MANIFEST], f"{path}: {MANIFEST}")
    return BundleReport(
        facts=read_facts(texts.get(NODE_ENV, b"").decode()) | _carried_facts(manifest),
        entries=manifest.entries,
        faults=_compare(manifest, seen),
        manifest=texts[MANIFEST],
        signature=texts.get(SIGNATURE),
        parsed=manifest,
        texts=texts,
    )


def read_front(path: Path) -> tuple[BundleManifest, str]:
    """A bundle's manifest and its node's name, without reading the large files behind them."""
    node = ""
    with explain_damage(path):
        for name, _, content in read_tar_gz(path):
            if name == NODE_ENV:
                node = read_facts(read_text(content).decode()).get("NODE", "")
            if name == MANIFEST:
                return parse_manifest(read_text(content), f"{path}: {MANIFEST}"), node
    raise OutputError(f"{path}: no bundle: it holds no {MANIFEST}")


def read_facts(text: str) -> dict[str, str]:
    """The lines of a node.env that FACTS names."""
    lines = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
    return {key: value.strip("'") for key, _, value in lines if key in FACTS}


def _carried_facts(manifest: BundleManifest) -> dict[str, str]:
    """How many files are elsewhere, and where."""
    count = Counter(manifest.absent.values())
    facts = {}
    if manifest.base:
        facts["BASE"] = (
            f"{manifest.base} ({count[ContentSource.BASE]} files of it stay as they are)"
        )
    if manifest.payload:
        name = payload_name(manifest.payload)
        facts["PAYLOAD"] = f"{name}.tar ({count[ContentSource.PAYLOAD]} files out of it)"
    if count[ContentSource.STATE]:
        facts["PUBLIC_ONLY"] = (
            f"{count[ContentSource.STATE]} files of the whole bundle are left out"
        )
    return facts


def _compare(manifest: BundleManifest, seen: dict[str, tuple[int, int, str]]) -> tuple[str, ...]:
    faults = []
    for entry in manifest.entries:
        if entry.path in manifest.absent:
            continue
        if entry.path not in seen:
            faults.append(f"{entry.path}: missing")
        elif seen[entry.path] != (entry.mode, entry.size, entry.sha256):
            faults.append(f"{entry.path}: not what the manifest says")
    carried = {entry.path for entry in manifest.entries} - set(manifest.absent)
    listed = carried | {MANIFEST, SIGNATURE}
    faults += [f"{name}: not in the manifest" for name in sorted(seen) if name not in listed]
    return tuple(faults)
