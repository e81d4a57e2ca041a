"""bundler fetch, killed twenty times: whole in the end, and next to nothing is fetched twice."""

import hashlib
import json
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from descriptions import write_description, write_upstream

PIECE = 1 << 16  # bytes sent at a time
PAUSE = 0.008  # seconds between them: about 8 MB/s a connection
KILLS = 20


class Upstream:
    """A server of a few large files, that counts the bytes that it gives away."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        self.sent = 0
        self.contents = contents
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = upstream.contents[self.path]
                wanted = self.headers.get("Range")
                begin = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
                # what waits in the kernel at a kill is lost, and no fault of bundler's
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
                    time.sleep(PAUSE)

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


def test_a_fetch_killed_twenty_times_ends_whole(upstream: Upstream, tmp_path: Path) -> None:
    description = write_description(tmp_path)
    pins = json.loads(write_upstream(tmp_path, description).read_text())
    for number, pin in enumerate(pins["artifacts"].values()):
        content = random.Random(number).randbytes(30_000_000)
        upstream.contents[f"/{number}"] = content
        pin["url"] = f"http://127.0.0.1:{upstream.server.server_port}/{number}"
        pin["sha256"] = hashlib.sha256(content).hexdigest()
    (tmp_path / "pins.yaml").write_text(json.dumps(pins))
    total = sum(map(len, upstream.contents.values()))
    bundler = Path(sys.executable).with_name("bundler")
    command = [bundler, "fetch", "-q", "-c", description, "--pins", tmp_path / "pins.yaml"]
    command += ["--cache", tmp_path / "cache"]

    chance = random.Random(4)
    for kill in range(KILLS):
        stop_at = min(total - PIECE, total * (kill + chance.random()) / KILLS)
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        while upstream.sent < stop_at and process.poll() is None:
            time.sleep(0.005)
        assert process.poll() is None, f"ended before it was killed: {process.returncode}"
        process.kill()
        process.communicate()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = {line.split()[0]: Path(line.split()[2]) for line in done.stdout.splitlines()}
    assert set(found) == {f"sha256:{pin['sha256']}" for pin in pins["artifacts"].values()}
    for digest, path in found.items():
        assert digest == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    assert upstream.sent <= 1.1 * total, f"{upstream.sent / total:.3f} times the bytes"
    print(f"killed {KILLS} times: {upstream.sent / total:.3f} times the bytes")
