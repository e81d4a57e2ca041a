"""What was altered in the cache, or in part taken out of it, reaches no bundle."""

import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest
from misbehaving import make_artifact
from small_builds import make_site

from bundler import segments
from bundler.cache import Cache
from bundler.catalog import Artifact
from bundler.errors import ArtifactError
from bundler.payload import Payload, ensure_file, ensure_members, read_payload

CONTENT = b"what a program is made of " * 1000


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def flip(path: Path) -> None:
    """One byte amid a file becomes another, and its size and time stay."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def make_file(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(CONTENT)
    return tmp_path / "file"


def make_archive(tmp_path: Path) -> tuple[Artifact, Path]:
    archive = tmp_path / "up.tar"
    with tarfile.open(archive, "w") as tar:
        member = tarfile.TarInfo("program")
        member.size = len(CONTENT)
        tar.addfile(member, io.BytesIO(CONTENT))
    return make_artifact("https://a.example/up.tar", archive.read_bytes()), archive


def ensure_program(tmp_path: Path, cache: Cache) -> Payload:
    artifact, archive = make_archive(tmp_path)
    return ensure_members(artifact, archive, ["program"], cache)["program"]


def test_an_altered_segment_of_a_file_is_made_anew(tmp_path: Path, cache: Cache) -> None:
    payload = ensure_file(make_file(tmp_path), cache)
    whole = payload.segment.read_bytes()
    flip(payload.segment)
    assert ensure_file(tmp_path / "file", cache) == payload
    assert payload.segment.read_bytes() == whole


def test_an_altered_segment_of_a_member_is_made_anew(tmp_path: Path, cache: Cache) -> None:
    payload = ensure_program(tmp_path, cache)
    flip(payload.segment)
    assert b"".join(read_payload(ensure_program(tmp_path, cache))) == CONTENT


def test_a_segment_that_nobody_vouches_for_is_made_anew(tmp_path: Path, cache: Cache) -> None:
    payload = ensure_program(tmp_path, cache)
    for mark in payload.segment.parent.glob(".*.mark"):
        mark.unlink()
    payload.segment.write_bytes(b"what an interrupted build left")
    assert b"".join(read_payload(ensure_program(tmp_path, cache))) == CONTENT


def test_a_segment_that_was_only_copied_is_not_made_anew(
    tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload = ensure_program(tmp_path, cache)
    copy = tmp_path / "copy"
    copy.write_bytes(payload.segment.read_bytes())
    copy.replace(payload.segment)

    def refuse(_: bytes) -> bytes:
        raise AssertionError("compressed again")

    monkeypatch.setattr(segments, "compress", refuse)
    assert ensure_program(tmp_path, cache) == payload
    monkeypatch.setattr("bundler.marks.hash_file", refuse)
    assert ensure_program(tmp_path, cache) == payload  # and from now on it is not even read


@pytest.mark.parametrize("where", [0, 12, 200, -5], ids=["head", "block", "body", "length"])
def test_a_segment_that_is_damaged_amid_a_build_is_told(
    tmp_path: Path, cache: Cache, where: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(hashlib.shake_128(b"").digest(5000))
    payload = ensure_file(path, cache)
    content = bytearray(payload.segment.read_bytes())
    content[where] ^= 0xFF
    payload.segment.write_bytes(content)
    with pytest.raises(ArtifactError, match="is damaged") as caught:
        list(read_payload(payload))
    assert caught.value.hint == "find out why: bundler cache verify"


def test_a_blob_that_was_altered_behind_its_time_is_put_aside(cache: Cache) -> None:
    digest = hashlib.sha256(CONTENT).hexdigest()
    partial = cache.partial_path("sha256", digest)
    partial.write_bytes(CONTENT)
    blob = cache.adopt(partial, "sha256", digest)
    assert cache.has_blob("sha256", digest)
    flip(blob)
    assert not cache.has_blob("sha256", digest)
    assert [path.name[:64] for path in (cache.root / "quarantine").iterdir()] == [digest]


def test_a_build_from_altered_segments_gives_the_same_bytes(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    first = (site.build() / "SHA256SUMS").read_bytes()
    made = [path for path in (tmp_path / "cache").glob("segments/*/*") if path.name[0] != "."]
    assert len(made) > 10
    for segment in made:
        flip(segment)
    assert (site.build() / "SHA256SUMS").read_bytes() == first
