"""Check a directory of bundles on any machine: SHA256SUMS, manifests and signatures."""

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
    UNSEAL,
    join_script,
)
from bundler.bundle.seal import CONTAINERS
from bundler.bundle.shared_payload import SharedReport, inspect_shared, payload_name
from bundler.bundle.signing import SUMS_SIGNATURE, is_signed_by, load_public_key
from bundler.errors import OutputError
from bundler.formats.digests import hash_file
from bundler.formats.volumes import DIGESTS, joined_name
from bundler.render.bundle_manifest import BundleManifest, ContentSource
from bundler.state.state_id import SHOWN

BUNDLE = ".tar.gz"
PUBLIC = ".public.tar.gz"
SUMS_LINE = re.compile(r"([0-9a-f]{64})  ([^/]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The result for one file, or for the volumes of one file: what it holds, and every fault."""

    name: str
    files: int = 0  # in it
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # for a person to check
    # files that it leaves out
    elsewhere: Mapping[ContentSource, int] = field(default_factory=dict)
    manifest: BundleManifest | None = None  # of a bundle
    state_id: str = ""  # of the state that a bundle was made with, if it says so


def verify(directory: Path, trusted: tuple[Path, ...] = ()) -> Iterator[Verdict]:
    """Check each file of the directory; raise OutputError if SHA256SUMS is missing.

    With `trusted` public keys, one of them must have signed SHA256SUMS and the manifests.
    """
    keys = tuple(load_public_key(path) for path in trusted)
    text = _read_sums(directory)
    if keys and not _is_trusted(keys, text, _read_signature(directory / SUMS_SIGNATURE)):
        yield Verdict(name=SUMS, faults=(f"{SUMS}: not signed by a trusted key",))
        return
    sums = _parse_sums(text, directory / SUMS)
    volumes: dict[str, list[str]] = {}  # by the name of the joined file
    for name in sorted(sums):
        volumes.setdefault(joined_name(name), []).append(name)
    payloads: dict[str, SharedReport] = {}
    states: dict[str, str] = {}  # id → a bundle that was made with it
    # payload files first: the check of a bundle needs their contents
    for joined in sorted(volumes, key=lambda name: (not PAYLOAD.fullmatch(name), name)):
        faults = tuple(_check_digests(directory, volumes[joined], sums))
        if faults:
            yield Verdict(name=joined, faults=faults)
        elif PAYLOAD.fullmatch(joined):
            payloads[joined] = inspect_shared(directory / joined)
            yield _judge_payload(joined, payloads[joined])
        elif joined.endswith(BUNDLE):
            verdict = _judge_bundle(directory / joined, keys, payloads)
            states.setdefault(verdict.state_id, joined)
            yield verdict
        else:
            yield Verdict(name=joined, files=1)
    yield from _judge_other_files(directory, sums)
    yield from _judge_states({state_id: name for state_id, name in states.items() if state_id})


def _judge_other_files(directory: Path, sums: Mapping[str, str]) -> Iterator[Verdict]:
    """Yield faults of files that SHA256SUMS does not name; NAME.sha256 repeats a line of it."""
    names = {path.name for path in directory.iterdir()}
    for name in sorted(names - {SUMS, SUMS_SIGNATURE} - sums.keys()):
        target = name.removesuffix(DIGESTS)
        if name == UNSEAL:
            note = f"{directory / name}: opens the sealed bundles: it must not travel with them"
            yield Verdict(name=name, notes=(note,))
        elif target == name or target not in sums:
            yield Verdict(name=name, faults=(f"{name}: not in {SUMS}",))
        elif (directory / name).read_bytes() != f"{sums[target]}  {target}\n".encode():
            yield Verdict(name=name, faults=(f"{name}: is not the line of {SUMS}",))


def _judge_states(states: Mapping[str, str]) -> Iterator[Verdict]:
    """Yield a fault for more than one state; `states` maps ids to a bundle of each."""
    if len(states) > 1:
        made = ", ".join(f"{name} with {state_id[:SHOWN]}" for state_id, name in states.items())
        yield Verdict(name=SUMS, faults=(f"the bundles were made with different states: {made}",))


def compare(
    directory: Path, complete: Sequence[Verdict], public: Sequence[Verdict]
) -> Iterator[Verdict]:
    """Compare the bundles of `directory` with those that a second person built without secrets.

    `complete` are the results of `verify` for `directory`, `public` those of the second build. A
    bundle must have every file of the second build, and may add only the files which the manifest
    there names as left out. Payload files are covered by the manifests. A file that the second
    build does not have is a fault.
    """
    theirs = {
        verdict.name.removesuffix(PUBLIC) + BUNDLE: verdict.manifest
        for verdict in public
        if verdict.name.endswith(PUBLIC) and verdict.manifest
    }
    for name in sorted(theirs.keys() - {verdict.name for verdict in complete if verdict.manifest}):
        yield Verdict(name=name, faults=(f"{name}: this bundle is missing, or has faults",))
    for verdict in complete:
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
                notes=(f"{name}: cannot be compared: it depends on secrets; read it first",),
            )
        elif not _is_left_out(name) and not verdict.faults:
            yield Verdict(name=name, faults=(f"{name}: the second build does not have it",))


def _is_left_out(name: str) -> bool:
    """Whether a file cannot be compared by itself, or is covered by others."""
    return name == UNSEAL or PAYLOAD.fullmatch(name) is not None or name.endswith(DIGESTS)


def _compare(name: str, complete: BundleManifest, public: BundleManifest) -> Iterator[str]:
    ours = {entry.path: entry for entry in complete.entries}
    theirs = {entry.path: entry for entry in public.entries}
    for path, entry in theirs.items():
        if path not in ours:
            yield f"{name}: {path}: only in the bundle without secrets"
        elif ours[path] != entry:
            yield f"{name}: {path}: differs from the one in the bundle without secrets"
    sealed = {path for path, source in complete.absent.items() if source is ContentSource.SEAL}
    containers = CONTAINERS if complete.seal else frozenset()
    for path in sorted((ours.keys() | sealed) - theirs.keys() - public.absent.keys() - containers):
        yield f"{name}: {path}: is not a secret, but is missing in the bundle without secrets"


def _read_sums(directory: Path) -> bytes:
    try:
        text = (directory / SUMS).read_bytes()
        text.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise OutputError(
            f"{directory / SUMS}: cannot be read",
            hint="give the directory that `bundler build -o` wrote; if the build was interrupted,"
            " build again",
        ) from error
    return text


def _parse_sums(text: bytes, path: Path) -> dict[str, str]:
    """Map file names to digests."""
    lines = text.decode().splitlines()
    matches = [SUMS_LINE.fullmatch(line) for line in lines]
    sums = {match[2]: match[1] for match in matches if match}
    if not lines or len(sums) != len(lines):
        raise OutputError(
            f"{path}: `bundler build` did not write this list",
            hint="copy it again from where it was built, or build again",
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
            yield f"{name}: its digest is {found[:16]}…, not {sums[name][:16]}…: copy it again"


def _judge_payload(name: str, report: SharedReport) -> Verdict:
    faults = tuple(f"{name}: {fault}" for fault in report.faults)
    if f"{payload_name(report.identity)}.tar" != name:
        faults += (f"{name}: holds {payload_name(report.identity)}",)
    return Verdict(name=name, files=len(report.files), faults=faults)


def _judge_bundle(
    path: Path, keys: tuple[PublicKey, ...], payloads: Mapping[str, SharedReport]
) -> Verdict:
    report = inspect(path)
    manifest = report.parsed
    faults = [f"{path.name}: {fault}" for fault in report.faults]
    if keys and not _is_trusted(keys, report.manifest, report.signature):
        faults.append(f"{path.name}: its manifest is not signed by a trusted key")
    if manifest.payload:
        payload = payloads.get(f"{payload_name(manifest.payload)}.tar")
        if not payload or payload.identity != manifest.payload:
            faults.append(
                f"{path.name}: {payload_name(manifest.payload)}.tar is missing or damaged"
            )
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
        state_id=report.facts.get("STATE_ID", ""),
    )


def _count(manifest: BundleManifest) -> dict[ContentSource, int]:
    return dict(Counter(manifest.absent.values()))
