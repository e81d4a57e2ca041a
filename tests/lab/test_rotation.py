"""The CAs of five hosts are rotated in stages: a stage that comes too early is refused, no old key stays."""

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
from support.lab import FIGURES, Cluster, build, wait_for
from support.rotations import Stages, renew_service_accounts

pytestmark = pytest.mark.long
PEM = re.compile(rb"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")
ENCODED = re.compile(rb"[A-Za-z0-9+/]{200,}={0,2}")
# Everything on a host except programs and images. The history and older snapshots of etcd, and the audit
# log of kubelets' requests, hold former certificates, because objects had them; they hold no key.
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


@dataclass
class Rotation(Stages):
    """The stages of the CAs, and the keys before the rotation."""

    former_keys: set[bytes]  # a line of each, see read_keys

    @property
    def pki(self) -> Path:
        return self.state / "pki"

    def rotate(self, step: str) -> None:
        self.build(step, "certs", "rotate", step)

    def verify(self, step: str, start: float) -> None:
        wait_for(f"verify.sh after {step}", self.is_green, seconds=240)
        FIGURES.append(f"CA rotation, stage {step}: {time.monotonic() - start:.0f} s for five hosts, verify.sh included")  # fmt: skip

    def is_green(self) -> bool:
        return self.cluster.verify().returncode == 0


@pytest.fixture(scope="module")
def rotation(running: Cluster, product_cache: Path) -> Rotation:
    made = Rotation(cluster=running, cache=product_cache, dist=running.dist, former_keys=set())
    made.former_keys = read_keys(made.pki)
    return made


def read_keys(pki: Path) -> set[bytes]:
    """Read one line of each private key, which identifies it."""
    return {path.read_bytes().split(b"\n")[1] for path in pki.rglob("key.pem")}


def test_all_hosts_but_one_trust_the_new_cas(rotation: Rotation) -> None:
    masters, workers = rotation.cluster.masters, rotation.cluster.workers
    rotation.rotate("trust")
    start = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda host: rotation.install("trust", host), [*masters, workers[0]]))
    rotation.verify("trust", start)


def test_no_host_uses_a_new_certificate_before_all_trust_the_new_cas(rotation: Rotation) -> None:
    masters, workers = rotation.cluster.masters, rotation.cluster.workers
    rotation.rotate("issue")
    said = rotation.is_refused("issue", masters[0])
    assert (
        "port 10250 of worker2 does not trust the CA that signs this bundle's certificates" in said
    )
    rotation.install("trust", workers[1])
    said = rotation.is_refused("issue", workers[0])
    assert "install control planes before workers" in said


def test_all_certificates_are_replaced_while_the_former_cas_are_trusted(rotation: Rotation) -> None:
    start = time.monotonic()
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda host: rotation.install("issue", host), rotation.cluster.masters))
        rotation.rotate("drop")
        said = rotation.is_refused("drop", rotation.cluster.masters[0])
        assert "uses a certificate of a CA that this bundle no longer trusts" in said
        list(pool.map(lambda host: rotation.install("issue", host), rotation.cluster.workers))
    renew_service_accounts(rotation.cluster)
    rotation.verify("issue", start)


def test_the_former_cas_are_removed(rotation: Rotation) -> None:
    start = time.monotonic()
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(lambda host: rotation.install("drop", host), rotation.cluster.hosts.values()))
    rotation.verify("drop", start)
    for host in rotation.cluster.hosts.values():
        done = host.run("/opt/k8s/bundle/verify.sh --node", check=False)
        assert done.returncode == 0, done.stdout


def decode(content: bytes) -> bytes:
    """Add the decoded text of base64 values, as in kubeconfigs."""
    parts = [content]
    for encoded in ENCODED.findall(content):
        with contextlib.suppress(binascii.Error):
            parts.append(base64.b64decode(encoded, validate=True))
    return b"\n".join(parts)


def list_certificates(content: bytes) -> list[x509.Certificate]:
    """List certificates in PEM, and PEM in base64."""
    return [x509.load_pem_x509_certificate(pem) for pem in PEM.findall(decode(content))]


def list_former(content: bytes) -> list[str]:
    """List certificates of this cluster whose CA has no OU: those before the rotation."""
    return [
        one.subject.rfc4514_string()
        for one in list_certificates(content)
        if re.search(r"CN=(kubernetes|etcd|front-proxy)-ca", one.issuer.rfc4514_string())
        and "OU=" not in one.issuer.rfc4514_string()
    ]


def test_no_host_holds_a_former_certificate_or_key(rotation: Rotation) -> None:
    gone = rotation.former_keys - read_keys(rotation.pki)
    assert len(gone) > 20
    certificates = keys = 0
    for host in rotation.cluster.hosts.values():
        host.run(f"rm -rf {BUNDLES}")  # the bundles that the test copied
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


def test_no_object_of_the_cluster_holds_a_former_certificate(rotation: Rotation) -> None:
    kubectl = rotation.cluster.kubectl
    for kind in KINDS:
        text = kubectl(f"get {kind} -A -o json").replace("\\n", "\n").encode()
        assert list_former(text) == [], kind
        assert kind not in {"configmaps", "secrets"} or list_certificates(text)


def test_servers_use_new_certificates_and_a_full_bundle_changes_nothing(rotation: Rotation) -> None:
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
