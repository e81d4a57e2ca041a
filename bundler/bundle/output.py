"""The directory that a build writes; SHA256SUMS is written last, when all files are complete."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from bundler import log
from bundler.bundle.layout import PUBLIC_MODE
from bundler.bundle.seal import SealKey
from bundler.bundle.shared_payload import make_shared, shared_pieces
from bundler.bundle.signing import SUMS_SIGNATURE, sign
from bundler.bundle.unseal_code import format_code
from bundler.cache.payload import Payload
from bundler.files import (
    ensure_directory,
    explain_disk_faults,
    remove_leftovers,
    write_atomically,
)
from bundler.formats.volumes import (
    DIGESTS,
    Written,
    joined_name,
    write_pieces,
)
from bundler.paths import RESOURCES
from bundler.render.tree import File

SUMS = "SHA256SUMS"
JOIN = "join.sh"
RUNBOOK = "RUNBOOK.md"
UNSEAL = "UNSEAL.tsv"
UNSEAL_HEADING = """\
# Unseal codes: whoever has a line and the bundle of its node has that node's keys.
# Carry this file on another way than the bundles, and give each host only its own line.
# node\tunseal code\tseal key
"""
PAYLOAD = re.compile(r"payload-[0-9a-f]+\.tar")


def open_output(output: Path) -> None:
    """Create the directory, and remove the files that mark a complete build."""
    ensure_directory(output)
    with explain_disk_faults(output):
        remove_leftovers(output)
        for name in (SUMS, SUMS_SIGNATURE, JOIN, RUNBOOK, UNSEAL):
            (output / name).unlink(missing_ok=True)


def write_shared(
    files: Iterable[File], output: Path, split: int | None
) -> tuple[str, tuple[Written, ...]]:
    """Write the payload file of the layout `split`; return its identity and the files."""
    with log.step("packing the files that nodes share"):
        shared = make_shared(f.content for f in files if isinstance(f.content, Payload))
        target = output / f"{shared.name}.tar"
        return shared.identity, write_pieces(
            shared_pieces(shared), target, limit=split, mode=PUBLIC_MODE
        )


def write_codes(output: Path, keys: Mapping[str, SealKey]) -> None:
    """Write the unseal codes by node. SHA256SUMS leaves them out: its files travel together."""
    lines = [f"{node}\t{format_code(key.code)}\t{key.identifier}\n" for node, key in keys.items()]
    write_atomically(output / UNSEAL, "".join([UNSEAL_HEADING, *lines]).encode())


def close_output(
    output: Path,
    cluster: str,
    files: Sequence[Written],
    runbook: bytes | None,
    key: EllipticCurvePrivateKey | None,
) -> tuple[Written, ...]:
    """Write join.sh (if there are volumes), the runbook, and SHA256SUMS last, signed if `key`.

    Return every file that SHA256SUMS names.
    """
    everything = [*files]
    if any(file.path.name.endswith(DIGESTS) for file in files):
        everything.append(_write(output / JOIN, join_script(), mode=0o755))
    if runbook is not None:
        everything.append(_write(output / RUNBOOK, runbook, mode=0o644))
    sums = "".join(f"{file.sha256}  {file.path.name}\n" for file in everything).encode()
    if key:
        write_atomically(output / SUMS_SIGNATURE, sign(key, sums), mode=0o644)
    write_atomically(output / SUMS, sums, mode=0o644)
    _warn_of_other_files(output, cluster, {file.path.name for file in everything})
    return tuple(everything)


def join_script() -> bytes:
    """Return join.sh, the script that joins volumes."""
    return (RESOURCES / JOIN).read_bytes()


def _write(path: Path, content: bytes, *, mode: int) -> Written:
    write_atomically(path, content, mode=mode)
    return Written(path=path, sha256=hashlib.sha256(content).hexdigest(), size=len(content))


def _warn_of_other_files(output: Path, cluster: str, known: set[str]) -> None:
    """Warn about bundles of earlier builds: a build does not delete them."""
    ours = re.compile(rf"(?:{re.escape(cluster)}-.+\.tar\.gz|{PAYLOAD.pattern})(?:{DIGESTS})?")
    known = known | {f"{name}{DIGESTS}" for name in known}
    names = {path.name for path in output.iterdir()} - known
    for name in sorted({joined_name(name) for name in names}):
        if ours.fullmatch(name):
            log.warning(f"{output / name} is not part of this build, and not in {SUMS}: delete it")
