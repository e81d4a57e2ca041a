"""A directory of bundles, checked on any machine: SHA256SUMS, and each bundle's own manifest."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bundler.errors import OutputError
from bundler.inspect import inspect

SUMS = "SHA256SUMS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One bundle: how many files it holds, and every fault found."""

    name: str
    files: int
    faults: tuple[str, ...]


def verify(directory: Path) -> Iterator[Verdict]:
    """Each bundle that SHA256SUMS names, and each that it does not; OutputError without sums."""
    try:
        lines = (directory / SUMS).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise OutputError(
            f"{directory / SUMS}: cannot be read",
            hint="give the directory that `bundler build -o` wrote; a build that was cut short"
            " leaves no sums: build again",
        ) from error
    parts = (line.partition("  ") for line in lines)
    sums = {name: digest for digest, _, name in parts if name}
    for name, digest in sorted(sums.items()):
        yield _verify_bundle(directory / name, digest)
    for path in sorted(directory.glob("*.tar.gz")):
        if path.name not in sums:
            yield Verdict(name=path.name, files=0, faults=(f"{path.name}: not in {SUMS}",))


def _verify_bundle(path: Path, digest: str) -> Verdict:
    if not path.is_file():
        return Verdict(name=path.name, files=0, faults=(f"{path.name}: missing",))
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != digest:
        fault = f"{path.name}: its digest is {found[:16]}…, not {digest[:16]}…: copy it anew"
        return Verdict(name=path.name, files=0, faults=(fault,))
    report = inspect(path)
    faults = tuple(f"{path.name}: {fault}" for fault in report.faults)
    return Verdict(name=path.name, files=len(report.entries), faults=faults)
