"""The cluster's own registry with real programs: Debian's docker-registry behind nginx, and containerd that pulls.

Two hosts of one cluster run on loopback from what the build rendered for them; only addresses, ports and paths are others.
"""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests
from support.containerd_program import NEEDS_CONTAINERD, run_containerd
from support.descriptions import write_archive, write_upstream
from support.paths import LAB_CACHE
from support.registries import MadeImage, Registry, make_index, make_layer, run_registry, sha256
from support.small_builds import unpack

from bundler.cache.store import Cache
from bundler.formats.image_manifests import OCI_INDEX
from bundler.pipeline import build
from bundler.project import Inputs
from bundler.sources.images.options import RegistryOptions

PLACES = f"{os.environ['PATH']}:{LAB_CACHE}/programs/usr/bin:/usr/sbin"
PROGRAM = shutil.which("docker-registry", path=PLACES)
NGINX = shutil.which("nginx", path=PLACES)
pytestmark = [
    pytest.mark.skipif(
        not PROGRAM,
        reason="a real registry cannot run: there is no docker-registry (scripts/setup.sh lab unpacks Debian's)",
    ),
    pytest.mark.skipif(not NGINX, reason="the proxies cannot run: there is no nginx (make lab)"),
]
AS_ROOT = "user root;" if os.geteuid() == 0 else ""
"""The unit runs both programs as one user; nginx changes its own if it may."""
PASSWORD = "correct horse"
WEB = [
    MadeImage([make_layer("base", os.urandom(300_000)), make_layer("web", arch.encode())], arch)
    for arch in ("amd64", "arm64")
]
PUSHED = [
    MadeImage([make_layer("base", os.urandom(200_000)), make_layer("app", arch.encode())], arch)
    for arch in ("amd64", "arm64")
]
"""Images that no bundle has."""
CLUSTER = """\
apiVersion: bundler/v1alpha1
name: with-registry
kubernetes: {{version: 1.36.2}}
runtime: {{engine: containerd}}
dns: {{provider: none}}
registry:
  nodes: [one, two]
  name: registry.example
  push:
    users:
      - {{name: payments, password: payments.hash}}
      - {{name: audit, prefix: audit/tools, password: payments.hash}}
nodes:
  - {{name: one, address: 192.0.2.1, roles: [etcd, control-plane]}}
  - {{name: two, address: 192.0.2.2, roles: [registry]}}
  - {{name: three, address: 192.0.2.3, roles: [worker]}}
  - {{name: four, address: 192.0.2.4, roles: [worker], arch: arm64}}
images:
  - {{ref: "registry.k8s.io/pause:3.10.2", file: pause.tar, arch: amd64}}
  - {{ref: "registry.k8s.io/pause:3.10.2", file: pause-arm64.tar, arch: arm64}}
  - {{ref: "{upstream}/team/web:1.0", where: registry}}
  - {{ref: "docker.io/library/box:1.36", file: box.tar, arch: amd64, where: registry}}
"""


def take_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Host:
    """A host of the registry: its files below `root`, and its two programs."""

    root: Path
    address: str  # as in cluster.yaml
    run: Path  # for /run: a socket's path has at most 107 bytes
    port: int = field(default_factory=take_port)
    push_port: int = field(default_factory=take_port)
    shell: tuple[str, ...] = ()  # the script's own
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    @property
    def storage(self) -> Path:
        return self.root / "var/lib/registry"

    @property
    def ca(self) -> Path:
        return self.root.parent / "ca.crt"

    def seed(self, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run what kube-registry-seed.service runs."""
        return subprocess.run(
            [self.root / "opt/k8s/libexec/registry-seed.sh", "/var/lib/registry"],
            env={**os.environ, "DESTDIR": str(self.root), **environment},
            capture_output=True, text=True, check=False, start_new_session=True,
        )  # fmt: skip

    def copy(
        self, *words: str, port: int, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run what kube-registry-copy.service runs, with another host's port on loopback."""
        return subprocess.run(
            [*self.shell, self.root / "opt/k8s/libexec/registry-copy.sh", "/var/lib/registry", str(port), *words],
            env={**os.environ, "DESTDIR": str(self.root), **environment},
            capture_output=True, text=True, check=False, start_new_session=True,
        )  # fmt: skip

    def follow(self, first: "Host", **environment: str) -> "subprocess.CompletedProcess[str]":
        return self.copy("follow", "127.0.0.1", port=first.port, **environment)

    def restore(self, other: "Host") -> "subprocess.CompletedProcess[str]":
        return self.copy("restore", "127.0.0.1", port=other.port)

    def relocate(self, text: str) -> str:
        for place in ("/etc/kube-registry/", "/var/lib/registry"):
            text = text.replace(place, f"{self.root}{place}")
        text = text.replace("/run/kube-registry", f"{self.run}/kube-registry")
        text = text.replace(f"{self.address}:5000", f"127.0.0.1:{self.port}")
        return text.replace(f"{self.address}:5001", f"127.0.0.1:{self.push_port}")

    def write_configurations(self) -> tuple[Path, Path]:
        """The rendered files with this test's paths, next to them."""
        made = []
        for name in ("config.yml", "nginx.conf"):
            path = self.root / "etc/kube-registry" / name
            target = path.with_name(f"test-{name}")
            target.write_text(self.relocate(path.read_text()))
            made.append(target)
        for name in ("kube-registry", "kube-registry-nginx"):
            (self.run / name).mkdir(exist_ok=True)
        return made[0], made[1]

    def start(self) -> None:
        assert PROGRAM
        assert NGINX
        config, nginx = self.write_configurations()
        (self.run / "kube-registry/registry.sock").unlink(missing_ok=True)
        with (self.root / "log").open("ab") as log:
            self.processes = [
                subprocess.Popen(command, stdout=log, stderr=log)
                for command in (
                    [PROGRAM, "serve", config],
                    [NGINX, "-p", self.root, "-c", nginx, "-g", f"daemon off; {AS_ROOT}"],
                )
            ]
        for _ in range(100):
            try:
                if requests.get(f"{self.url}/v2/", verify=self.ca, timeout=5).status_code == 200:
                    return
            except requests.ConnectionError:
                pass
            if any(process.poll() is not None for process in self.processes):
                break
            time.sleep(0.1)
        pytest.fail(f"the registry does not answer: {(self.root / 'log').read_text()}")

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
            process.wait(timeout=20)
        self.processes = []

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def push_url(self) -> str:
        return f"https://127.0.0.1:{self.push_port}"

    def get(self, path: str) -> requests.Response:
        accept = (
            "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"
        )
        return requests.get(f"{self.url}/v2/{path}", verify=self.ca, timeout=20, headers={"Accept": accept})  # fmt: skip

    def push(self, repository: str, tag: str, image: MadeImage, user: str = "payments") -> None:
        """Push as `docker push` does: blobs, then the manifest."""
        session = requests.Session()
        session.trust_env = False  # no CA bundle of the environment
        session.auth, session.verify = (user, PASSWORD), str(self.ca)
        base = f"{self.push_url}/v2/{repository}"
        for content in (image.config, *image.blobs):
            started = session.post(f"{base}/blobs/uploads/")
            assert started.status_code == 202, started.text
            where = requests.compat.urljoin(self.push_url, started.headers["Location"])
            sent = session.patch(where, data=content)
            assert sent.status_code == 202, sent.text
            where = requests.compat.urljoin(self.push_url, sent.headers["Location"])
            done = session.put(where, params={"digest": sha256(content)})
            assert done.status_code == 201, done.text
        media = {"Content-Type": image.media_type}
        done = session.put(f"{base}/manifests/{tag}", data=image.manifest, headers=media)
        assert done.status_code == 201, done.text


@dataclass
class Site:
    """The two hosts, and what a worker's containerd is configured with."""

    hosts: tuple[Host, Host]
    hosts_directory: Path
    upstream: str
    index: bytes

    @property
    def repository(self) -> str:
        return f"{self.upstream.replace(':', '_')}/team/web"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, bytes]:
    """The bundles of a cluster whose images are pulled from a registry that is gone afterwards."""
    directory = tmp_path_factory.mktemp("registry-site")
    write_archive(directory / "pause.tar", "registry.k8s.io/pause:3.10.2")
    write_archive(directory / "pause-arm64.tar", "registry.k8s.io/pause:3.10.2", "arm64")
    write_archive(directory / "box.tar", "docker.io/library/box:1.36")
    hashed = subprocess.run(
        ["openssl", "passwd", "-6", PASSWORD], capture_output=True, text=True, check=True
    )
    (directory / "payments.hash").write_text(hashed.stdout)
    with run_registry() as registry:
        return _build(directory, registry)


def _build(directory: Path, registry: Registry) -> tuple[Path, str, bytes]:
    registry.put("team/web", "1.0", *WEB)
    (directory / "cluster.yaml").write_text(CLUSTER.format(upstream=registry.host))
    inputs = Inputs(
        description=directory / "cluster.yaml", cache=Cache(directory / "cache"),
        pins=write_upstream(directory, directory / "cluster.yaml"),
        mirrors=(str(directory / "mirror"),), registries=RegistryOptions(insecure=frozenset({registry.host})),
    )  # fmt: skip
    build(inputs, directory / "dist")
    return directory, registry.host, make_index(WEB)


@pytest.fixture
def short() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        yield Path(directory)


@pytest.fixture
def site(built: tuple[Path, str, bytes], tmp_path: Path, short: Path) -> Iterator[Site]:
    """Both hosts, seeded and running."""
    directory, upstream, index = built
    hosts = []
    (tmp_path / "ca.crt").write_bytes(
        (directory / "with-registry.state/pki/kubernetes-ca/cert.pem").read_bytes()
    )
    for name, address in (("one", "192.0.2.1"), ("two", "192.0.2.2")):
        bundle = unpack(directory / f"dist/with-registry-{name}.tar.gz", tmp_path / name)
        root = tmp_path / f"root-{name}"
        shutil.copytree(bundle / "rootfs", root)
        shutil.copytree(bundle / "lib", root / "opt/k8s/bundle/lib")
        (short / name).mkdir()
        hosts.append(Host(root, address, short / name))
    worker = unpack(directory / "dist/with-registry-three.tar.gz", tmp_path / "three")
    certs = worker / "rootfs/etc/containerd/certs.d"
    for path in certs.glob("*/hosts.toml"):
        text = path.read_text().replace("/etc/kubernetes/pki/ca.crt", str(tmp_path / "ca.crt"))
        for host in hosts:
            text = text.replace(f"{host.address}:5000", f"127.0.0.1:{host.port}")
        path.write_text(text)
    try:
        for host in hosts:
            done = host.seed()
            assert done.returncode == 0, done.stderr
            host.start()
        yield Site((hosts[0], hosts[1]), certs, upstream, index)
    finally:
        for host in hosts:
            host.stop()


def test_a_seeded_image_is_pulled_by_tag_and_by_upstreams_digests(site: Site) -> None:
    for host in site.hosts:
        by_tag = host.get(f"{site.repository}/manifests/1.0")
        assert (by_tag.status_code, by_tag.content) == (200, site.index)
        assert by_tag.headers["Docker-Content-Digest"] == sha256(site.index)
        assert host.get(f"{site.repository}/manifests/{sha256(site.index)}").content == site.index
        for image in WEB:
            digest = sha256(image.manifest)
            assert host.get(f"{site.repository}/manifests/{digest}").content == image.manifest
            for blob in (image.config, *image.blobs):
                assert host.get(f"{site.repository}/blobs/{sha256(blob)}").content == blob
        box = host.get("library/box/manifests/1.36")
        assert box.status_code == 200
        assert host.get(f"library/box/blobs/{box.json()['config']['digest']}").status_code == 200


@NEEDS_CONTAINERD
def test_containerd_pulls_by_the_upstream_name_and_from_the_host_that_is_left(
    site: Site, tmp_path: Path
) -> None:
    """The mirror is asked: the upstream registry of that name is gone."""
    site.hosts[0].push("payments/app", "2.0", WEB[0])
    with run_containerd(tmp_path) as address:

        def fetch(reference: str) -> "subprocess.CompletedProcess[str]":
            command = ["ctr", "-a", address, "content", "fetch", "--platform", "linux/amd64"]
            return subprocess.run(
                [*command, "--hosts-dir", str(site.hosts_directory), reference],
                capture_output=True, text=True, check=False,
            )  # fmt: skip

        done = fetch(f"{site.upstream}/team/web:1.0")
        assert done.returncode == 0, done.stdout + done.stderr
        done = fetch("registry.example:5000/payments/app:2.0")
        assert done.returncode == 0, done.stdout + done.stderr
    site.hosts[0].stop()
    (tmp_path / "again").mkdir()
    with run_containerd(tmp_path / "again") as address:
        for reference in (f"{site.upstream}/team/web:1.0", "docker.io/library/box:1.36"):
            done = fetch(reference)
            assert done.returncode == 0, done.stdout + done.stderr


UPLOAD = "blobs/uploads/"
RIGHTS = [
    # port, user, method, path, status
    ("pull", "", "POST", f"payments/app/{UPLOAD}", 403),
    ("pull", "payments", "POST", f"payments/app/{UPLOAD}", 403),
    ("pull", "payments", "DELETE", "payments/app/manifests/1.0", 403),
    ("push", "", "GET", "", 401),
    ("push", "", "POST", f"payments/app/{UPLOAD}", 401),
    ("push", "nobody", "POST", f"nobody/app/{UPLOAD}", 403),
    ("push", "payments:wrong", "POST", f"payments/app/{UPLOAD}", 401),
    ("push", "payments:wrong", "GET", "", 401),
    ("push", "payments", "GET", "", 200),
    ("push", "payments", "POST", f"payments/app/{UPLOAD}", 202),
    ("push", "payments", "POST", f"payments/a/b-c/d.e__f/{UPLOAD}?mount={sha256(b'')}&from=library/box", 202),
    ("push", "payments", "POST", f"audit/tools/app/{UPLOAD}", 403),
    ("push", "audit", "POST", f"audit/tools/app/{UPLOAD}", 202),
    ("push", "audit", "POST", f"audit/app/{UPLOAD}", 403),
    ("push", "payments", "POST", f"payments/{UPLOAD}", 403),
    ("push", "payments", "POST", f"payments-2/app/{UPLOAD}", 403),
    ("push", "payments", "POST", f"library/box/{UPLOAD}", 403),
    ("push", "payments", "POST", f"payments/../library/box/{UPLOAD}", 403),
    ("push", "payments", "POST", f"payments/%2e%2e/library/box/{UPLOAD}", 403),
    ("push", "payments", "POST", f"payments/%2fbox/{UPLOAD}", 403),
    ("push", "payments", "POST", f"payments//box/{UPLOAD}", 403),
    ("push", "payments", "POST", f"library/box/{UPLOAD}?/v2/payments/app/{UPLOAD}", 403),
    ("push", "payments", "PUT", "library/box/manifests/1.36", 403),
    ("push", "payments", "DELETE", "library/box/manifests/1.36", 403),
    ("push", "payments", "DELETE", f"payments/app/blobs/{sha256(b'')}", 403),
    ("push", "payments", "BREW", "payments/app/manifests/1.0", 403),
    ("push", "payments", "PUT", "payments/app/manifests/1.0", 400),
]  # fmt: skip


def test_a_user_writes_below_the_own_prefix_and_nowhere_else(site: Site) -> None:
    host = site.hosts[0]
    found = []
    for port, user, method, path, _ in RIGHTS:
        name, _, password = user.partition(":")
        base = host.url if port == "pull" else host.push_url
        prepared = requests.Request(method, f"{base}/v2/", auth=(name, password or PASSWORD) if name else None).prepare()  # fmt: skip
        prepared.url = f"{base}/v2/{path}"  # as it is, without clean-up
        session = requests.Session()
        answer = session.send(prepared, verify=str(host.ca), timeout=20, allow_redirects=False)
        found.append((port, user, method, path, answer.status_code))
    assert found == RIGHTS


def test_only_the_first_host_accepts_pushes_and_what_is_pushed_is_pulled_without_a_password(
    site: Site,
) -> None:
    first, second = site.hosts
    first.push("payments/app", "2.0", WEB[0])
    assert first.get("payments/app/manifests/2.0").content == WEB[0].manifest
    assert "5001" not in (second.root / "etc/kube-registry/nginx.conf").read_text()
    assert not (second.root / "etc/kube-registry/users").exists()
    users = first.root / "etc/kube-registry/users"
    assert users.stat().st_mode & 0o777 == 0o600
    assert PASSWORD not in users.read_text()


def test_a_seeding_that_is_killed_is_continued_and_serves_no_half_image(
    site: Site, tmp_path: Path
) -> None:
    host = site.hosts[0]
    host.stop()
    shutil.rmtree(host.storage)
    environment = plant_killer(tmp_path)
    host.start()
    killed = 0
    for _ in range(60):
        (tmp_path / "count").write_text("0")
        done = host.seed(**environment)
        tag = host.get(f"{site.repository}/manifests/1.0")
        if tag.status_code == 200:
            for image in WEB:
                for blob in (image.config, *image.blobs):
                    assert host.get(f"{site.repository}/blobs/{sha256(blob)}").content == blob
        if done.returncode == 0:
            break
        assert done.returncode == -9, done.stderr
        killed += 1
        assert not (host.storage / ".bundler-complete").exists()
    assert killed > 3
    done = host.seed()
    assert (done.returncode, done.stdout) == (0, "images in the registry: 2, files written: 0\n")
    listed = (host.root / "opt/k8s/bundle/lib/registry.tsv").read_bytes()
    complete = (host.storage / ".bundler-complete").read_text()
    assert complete == f"{hashlib.sha256(listed).hexdigest()}\n"


def test_a_damaged_source_is_refused_and_a_lost_blob_comes_back(site: Site) -> None:
    host = site.hosts[0]
    hexadecimal = sha256(WEB[0].blobs[0]).removeprefix("sha256:")
    stored = host.storage / f"docker/registry/v2/blobs/sha256/{hexadecimal[:2]}/{hexadecimal}/data"
    stored.write_bytes(b"")  # as after a power cut
    source = host.root / f"opt/k8s/images/blobs/sha256/{hexadecimal}"
    whole = source.read_bytes()
    source.write_bytes(whole[:-1] + b"x")
    done = host.seed()
    assert done.returncode == 1
    assert "is damaged: run install.sh of the bundle" in done.stderr
    assert stored.read_bytes() == b""
    source.write_bytes(whole)
    assert host.seed().returncode == 0
    assert stored.read_bytes() == whole


def test_garbage_collection_frees_removed_images_and_keeps_seeded_and_pushed_ones(
    site: Site,
) -> None:
    host = site.hosts[0]
    pushed = MadeImage([make_layer("app", os.urandom(1000))])
    host.push("payments/app", "2.0", pushed)
    listed = host.root / "opt/k8s/bundle/lib/registry.tsv"
    box = host.get("library/box/manifests/1.36")
    kept = [line for line in listed.read_text().splitlines(keepends=True) if "library/box" not in line]  # fmt: skip
    digests = (box.headers["Docker-Content-Digest"], box.json()["config"]["digest"])
    gone = {digest.removeprefix("sha256:") for digest in digests}
    listed.write_text("".join(line for line in kept if line.split("\t")[2] not in gone))
    done = host.seed()
    assert done.returncode == 0, done.stderr
    assert "removed library/box:1.36" in done.stdout
    host.stop()
    config, _ = host.write_configurations()
    assert PROGRAM
    done = subprocess.run(
        [PROGRAM, "garbage-collect", config], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    host.start()
    assert host.get("library/box/manifests/1.36").status_code == 404
    blobs = {path.parent.name for path in host.storage.glob("docker/registry/v2/blobs/sha256/*/*/data")}  # fmt: skip
    assert not blobs & gone
    assert host.get(f"{site.repository}/manifests/1.0").content == site.index
    for image, repository in ((WEB[1], site.repository), (pushed, "payments/app")):
        for blob in (image.config, *image.blobs):
            assert host.get(f"{repository}/blobs/{sha256(blob)}").content == blob


def test_a_backup_of_the_running_registry_serves_pushed_images_from_another_host(
    site: Site, tmp_path: Path
) -> None:
    first, second = site.hosts
    first.push("payments/app", "2.0", WEB[0])
    backup = tmp_path / "registry.tar.gz"
    subprocess.run(["tar", "-czf", backup, "-C", first.storage, "docker"], check=True)
    first.stop()
    assert second.get("payments/app/manifests/2.0").status_code == 404
    subprocess.run(["tar", "-xzf", backup, "-C", second.storage], check=True)
    assert second.get("payments/app/manifests/2.0").content == WEB[0].manifest
    for blob in (WEB[0].config, *WEB[0].blobs):
        assert second.get(f"payments/app/blobs/{sha256(blob)}").content == blob
    assert second.get(f"{site.repository}/manifests/1.0").content == site.index


def plant_killer(directory: Path) -> dict[str, str]:
    """The environment in which the fourth `mv` kills the script; `count` has how many there were."""
    programs, count = directory / "killers", directory / "count"
    programs.mkdir()
    (programs / "mv").write_text(
        f'#!/bin/sh\nn=$(cat {count}); echo $((n + 1)) >{count}\n[ "$n" -ne 3 ] || kill -9 0\nexec /bin/mv "$@"\n'
    )
    (programs / "mv").chmod(0o755)
    return {"PATH": f"{programs}:{os.environ['PATH']}"}


def check_pushed(host: Host, repository: str, tag: str, image: MadeImage) -> None:
    """The host serves the image whole."""
    found = host.get(f"{repository}/manifests/{tag}")
    assert (found.status_code, found.content) == (200, image.manifest)
    for blob in (image.config, *image.blobs):
        assert host.get(f"{repository}/blobs/{sha256(blob)}").content == blob


@pytest.mark.parametrize("shell", ["dash", "busybox sh", "bash"])
def test_what_is_pushed_is_on_the_other_host_a_minute_later(site: Site, shell: str) -> None:
    first, second = site.hosts
    second.shell = tuple(shell.split())
    unit = (second.root / "etc/systemd/system/kube-registry-copy.service").read_text()
    assert "registry-copy.sh /var/lib/registry 5000 follow 192.0.2.1\n" in unit
    unit = (first.root / "etc/systemd/system/kube-registry-copy.service").read_text()
    assert "registry-copy.sh /var/lib/registry 5000 restore 192.0.2.2\n" in unit
    first.push("payments/app", "2.0", PUSHED[0])
    first.push("audit/tools/a/b", "latest", PUSHED[1], "audit")
    done = second.follow(first)
    assert (done.returncode, done.stderr) == (0, "")
    assert "tags: 2, files written: " in done.stdout
    check_pushed(second, "payments/app", "2.0", PUSHED[0])
    check_pushed(second, "audit/tools/a/b", "latest", PUSHED[1])
    done = second.follow(first)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), "nothing is left to do"

    # A tag moves; one that is deleted on the first host stays on the second.
    first.push("payments/app", "2.0", PUSHED[1])
    done = second.follow(first)
    assert done.returncode == 0, done.stderr
    check_pushed(second, "payments/app", "2.0", PUSHED[1])
    shutil.rmtree(first.storage / "docker/registry/v2/repositories/audit")
    done = second.follow(first)
    assert done.returncode == 0, done.stderr
    check_pushed(second, "audit/tools/a/b", "latest", PUSHED[1])


def test_an_index_is_copied_with_its_manifests(site: Site) -> None:
    first, second = site.hosts
    for image in PUSHED:
        first.push("payments/app", image.arch, image)
    manifests = [
        {
            "mediaType": image.media_type, "digest": sha256(image.manifest),
            "size": len(image.manifest), "platform": {"architecture": image.arch, "os": "linux"},
        }
        for image in PUSHED
    ]  # fmt: skip
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}
    index = json.dumps(document, indent=2).encode()
    session = requests.Session()
    session.trust_env = False
    session.auth, session.verify = ("payments", PASSWORD), str(first.ca)
    media = {"Content-Type": OCI_INDEX}
    url = f"{first.push_url}/v2/payments/app/manifests/3.0"
    assert session.put(url, data=index, headers=media).status_code == 201
    tags = first.storage / "docker/registry/v2/repositories/payments/app/_manifests/tags"
    for image in PUSHED:
        shutil.rmtree(tags / image.arch)
    done = second.follow(first)
    assert (done.returncode, done.stderr) == (0, "")
    assert second.get("payments/app/manifests/3.0").content == index
    for image in PUSHED:
        check_pushed(second, "payments/app", sha256(image.manifest), image)


def test_all_pages_of_the_catalog_are_read(site: Site) -> None:
    first, second = site.hosts
    names = [f"payments/app-{number}" for number in range(5)]
    for name in names:
        first.push(name, "1.0", PUSHED[0])
    done = second.follow(first, PAGE="2")
    assert (done.returncode, done.stderr) == (0, "")
    for name in names:
        check_pushed(second, name, "1.0", PUSHED[0])


def test_a_host_with_a_new_disk_gets_what_the_other_one_has(site: Site) -> None:
    """It accepts pushes meanwhile, and nothing of them is overwritten."""
    first, second = site.hosts
    first.push("payments/app", "1.0", PUSHED[0])
    first.push("payments/app", "2.0", PUSHED[0])
    assert second.follow(first).returncode == 0
    assert first.restore(second).returncode == 0, "at the first installation there is nothing"
    assert (first.storage / ".bundler-restored").exists()
    first.stop()
    shutil.rmtree(first.storage)
    assert first.seed().returncode == 0
    first.start()
    first.push("payments/app", "2.0", PUSHED[1])

    second.stop()
    done = first.restore(second)
    assert done.returncode == 1
    assert "not copied from 127.0.0.1: _catalog: Connection refused" in done.stderr
    assert not (first.storage / ".bundler-restored").exists()
    second.start()
    done = first.restore(second)
    assert (done.returncode, done.stderr) == (0, "")
    check_pushed(first, "payments/app", "1.0", PUSHED[0])
    check_pushed(first, "payments/app", "2.0", PUSHED[1])
    first_tags = first.storage / "docker/registry/v2/repositories/payments/app/_manifests/tags"
    shutil.rmtree(first_tags / "1.0")
    done = first.restore(second)
    assert (done.returncode, done.stdout) == (0, "")
    assert not (first_tags / "1.0").exists(), "what a user deletes does not come back"


def test_a_copy_that_is_killed_is_continued_and_serves_no_half_image(
    site: Site, tmp_path: Path
) -> None:
    first, second = site.hosts
    first.push("payments/app", "2.0", PUSHED[0])
    environment = plant_killer(tmp_path)
    killed = 0
    for _ in range(60):
        (tmp_path / "count").write_text("0")
        done = second.follow(first, **environment)
        if second.get("payments/app/manifests/2.0").status_code == 200:
            check_pushed(second, "payments/app", "2.0", PUSHED[0])
        if done.returncode == 0:
            break
        assert done.returncode == -9, done.stderr
        killed += 1
    assert killed > 2
    check_pushed(second, "payments/app", "2.0", PUSHED[0])


@pytest.mark.parametrize("where", ["blob", "manifest"])
def test_damaged_files_and_strangers_are_not_copied(site: Site, tmp_path: Path, where: str) -> None:
    first, second = site.hosts
    first.push("payments/app", "2.0", PUSHED[0])
    content = PUSHED[0].blobs[0] if where == "blob" else PUSHED[0].manifest
    digest = hashlib.sha256(content).hexdigest()
    data = first.storage / f"docker/registry/v2/blobs/sha256/{digest[:2]}/{digest}/data"
    data.write_bytes(content[:-1] + b"?")
    done = second.follow(first)
    assert done.returncode == 1
    assert "not copied from 127.0.0.1: payments/app" in done.stderr
    found = second.get("payments/app/manifests/2.0")
    assert found.status_code == 404, found.text
    data.write_bytes(content)
    stranger = tmp_path / "stranger.crt"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=ca", "-keyout",
         tmp_path / "stranger.key", "-out", stranger],
        check=True, capture_output=True,
    )  # fmt: skip
    done = second.follow(first, CERTIFICATES=str(stranger))
    assert done.returncode == 1
    assert "not copied from 127.0.0.1: _catalog: certificate: " in done.stderr
    assert second.follow(first).returncode == 0
    check_pushed(second, "payments/app", "2.0", PUSHED[0])


CHECK = """\
work={work} pki={work}
for part in core/https registry; do . {lib}/$part.sh; done
expect() {{ :; }}
count_words() {{ echo $#; }}
conclude() {{ printf '%s\\n' "$1"; }}
mkdir -p {work}
cp {ca} {work}/ca.crt
REGISTRY_HOSTS='{hosts}'
{images}
check_registry_images
"""


def test_verify_names_a_host_that_does_not_serve_an_image(site: Site, tmp_path: Path) -> None:
    bundle = next((tmp_path / "one").rglob("node.env")).parent
    env = (bundle / "node.env").read_text()
    assert "REGISTRY_HOSTS='192.0.2.1:5000 192.0.2.2:5000'" in env
    images = next(line for line in env.splitlines() if line.startswith("REGISTRY_IMAGES="))
    assert images == f"REGISTRY_IMAGES='{site.repository}/manifests/1.0 library/box/manifests/1.36'"
    first, second = site.hosts
    hosts = f"127.0.0.1:{first.port} 127.0.0.1:{second.port}"
    script = tmp_path / "check.sh"
    lib, work = bundle / "lib", tmp_path / "work"
    script.write_text(CHECK.format(lib=lib, work=work, ca=first.ca, hosts=hosts, images=images))

    def check() -> str:
        done = subprocess.run(["sh", script], capture_output=True, text=True, check=False)
        assert done.stderr == ""
        return done.stdout.strip()

    assert check() == ""
    tags = "docker/registry/v2/repositories/library/box/_manifests/tags"
    shutil.rmtree(second.storage / tags)
    path = "/v2/library/box/manifests/1.36"
    assert check() == f"127.0.0.1:{second.port}{path}: status 404"
    assert second.seed().returncode == 0
    config = second.root / "etc/kube-registry/nginx.conf"
    second.stop()
    assert check() == f"127.0.0.1:{second.port}: Connection refused"
    config.write_text(config.read_text().replace("$is_read = 0", "$is_read = 2"))
    second.start()
    assert check().startswith(f"127.0.0.1:{second.port} does not refuse a write: status ")


def test_the_rendered_configuration_of_the_registry_has_the_rights_of_its_host(site: Site) -> None:
    first, second = ((host.root / "etc/kube-registry/config.yml").read_text() for host in site.hosts)  # fmt: skip
    assert "readonly:\n      enabled: false" in first
    assert "readonly:\n      enabled: true" in second
    hosts = json.dumps(sorted(path.parent.name for path in site.hosts_directory.glob("*/hosts.toml")))  # fmt: skip
    assert json.loads(hosts) == sorted(
        ["192.0.2.1:5000", "192.0.2.2:5000", "docker.io", "registry.example:5000", site.upstream]
    )
