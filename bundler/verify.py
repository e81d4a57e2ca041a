"""A directory of bundles, checked on any machine: SHA256SUMS, manifests, and who signed them."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey as PublicKey

from bundler.errors import OutputError
from bundler.inspect import inspect
from bundler.signing import SUMS_SIGNATURE, is_signed_by, load_public_key

SUMS = "SHA256SUMS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One bundle: how many files it holds, and every fault found."""

    name: str
    files: int
    faults: tuple[str, ...]


def verify(directory: Path, trusted: tuple[Path, ...] = ()) -> Iterator[Verdict]:
    """Each bundle that SHA256SUMS names, and each that it does not; OutputError without sums.

    With `trusted` public keys, sums and manifests must be signed by one of them.
    """
    keys = tuple(load_public_key(path) for path in trusted)
    try:
        text = (directory / SUMS).read_bytes()
        lines = text.decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise OutputError(
            f"{directory / SUMS}: cannot be read",
            hint="give the directory that `bundler build -o` wrote; a build that was cut short"
            " leaves no sums: build again",
        ) from error
    if keys and not _is_trusted(keys, text, _read_signature(directory / SUMS_SIGNATURE)):
        yield Verdict(name=SUMS, files=0, faults=(f"{SUMS}: no trusted key signed it",))
        return
    parts = (line.partition("  ") for line in lines)
    sums = {name: digest for digest, _, name in parts if name}
    for name, digest in sorted(sums.items()):
        yield _verify_bundle(directory / name, digest, keys)
    for path in sorted(directory.glob("*.tar.gz")):
        if path.name not in sums:
            yield Verdict(name=path.name, files=0, faults=(f"{path.name}: not in {SUMS}",))


def _read_signature(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _is_trusted(keys: tuple[PublicKey, ...], data: bytes, signature: bytes | None) -> bool:
    return signature is not None and any(is_signed_by(key, data, signature) for key in keys)


def _verify_bundle(path: Path, digest: str, keys: tuple[PublicKey, ...]) -> Verdict:
    if not path.is_file():
        return Verdict(name=path.name, files=0, faults=(f"{path.name}: missing",))
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != digest:
        fault = f"{path.name}: its digest is {found[:16]}…, not {digest[:16]}…: copy it anew"
        return Verdict(name=path.name, files=0, faults=(fault,))
    report = inspect(path)
    faults = tuple(f"{path.name}: {fault}" for fault in report.faults)
    if keys and not _is_trusted(keys, report.manifest, report.signature):
        faults += (f"{path.name}: no trusted key signed its manifest",)
    return Verdict(name=path.name, files=len(report.entries), faults=faults)
