"""What fetching costs compared with curl and sha256sum, in one run (make bench).

curl + sha256sum    `curl -o /dev/null`, then `sha256sum` of the same file
bundler fetch       the whole command: download, verify, flush to the disk, into the cache

From a server on loopback, which sends a file of 1.5 GB as fast as the kernel can.
Exit code 1 if a bound is exceeded.
"""

import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from bench import BUNDLER, PROJECT, judge, measure

sys.path.insert(0, str(PROJECT / "tests"))
from support.descriptions import write_description, write_upstream

SIZE = 1_500_000_000
ROUNDS = 5
RATIO = 0.8  # of curl and sha256sum's throughput
MEMORY = 200  # MB


class Handler(SimpleHTTPRequestHandler):
    """Sends files with sendfile(2)."""

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        self.send_response(200)
        self.send_header("Content-Length", str(path.stat().st_size))
        self.end_headers()
        self.wfile.flush()
        with path.open("rb") as file:
            self.connection.sendfile(file)

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


def serve(directory: Path) -> str:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(directory)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def write_inputs(work: Path, url: str, digest: str) -> list[object]:
    """Write a cluster whose etcd is the large file; return the command that fetches it."""
    description = write_description(work)
    pins = json.loads(write_upstream(work, description).read_text())
    pins["artifacts"]["etcd/amd64"] = {"url": url, "sha256": digest}
    (work / "pins.yaml").write_text(json.dumps(pins))
    command = [BUNDLER, "fetch", "-q", "-c", description, "--pins", work / "pins.yaml"]
    return [*command, "--mirror", f"upstream.example={work / 'mirror' / 'upstream.example'}"]


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="bundler-bench-") as name:
        work = Path(name)
        (work / "served").mkdir()
        file = work / "served" / "large"
        subprocess.run(f"head -c {SIZE} /dev/urandom >{file}", shell=True, check=True)  # noqa: S602
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        url = f"{serve(work / 'served')}/large"
        command = write_inputs(work, url, digest)
        plain, fetched, memory = [], [], 0
        for _ in range(ROUNDS):  # alternating, so that other load on the machine counts for both
            curl, _ = measure("curl", "-s", "-o", "/dev/null", url)
            plain.append(curl + measure("sha256sum", file)[0])
            seconds, peak = measure(*command, "--cache", work / "cache")
            fetched.append(seconds)
            memory = max(memory, peak)
            subprocess.run(["rm", "-rf", work / "cache"], check=True)
    for what, times in (("curl + sha256sum", plain), ("bundler fetch", fetched)):
        seconds = statistics.median(times)
        print(f"{what:17}{seconds:6.2f} s   {SIZE / 1e6 / seconds:.0f} MB/s")
    ratio = statistics.median(a / b for a, b in zip(plain, fetched, strict=True))
    bounds = (
        judge("throughput to that of curl + sha256sum", ratio, RATIO, at_least=True),
        judge("peak memory of bundler fetch", (memory << 20) / 1e6, MEMORY, " MB"),
    )
    return 0 if all(bounds) else 1


if __name__ == "__main__":
    sys.exit(main())
