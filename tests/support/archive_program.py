"""Read one program of an upstream archive as a build does."""

from contextlib import suppress
from pathlib import Path

from bundler.cache.payload import ensure_members, read_payload
from bundler.cache.store import Cache
from bundler.errors import ArtifactError
from support.misbehaving_server import make_artifact


def read_program(archive: Path, cache: Cache) -> bytes:
    """Read top/program of an archive twice: a refused archive is refused each time."""
    with suppress(ArtifactError):
        _read_program(archive, cache)
    return _read_program(archive, cache)


def _read_program(archive: Path, cache: Cache) -> bytes:
    artifact = make_artifact("https://a.example/up.tar.gz", archive.read_bytes())
    found = ensure_members(artifact, archive, ["top/program"], cache)
    return b"".join(read_payload(found["top/program"]))
