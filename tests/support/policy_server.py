"""The server of a site that API servers ask: an OIDC issuer, webhooks for tokens, rights and images, and an audit sink."""

import base64
import json
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from support.ca import CertificateAuthority

TOKEN = "Hush-token-of-the-api-server"
"""What API servers must send to the webhook for tokens."""


@dataclass
class PolicyServer:
    """Listens on one address; keeps what it was asked."""

    directory: Path
    address: str
    asked: dict[str, list[Any]] = field(default_factory=dict)  # path → bodies
    clients: dict[str, str] = field(default_factory=dict)  # path → CN of the client's certificate
    answers: dict[str, Callable[[Any], Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ca = CertificateAuthority(self.directory, "site-ca")
        own = self.ca.issue("site", [x509.IPAddress(ip_address(self.address))])
        self.client = self.ca.issue("api-server", [])
        (self.directory / "token").write_text(f"{TOKEN}\n")
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(own, own.with_suffix(".key"))
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(self.ca.file)
        self.server = ThreadingHTTPServer((self.address, 0), self._make_handler())
        self.server.daemon_threads = True
        self.server.socket = context.wrap_socket(
            self.server.socket, server_side=True, do_handshake_on_connect=False
        )
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"https://{self.address}:{self.server.server_address[1]}"

    @property
    def issuer(self) -> str:
        return f"{self.url}/oidc"

    def webhook(self, path: str, **more: object) -> dict[str, Any]:
        """The keys of cluster.yaml for one path, with a client certificate unless `more` has a token."""
        pair = {"certificate": str(self.client), "key": str(self.client.with_suffix(".key"))}
        return {
            "url": f"{self.url}/{path}",
            "ca": str(self.ca.file),
            **({} if "token" in more else pair),
            **more,
        }

    def sign(self, **claims: object) -> str:
        """A token of the issuer (RS256)."""
        now = int(time.time())
        body = {"iss": self.issuer, "iat": now, "exp": now + 600, **claims}
        head = {"alg": "RS256", "kid": "one", "typ": "JWT"}
        text = ".".join(encode(json.dumps(part).encode()) for part in (head, body))
        return f"{text}.{encode(self.key.sign(text.encode(), padding.PKCS1v15(), SHA256()))}"

    def answer(self, method: str, path: str, body: Any, token: str) -> tuple[int, Any]:
        if path == "/oidc/.well-known/openid-configuration":
            return 200, {
                "issuer": self.issuer, "jwks_uri": f"{self.issuer}/keys",
                "id_token_signing_alg_values_supported": ["RS256"], "subject_types_supported": ["public"],
                "response_types_supported": ["id_token"],
            }  # fmt: skip
        if path == "/oidc/keys":
            numbers = self.key.public_key().public_numbers()
            n, e = (
                encode(x.to_bytes((x.bit_length() + 7) // 8, "big")) for x in (numbers.n, numbers.e)
            )
            return 200, {
                "keys": [{"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "one", "n": n, "e": e}]
            }
        name = path.strip("/").partition("?")[0]
        if name == "tokens" and token != f"Bearer {TOKEN}":
            return 401, {}
        if method == "POST" and name in self.answers:
            self.asked.setdefault(name, []).append(body)
            return 200, {**body, "status": self.answers[name](body)}
        return 404, {}

    def _make_handler(self) -> type[BaseHTTPRequestHandler]:
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._serve(None)

            def do_POST(self) -> None:
                self._serve(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def _serve(self, body: Any) -> None:
                peer: dict[str, Any] = self.connection.getpeercert() or {}  # type: ignore[attr-defined]
                names = [value for row in peer.get("subject", ()) for _, value in row]
                site.clients[self.path.strip("/").partition("?")[0]] = "".join(names)
                token = self.headers.get("Authorization", "")
                status, answer = site.answer(self.command, self.path, body, token)
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_arguments: object) -> None:
                pass

        return Handler

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def encode(content: bytes) -> str:
    """Base64 for URLs, without padding."""
    return base64.urlsafe_b64encode(content).decode().rstrip("=")
