"""A web server on loopback whose answers have no end."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PIECE = bytes(1 << 16)
MOST = 4 << 30
"""Bytes after which the server ends in spite of its name, so that a test cannot fill a disk."""


@dataclass
class EndlessServer:
    """What the server answers before the endless part, and what was requested and sent."""

    url: str = ""
    is_chunked: bool = False
    answers: dict[str, bytes] = field(default_factory=dict)  # the end of a path → a complete answer
    headers: dict[str, str] = field(default_factory=dict)  # of endless answers
    requests: list[tuple[str, str]] = field(default_factory=list)  # path, Accept-Encoding
    sent: int = 0


@contextmanager
def run_endless_server() -> Iterator[EndlessServer]:
    state = EndlessServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            state.requests.append((path, self.headers.get("Accept-Encoding", "")))
            for end, content in state.answers.items():
                if path.endswith(end):
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                    return
            self.send_response(200)
            for name, value in state.headers.items():
                self.send_header(name, value)
            if state.is_chunked:
                self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.close_connection = True
            try:
                while state.sent < MOST:
                    self.wfile.write(
                        b"%x\r\n%s\r\n" % (len(PIECE), PIECE) if state.is_chunked else PIECE
                    )
                    state.sent += len(PIECE)
            except OSError:
                pass  # the client closed the connection

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
