"""Read a bundle, and check every file against its manifest."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bundler.bundle.documents import DOCUMENTS
from bundler.bundle.front import NODE_ENV, STATE_ENV, find_state_id
from bundler.bundle.seal import SEALED
from bundler.bundle.shared_payload import payload_name
from bundler.bundle.signing import SIGNATURE
from bundler.cluster.node_labels import NODE_LABELS
from bundler.errors import OutputError
from bundler.formats.bundle_archives import (
    explain_damage,
    read_tar_gz,
    read_text,
)
from bundler.formats.digests import HashingReader
from bundler.formats.shell_settings import read_settings
from bundler.render.addons import DIRECTORY, OBJECT_LIST
from bundler.render.bundle_manifest import (
    BundleManifest,
    ContentSource,
    ManifestEntry,
    parse_manifest,
)
from bundler.render.tree import MANIFEST

FACTS = (
    "CLUSTER",
    "NODE",
    "ADDRESS",
    "ARCH",
    "ROLES",
    "KUBERNETES_VERSION",
    "ETCD_VERSION",
    "FEATURES",
    "TOOL_VERSION",
    "UNITS",
)
"""The settings of node.env that a report shows."""
KEPT = frozenset({MANIFEST, SIGNATURE, NODE_ENV, STATE_ENV, *DOCUMENTS, NODE_LABELS})
"""Files whose content every report keeps."""
OBJECT_LISTS = re.compile(rf"{re.escape(DIRECTORY)}/[^/]+/{re.escape(OBJECT_LIST)}")
"""The objects of each add-on, whose content every report keeps too."""
MAX_KEPT = 256 << 20
"""Bytes of all files together that a report keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleReport:
    """The facts and files of a bundle, and every fault that was found."""

    facts: dict[str, str]
    entries: tuple[ManifestEntry, ...]
    faults: tuple[str, ...]
    manifest: bytes = b""
    signature: bytes | None = None
    parsed: BundleManifest = field(
        default_factory=lambda: BundleManifest(entries=(), public_identity="")
    )
    texts: Mapping[str, bytes] = field(default_factory=dict)  # KEPT, and small files on request


def is_kept(name: str) -> bool:
    """Whether every report has the content of a file."""
    return name in KEPT or OBJECT_LISTS.fullmatch(name) is not None


def read_document(path: Path, report: BundleReport, name: str) -> bytes:
    """Return one of the documents of a bundle; raise OutputError if it is missing."""
    if name not in report.texts:
        raise OutputError(
            f"{path}: {name} is missing",
            hint="an older version of bundler built it: build it again",
        )
    return report.texts[name]


def inspect(path: Path, *, keep: int = 0) -> BundleReport:
    """Read a complete bundle, or its volumes; raise OutputError if it is not a bundle.

    The report has the content of every file of up to `keep` bytes.
    """
    seen: dict[str, tuple[int, int, str]] = {}
    texts: dict[str, bytes] = {}
    room = MAX_KEPT
    with explain_damage(path):
        for name, mode, content in read_tar_gz(path):
            reader = HashingReader(content)
            if is_kept(name):
                texts[name] = read_text(reader)
            elif keep and len(begin := reader.read(keep + 1)) <= min(keep, room):
                texts[name] = begin
            room -= len(texts.get(name, b""))
            digest = reader.finish()
            seen[name] = (mode, reader.size, digest)
    if MANIFEST not in texts:
        raise OutputError(f"{path}: not a bundle: {MANIFEST} is missing")
    manifest = parse_manifest(texts[MANIFEST], f"{path}: {MANIFEST}")
    return BundleReport(
        facts=_read_facts(path, texts, manifest) | _carried_facts(manifest),
        entries=manifest.entries,
        faults=_compare(manifest, seen),
        manifest=texts[MANIFEST],
        signature=texts.get(SIGNATURE),
        parsed=manifest,
        texts=texts,
    )


def _read_facts(path: Path, texts: Mapping[str, bytes], manifest: BundleManifest) -> dict[str, str]:
    """Return the settings of node.env that FACTS names, and the id of the state."""
    try:
        node_env, state_env = (texts.get(n, b"").decode() for n in (NODE_ENV, STATE_ENV))
        state_id = find_state_id(state_env, manifest) if STATE_ENV in texts else ""
    except ValueError as error:
        raise OutputError(f"{path}: {error}") from error
    facts = {name: value for name, value in read_settings(node_env).items() if name in FACTS}
    return facts | ({"STATE_ID": state_id} if state_id else {})


def _carried_facts(manifest: BundleManifest) -> dict[str, str]:
    """Count the files that the bundle leaves out, by where they are."""
    count = Counter(manifest.absent.values())
    facts = {}
    if seal := manifest.seal:
        by = f"the key of the certificate {seal.recipient[:16]}…" if seal.recipient else "a code"
        facts["SEALED"] = f"{len(seal.tags)} files, opened by {by} (seal key {seal.key_id})"
    if manifest.base:
        facts["BASE"] = f"{manifest.base} (the host keeps {count[ContentSource.BASE]} files of it)"
    if manifest.payload:
        name = payload_name(manifest.payload)
        facts["PAYLOAD"] = f"{name}.tar (holds {count[ContentSource.PAYLOAD]} files of this bundle)"
    if count[ContentSource.STATE]:
        facts["PUBLIC_ONLY"] = f"{count[ContentSource.STATE]} files with secrets are left out"
    return facts


def _compare(manifest: BundleManifest, seen: dict[str, tuple[int, int, str]]) -> tuple[str, ...]:
    faults = []
    for entry in manifest.entries:
        if entry.path in manifest.absent:
            continue
        if entry.path not in seen:
            faults.append(f"{entry.path}: missing")
        elif seen[entry.path] != (entry.mode, entry.size, entry.sha256):
            faults.append(f"{entry.path}: differs from the manifest")
    carried = {entry.path for entry in manifest.entries} - set(manifest.absent)
    if manifest.seal and SEALED not in carried:
        faults.append(f"{SEALED}: missing")
    listed = carried | {MANIFEST, SIGNATURE}
    faults += [f"{name}: not in the manifest" for name in sorted(seen) if name not in listed]
    return tuple(faults)
