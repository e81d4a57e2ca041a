"""Compressed tar segments in the cache: each is made once and used while it is unaltered.

A segment is a file's content and the zeros that pad it to tar's blocks, as one or more gzip
members. Gzip members may be concatenated (RFC 1952, 2.2), so a bundle is a concatenation of
segments and needs no compression. The compressor is libdeflate, because its output depends only on
its version, not on the processor or on the zlib of the builder's Python.

    segments/COMPRESSOR/DIGEST    DIGEST is that of the content; the segment's own is in its stamp
"""

import hashlib
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from tempfile import mkstemp
from typing import BinaryIO

import deflate

from bundler.cache.stamps import is_unaltered, read_pin, write_stamp
from bundler.cache.store import Cache
from bundler.errors import ArtifactError
from bundler.files import TEMPORARY, explain_disk_faults
from bundler.progress import show_progress

SEGMENTS = "segments"
LEVEL = 6
COMPRESSOR = f"libdeflate-{deflate.__version__}-{LEVEL}"
CHUNK = 4 << 20
BLOCK = 512
THREADS = os.cpu_count() or 1


def compress(data: bytes) -> bytes:
    """One gzip member, without name and time."""
    return bytes(deflate.gzip_compress(data, LEVEL))


def padding(size: int) -> bytes:
    """The zeros that fill the last block of tar."""
    return bytes(-size % BLOCK)


def segment_path(cache: Cache, digest: str) -> Path:
    """Where the segment of a content is, or will be; `digest` is the SHA-256 of the content."""
    return cache.directory(SEGMENTS, COMPRESSOR) / digest


def has_segment(cache: Cache, digest: str) -> bool:
    """Whether the segment of a content is there and unaltered.

    A segment without a stamp does not count: the run that made it was interrupted.
    """
    path = segment_path(cache, digest)
    pin = read_pin(path)
    try:
        return pin is not None and is_unaltered(path, pin)
    except FileNotFoundError:
        return False


def list_segments(cache: Cache) -> list[Path]:
    """Every segment, sorted; also those of other compressor versions."""
    found = cache.directory(SEGMENTS).glob("*/*")
    return sorted(path for path in found if not path.name.startswith("."))


def make_segment(
    file: BinaryIO, size: int, cache: Cache, expected: str | None, *, label: str
) -> str:
    """Compress `size` bytes of `file` into the segment of their digest; returns the digest.

    `label` names the file where it takes so long that the progress is shown.
    """
    directory = cache.directory(SEGMENTS, COMPRESSOR)
    with explain_disk_faults(directory):
        descriptor, name = mkstemp(prefix=TEMPORARY, dir=directory)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as out:
                with show_progress(f"compressing {label}", size) as advance:
                    digest, own = _compress_stream(file, size, out, advance)
                out.flush()
                os.fsync(out.fileno())
            _check_unchanged(digest, expected)
            temporary.replace(directory / digest)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    write_stamp(directory / digest, f"sha256:{own}")
    return digest


def _check_unchanged(digest: str, expected: str | None) -> None:
    if expected is not None and digest != expected:
        raise ArtifactError("a file changed while it was read", hint="build again")


def _compress_stream(
    file: BinaryIO, size: int, out: BinaryIO, advance: Callable[[int], None]
) -> tuple[str, str]:
    """The digests of the content that is read and of the segment that is written.

    Chunks are compressed in parallel and written in order; only a few are in memory.
    """
    content, own = hashlib.sha256(), hashlib.sha256()
    running: deque[Future[bytes]] = deque()
    left = size

    def write(piece: Future[bytes]) -> None:
        own.update(piece.result())
        out.write(piece.result())

    with ThreadPoolExecutor(THREADS) as pool:
        while left:
            chunk = file.read(min(CHUNK, left))
            if not chunk:
                raise EOFError("the file ended early")
            left -= len(chunk)
            advance(len(chunk))
            content.update(chunk)
            running.append(pool.submit(compress, chunk if left else chunk + padding(size)))
            if len(running) > 2 * THREADS:
                write(running.popleft())
        while running:
            write(running.popleft())
    return content.hexdigest(), own.hexdigest()
