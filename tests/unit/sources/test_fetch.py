"""Upstream files from the cache, mirrors and upstream: verified, resumed, never used incomplete."""

import gzip
import hashlib
import os
import shutil
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from support.misbehaving_server import CONTENT, PATH, Server, make_artifact, running

from bundler.cache.store import Cache
from bundler.errors import ArtifactError, BundlerError, OutputError
from bundler.sources import download
from bundler.sources.fetch import (
    FetchOptions,
    ensure_artifact,
    ensure_artifacts,
    fetch_unpinned,
)
from bundler.sources.mirrors import parse_mirror
from bundler.sources.sidecars import DIGEST, fetch_sidecar


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as web:
        yield web


@pytest.fixture
def options(tmp_path: Path) -> FetchOptions:
    return FetchOptions(cache=Cache(tmp_path / "cache"), backoff=0.01)


def with_mirrors(options: FetchOptions, *mirrors: str, offline: bool = False) -> FetchOptions:
    return FetchOptions(
        cache=options.cache,
        mirrors=tuple(map(parse_mirror, mirrors)),
        offline=offline,
        backoff=0.01,
    )


def test_a_file_is_fetched_once_and_then_found_in_the_cache(
    server: Server, options: FetchOptions
) -> None:
    artifact = make_artifact(server.url + PATH)
    assert ensure_artifact(artifact, options).read_bytes() == CONTENT
    assert ensure_artifact(artifact, options).read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_a_file_with_a_wrong_digest_is_quarantined_and_never_used(
    server: Server, options: FetchOptions
) -> None:
    artifact = make_artifact(server.url + PATH, b"something else")
    with pytest.raises(ArtifactError, match="does not match its pin") as caught:
        ensure_artifact(artifact, options)
    assert artifact.digest in caught.value.message
    assert hashlib.sha256(CONTENT).hexdigest() in caught.value.message
    quarantined = list((options.cache.root / "quarantine").iterdir())
    assert [path.read_bytes() == CONTENT for path in quarantined] == [True]
    assert str(quarantined[0]) in caught.value.message
    assert not options.cache.has_blob("sha256", artifact.digest)
    assert len(server.requests) == 1


def test_an_interrupted_download_is_resumed_where_it_ended(
    server: Server, options: FetchOptions
) -> None:
    server.cut_after = [2_000_000, 1_000_000]
    assert ensure_artifact(make_artifact(server.url + PATH), options).read_bytes() == CONTENT
    begins = [int(wanted[6:-1]) if wanted else 0 for _, wanted in server.requests]
    assert begins[0] == 0
    assert begins == sorted(begins)
    assert begins[-1] > 0


def test_a_download_of_an_earlier_run_is_resumed(server: Server, options: FetchOptions) -> None:
    artifact = make_artifact(server.url + PATH)
    options.cache.partial_path("sha256", artifact.digest).write_bytes(CONTENT[:3_000_000])
    assert ensure_artifact(artifact, options).read_bytes() == CONTENT
    assert server.requests == [(PATH, "bytes=3000000-")]


@pytest.mark.parametrize("leftover", [CONTENT, CONTENT + b"more"], ids=["complete", "too long"])
def test_a_wrong_partial_file_of_the_full_length_is_downloaded_again(
    server: Server, options: FetchOptions, leftover: bytes
) -> None:
    artifact = make_artifact(server.url + PATH)
    options.cache.partial_path("sha256", artifact.digest).write_bytes(leftover)
    assert ensure_artifact(artifact, options).read_bytes() == CONTENT


def test_a_file_is_downloaded_again_from_a_server_that_ignores_ranges(
    server: Server, options: FetchOptions
) -> None:
    server.takes_ranges = False
    server.cut_after = [1_000_000]
    assert ensure_artifact(make_artifact(server.url + PATH), options).read_bytes() == CONTENT


def test_a_busy_server_is_retried(server: Server, options: FetchOptions) -> None:
    server.statuses = [503, 429]
    assert ensure_artifact(make_artifact(server.url + PATH), options).read_bytes() == CONTENT
    assert len(server.requests) == 3


def test_a_missing_file_is_requested_once(server: Server, options: FetchOptions) -> None:
    with pytest.raises(ArtifactError, match="HTTP 404"):
        ensure_artifact(make_artifact(server.url + "/none"), options)
    assert len(server.requests) == 1


def test_mirrors_are_tried_in_order_before_upstream(
    server: Server, options: FetchOptions, tmp_path: Path
) -> None:
    artifact = make_artifact("https://upstream.invalid" + PATH)
    held = tmp_path / "mirror" / "upstream.invalid" / PATH.lstrip("/")
    both = with_mirrors(options, str(tmp_path / "mirror"), server.url)
    assert ensure_artifact(artifact, both).read_bytes() == CONTENT
    assert server.requests == [("/upstream.invalid" + PATH, None)]
    server.requests.clear()
    held.parent.mkdir(parents=True)
    held.write_bytes(CONTENT)
    other = FetchOptions(cache=Cache(tmp_path / "other"), mirrors=both.mirrors)
    assert ensure_artifact(artifact, other).read_bytes() == CONTENT
    assert server.requests == []


def test_offline_opens_no_connection(
    server: Server, options: FetchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    artifact = make_artifact(server.url + PATH)
    with pytest.raises(ArtifactError, match="no source has the file") as caught:
        ensure_artifact(artifact, with_mirrors(options, server.url, "/nowhere", offline=True))
    assert "--mirror DIR" in (caught.value.hint or "")
    assert server.requests == []


def test_all_failures_are_reported_at_once(server: Server, options: FetchOptions) -> None:
    artifacts = [make_artifact(f"{server.url}/none{i}", str(i).encode()) for i in range(3)]
    with pytest.raises(ArtifactError) as caught:
        ensure_artifacts(artifacts, options)
    assert [f"none{i}" in caught.value.message for i in range(3)] == [True] * 3


def test_an_altered_file_in_the_cache_is_downloaded_again(
    server: Server, options: FetchOptions
) -> None:
    artifact = make_artifact(server.url + PATH)
    path = ensure_artifact(artifact, options)
    path.write_bytes(CONTENT[:-1] + b"!")
    assert ensure_artifact(artifact, options).read_bytes() == CONTENT
    assert len(server.requests) == 2
    assert len(list((options.cache.root / "quarantine").iterdir())) == 1


def test_two_runs_download_a_file_once(server: Server, options: FetchOptions) -> None:
    artifact = make_artifact(server.url + PATH)
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: ensure_artifact(artifact, options), range(4)))
    assert {path.read_bytes() == CONTENT for path in paths} == {True}
    assert len(server.requests) == 1


def fill_disk(monkeypatch: pytest.MonkeyPatch, digest: str) -> None:
    """Every write of the partial file with that digest fails as on a full disk."""
    real = download.open_for_writing

    def open_full(path: Path, how: str) -> BinaryIO:
        if not path.name.endswith(digest):
            return real(path, how)
        path.touch()
        return open("/dev/full", "wb")

    monkeypatch.setattr(download, "open_for_writing", open_full)


def test_a_disk_that_fills_up_is_reported_with_the_bytes_needed_and_leaves_no_file_in_use(
    server: Server, options: FetchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = make_artifact(server.url + PATH)
    fill_disk(monkeypatch, artifact.digest)
    with pytest.raises(OutputError, match="No space left") as caught:
        ensure_artifact(artifact, options)
    assert f"{len(CONTENT)} more bytes are needed" in caught.value.message
    assert " are free" in caught.value.message
    assert not options.cache.has_blob("sha256", artifact.digest)
    monkeypatch.undo()
    assert ensure_artifact(artifact, options).read_bytes() == CONTENT


def test_a_disk_that_is_too_small_is_reported_before_anything_is_written(
    server: Server, options: FetchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = make_artifact(server.url + PATH)
    real = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real(path)._replace(free=1000))
    with pytest.raises(OutputError, match="5120000 more bytes are needed, 1000 are free"):
        ensure_artifact(artifact, options)
    assert list((options.cache.root / "partial").iterdir()) == []


def test_a_full_disk_stops_the_other_downloads(
    server: Server, options: FetchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts = [make_artifact(server.url + PATH, bytes([i])) for i in range(20)]
    fill_disk(monkeypatch, artifacts[1].digest)
    with pytest.raises(OutputError, match="No space left"):
        ensure_artifacts(artifacts, replace(options, jobs=2))
    assert len(server.requests) < 20


def test_an_unreachable_server_is_reported_with_the_sources_and_the_network_to_check(
    options: FetchOptions,
) -> None:
    with pytest.raises(BundlerError) as caught:
        ensure_artifact(make_artifact("http://127.0.0.1:9" + PATH), options)
    assert "http://127.0.0.1:9" in caught.value.message
    assert "check the network, DNS and proxy" in (caught.value.hint or "")


def make_stated(server: Server, size: int, content: bytes = CONTENT) -> Any:
    return replace(make_artifact(server.url + PATH, content), size=size)


@pytest.mark.parametrize("size", [len(CONTENT) - 1, len(CONTENT) + 1], ids=["longer", "shorter"])
def test_a_source_that_states_another_length_is_refused_before_the_download(
    server: Server, options: FetchOptions, size: int
) -> None:
    with pytest.raises(ArtifactError, match=f"expected {size} bytes") as caught:
        ensure_artifact(make_stated(server, size), options)
    assert f"found    {len(CONTENT)} bytes" in caught.value.message
    assert len(server.requests) == 1
    assert list((options.cache.root / "partial").iterdir()) == []


def test_a_download_without_a_stated_length_is_stopped_at_the_pinned_size(
    server: Server, options: FetchOptions
) -> None:
    server.states_length = False
    server.content = CONTENT * 10
    artifact = make_stated(server, 1_000_000)
    with pytest.raises(ArtifactError, match="more bytes; they were not read"):
        ensure_artifact(artifact, options)
    assert not options.cache.partial_path("sha256", artifact.digest).exists()


def test_a_connection_that_ends_early_without_a_stated_length_is_resumed(
    server: Server, options: FetchOptions
) -> None:
    server.states_length = False
    server.cut_after = [2_000_000]
    artifact = make_stated(server, len(CONTENT))
    assert ensure_artifact(artifact, options).read_bytes() == CONTENT
    assert [bool(wanted) for _, wanted in server.requests] == [False, True]


def test_a_chunked_download_that_ends_early_is_resumed(
    server: Server, options: FetchOptions
) -> None:
    server.chunks = 100_000
    server.cut_after = [2_000_000]
    assert ensure_artifact(make_artifact(server.url + PATH), options).read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == [None, "bytes=2000000-"]


def test_a_file_with_a_content_encoding_is_stored_without_decoding(
    server: Server, options: FetchOptions
) -> None:
    server.content = gzip.compress(CONTENT)
    server.headers = {"Content-Encoding": "gzip"}
    artifact = make_artifact(server.url + PATH, server.content)
    assert ensure_artifact(artifact, options).read_bytes() == server.content


def test_a_mirror_on_disk_of_another_length_is_refused(
    options: FetchOptions, tmp_path: Path
) -> None:
    file = tmp_path / "mirror" / "upstream.invalid" / PATH.lstrip("/")
    file.parent.mkdir(parents=True)
    file.write_bytes(b"short")
    artifact = replace(make_artifact("https://upstream.invalid" + PATH), size=len(CONTENT))
    with pytest.raises(ArtifactError, match="found    5 bytes"):
        ensure_artifact(artifact, with_mirrors(options, str(tmp_path / "mirror")))


def test_a_file_that_differs_in_the_last_byte_is_refused(
    server: Server, options: FetchOptions
) -> None:
    server.content = CONTENT[:-1] + b"!"
    artifact = make_stated(server, len(CONTENT))
    with pytest.raises(ArtifactError, match="does not match its pin"):
        ensure_artifact(artifact, options)
    assert not options.cache.has_blob("sha256", artifact.digest)


def test_a_wrong_partial_file_from_another_source_is_downloaded_again(
    server: Server, options: FetchOptions
) -> None:
    artifact = make_artifact(server.url + PATH)
    options.cache.partial_path("sha256", artifact.digest).write_bytes(b"!" * 3_000_000)
    assert ensure_artifact(artifact, options).read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == ["bytes=3000000-", None]


def test_a_complete_partial_file_is_used_without_a_request(
    server: Server, options: FetchOptions
) -> None:
    artifact = make_stated(server, len(CONTENT))
    options.cache.partial_path("sha256", artifact.digest).write_bytes(CONTENT)
    assert ensure_artifact(artifact, options).read_bytes() == CONTENT
    assert server.requests == []


def test_a_file_is_downloaded_again_if_the_server_sends_another_part(
    server: Server, options: FetchOptions
) -> None:
    server.part_from = 7
    artifact = make_artifact(server.url + PATH)
    options.cache.partial_path("sha256", artifact.digest).write_bytes(CONTENT[:3_000_000])
    assert ensure_artifact(artifact, options).read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == ["bytes=3000000-", None]


@pytest.mark.slow
def test_a_connection_that_breaks_often_finishes_while_each_attempt_makes_progress(
    server: Server, options: FetchOptions
) -> None:
    server.content = CONTENT * 3
    server.cut_after = [1_300_000] * 10
    artifact = make_artifact(server.url + PATH, server.content)
    assert ensure_artifact(artifact, options).read_bytes() == server.content
    assert len(server.requests) > 8


def test_a_server_without_progress_is_given_up(server: Server, options: FetchOptions) -> None:
    server.takes_ranges = False
    server.cut_after = [2_000_000] * 99
    with pytest.raises(ArtifactError, match="no source has the file"):
        ensure_artifact(make_artifact(server.url + PATH), options)
    assert len(server.requests) == 5  # four in a row without progress


@pytest.mark.slow
def test_a_file_without_a_pin_is_never_assembled_from_two_answers(
    server: Server, options: FetchOptions
) -> None:
    server.cut_after = [2_000_000]
    found, path = fetch_unpinned(make_artifact(server.url + PATH), options)
    assert path.read_bytes() == CONTENT
    assert found.digest == hashlib.sha256(CONTENT).hexdigest()
    unpinned = replace(make_artifact(server.url + PATH), digest="")
    server.requests.clear()
    server.cut_after = [2_000_000]
    fetch_unpinned(unpinned, options)
    assert [wanted for _, wanted in server.requests] == [None, None]


def fetch_digests(server: Server, options: FetchOptions) -> bytes | None:
    url = server.url + PATH
    return fetch_sidecar(make_artifact(url), DIGEST, url, options)


@pytest.mark.parametrize("status", [401, 403, 451, 503])
def test_an_error_does_not_mean_that_upstream_publishes_no_digest(
    server: Server, options: FetchOptions, status: int
) -> None:
    server.statuses = [status] * 9
    with pytest.raises(ArtifactError, match=rf"the digest of etcd .*\n.*HTTP {status}") as caught:
        fetch_digests(server, options)
    assert "pin the file's digest" in (caught.value.hint or "")


@pytest.mark.parametrize("status", [404, 410])
def test_http_404_means_that_upstream_publishes_no_digest(
    server: Server, options: FetchOptions, status: int
) -> None:
    server.statuses = [status]
    assert fetch_digests(server, options) is None


@pytest.mark.parametrize("status", [403, 503])
@pytest.mark.slow
def test_a_sidecar_is_used_from_the_cache_if_its_server_fails(
    server: Server, options: FetchOptions, status: int
) -> None:
    server.content = b"ab" * 32
    assert fetch_digests(server, options) == server.content
    server.statuses = [status] * 4
    assert fetch_digests(server, options) == server.content
    assert fetch_digests(server, replace(options, offline=True)) == server.content
    server.statuses = [404]
    assert fetch_digests(server, options) is None
    server.content = b"cd" * 32
    assert fetch_digests(server, options) == server.content


def test_an_altered_sidecar_in_the_cache_is_not_used(server: Server, options: FetchOptions) -> None:
    server.content = b"ab" * 32
    assert fetch_digests(server, options) == server.content
    digest = hashlib.sha256(server.content).hexdigest()
    options.cache.blob_path("sha256", digest).write_bytes(b"cd" * 32)
    assert fetch_digests(server, replace(options, offline=True)) is None


def test_a_list_of_digests_that_is_too_large_is_not_read_completely(
    server: Server, options: FetchOptions
) -> None:
    server.states_length = False
    with pytest.raises(ArtifactError, match="more than 1048576 bytes"):
        fetch_digests(server, options)
    assert list(options.cache.root.glob("partial/*")) == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 451])
def test_other_4xx_statuses_are_not_retried(
    server: Server, options: FetchOptions, status: int
) -> None:
    server.statuses = [status] * 9
    with pytest.raises(ArtifactError, match=f"HTTP {status}") as caught:
        ensure_artifact(make_artifact(server.url + PATH), options)
    assert len(server.requests) == 1
    assert "similar pinned versions of etcd: 3.4.23" in (caught.value.hint or "")


def test_what_several_failed_downloads_have_in_common_is_hinted_once(
    server: Server, options: FetchOptions
) -> None:
    server.statuses = [404] * 9
    one = make_artifact(server.url + PATH)
    other = replace(one, component="kubernetes-node", version="1.20.2", digest="0" * 64)
    with pytest.raises(ArtifactError) as caught:
        ensure_artifacts((one, other), options)
    hint = caught.value.hint or ""
    assert hint.count("check the version and the network") == 1
    assert "versions of etcd: " in hint
    assert "versions of kubernetes-node: " in hint


@pytest.mark.slow
def test_a_network_fault_gives_one_message_for_all_files(
    options: FetchOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    artifacts = [
        replace(make_artifact(f"http://127.0.0.{host}:1/{number}"), version=f"3.4.{host}{number}", digest=f"{host}{number}" * 32)
        for host in (1, 2) for number in (1, 2, 3)
    ]  # fmt: skip
    with pytest.raises(ArtifactError) as caught:
        ensure_artifacts(artifacts, options)
    heading, *reasons = caught.value.message.splitlines()
    assert heading.startswith("6 files cannot be downloaded: etcd 3.4.11 (amd64), etcd 3.4.12")
    assert reasons == ["  127.0.0.1:1, 127.0.0.2:1: Connection refused"]
    hint = caught.value.hint or ""
    assert hint.startswith("check the network, DNS and proxy (HTTPS_PROXY) of this machine")
    assert hint.count("--mirror DIR") == 1
    assert "similar pinned versions" not in hint
    assert capsys.readouterr().err.count("retry in") == 2  # one for each host


def test_a_mirror_that_is_down_is_named_once(
    server: Server, options: FetchOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    artifacts = [make_artifact(f"{server.url}/{n}", CONTENT) for n in range(3)]
    with_digests = [replace(a, version=f"3.4.{n}") for n, a in enumerate(artifacts)]
    down = with_mirrors(options, "http://127.0.0.1:1")
    for artifact in with_digests:
        with suppress(ArtifactError):
            ensure_artifact(replace(artifact, digest=artifact.version[-1] * 64), down)
    said = capsys.readouterr().err
    assert said.count("Connection refused; trying the next source") == 1
    assert said.count("Connection refused; retry in") == 1


def test_files_that_fail_for_different_reasons_are_told_apart(
    server: Server, options: FetchOptions
) -> None:
    server.statuses = [403]
    refused = replace(make_artifact("http://127.0.0.1:1/x"), digest="1" * 64)
    with pytest.raises(ArtifactError) as caught:
        ensure_artifacts([make_artifact(server.url + PATH), refused], options)
    assert caught.value.message.count("no source has the file") == 2
    assert "HTTP 403" in caught.value.message
    assert "Connection refused" in caught.value.message


@pytest.mark.slow
def test_a_server_is_retried_when_it_asks_for_it(server: Server, options: FetchOptions) -> None:
    server.statuses = [429, 503]
    server.headers = {"Retry-After": "1"}
    started = time.monotonic()
    assert ensure_artifact(make_artifact(server.url + PATH), options).read_bytes() == CONTENT
    assert 2 <= time.monotonic() - started < 20


def test_a_server_that_asks_to_wait_too_long_is_not_retried(
    server: Server, options: FetchOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    server.statuses = [503]
    server.headers = {"Retry-After": format_datetime(datetime.now(UTC) + timedelta(hours=1))}
    with pytest.raises(ArtifactError, match=r"HTTP 503 .*, and asks to wait 3[56]\d\d s"):
        ensure_artifact(make_artifact(server.url + PATH), options)
    assert len(server.requests) == 1


def test_jobs_limits_the_parallel_downloads(options: FetchOptions) -> None:
    with running() as server:
        server.pause = 0.1
        artifacts = [make_artifact(server.url + PATH, bytes([i])) for i in range(6)]
        with pytest.raises(ArtifactError, match="does not match its pin"):
            ensure_artifacts(artifacts, replace(options, jobs=3))
        assert server.most_at_once == 3
        assert len(server.requests) == 6


def test_an_unreadable_directory_is_reported_and_the_next_source_is_tried(
    server: Server, options: FetchOptions, tmp_path: Path
) -> None:
    directory = tmp_path / "mirror" / f"127.0.0.1:{server.port}" / "v1"
    directory.mkdir(parents=True)
    os.symlink("file.tar.gz", directory / "file.tar.gz")  # a loop: opening it fails
    artifact = make_artifact(server.url + PATH)
    with_mirror = with_mirrors(options, str(tmp_path / "mirror"))
    assert ensure_artifact(artifact, with_mirror).read_bytes() == CONTENT
