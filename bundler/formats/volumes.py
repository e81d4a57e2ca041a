"""Files in numbered volumes: NAME.001, NAME.002 …, and NAME.sha256 with the digest of each.

A file that is not split has its NAME.sha256 too.

`cat NAME.0* >NAME` joins them. join.sh joins them too, and first lists every damaged volume.
"""

import hashlib
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from tempfile import mkstemp
from typing import BinaryIO

from bundler.errors import ConfigError, OutputError
from bundler.files import (
    TEMPORARY,
    check_replaceable,
    explain_disk_faults,
    write_atomically,
)

MAX_VOLUMES = 99
"""Volumes of one file, so that `NAME.0*` matches all of them in order."""

DIGESTS = ".sha256"
NUMBER = re.compile(r"\.[0-9]{3}$")
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
SIZE = re.compile(r"(\d+(?:\.\d+)?)(" + "|".join(UNITS) + ")")


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """One file on disk."""

    path: Path
    sha256: str
    size: int  # bytes


def parse_size(text: str) -> int:
    """Bytes of `4.4G` (10⁹), `650M`, `4095MiB` (2²⁰) …; ConfigError if it is not a size."""
    match = SIZE.fullmatch(text)
    size = int(Decimal(match[1]) * UNITS[match[2]]) if match else 0
    if not size:
        raise ConfigError(
            f"--split {text}: not a size", hint="use 4.4G or 650M (powers of 1000), or 4095MiB"
        )
    return size


def write_pieces(
    pieces: Iterable[bytes], target: Path, *, limit: int | None = None, mode: int = 0o600
) -> tuple[Written, ...]:
    """Write one file; if it is larger than `limit` bytes, write volumes and their digests.

    The files appear when all of them are complete. If the process is killed while it renames them,
    the file of digests is missing; join.sh and the next run handle that. Volumes of an earlier
    split of `target` are removed. Returns the files written, the file of digests last; that of one
    complete file is not returned, as SHA256SUMS has its line. Raises ConfigError if there would be
    more than MAX_VOLUMES volumes.
    """
    total = hashlib.sha256()
    parts: list[tuple[Path, str, int]] = []
    temporaries: list[Path] = []
    with explain_disk_faults(target):
        check_replaceable(target)
        try:
            for number, group in groupby(_cut(pieces, limit), key=itemgetter(0)):
                _check_number(number, target, limit)
                descriptor, name = mkstemp(prefix=TEMPORARY, dir=target.parent)
                temporaries.append(Path(name))
                with os.fdopen(descriptor, "wb") as out:
                    os.fchmod(descriptor, mode)
                    digest = _copy(
                        (piece for _, piece in group), out, total.update if limit else None
                    )
                    parts.append((Path(name), digest, out.tell()))
            return _put_in_place(parts, target, total.hexdigest())
        except BaseException:
            for temporary in temporaries:
                temporary.unlink(missing_ok=True)
            raise


def format_digest(file: Written) -> bytes:
    """Format NAME.sha256 of a file that is no volume, for `sha256sum -c` with this file alone."""
    return f"{file.sha256}  {file.path.name}\n".encode()


def list_volumes(target: Path) -> list[Path]:
    """The volumes of a file, in order; they are in the same directory."""
    found = target.parent.glob(f"{target.name}.[0-9][0-9][0-9]")
    return sorted(path for path in found if NUMBER.search(path.name))


def joined_name(name: str) -> str:
    """The name of the file that a volume is part of; any other name unchanged."""
    return NUMBER.sub("", name)


def joined_size(path: Path) -> int:
    """The size of the file that `open_joined` opens."""
    target = path.with_name(joined_name(path.name))
    parts = [target] if target.is_file() else list_volumes(target)
    return sum(part.stat().st_size for part in parts)


def open_joined(path: Path) -> BinaryIO:
    """Open a file, or its volumes as one stream; the path of a volume means the complete file.

    Raises FileNotFoundError if there is neither, OutputError if a volume is missing.
    """
    target = path.with_name(joined_name(path.name))
    volumes = [] if target.is_file() else list_volumes(target)
    if not volumes:
        return target.open("rb")
    for number, volume in enumerate(volumes, 1):
        if volume.name != f"{target.name}.{number:03d}":
            raise OutputError(f"{target.name}.{number:03d}: missing")
    return io.BufferedReader(_Joined(volumes), 1 << 20)


class _Joined(io.RawIOBase):
    """Several files, read one after another."""

    def __init__(self, paths: list[Path]) -> None:
        self._left = list(paths)
        self._file: BinaryIO | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while True:
            if not self._file:
                if not self._left:
                    return 0
                self._file = self._left.pop(0).open("rb", buffering=0)
            if count := self._file.readinto(buffer):  # type: ignore[attr-defined]
                return int(count)
            self._file.close()
            self._file = None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        super().close()


def _cut(pieces: Iterable[bytes], limit: int | None) -> Iterator[tuple[int, memoryview]]:
    """The same bytes in order, each piece with the number of its volume."""
    number, room = 1, limit
    for piece in pieces:
        view = memoryview(piece)
        while room is not None and len(view) > room:
            if room:
                yield number, view[:room]
            view, number, room = view[room:], number + 1, limit
        room = room - len(view) if room is not None else None
        yield number, view


def _check_number(number: int, target: Path, limit: int | None) -> None:
    if number > MAX_VOLUMES:
        raise ConfigError(
            f"{target.name} needs more than {MAX_VOLUMES} volumes of {limit} bytes",
            hint="use larger volumes with --split",
        )


def _copy(
    pieces: Iterable[memoryview], out: BinaryIO, also: Callable[[memoryview], None] | None
) -> str:
    hasher = hashlib.sha256()
    for piece in pieces:
        hasher.update(piece)
        if also:
            also(piece)
        out.write(piece)
    out.flush()
    return hasher.hexdigest()


def _put_in_place(
    parts: list[tuple[Path, str, int]], target: Path, total: str
) -> tuple[Written, ...]:
    digests = target.with_name(target.name + DIGESTS)
    places = [target]
    if len(parts) > 1:
        places = [target.with_name(f"{target.name}.{n:03d}") for n in range(1, len(parts) + 1)]
    for place in places:
        check_replaceable(place)
    digests.unlink(missing_ok=True)
    written = []
    for place, (temporary, sha256, size) in zip(places, parts, strict=True):
        temporary.replace(place)
        written.append(Written(path=place, sha256=sha256, size=size))
    for other in {target, *list_volumes(target)}.difference(places):
        other.unlink(missing_ok=True)
    if len(parts) > 1:
        lines = [f"{part.sha256}  {part.path.name}\n" for part in written]
        text = "".join([*lines, f"{total}  {target.name}\n"]).encode()
        write_atomically(digests, text, mode=0o644)
        sha256 = hashlib.sha256(text).hexdigest()
        written.append(Written(path=digests, sha256=sha256, size=len(text)))
    else:
        write_atomically(digests, format_digest(written[0]), mode=0o644)
    return tuple(written)
