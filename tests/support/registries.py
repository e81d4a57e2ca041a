"""Images in the formats of registries and archives, and a registry that misbehaves on request."""

import base64
import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
LAYER_TYPES = {
    OCI_MANIFEST: "application/vnd.oci.image.layer.v1.tar+gzip",
    DOCKER_MANIFEST: "application/vnd.docker.image.rootfs.diff.tar.gzip",
}


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def make_layer(name: str, content: bytes) -> bytes:
    """A tar with one file."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        member.mode = 0o755
        tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


@dataclass
class MadeImage:
    """An image in a registry: blobs and documents by digest."""

    layers: list[bytes]  # uncompressed
    arch: str = "amd64"
    media_type: str = OCI_MANIFEST
    extra: dict[str, Any] = field(default_factory=dict)  # added to the configuration

    def __post_init__(self) -> None:
        self.blobs = [gzip.compress(layer, mtime=0) for layer in self.layers]
        self.config = json.dumps(
            {
                "architecture": self.arch,
                "os": "linux",
                "config": {"Entrypoint": ["/run"]},
                "rootfs": {"type": "layers", "diff_ids": [sha256(layer) for layer in self.layers]},
            }
            | self.extra
        ).encode()
        self.manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": self.media_type,
                "config": {
                    "mediaType": "application/vnd.oci.image.config.v1+json",
                    "digest": sha256(self.config),
                    "size": len(self.config),
                },
                "layers": [
                    {
                        "mediaType": LAYER_TYPES[self.media_type],
                        "digest": sha256(blob),
                        "size": len(blob),
                    }
                    for blob in self.blobs
                ],
            }
        ).encode()

    @property
    def image_id(self) -> str:
        return sha256(self.config)

    @property
    def contents(self) -> dict[str, bytes]:
        """Every blob, including the manifest."""
        return {sha256(content): content for content in (self.manifest, self.config, *self.blobs)}


def make_index(images: list[MadeImage], media_type: str = OCI_INDEX) -> bytes:
    """An index of all architectures with an attestation, as registries have."""
    manifests = [
        {
            "mediaType": image.media_type,
            "digest": sha256(image.manifest),
            "size": len(image.manifest),
            "platform": {"architecture": image.arch, "os": "linux"},
        }
        for image in images
    ]
    manifests.append(
        {
            "mediaType": OCI_MANIFEST,
            "digest": sha256(b"attestation"),
            "size": 11,
            "platform": {"architecture": "unknown", "os": "unknown"},
        }
    )
    return json.dumps(
        {"schemaVersion": 2, "mediaType": media_type, "manifests": manifests}
    ).encode()


def write_oci_directory(directory: Path, images: dict[str, list[MadeImage]]) -> None:
    """Name → image, or images of several architectures in one index."""
    manifests = []
    (directory / "blobs/sha256").mkdir(parents=True)
    for name, made in images.items():
        top = made[0].manifest if len(made) == 1 else make_index(made)
        contents = {sha256(top): top}
        for image in made:
            contents |= image.contents
        for digest, content in contents.items():
            (directory / "blobs/sha256" / digest.removeprefix("sha256:")).write_bytes(content)
        manifests.append(
            {
                "mediaType": made[0].media_type if len(made) == 1 else OCI_INDEX,
                "digest": sha256(top),
                "size": len(top),
                "annotations": {"org.opencontainers.image.ref.name": name},
            }
        )
    (directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": manifests}))


def pack_directory(directory: Path, target: Path) -> None:
    """An OCI archive of the images."""
    with tarfile.open(target, "w") as tar:
        for path in sorted(directory.rglob("*")):
            tar.add(path, path.relative_to(directory).as_posix(), recursive=False)


@dataclass
class Registry:
    """What a registry serves, how it misbehaves, and the requests that it got."""

    host: str = ""
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)  # NAME/TAG-or-DIGEST
    blobs: dict[str, bytes] = field(default_factory=dict)
    faults: list[tuple[str, int, dict[str, str]]] = field(default_factory=list)
    """(part of the path, status, headers); each is answered once."""
    cut: dict[str, int] = field(default_factory=dict)
    """Blob → bytes after which a connection ends, once."""
    begins: list[int] = field(default_factory=list)  # the offsets of blob answers
    login: str = ""  # user:password for tokens; empty: no login is needed
    wants_token: bool = False
    wants_basic: bool = False
    token: str = "good-token"
    token_pieces: tuple[int, ...] = ()  # lengths; empty: a token's answer is not sent in pieces
    realm: str = ""
    documents: dict[str, bytes] = field(default_factory=dict)  # part of a path → content
    requests: list[tuple[str, str]] = field(default_factory=list)  # path, Authorization

    def put(self, name: str, tag: str, *images: MadeImage, index_type: str = "") -> str:
        """Serve an image, or several in one index; return the digest that the tag stands for."""
        for image in images:
            self.blobs |= image.contents
            self.manifests[f"{name}/{sha256(image.manifest)}"] = (image.media_type, image.manifest)
        top, media_type = images[0].manifest, images[0].media_type
        if index_type or len(images) > 1:
            media_type = index_type or OCI_INDEX
            top = make_index(list(images), media_type)
        for key in (tag, sha256(top)):
            self.manifests[f"{name}/{key}"] = (media_type, top)
        return sha256(top)

    def paths(self, part: str = "") -> list[str]:
        return [path for path, _ in self.requests if part in path]


@contextmanager
def run_registry() -> Iterator[Registry]:
    """On loopback, without TLS."""
    state = Registry()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            authorization = self.headers.get("Authorization", "")
            state.requests.append((self.path, authorization))
            for fault in state.faults:
                if fault[0] in self.path:
                    state.faults.remove(fault)
                    self.answer(fault[1], b"", dict(fault[2]))
                    return
            for part, content in state.documents.items():
                if part in f"{url.path}/":
                    self.answer(200, content, {})
                    return
            if url.path == "/token":
                self.give_token(parse_qs(url.query), authorization)
                return
            if state.wants_token and authorization != f"Bearer {state.token}":
                name = url.path.removeprefix("/v2/").rsplit("/", 2)[0]
                realm = state.realm or f"http://{state.host}/token"
                challenge = f'Bearer realm="{realm}",service="here",scope="repository:{name}:pull"'
                self.answer(401, b"", {"WWW-Authenticate": challenge})
                return
            wanted = f"Basic {base64.b64encode(state.login.encode()).decode()}"
            if state.wants_basic and authorization != wanted:
                self.answer(401, b"", {"WWW-Authenticate": 'Basic realm="here"'})
                return
            self.serve(url.path)

        def give_token(self, fields: dict[str, list[str]], authorization: str) -> None:
            wanted = f"Basic {base64.b64encode(state.login.encode()).decode()}"
            if state.login and authorization != wanted:
                self.answer(401, b"", {})
                return
            assert fields["service"] == ["here"]
            assert fields["scope"][0].startswith("repository:")
            answer = json.dumps({"token": state.token}).encode()
            if state.token_pieces:
                self.answer_in_pieces(answer, state.token_pieces)
            else:
                self.answer(200, answer, {})

        def answer_in_pieces(self, body: bytes, lengths: tuple[int, ...]) -> None:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for length in (*lengths, len(body)):
                piece, body = body[:length], body[length:]
                if piece:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")

        def serve(self, path: str) -> None:
            name, kind, key = path.removeprefix("/v2/").rsplit("/", 2)
            if kind == "manifests" and f"{name}/{key}" in state.manifests:
                media_type, content = state.manifests[f"{name}/{key}"]
                self.answer(200, content, {"Content-Type": media_type})
            elif kind == "blobs" and key in state.blobs:
                self.serve_blob(state.blobs[key])
            elif kind == "tags":
                tags = [k.rpartition("/")[2] for k in state.manifests if k.startswith(f"{name}/")]
                self.answer(200, json.dumps({"name": name, "tags": tags}).encode(), {})
            else:
                self.answer(404, b'{"errors":[]}', {})

        def serve_blob(self, content: bytes) -> None:
            wanted = self.headers.get("Range")
            begin = int(wanted[6:-1]) if wanted else 0
            headers = (
                {"Content-Range": f"bytes {begin}-{len(content) - 1}/{len(content)}"}
                if begin
                else {}
            )
            body = content[begin:]
            state.begins.append(begin)
            cut = state.cut.pop(sha256(content), len(body))
            self.answer(206 if begin else 200, body, headers, cut)

        def answer(
            self, status: int, body: bytes, headers: dict[str, str], cut: int | None = None
        ) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:cut])
            if cut is not None and cut < len(body):
                self.close_connection = True

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    state.host = f"127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
