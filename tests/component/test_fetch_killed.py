"""bundler fetch as a process: killed twenty times, two in parallel, interrupted, bounded memory."""

import hashlib
import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.descriptions import write_description, write_upstream
from support.memory import run_measured

from bundler.cache.store import Cache

PIECE = 1 << 16  # bytes sent at a time
PAUSE = 0.008  # seconds between pieces: about 8 MB/s for each connection


class Upstream:
    """A server with a few large files that counts the bytes that it sends."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        self.sent = 0
        self.begins: list[tuple[str, int]] = []  # path and first byte of each request
        self.pause = PAUSE
        self.contents = contents
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = upstream.contents[self.path]
                wanted = self.headers.get("Range")
                begin = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
                upstream.begins.append((self.path, begin))
                # bytes in kernel buffers are lost at a kill; bundler cannot avoid that
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PIECE)
                self.send_response(206 if wanted else 200)
                self.send_header("Content-Length", str(len(content) - begin))
                if wanted:
                    self.send_header(
                        "Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}"
                    )
                self.end_headers()
                for at in range(begin, len(content), PIECE):
                    try:
                        self.wfile.write(content[at : at + PIECE])
                    except OSError:
                        return
                    upstream.sent += len(content[at : at + PIECE])
                    time.sleep(upstream.pause)

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    made = Upstream({})
    yield made
    made.server.shutdown()
    made.server.server_close()


def prepare(upstream: Upstream, directory: Path, size: int) -> list[str | Path]:
    """Write a cluster whose upstream files are `size` random bytes; return the fetch command."""
    description = write_description(directory)
    pins = json.loads(write_upstream(directory, description).read_text())
    for number, pin in enumerate(pins["artifacts"].values()):
        content = random.Random(number).randbytes(size)
        upstream.contents[f"/{number}"] = content
        pin["url"] = f"http://127.0.0.1:{upstream.server.server_port}/{number}"
        pin["sha256"] = hashlib.sha256(content).hexdigest()
    (directory / "pins.yaml").write_text(json.dumps(pins))
    bundler = Path(sys.executable).with_name("bundler")
    command = [bundler, "fetch", "-q", "-c", description, "--pins", directory / "pins.yaml"]
    return [*command, "--cache", directory / "cache"]


def check_whole(upstream: Upstream, printed: str) -> None:
    """Check that every file is complete and correct."""
    lines = [line.split() for line in printed.splitlines() if line.startswith("sha256:")]
    found = {digest: Path(path) for digest, _, path in lines}
    digests = {hashlib.sha256(content).hexdigest() for content in upstream.contents.values()}
    assert set(found) == {f"sha256:{digest}" for digest in digests}
    for digest, path in found.items():
        assert digest == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


@pytest.mark.parametrize("kills", [5, pytest.param(20, marks=pytest.mark.long)])
def test_a_fetch_that_is_killed_many_times_completes(
    upstream: Upstream, tmp_path: Path, kills: int
) -> None:
    command = prepare(upstream, tmp_path, 30_000_000)
    total = sum(map(len, upstream.contents.values()))

    chance = random.Random(4)
    on_disk: dict[str, int] = {}
    for kill in range(kills):
        upstream.begins.clear()
        stop_at = min(total - PIECE, total * (kill + chance.random()) / kills)
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        while upstream.sent < stop_at and process.poll() is None:
            time.sleep(0.005)
        assert process.poll() is None, f"ended before it was killed: {process.returncode}"
        process.kill()
        process.communicate()
        # what is on the disk is not asked for again; only what the kernel had received is
        assert all(begin == on_disk.get(path, 0) for path, begin in upstream.begins)
        on_disk = measure_partial_files(upstream, tmp_path / "cache")
    upstream.begins.clear()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert all(begin == on_disk.get(path, 0) for path, begin in upstream.begins)
    check_whole(upstream, done.stdout)
    print(f"killed {kills} times: {upstream.sent / total:.3f} times the bytes")


def measure_partial_files(upstream: Upstream, cache: Path) -> dict[str, int]:
    """Map the paths at the server to the bytes of their partial files."""
    files = {
        path: Cache(cache).partial_path("sha256", hashlib.sha256(content).hexdigest())
        for path, content in upstream.contents.items()
    }
    return {path: file.stat().st_size for path, file in files.items() if file.exists()}


def test_two_parallel_fetches_share_their_downloads(upstream: Upstream, tmp_path: Path) -> None:
    command = prepare(upstream, tmp_path, 4_000_000)
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    for text in printed:
        check_whole(upstream, text)
    assert upstream.sent == sum(map(len, upstream.contents.values()))


def test_an_interrupted_fetch_ends_soon_without_a_traceback(
    upstream: Upstream, tmp_path: Path
) -> None:
    command = prepare(upstream, tmp_path, 100_000_000)
    # `env` enables SIGINT again, which a shell disables for background processes
    process = subprocess.Popen(
        ["env", "--default-signal=INT", *command],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while upstream.sent < 1_000_000:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)  # the complete download would take longer
    assert process.returncode == 130
    assert "the next run resumes" in said
    assert "Traceback" not in said


def test_memory_is_bounded_for_large_files(upstream: Upstream, tmp_path: Path) -> None:
    upstream.pause = 0
    command = prepare(upstream, tmp_path, 150_000_000)
    assert sum(map(len, upstream.contents.values())) > 450_000_000
    peak, said = run_measured(command)
    check_whole(upstream, said)
    assert peak < 200 << 20
