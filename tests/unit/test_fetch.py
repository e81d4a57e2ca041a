"""Upstream files: from the cache, mirrors and upstream, verified, resumed, and never half used."""

import errno
import hashlib
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bundler.cache import Cache
from bundler.catalog import Artifact
from bundler.errors import ArtifactError, BundlerError, OutputError
from bundler.fetch import FetchOptions, ensure_artifact, ensure_artifacts
from bundler.mirrors import parse_mirror

CONTENT = bytes(range(256)) * 20_000  # 5 MB: more than one chunk
PATH = "/v1/file.tar.gz"


@dataclass
class Server:
    """A web server that misbehaves as told, and remembers what it was asked for."""

    url: str = ""
    content: bytes = CONTENT
    statuses: list[int] = field(default_factory=list)  # given before any content
    cut_after: list[int] = field(default_factory=list)  # bytes after which a connection ends
    takes_ranges: bool = True
    requests: list[tuple[str, str | None]] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    told = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            told.requests.append((self.path, wanted))
            if told.statuses:
                self.send_error(told.statuses.pop(0))
                return
            if not self.path.endswith(PATH):
                self.send_error(404)
                return
            begin = int(wanted[6:-1]) if wanted and told.takes_ranges else 0
            if wanted and told.takes_ranges and begin >= len(told.content):
                self.send_error(416)
                return
            self.send_response(206 if begin else 200)
            if begin:
                self.send_header(
                    "Content-Range", f"bytes {begin}-{len(told.content) - 1}/{len(told.content)}"
                )
            self.send_header("Content-Length", str(len(told.content) - begin))
            self.end_headers()
            body = told.content[begin:]
            if told.cut_after:
                body = body[: told.cut_after.pop(0)]
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    told.url = f"http://127.0.0.1:{httpd.server_port}"
    yield told
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def make_artifact(url: str, content: bytes = CONTENT) -> Artifact:
    return Artifact(
        component="etcd", version="3.4.23", arch="amd64", url=url, algorithm="sha256",
        digest=hashlib.sha256(content).hexdigest(), source="a test",
    )  # fmt: skip


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


def test_a_wrong_digest_is_put_aside_and_never_used(server: Server, options: FetchOptions) -> None:
    artifact = make_artifact(server.url + PATH, b"something else")
    with pytest.raises(ArtifactError, match="is not what its pin says") as caught:
        ensure_artifact(artifact, options)
    assert artifact.digest in caught.value.message
    assert hashlib.sha256(CONTENT).hexdigest() in caught.value.message
    aside = list((options.cache.root / "quarantine").iterdir())
    assert [path.read_bytes() == CONTENT for path in aside] == [True]
    assert str(aside[0]) in caught.value.message
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


@pytest.mark.parametrize("leftover", [CONTENT, CONTENT + b"more"], ids=["whole", "too long"])
def test_a_leftover_as_long_as_the_file_is_no_trap(
    server: Server, options: FetchOptions, leftover: bytes
) -> None:
    artifact = make_artifact(server.url + PATH)
    options.cache.partial_path("sha256", artifact.digest).write_bytes(leftover)
    assert ensure_artifact(artifact, options).read_bytes() == CONTENT


def test_a_server_that_ignores_ranges_sends_all_again(
    server: Server, options: FetchOptions
) -> None:
    server.takes_ranges = False
    server.cut_after = [1_000_000]
    assert ensure_artifact(make_artifact(server.url + PATH), options).read_bytes() == CONTENT


def test_a_busy_server_is_asked_again(server: Server, options: FetchOptions) -> None:
    server.statuses = [503, 429]
    assert ensure_artifact(make_artifact(server.url + PATH), options).read_bytes() == CONTENT
    assert len(server.requests) == 3


def test_a_file_that_is_not_there_is_asked_for_once(server: Server, options: FetchOptions) -> None:
    with pytest.raises(ArtifactError, match="HTTP 404"):
        ensure_artifact(make_artifact(server.url + "/none"), options)
    assert len(server.requests) == 1


def test_mirrors_are_asked_in_order_and_before_upstream(
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
    with pytest.raises(ArtifactError, match="cannot be had") as caught:
        ensure_artifact(artifact, with_mirrors(options, server.url, "/nowhere", offline=True))
    assert "--mirror DIR" in (caught.value.hint or "")
    assert server.requests == []


def test_all_failures_are_told_at_once(server: Server, options: FetchOptions) -> None:
    artifacts = [make_artifact(f"{server.url}/none{i}", str(i).encode()) for i in range(3)]
    with pytest.raises(ArtifactError) as caught:
        ensure_artifacts(artifacts, options)
    assert [f"none{i}" in caught.value.message for i in range(3)] == [True] * 3


def test_a_cached_file_that_was_altered_is_noticed_and_fetched_again(
    server: Server, options: FetchOptions
) -> None:
    artifact = make_artifact(server.url + PATH)
    path = ensure_artifact(artifact, options)
    path.write_bytes(CONTENT[:-1] + b"!")
    assert ensure_artifact(artifact, options).read_bytes() == CONTENT
    assert len(server.requests) == 2
    assert len(list((options.cache.root / "quarantine").iterdir())) == 1


def test_two_at_once_fetch_once(server: Server, options: FetchOptions) -> None:
    artifact = make_artifact(server.url + PATH)
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: ensure_artifact(artifact, options), range(4)))
    assert {path.read_bytes() == CONTENT for path in paths} == {True}
    assert len(server.requests) == 1


def test_a_full_disk_is_told_and_leaves_no_file_in_use(
    server: Server, options: FetchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FullFile:
        def __init__(self, file: Any) -> None:
            self._file = file

        def __enter__(self) -> "FullFile":
            return self

        def __exit__(self, *_: object) -> None:
            self._file.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

        def write(self, data: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    opened = Path.open

    def open_full(self: Path, mode: str = "r", *arguments: Any, **words: Any) -> Any:
        file = opened(self, mode, *arguments, **words)
        return FullFile(file) if "partial" in str(self) and "b" in mode and mode != "rb" else file

    monkeypatch.setattr(Path, "open", open_full)
    artifact = make_artifact(server.url + PATH)
    with pytest.raises(OutputError, match="No space left"):
        ensure_artifact(artifact, options)
    monkeypatch.undo()
    assert ensure_artifact(artifact, options).read_bytes() == CONTENT


def test_an_unreachable_server_names_what_was_tried_and_versions_near_it(
    options: FetchOptions,
) -> None:
    with pytest.raises(BundlerError) as caught:
        ensure_artifact(make_artifact("http://127.0.0.1:9" + PATH), options)
    assert "http://127.0.0.1:9" in caught.value.message
    assert "3.4." in (caught.value.hint or "")
