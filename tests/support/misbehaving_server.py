"""Web servers and proxies on loopback that misbehave as tests set them."""

import hashlib
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from bundler.catalog import MAX_SIZES, Artifact

CONTENT = bytes(range(256)) * 20_000  # 5 MB: more than one chunk
PATH = "/v1/file.tar.gz"


def make_artifact(url: str, content: bytes = CONTENT) -> Artifact:
    return Artifact(
        component="etcd", version="3.4.23", arch="amd64", url=url, algorithm="sha256",
        digest=hashlib.sha256(content).hexdigest(), source="a test",
        most=MAX_SIZES["etcd"],
    )  # fmt: skip


@dataclass
class Server:
    """A web server with one file; its fields make it misbehave, and it records the requests."""

    url: str = ""
    content: bytes = CONTENT
    statuses: list[int] = field(default_factory=list)  # answered before any content
    headers: dict[str, str] = field(default_factory=dict)  # sent with every answer
    redirects: dict[str, str] = field(default_factory=dict)  # path → Location
    cut_after: list[int] = field(default_factory=list)  # bytes after which a connection ends
    takes_ranges: bool = True
    states_length: bool = True
    chunks: int = 0  # size of the chunks that an answer comes in (HTTP/1.1), without a length
    part_from: int | None = None  # answers every Range with the part that starts there
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    pause: float = 0.0  # seconds before each answer
    at_once: int = 0  # requests that are being answered
    most_at_once: int = 0

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0


class _Handler(BaseHTTPRequestHandler):
    state: ClassVar[Server]

    def do_GET(self) -> None:
        state, wanted = self.state, self.headers.get("Range")
        state.requests.append((self.path, wanted))
        state.authorizations.append(self.headers.get("Authorization"))
        state.at_once += 1
        state.most_at_once = max(state.most_at_once, state.at_once)
        time.sleep(state.pause)
        state.at_once -= 1
        if state.statuses:
            self.answer(state.statuses.pop(0))
        elif self.path in state.redirects:
            self.answer(302, {"Location": state.redirects[self.path]}, b"x" * 100_000)
        elif not self.path.endswith(PATH):
            self.answer(404)
        else:
            self.give_file(wanted)

    def give_file(self, wanted: str | None) -> None:
        state = self.state
        begin = int(wanted[6:-1]) if wanted and state.takes_ranges else 0
        end = len(state.content)
        if begin and state.part_from is not None:
            begin = state.part_from
        if begin and begin >= end:
            self.answer(416)
            return
        part = {"Content-Range": f"bytes {begin}-{end - 1}/{end}"} if begin else {}
        body = state.content[begin:]
        cut = state.cut_after.pop(0) if state.cut_after else len(body)
        self.answer(206 if begin else 200, part, body, cut)

    def answer(
        self, status: int, headers: dict[str, str] | None = None, body: bytes = b"", cut: int = -1
    ) -> None:
        self.send_response(status)
        for name, value in (self.state.headers | (headers or {})).items():
            self.send_header(name, value)
        if self.state.chunks:
            self.send_header("Transfer-Encoding", "chunked")
        elif self.state.states_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        is_whole = cut < 0 or cut >= len(body)
        body = body if is_whole else body[:cut]
        try:
            for at in range(0, len(body), self.state.chunks) if self.state.chunks else ():
                piece = body[at : at + self.state.chunks]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            end = b"0\r\n\r\n" if is_whole else b""
            self.wfile.write(end if self.state.chunks else body)
        except OSError:
            self.close_connection = True  # the client closed the connection

    def log_message(self, *arguments: Any) -> None:
        pass


class _ProxyHandler(BaseHTTPRequestHandler):
    state: ClassVar[Server]

    def do_GET(self) -> None:
        """Plain HTTP: the request line has the complete URL; `state` answers for every host."""
        self.state.requests.append((self.path, None))
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.state.content)))
        self.end_headers()
        self.wfile.write(self.state.content)

    def do_CONNECT(self) -> None:
        """A tunnel to a port of this machine."""
        self.state.requests.append((self.path, None))
        if self.state.statuses:
            self.send_error(self.state.statuses.pop(0))
            return
        port = int(self.path.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as far:
            self.send_response(200)
            self.end_headers()
            ends = {self.connection: far, far: self.connection}
            while True:
                for ready in select.select(list(ends), [], [], 10)[0] or [None]:
                    data = ready.recv(1 << 16) if ready else b""
                    if not data:
                        return
                    ends[ready].sendall(data)

    def log_message(self, *arguments: Any) -> None:
        pass


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@contextmanager
def running(certificate: Path | None = None, *, is_proxy: bool = False) -> Iterator[Server]:
    """A server in a thread; with a certificate (and its key NAME.key) it uses TLS."""
    state = Server()
    base = _ProxyHandler if is_proxy else _Handler
    httpd = _Quiet(("127.0.0.1", 0), type("Handler", (base,), {"state": state}))
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        httpd.socket = context.wrap_socket(
            httpd.socket, server_side=True, do_handshake_on_connect=False
        )
    thread = threading.Thread(target=httpd.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    state.url = f"{'https' if certificate else 'http'}://127.0.0.1:{httpd.server_port}"
    yield state
    httpd.shutdown()
    httpd.server_close()
    thread.join()
