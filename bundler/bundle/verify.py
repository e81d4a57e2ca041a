"""A directory of bundles, checked on any machine: SHA256SUMS, manifests, and who signed them."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey as PublicKey

from bundler.bundle.inspect import inspect
from bundler.bundle.output import (
    JOIN,
    PAYLOAD,
    RUNBOOK,
    SUMS,
    join_script,
)
from bundler.bundle.shared_payload import SharedReport, inspect_shared, payload_name
from bundler.bundle.signing import SUMS_SIGNATURE, is_signed_by, load_public_key
from bundler.errors import OutputError
from bundler.formats.digests import hash_file
from bundler.formats.volumes import DIGESTS, joined_name
from bundler.render.bundle_manifest import BundleManifest, ContentSource

BUNDLE = ".tar.gz"
PUBLIC = ".public.tar.gz"
SUMS_LINE = re.compile(r"([0-9a-f]{64})  ([^/]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One file of the directory, its volumes taken together: what it holds, and every fault."""

    name: str
    files: int = 0  # that it holds itself
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # what people must look at
    elsewhere: Mapping[ContentSource, int] = field(
        default_factory=dict
    )  # files that it does not bring
    manifest: BundleManifest | None = None  # of a bundle


def verify(directory: Path, trusted: tuple[Path, ...] = ()) -> Iterator[Verdict]:
    """Each file that SHA256SUMS names, and each that it does not; OutputError without sums.

    With `trusted` public keys, sums and manifests must be signed by one of them.
    """
    keys = tuple(load_public_key(path) for path in trusted)
    text = _read_sums(directory)
    if keys and not _is_trusted(keys, text, _read_signature(directory / SUMS_SIGNATURE)):
        yield Verdict(name=SUMS, faults=(f"{SUMS}: no trusted key signed it",))
        return
    sums = _parse_sums(text, directory / SUMS)
    wholes: dict[str, list[str]] = {}
    for name in sorted(sums):
        wholes.setdefault(joined_name(name), []).append(name)
    payloads: dict[str, SharedReport] = {}
    # payload files first: bundles ask what is in them
    for whole in sorted(wholes, key=lambda name: (not PAYLOAD.fullmatch(name), name)):
        faults = tuple(_check_digests(directory, wholes[whole], sums))
        if faults:
            yield Verdict(name=whole, faults=faults)
        elif PAYLOAD.fullmatch(whole):
            payloads[whole] = inspect_shared(directory / whole)
            yield _judge_payload(whole, payloads[whole])
        elif whole.endswith(BUNDLE):
            yield _judge_bundle(directory / whole, keys, payloads)
        else:
            yield Verdict(name=whole, files=1)
    for name in sorted({path.name for path in directory.iterdir()} - {SUMS, SUMS_SIGNATURE}):
        if name not in sums:
            yield Verdict(name=name, faults=(f"{name}: not in {SUMS}",))


def compare(
    directory: Path, whole: Sequence[Verdict], public: Sequence[Verdict]
) -> Iterator[Verdict]:
    """Each file of `directory`, of which `whole` tells: is it one that the second person made?

    A bundle must say of every file what the one without secrets says, and may have more only where
    that one's manifest says that it is left out. What is in payload files is in the bundles'
    manifests; what has no like is named.
    """
    theirs = {
        verdict.name.removesuffix(PUBLIC) + BUNDLE: verdict.manifest
        for verdict in public
        if verdict.name.endswith(PUBLIC) and verdict.manifest
    }
    for name in sorted(theirs.keys() - {verdict.name for verdict in whole if verdict.manifest}):
        yield Verdict(name=name, faults=(f"{name}: there is no such bundle, or it has faults",))
    for verdict in whole:
        name, manifest = verdict.name, verdict.manifest
        if manifest and name in theirs:
            yield Verdict(
                name=name,
                files=len(theirs[name].entries),
                faults=tuple(_compare(name, manifest, theirs[name])),
                elsewhere=_count(theirs[name]),
            )
        elif name == JOIN and (directory / name).read_bytes() == join_script():
            yield Verdict(name=name, files=1)
        elif name == RUNBOOK:
            yield Verdict(
                name=name,
                notes=(f"{name}: nobody can make it without the keys: read it, then follow it",),
            )
        elif not PAYLOAD.fullmatch(name) and not name.endswith(DIGESTS) and not verdict.faults:
            yield Verdict(name=name, faults=(f"{name}: is nothing that the second person made",))


def _compare(name: str, whole: BundleManifest, public: BundleManifest) -> Iterator[str]:
    ours = {entry.path: entry for entry in whole.entries}
    theirs = {entry.path: entry for entry in public.entries}
    for path, entry in theirs.items():
        if path not in ours:
            yield f"{name}: {path}: only in the bundle without secrets"
        elif ours[path] != entry:
            yield f"{name}: {path}: differs from the one in the bundle without secrets"
    for path in ours.keys() - theirs.keys() - public.absent.keys():
        yield f"{name}: {path}: no secret, and not in the bundle without secrets"


def _read_sums(directory: Path) -> bytes:
    try:
        text = (directory / SUMS).read_bytes()
        text.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise OutputError(
            f"{directory / SUMS}: cannot be read",
            hint="give the directory that `bundler build -o` wrote; a build that was cut short"
            " leaves no sums: build again",
        ) from error
    return text


def _parse_sums(text: bytes, path: Path) -> dict[str, str]:
    """name → digest."""
    lines = text.decode().splitlines()
    matches = [SUMS_LINE.fullmatch(line) for line in lines]
    sums = {match[2]: match[1] for match in matches if match}
    if not lines or len(sums) != len(lines):
        raise OutputError(
            f"{path}: not a list that `bundler build` wrote",
            hint="copy it anew from where it was built, or build again",
        )
    return sums


def _read_signature(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _is_trusted(keys: tuple[PublicKey, ...], data: bytes, signature: bytes | None) -> bool:
    return signature is not None and any(is_signed_by(key, data, signature) for key in keys)


def _check_digests(directory: Path, names: list[str], sums: Mapping[str, str]) -> Iterator[str]:
    for name in names:
        path = directory / name
        if not path.is_file():
            yield f"{name}: missing"
        elif (found := hash_file(path, "sha256")) != sums[name]:
            yield f"{name}: its digest is {found[:16]}…, not {sums[name][:16]}…: copy it anew"


def _judge_payload(name: str, report: SharedReport) -> Verdict:
    faults = tuple(f"{name}: {fault}" for fault in report.faults)
    if f"{payload_name(report.identity)}.tar" != name:
        faults += (f"{name}: is {payload_name(report.identity)}",)
    return Verdict(name=name, files=len(report.files), faults=faults)


def _judge_bundle(
    path: Path, keys: tuple[PublicKey, ...], payloads: Mapping[str, SharedReport]
) -> Verdict:
    report = inspect(path)
    manifest = report.parsed
    faults = [f"{path.name}: {fault}" for fault in report.faults]
    if keys and not _is_trusted(keys, report.manifest, report.signature):
        faults.append(f"{path.name}: no trusted key signed its manifest")
    if manifest.payload:
        payload = payloads.get(f"{payload_name(manifest.payload)}.tar")
        if payload is None or payload.identity != manifest.payload:
            faults.append(f"{path.name}: {payload_name(manifest.payload)}.tar is not here, or bad")
        else:
            faults += [
                f"{path.name}: {entry.path}: not in {payload_name(manifest.payload)}.tar"
                for entry in manifest.entries
                if manifest.absent.get(entry.path) is ContentSource.PAYLOAD
                and entry.sha256 not in payload.files
            ]
    return Verdict(
        name=path.name,
        files=len(manifest.entries) - sum(e.path in manifest.absent for e in manifest.entries),
        faults=tuple(faults),
        elsewhere=_count(manifest),
        manifest=manifest,
    )


def _count(manifest: BundleManifest) -> dict[ContentSource, int]:
    return dict(Counter(manifest.absent.values()))
