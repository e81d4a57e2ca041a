"""Images from a real registry (Debian's docker-registry) on loopback, with and without tokens."""

import base64
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID
from support.containerd_program import NEEDS_CONTAINERD, run_containerd
from support.descriptions import write_upstream
from support.paths import LAB_CACHE
from support.registries import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_MANIFEST,
    MadeImage,
    make_index,
    make_layer,
    sha256,
)

from bundler.cache.store import Cache
from bundler.pipeline import render
from bundler.project import Inputs

PROGRAM = shutil.which("docker-registry", path=f"{os.environ['PATH']}:{LAB_CACHE}/programs/usr/bin")
pytestmark = pytest.mark.skipif(
    not PROGRAM,
    reason="a real registry cannot run: there is no docker-registry (scripts/setup.sh lab unpacks Debian's)",
)
SERVICE, ISSUER, USER, PASSWORD = "here", "the test", "builder", "correct horse"

SHARED = make_layer("shared", os.urandom(2_000_000))
IMAGES = {
    ("k8s/pause", "3.9"): [
        MadeImage([SHARED, make_layer("pause", arch.encode())], arch) for arch in ("amd64", "arm64")
    ],
    ("web/nginx", "1.22"): [
        MadeImage([SHARED, make_layer("nginx", arch.encode())], arch, DOCKER_MANIFEST)
        for arch in ("amd64", "arm64")
    ],
}


def encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


class TokenServer:
    """A token server that the registry trusts; it issues pull tokens for logins and counts requests."""

    def __init__(self, directory: Path) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ISSUER)])
        now = datetime.now(UTC)
        self._certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(1)
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.bundle = directory / "token.crt"
        self.bundle.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))
        self.scopes: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                fields = parse_qs(urlsplit(self.path).query)
                outer.scopes.append(fields["scope"][0])
                login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
                if self.headers.get("Authorization") != f"Basic {login}":
                    self.send_error(401)
                    return
                body = json.dumps({"token": outer.make_token(fields["scope"][0])}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def make_token(self, scope: str) -> str:
        """A JWT as https://distribution.github.io/distribution/spec/auth/jwt/ describes it."""
        kind, name, actions = scope.split(":")
        now = int(time.time())
        der = self._certificate.public_bytes(serialization.Encoding.DER)
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        access = [{"type": kind, "name": name, "actions": actions.split(",")}]
        claims = {
            "iss": ISSUER, "sub": USER, "aud": SERVICE, "access": access, "jti": "1",
            "exp": now + 300, "nbf": now - 10, "iat": now,
        }  # fmt: skip
        signed = ".".join(encode(json.dumps(part).encode()) for part in (header, claims))
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{encode(signature)}"


@dataclass
class Program:
    """The running registry."""

    host: str
    tokens: TokenServer | None
    log: Path

    def push(self, name: str, tag: str, images: list[MadeImage]) -> None:
        """Push an image, as `docker push` does."""
        session = requests.Session()
        if self.tokens:
            token = self.tokens.make_token(f"repository:{name}:pull,push")
            session.headers["Authorization"] = f"Bearer {token}"
        base = f"http://{self.host}/v2/{name}"
        for image in images:
            for content in (image.config, *image.blobs):
                started = session.post(f"{base}/blobs/uploads/")
                started.raise_for_status()
                where = started.headers["Location"]
                where += f"{'&' if '?' in where else '?'}digest={sha256(content)}"
                session.put(where, data=content).raise_for_status()
            self._put(
                session,
                f"{base}/manifests/{sha256(image.manifest)}",
                image.media_type,
                image.manifest,
            )
        media_type = DOCKER_LIST if images[0].media_type == DOCKER_MANIFEST else ""
        index = without_attestation(
            make_index(images, media_type) if media_type else make_index(images)
        )
        self._put(session, f"{base}/manifests/{tag}", json.loads(index)["mediaType"], index)

    def _put(self, session: requests.Session, url: str, media_type: str, content: bytes) -> None:
        done = session.put(url, data=content, headers={"Content-Type": media_type})
        assert done.status_code == 201, done.text


def without_attestation(index: bytes) -> bytes:
    """Push the manifests before the index: the registry refuses an index of unknown manifests."""
    document = json.loads(index)
    document["manifests"] = document["manifests"][:-1]
    return json.dumps(document).encode()


@pytest.fixture(params=[pytest.param("open", marks=pytest.mark.long), "token"])
def program(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Program]:
    """docker-registry with two images, each for two architectures."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    tokens = TokenServer(tmp_path) if request.param == "token" else None
    config: dict[str, object] = {
        "version": "0.1",
        "log": {"level": "info"},
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "registry")}},
        "http": {"addr": host},
    }
    if tokens:
        realm = f"http://127.0.0.1:{tokens.server.server_port}/token"
        config["auth"] = {
            "token": {
                "realm": realm, "service": SERVICE, "issuer": ISSUER,
                "rootcertbundle": str(tokens.bundle),
            }
        }  # fmt: skip
    (tmp_path / "config.yml").write_text(yaml.safe_dump(config))
    log = tmp_path / "registry.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [PROGRAM, "serve", tmp_path / "config.yml"], stdout=file, stderr=file
        )
    try:
        running = Program(host, tokens, log)
        await_program(running, process)
        for (name, tag), images in IMAGES.items():
            running.push(name, tag, images)
        yield running
    finally:
        process.terminate()
        process.wait()
        if tokens:
            tokens.server.shutdown()
            tokens.server.server_close()


def await_program(program: Program, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(200):
        try:
            requests.get(f"http://{program.host}/v2/", timeout=5)
        except requests.ConnectionError:
            assert process.poll() is None, program.log.read_text()
            time.sleep(0.1)
        else:
            return
    pytest.fail(f"docker-registry does not answer: {program.log.read_text()}")


CLUSTER = """\
apiVersion: bundler/v1alpha1
name: pulled
kubernetes: {{version: 1.28.4}}
runtime: {{engine: containerd}}
dns: {{provider: none}}
nodes:
  - {{name: one, address: 192.0.2.1, roles: [etcd, control-plane]}}
  - {{name: two, address: 192.0.2.2, roles: [worker]}}
  - {{name: three, address: 192.0.2.3, roles: [worker], arch: arm64}}
images:
  - {{ref: "{host}/k8s/pause:3.9"}}
  - {{ref: "{host}/web/nginx:1.22", use: verify}}
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def site(program: Program, tmp_path: Path) -> Path:
    """cluster.yaml of a cluster with two architectures, whose images are in the registry."""
    directory = tmp_path / "site"
    directory.mkdir()
    (directory / "cluster.yaml").write_text(CLUSTER.format(host=program.host))
    write_upstream(directory, directory / "cluster.yaml")
    logins = {"auths": {program.host: {"username": USER, "password": PASSWORD}}}
    (directory / "logins.json").write_text(json.dumps(logins))
    return directory


@pytest.fixture
def run(site: Path, program: Program) -> Run:
    """Run bundler with a login; its output must never contain the password."""

    def call(
        command: str, *arguments: str, cache: str = "cache", **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        shared = [
            "-c",
            f"{site}/cluster.yaml",
            "--cache",
            f"{site}/{cache}",
            "--pins",
            f"{site}/pins.yaml",
        ]
        shared += ["--mirror", f"{site}/mirror", "--insecure-registry", program.host]
        done = subprocess.run(
            ["bundler", command, *shared, *arguments], capture_output=True, text=True, check=False,
            env={"REGISTRY_AUTH_FILE": f"{site}/logins.json", "PATH": venv_path(), "HOME": str(site), **environment},
        )  # fmt: skip
        assert PASSWORD not in done.stdout + done.stderr
        return done

    return call


def venv_path() -> str:
    import sys

    return f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def read_bundle(tarball: Path, directory: Path) -> dict[str, bytes]:
    """The blobs of a bundle's images, by digest."""
    directory.mkdir(exist_ok=True)
    subprocess.run(["tar", "-xzf", tarball, "-C", directory], check=True)
    blobs = directory / tarball.name.removesuffix(".tar.gz") / "rootfs/opt/k8s/images/blobs/sha256"
    return {path.name: path.read_bytes() for path in blobs.glob("*")}


def test_images_are_locked_and_built_and_a_build_without_the_registry_is_identical(
    run: Run, site: Path, program: Program, tmp_path: Path
) -> None:
    locked = run("lock")
    assert locked.returncode == 0, locked.stderr
    entries = yaml.safe_load((site / "cluster.lock.yaml").read_text())["entries"]
    found = {(e["name"], e["arch"]): e for e in entries if e["kind"] == "image"}
    for (name, tag), images in IMAGES.items():
        for image in images:
            entry = found[f"{program.host}/{name}:{tag}", image.arch]
            assert entry["digest"] == sha256(image.manifest)
            assert entry["index"].startswith("sha256:")
            assert entry["origin"] == "first-use"
            assert entry["size"] == sum(len(content) for content in image.contents.values())
    built = run("build", "-o", f"{site}/dist")
    assert built.returncode == 0, built.stderr
    assert "comes from the first download and has no other trust source" in built.stderr
    for node, arch in (("two", "amd64"), ("three", "arm64")):
        mine = [image for images in IMAGES.values() for image in images if image.arch == arch]
        expected = {
            digest.removeprefix("sha256:"): content
            for image in mine
            for digest, content in image.contents.items()
        }
        blobs = read_bundle(site / f"dist/pulled-{node}.tar.gz", tmp_path / "unpacked")
        assert blobs == expected
        assert len(blobs) == 7  # not 8: the shared layer is there once
    assert read_bundle(site / "dist/pulled-one.tar.gz", tmp_path / "unpacked") == {}
    requested = program.log.read_text().count("GET /v2/")
    again = run("build", "--offline", "-o", f"{site}/again")
    assert again.returncode == 0, again.stderr
    assert (site / "again/SHA256SUMS").read_bytes() == (site / "dist/SHA256SUMS").read_bytes()
    assert program.log.read_text().count("GET /v2/") == requested
    epoch = {"SOURCE_DATE_EPOCH": "1500000000"}  # its versions had not ended
    assert run("build", "--strict", "-o", f"{site}/strict", **epoch).returncode == 3


@pytest.mark.long
def test_a_builder_without_a_network_gets_images_from_an_imported_cache(
    run: Run, site: Path
) -> None:
    assert run("lock").returncode == 0
    fetched = run("fetch", cache="other")
    assert fetched.returncode == 0, fetched.stderr
    lines = fetched.stdout.splitlines()
    for images in IMAGES.values():
        for image in images:
            assert all(any(digest in line for line in lines) for digest in image.contents)
    environment = {"PATH": venv_path(), "HOME": str(site)}
    for arguments in (
        ["export", f"{site}/out.tar", "-c", f"{site}/cluster.yaml", "--pins", f"{site}/pins.yaml", "--cache", f"{site}/other"],
        ["import", f"{site}/out.tar", "--cache", f"{site}/third"],
        ["verify", "--cache", f"{site}/third"],
        ["prune", "-c", f"{site}/cluster.yaml", "--pins", f"{site}/pins.yaml", "--cache", f"{site}/third"],
    ):  # fmt: skip
        done = subprocess.run(
            ["bundler", "cache", *arguments], capture_output=True, text=True, check=False, env=environment
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    built = run("build", "--offline", "-o", f"{site}/dist", cache="third")
    assert built.returncode == 0, built.stderr


@pytest.mark.long
def test_a_moved_tag_is_pulled_only_if_update_names_it(
    run: Run, site: Path, program: Program
) -> None:
    assert run("lock").returncode == 0
    newer = [MadeImage([make_layer("pause", f"newer {a}".encode())], a, OCI_MANIFEST) for a in ("amd64", "arm64")]  # fmt: skip
    program.push("k8s/pause", "3.9", newer)
    before = (site / "cluster.lock.yaml").read_bytes()
    assert run("lock").returncode == 0
    assert (site / "cluster.lock.yaml").read_bytes() == before
    renewed = run("lock", "--update", f"{program.host}/k8s/pause:3.9")
    assert renewed.returncode == 0, renewed.stderr
    changed = [line for line in renewed.stdout.splitlines() if line.startswith("renewed")]
    assert len(changed) == 2
    text = (site / "cluster.lock.yaml").read_text()
    assert all(sha256(image.manifest) in text for image in newer)


def test_a_digest_in_cluster_yaml_has_the_trust_source_user_and_drift_is_refused(
    run: Run, site: Path, program: Program
) -> None:
    assert run("lock").returncode == 0
    entries = yaml.safe_load((site / "cluster.lock.yaml").read_text())["entries"]
    digest = next(e["index"] for e in entries if e["name"].endswith("/k8s/pause:3.9"))
    path = site / "cluster.yaml"
    path.write_text(path.read_text().replace("pause:3.9", f"pause:3.9@{digest}"))
    refused = run("build", "-o", f"{site}/dist")
    assert refused.returncode == 3
    assert f"bundler lock --update {program.host}/k8s/pause:3.9" in refused.stderr
    assert run("lock", "--update", f"{program.host}/k8s/pause:3.9").returncode == 0
    entries = yaml.safe_load((site / "cluster.lock.yaml").read_text())["entries"]
    pause = [e for e in entries if e["name"].endswith("/k8s/pause:3.9")]
    assert {e["origin"] for e in pause} == {"user"}
    assert run("build", "-o", f"{site}/dist").returncode == 0


@pytest.mark.long
def test_a_missing_image_is_reported_with_the_reason(
    run: Run, site: Path, program: Program
) -> None:
    offline = run("build", "--offline", "-o", f"{site}/dist")
    assert offline.returncode == 3
    assert "is not in the cache" in offline.stderr
    assert "bundler fetch" in offline.stderr
    path = site / "cluster.yaml"
    path.write_text(path.read_text().replace("nginx:1.22", "nginx:1.23"))
    missing = run("build", "-o", f"{site}/dist")
    assert missing.returncode == 3
    assert "HTTP 404" in missing.stderr
    assert "similar tags: 1.22" in missing.stderr
    if program.tokens:
        unknown = run("fetch", REGISTRY_AUTH_FILE="/nonexistent")
        assert (unknown.returncode, "HTTP 401" in unknown.stderr) == (3, True)
        assert "docker login" in unknown.stderr


@pytest.fixture
def containerd(tmp_path: Path) -> Iterator[str]:
    with run_containerd(tmp_path) as address:
        yield address


@pytest.mark.parametrize("program", ["open"], indirect=True)
@NEEDS_CONTAINERD
def test_containerd_pulls_through_a_mirror_below_the_path_of_an_api(
    program: Program, containerd: str, tmp_path: Path
) -> None:
    """A project of Harbor: https://github.com/goharbor/harbor/issues/18530."""
    program.push("hub/library/web", "1.22", IMAGES["web/nginx", "1.22"])
    description = tmp_path / "cluster.yaml"
    description.write_text(
        CLUSTER.format(host=program.host)
        .replace("1.28.4", "1.28.3")
        .replace(
            "{engine: containerd}",
            "{engine: containerd, registries: [{host: docker.io, mirrors:"
            f" ['http://{program.host}/v2/hub']}}]}}",
        )
    )
    inputs = Inputs(description=description, cache=Cache(tmp_path / "cache"))
    render(inputs, tmp_path / "trees", text_only=True)
    hosts = tmp_path / "trees/two/rootfs/etc/containerd/certs.d"
    command = ["ctr", "-a", containerd, "content", "fetch", "--platform", "linux/amd64"]
    command += ["--hosts-dir", str(hosts), "docker.io/library/web:1.22"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr + program.log.read_text()
    assert "/v2/hub/library/web/manifests/1.22" in program.log.read_text()
