"""The authorities of five hosts are replaced by stages: who comes too early is refused, nothing stays."""

import base64
import binascii
import contextlib
import io
import re
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from support.lab import CACHE, FIGURES, Cluster, Host, build, wait_for

pytestmark = pytest.mark.long
PEM = re.compile(rb"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")
ENCODED = re.compile(rb"[A-Za-z0-9+/]{200,}={0,2}")
# All of a host but programs and images. etcd's history and its snapshots of before, and the audit
# log of what kubelets once asked for, hold former certificates, as objects had them; they hold no key.
PLACES = "/etc /opt /root /home /srv /run /var"
LEFT_OUT = (
    "--exclude=bin --exclude=/var/lib/docker --exclude=/var/lib/etcd --exclude=/var/backups/etcd"
)
BUNDLES = "/root/lab-* /root/trust /root/issue /root/renewal"
AUDIT_LOG = "var/log/kubernetes/audit"
KINDS = (
    "configmaps",
    "secrets",
    "apiservices",
    "mutatingwebhookconfigurations",
    "validatingwebhookconfigurations",
    "customresourcedefinitions",
)
UNPLANNED = 3  # exit code of an install.sh that is refused


@dataclass
class Rotation:
    """The cluster, where each stage's bundles are, and what went on."""

    cluster: Cluster
    cache: Path
    dist: Path
    former_keys: set[bytes]  # as read_keys has them

    @property
    def pki(self) -> Path:
        return self.cluster.directory / "examples/lab.state/pki"

    def rotate(self, step: str) -> None:
        """On the builder: the stage, and its bundles as a delta of those before."""
        cluster = self.cluster
        target = cluster.directory / step
        done = subprocess.run(
            [
                Path(sys.executable).parent / "bundler", "certs", "rotate", step,
                "-c", cluster.directory / "examples/lab.yaml", "--since", self.dist, "-o", target,
                "--cache", self.cache, "--mirror", CACHE / "mirror", "--pins", CACHE / "pins.yaml", "--offline",
            ],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        self.dist = target
        with ThreadPoolExecutor(5) as pool:
            list(pool.map(lambda host: self.carry(host, step), cluster.hosts.values()))

    def carry(self, host: Host, step: str) -> None:
        """Beside the bundles of other stages."""
        bundle = self.cluster.directory / step / f"lab-{host.name}.tar.gz"
        host.run(f"rm -rf /root/{step} && mkdir /root/{step}")
        with bundle.open("rb") as stream:
            subprocess.run(
                ["docker", "exec", "-i", host.container, "tar", "-xzf", "-", "-C", f"/root/{step}"],
                stdin=stream, check=True,
            )  # fmt: skip

    def install(self, step: str, host: Host) -> None:
        host.run(f"/root/{step}/lab-{host.name}/install.sh --wait 10m", timeout=900)

    def is_refused(self, step: str, host: Host) -> str:
        before = host.output("cat /var/lib/bundler/current")
        done = host.run(f"/root/{step}/lab-{host.name}/install.sh", check=False)
        assert done.returncode == UNPLANNED, done.stdout
        assert host.output("cat /var/lib/bundler/current") == before
        return done.stdout

    def verify(self, step: str, begun: float) -> None:
        wait_for(f"verify.sh after {step}", self.is_green, seconds=240)
        FIGURES.append(f"new authorities, stage {step}: {time.monotonic() - begun:.0f} s for five hosts, verify.sh included")  # fmt: skip

    def is_green(self) -> bool:
        return self.cluster.verify().returncode == 0


@pytest.fixture(scope="module")
def rotation(running: Cluster, product_cache: Path) -> Rotation:
    made = Rotation(cluster=running, cache=product_cache, dist=running.dist, former_keys=set())
    made.former_keys = read_keys(made.pki)
    return made


def read_keys(pki: Path) -> set[bytes]:
    """A line of each private key, by which it is known."""
    return {path.read_bytes().split(b"\n")[1] for path in pki.rglob("key.pem")}


def test_all_but_one_come_to_believe_the_new_ones(rotation: Rotation) -> None:
    masters, workers = rotation.cluster.masters, rotation.cluster.workers
    rotation.rotate("trust")
    begun = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda host: rotation.install("trust", host), [*masters, workers[0]]))
    rotation.verify("trust", begun)


def test_no_host_issues_while_another_does_not_believe(rotation: Rotation) -> None:
    masters, workers = rotation.cluster.masters, rotation.cluster.workers
    rotation.rotate("issue")
    said = rotation.is_refused("issue", masters[0])
    assert "port 10250 of worker2 does not believe the authorities that sign in this bundle" in said
    rotation.install("trust", workers[1])
    said = rotation.is_refused("issue", workers[0])
    assert "install control planes before workers" in said


def test_everything_is_made_anew_while_the_former_are_believed(rotation: Rotation) -> None:
    begun = time.monotonic()
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda host: rotation.install("issue", host), rotation.cluster.masters))
        rotation.rotate("drop")
        said = rotation.is_refused("drop", rotation.cluster.masters[0])
        assert "shows a certificate of an authority that this bundle believes no more" in said
        list(pool.map(lambda host: rotation.install("issue", host), rotation.cluster.workers))
    rotation.verify("issue", begun)


def test_the_former_are_dropped(rotation: Rotation) -> None:
    begun = time.monotonic()
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(lambda host: rotation.install("drop", host), rotation.cluster.hosts.values()))
    rotation.verify("drop", begun)
    for host in rotation.cluster.hosts.values():
        done = host.run("/opt/k8s/bundle/verify.sh --node", check=False)
        assert done.returncode == 0, done.stdout


def decode(content: bytes) -> bytes:
    """With what is in it in base64, as in kubeconfigs."""
    parts = [content]
    for encoded in ENCODED.findall(content):
        with contextlib.suppress(binascii.Error):
            parts.append(base64.b64decode(encoded, validate=True))
    return b"\n".join(parts)


def list_certificates(content: bytes) -> list[x509.Certificate]:
    """Those in PEM, and those that are PEM in base64."""
    return [x509.load_pem_x509_certificate(pem) for pem in PEM.findall(decode(content))]


def list_former(content: bytes) -> list[str]:
    """Certificates of this cluster whose authority, or which, has no unit: those of before."""
    return [
        one.subject.rfc4514_string()
        for one in list_certificates(content)
        if re.search(r"CN=(kubernetes|etcd|front-proxy)-ca", one.issuer.rfc4514_string())
        and "OU=" not in one.issuer.rfc4514_string()
    ]


def test_no_host_holds_a_trace_of_the_former(rotation: Rotation) -> None:
    gone = rotation.former_keys - read_keys(rotation.pki)
    assert len(gone) > 20
    certificates = keys = 0
    for host in rotation.cluster.hosts.values():
        host.run(f"rm -rf {BUNDLES}")  # what people carried in
        packed = subprocess.run(
            ["docker", "exec", host.container, "sh", "-c", f"tar -cf - {LEFT_OUT} {PLACES} 2>/dev/null || :"],
            capture_output=True, check=True,
        ).stdout  # fmt: skip
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            for member in archive:
                if not member.isfile():
                    continue
                content = decode(archive.extractfile(member).read())  # type: ignore[union-attr]
                if not member.name.startswith(AUDIT_LOG):
                    assert list_former(content) == [], f"{host.name}: {member.name}"
                assert [key for key in gone if key in content] == [], f"{host.name}: {member.name}"
                certificates += len(PEM.findall(content))
                keys += content.count(b"PRIVATE KEY-----\n")
    assert certificates > 100
    assert keys > 40


def test_neither_does_the_cluster(rotation: Rotation) -> None:
    kubectl = rotation.cluster.kubectl
    for kind in KINDS:
        text = kubectl(f"get {kind} -A -o json").replace("\\n", "\n").encode()
        assert list_former(text) == [], kind
        assert kind not in {"configmaps", "secrets"} or list_certificates(text)


def test_servers_show_the_new_ones_and_later_tests_go_on(rotation: Rotation) -> None:
    cluster = rotation.cluster
    done = subprocess.run(
        [
            Path(sys.executable).parent / "bundler", "certs", "check", "--live",
            "-c", cluster.directory / "examples/lab.yaml",
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    build(cluster.directory / "examples" / "lab.yaml", cluster.dist, cache=rotation.cache)
    for host in cluster.hosts.values():
        directory = host.unpack(cluster.bundle(host))
        assert host.output(f"{directory}/install.sh").strip() == f"{host.name}: nothing to do"
