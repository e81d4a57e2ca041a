"""Altered or incomplete files in the cache are never used in a bundle."""

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.misbehaving_server import make_artifact
from support.small_builds import SmallSite, make_site
from typer.testing import CliRunner, Result

from bundler.cache import segments
from bundler.cache.archive import export_blobs, list_blobs
from bundler.cache.maintenance import prune_cache
from bundler.cache.payload import (
    Payload,
    ensure_file,
    ensure_members,
    read_payload,
)
from bundler.cache.store import Cache
from bundler.catalog import Artifact
from bundler.cli.app import app
from bundler.errors import ArtifactError
from bundler.files import remove_leftovers
from bundler.sources.images.pull import read_document

CONTENT = b"what a program is made of " * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def flip(path: Path) -> None:
    """Change one byte in the middle of a file, but not its size and time."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def adopt(cache: Cache) -> Path:
    """Add a blob with this content."""
    partial = cache.partial_path("sha256", DIGEST)
    partial.write_bytes(CONTENT)
    return cache.adopt(partial, "sha256", DIGEST)


def run(command: str, cache: Cache) -> Result:
    return CliRunner().invoke(app, ["cache", command, "--cache", str(cache.root)])


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


def test_an_altered_segment_of_a_file_is_made_again(tmp_path: Path, cache: Cache) -> None:
    payload = ensure_file(make_file(tmp_path), cache)
    intact = payload.segment.read_bytes()
    flip(payload.segment)
    assert ensure_file(tmp_path / "file", cache) == payload
    assert payload.segment.read_bytes() == intact


def test_an_altered_segment_of_a_member_is_made_again(tmp_path: Path, cache: Cache) -> None:
    payload = ensure_program(tmp_path, cache)
    flip(payload.segment)
    assert b"".join(read_payload(ensure_program(tmp_path, cache))) == CONTENT


def test_a_segment_without_a_stamp_is_made_again(tmp_path: Path, cache: Cache) -> None:
    payload = ensure_program(tmp_path, cache)
    for mark in payload.segment.parent.glob(".*.mark"):
        mark.unlink()
    payload.segment.write_bytes(b"what an interrupted build left")
    assert b"".join(read_payload(ensure_program(tmp_path, cache))) == CONTENT


def test_a_segment_that_was_only_copied_is_not_made_again(
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
    monkeypatch.setattr("bundler.cache.stamps.hash_stream", refuse)
    assert ensure_program(tmp_path, cache) == payload  # from now on it is not read


@pytest.mark.parametrize("where", [0, 12, 200, -5], ids=["head", "block", "body", "length"])
def test_a_segment_that_is_damaged_during_a_build_is_reported(
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
    assert caught.value.hint == "quarantine it with: bundler cache verify; then build again"


def test_a_blob_that_was_altered_with_its_time_restored_is_quarantined(cache: Cache) -> None:
    blob = adopt(cache)
    assert cache.has_blob("sha256", DIGEST)
    flip(blob)
    assert not cache.has_blob("sha256", DIGEST)
    assert [path.name[:64] for path in (cache.root / "quarantine").iterdir()] == [DIGEST]


def test_a_blob_that_another_run_quarantines_first_counts_as_missing(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip(adopt(cache))
    original = Cache.quarantine

    def come_second(self: Cache, path: Path, reason: str) -> Path:
        original(self, path, reason)
        return original(self, path, reason)

    monkeypatch.setattr(Cache, "quarantine", come_second)
    assert not cache.has_blob("sha256", DIGEST)


def test_a_document_is_read_while_the_lock_prevents_its_removal(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    adopt(cache)
    locked: list[str] = []

    @contextmanager
    def note(_: Cache, name: str) -> Iterator[None]:
        locked.append(name)
        yield

    monkeypatch.setattr(Cache, "lock", note)
    assert read_document(f"sha256:{DIGEST}", cache) == CONTENT
    assert locked == [f"sha256-{DIGEST}"]


def test_an_export_reports_a_file_that_is_pruned_during_it(
    tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    adopt(cache)
    blobs = list_blobs(cache)
    monkeypatch.setattr("bundler.cache.archive.list_blobs", lambda _: blobs)
    cache.remove_blob("sha256", DIGEST)
    with pytest.raises(ArtifactError, match="removed from the cache during the export"):
        export_blobs(cache, tmp_path / "x.tar", None)
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_a_file_that_another_run_finishes_is_not_a_leftover(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "rglob", lambda *_: iter([tmp_path / ".tmp-finished"]))
    remove_leftovers(tmp_path)


def test_verify_reads_segments_too(tmp_path: Path, cache: Cache) -> None:
    adopt(cache)
    payload = ensure_program(tmp_path, cache)
    assert run("verify", cache).exit_code == 0
    flip(payload.segment)
    result = run("verify", cache)
    assert result.exit_code == 3
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["ok", "ALTERED"]
    assert result.stdout.split()[-1] == f"segments/{segments.COMPRESSOR}/{DIGEST}"
    assert not payload.segment.exists()
    assert run("verify", cache).exit_code == 0
    assert b"".join(read_payload(ensure_program(tmp_path, cache))) == CONTENT


def test_prune_removes_segments_that_are_not_needed(tmp_path: Path, cache: Cache) -> None:
    needed, _ = make_archive(tmp_path)
    kept = ensure_program(tmp_path, cache).segment
    given, other = tmp_path / "given", tmp_path / "other"
    given.write_bytes(b"given")
    other.write_bytes(b"other")
    kept_too, removed = (ensure_file(path, cache).segment for path in (given, other))
    old = removed.parent.with_name("libdeflate-0-6") / kept.name
    old.parent.mkdir()
    old.write_bytes(b"of another compressor")
    digest = hashlib.sha256(b"given").hexdigest()
    dry = prune_cache(cache, [needed], [digest], dry_run=True)
    assert {part.name for part in dry} == {
        path.relative_to(cache.root).as_posix() for path in (removed, old)
    }
    assert removed.exists()
    assert prune_cache(cache, [needed], [digest]) == dry
    assert segments.list_segments(cache) == sorted([kept, kept_too])
    assert len(list(kept.parent.glob(".*"))) == 2  # the stamps of removed files are gone


def test_prune_removes_leftovers_that_are_a_day_old(tmp_path: Path, cache: Cache) -> None:
    needed, _ = make_archive(tmp_path)
    partial = cache.partial_path("sha256", needed.digest)
    useless = cache.partial_path("sha256", DIGEST)
    for path in (partial, useless, tmp_path / "wrong", cache.root / "partial" / ".tmp-x"):
        path.write_bytes(b"half")
    quarantined = cache.quarantine(tmp_path / "wrong", "altered")
    assert not prune_cache(cache, [needed])
    removed = prune_cache(cache, [needed], older_than=0)
    assert [cache.root / part.name for part in removed] == [quarantined, useless]
    left = [path for path in cache.root.rglob("*") if path.is_file()]
    assert [path for path in left if path.parent.name != "locks"] == [partial]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> SmallSite:
    found = make_site(tmp_path_factory.mktemp("site"))
    found.build()
    return found


def test_prune_keeps_segments_of_image_files(site: SmallSite) -> None:
    cache = site.inputs.cache
    adopt(cache)
    before = segments.list_segments(cache)
    pruned = CliRunner().invoke(app, ["cache", "prune", *site.arguments[:-2]])
    assert [line.split()[1] for line in pruned.stdout.splitlines()] == [f"sha256:{DIGEST}"]
    assert segments.list_segments(cache) == before


def test_a_build_from_altered_segments_gives_the_same_bytes(site: SmallSite) -> None:
    first = (site.directory / "dist" / "SHA256SUMS").read_bytes()
    made = segments.list_segments(site.inputs.cache)
    assert len(made) > 10
    for segment in made:
        flip(segment)
    assert (site.build() / "SHA256SUMS").read_bytes() == first
