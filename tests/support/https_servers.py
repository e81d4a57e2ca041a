"""TLS servers on loopback whose answers the path of a request chooses."""

import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/garbage":
            self.wfile.write(b"this is no HTTP\n")
            return
        if self.path == "/nothing":
            return
        self.send_response(int(self.path.lstrip("/")))
        self.send_header("X-Host", self.headers["Host"])
        self.end_headers()
        self.wfile.write(b"Q is no command\n\nlast, without an end")

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, dict(self.headers), body))  # type: ignore[attr-defined]
        self.send_response(self.server.put_status)  # type: ignore[attr-defined]
        self.end_headers()
        self.wfile.write(b"the answer")

    def log_message(self, *arguments: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 20
    put_status = 201

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.received: list[tuple[str, dict[str, str], bytes]] = []
        """Path, headers and body of each PUT."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


def serve(certificate: Path, clients: Path | None = None) -> Server:
    """Start a server in a thread; with `clients`, it wants a client certificate of that CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    if clients:
        context.verify_mode = ssl.CERT_REQUIRED
        # With 1.3 the alert follows the handshake, and a reset may overtake it.
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.load_verify_locations(clients)
    server = Server(("127.0.0.1", 0), Handler)
    # The handshake takes place in the request's thread: a client that fails it blocks no other.
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server
