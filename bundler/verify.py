"""A directory of bundles, checked on any machine: SHA256SUMS, manifests, and who signed them."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey as PublicKey

from bundler.errors import OutputError
from bundler.inspect import inspect
from bundler.manifest import Manifest, Source
from bundler.marks import hash_file
from bundler.output import PAYLOAD, SUMS
from bundler.shared import SharedReport, inspect_shared, payload_name
from bundler.signing import SUMS_SIGNATURE, is_signed_by, load_public_key
from bundler.volumes import whole_name

BUNDLE = ".tar.gz"
PUBLIC = ".public.tar.gz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One file of the directory, its volumes taken together: what it holds, and every fault."""

    name: str
    files: int = 0  # that it holds itself
    faults: tuple[str, ...] = ()
    elsewhere: Mapping[Source, int] = field(default_factory=dict)  # files that it does not bring
    manifest: Manifest | None = None  # of a bundle


def verify(directory: Path, trusted: tuple[Path, ...] = ()) -> Iterator[Verdict]:
    """Each file that SHA256SUMS names, and each that it does not; OutputError without sums.

    With `trusted` public keys, sums and manifests must be signed by one of them.
    """
    keys = tuple(load_public_key(path) for path in trusted)
    text = _read_sums(directory)
    if keys and not _is_trusted(keys, text, _read_signature(directory / SUMS_SIGNATURE)):
        yield Verdict(name=SUMS, faults=(f"{SUMS}: no trusted key signed it",))
        return
    parts = (line.partition("  ") for line in text.decode().splitlines())
    sums = {name: digest for digest, _, name in parts if name}
    wholes: dict[str, list[str]] = {}
    for name in sorted(sums):
        wholes.setdefault(whole_name(name), []).append(name)
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
    for name in sorted(path.name for path in directory.iterdir()):
        whole = whole_name(name)
        if name not in sums and (whole.endswith(BUNDLE) or PAYLOAD.fullmatch(whole)):
            yield Verdict(name=name, faults=(f"{name}: not in {SUMS}",))


def compare(whole: Iterable[Verdict], public: Iterable[Verdict]) -> Iterator[Verdict]:
    """For each bundle without secrets: whether it says of every file what the whole one says.

    A whole bundle may have more only where the other's manifest says that it is left out.
    """
    wholes = {verdict.name: verdict.manifest for verdict in whole}
    for verdict in public:
        if not verdict.name.endswith(PUBLIC) or verdict.manifest is None:
            continue
        name = verdict.name.removesuffix(PUBLIC) + BUNDLE
        other = wholes.get(name)
        faults = (
            _compare(name, other, verdict.manifest)
            if other
            else [f"{name}: there is no such bundle, or it has faults"]
        )
        yield Verdict(
            name=name,
            files=len(verdict.manifest.entries),
            faults=tuple(faults),
            elsewhere=_count(verdict.manifest),
        )


def _compare(name: str, whole: Manifest, public: Manifest) -> Iterator[str]:
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
                if manifest.absent.get(entry.path) is Source.PAYLOAD
                and entry.sha256 not in payload.files
            ]
    return Verdict(
        name=path.name,
        files=len(manifest.entries) - sum(e.path in manifest.absent for e in manifest.entries),
        faults=tuple(faults),
        elsewhere=_count(manifest),
        manifest=manifest,
    )


def _count(manifest: Manifest) -> dict[Source, int]:
    return dict(Counter(manifest.absent.values()))
