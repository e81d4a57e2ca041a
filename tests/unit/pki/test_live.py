"""bundler certs check --live: fetch the certificate of a server and report its faults."""

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from support.ca import CertificateAuthority
from support.command import run_bundler
from support.json_shapes import read_shape
from support.pki_plans import make_plan

from bundler.cluster.loader import load_cluster
from bundler.cluster.plan import ClusterPlan
from bundler.cluster.plan import make_plan as make_real_plan
from bundler.errors import ConfigError
from bundler.pki.cluster_pki import ensure_pki
from bundler.pki.endpoints import find_endpoint, list_endpoints
from bundler.pki.live import (
    Endpoint,
    UnreachableError,
    check_endpoint,
    fetch_chain,
)
from bundler.state.directory import open_state

LOOPBACK = [x509.IPAddress(IPv4Address("127.0.0.1"))]
V2, V3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@contextmanager
def serve(
    certificate: Path, key: Path, *, version: ssl.TLSVersion | None = None,
    client_ca: Path | None = None, port: int = 0,
) -> Iterator[int]:  # fmt: skip
    """A TLS server on loopback; with `client_ca` it requires a client certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    if version:
        context.minimum_version = context.maximum_version = version
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_ca)
    listener = socket.create_server(("", port))

    def answer() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, suppress(OSError), context.wrap_socket(connection, server_side=True):
                pass

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


@pytest.fixture
def ca(tmp_path: Path) -> CertificateAuthority:
    return CertificateAuthority(tmp_path, "ca")


@pytest.mark.parametrize("requires_client", [False, True])
@pytest.mark.parametrize("version", [V2, V3])
def test_the_certificate_is_fetched_without_a_client_certificate(
    ca: CertificateAuthority, version: ssl.TLSVersion, *, requires_client: bool
) -> None:
    file = ca.issue("server", LOOPBACK)
    client = ca.file if requires_client else None
    with serve(file, file.with_suffix(".key"), version=version, client_ca=client) as port:
        assert fetch_chain("127.0.0.1", port)[0] == load(file)


def test_intermediates_complete_the_chain_to_the_root(
    ca: CertificateAuthority, tmp_path: Path
) -> None:
    (tmp_path / "below").mkdir()
    below = CertificateAuthority(tmp_path / "below", "intermediate")
    signed = ca.issue("intermediate-signed", [])
    # the intermediate's own key, signed by the root
    root_key, intermediate_key = ca.key, below.key
    certificate = load(ca.file)
    builder = (
        x509.CertificateBuilder()
        .subject_name(load(below.file).subject)
        .issuer_name(certificate.subject)
        .public_key(intermediate_key.public_key())
        .serial_number(7)
        .not_valid_before(certificate.not_valid_before_utc)
        .not_valid_after(certificate.not_valid_after_utc)
    )
    from cryptography.hazmat.primitives import hashes, serialization

    signed.write_bytes(
        builder.sign(root_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    )
    leaf = below.issue("server", LOOPBACK)
    chain = tmp_path / "chain.crt"
    chain.write_bytes(leaf.read_bytes() + signed.read_bytes())
    with serve(chain, leaf.with_suffix(".key")) as port:
        endpoint = Endpoint(host="127.0.0.1", port=port, ca="root")
        found = check_endpoint(endpoint, {"root": (certificate,)}, {}, datetime.now(UTC))
    assert found.faults == ()
    with serve(leaf, leaf.with_suffix(".key")) as port:
        endpoint = Endpoint(host="127.0.0.1", port=port, ca="root")
        found = check_endpoint(endpoint, {"root": (certificate,)}, {}, datetime.now(UTC))
    assert found.faults == ("signed by CN=intermediate, which is not the trusted root",)


def test_every_fault_is_reported(ca: CertificateAuthority, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = CertificateAuthority(tmp_path / "other", "other")
    file = other.issue("server", [x509.DNSName("elsewhere")])
    with serve(file, file.with_suffix(".key")) as port:
        endpoint = Endpoint(
            host="127.0.0.1", port=port, ca="own", certificate="pki/nodes/a/apiserver"
        )
        known = {"pki/nodes/a/apiserver": load(ca.issue("mine", LOOPBACK))}
        later = datetime.now(UTC) + timedelta(days=3)
        found = check_endpoint(endpoint, {"own": (load(ca.file),)}, known, later)
    assert len(found.faults) == 4
    ended, signed, named, stale = found.faults
    assert ended.startswith("ended on ")
    assert signed == "signed by CN=other, which is not the trusted own"
    assert named == "is not valid for 127.0.0.1; its names: elsewhere"
    assert stale.startswith("is not pki/nodes/a/apiserver of the state directory")


def test_a_closed_port_and_a_server_without_tls_are_reported(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(UnreachableError, match="no answer: Connection refused"):
        fetch_chain("127.0.0.1", port)
    assert not list(tmp_path.iterdir())

    def speak(listener: socket.socket) -> None:
        for _ in range(2):
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=speak, args=(listener,))
        thread.start()
        with pytest.raises(UnreachableError, match="is it a TLS server"):
            fetch_chain("127.0.0.1", listener.getsockname()[1])
        thread.join()


@pytest.mark.parametrize("host", ["a..b", ".foo", "a" * 80])
def test_an_invalid_host_name_is_reported(host: str) -> None:
    with pytest.raises(UnreachableError, match="is not a host name"):
        fetch_chain(host, 443)


def test_every_server_of_the_plan_has_its_expected_certificate() -> None:
    endpoints = {e.address: e for e in list_endpoints(make_plan())}
    assert len(endpoints) == 2 * 5 + 1 + 1
    peer = endpoints["172.30.20.12:2380"]
    assert (peer.certificate, peer.ca) == ("pki/nodes/master2/etcd-peer", "etcd-ca")
    assert endpoints["172.30.20.21:10250"].certificate is None
    assert endpoints["172.30.20.250:8443"].title == "the API's endpoint"
    alone = make_plan(masters=1, endpoint="172.30.20.11")
    assert [e.address for e in list_endpoints(replace(alone, endpoint_port=6443))].count(
        "172.30.20.11:6443"
    ) == 1
    single = {e.address: e for e in list_endpoints(make_plan(authorities="single"))}
    assert single["172.30.20.12:2380"].ca == "kubernetes-ca"


def test_an_endpoint_is_found_by_node_name() -> None:
    plan = make_plan()
    assert find_endpoint("master2:6443", plan) == find_endpoint("172.30.20.12:6443", plan)
    assert find_endpoint("master2:6443", plan).certificate == "pki/nodes/master2/apiserver"
    assert find_endpoint("elsewhere:443", plan) == Endpoint(host="elsewhere", port=443)
    for wrong in ("master1", ":6443", "master1:x", "master1:70000"):
        with pytest.raises(ConfigError, match="expected HOST:PORT"):
            find_endpoint(wrong, plan)


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def own_address() -> str:
    """An address of this machine, as nodes may not have loopback addresses; sends no packet."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("servers cannot be asked live: this machine has no address except loopback")
        return str(probe.getsockname()[0])


@pytest.fixture
def site(description: Path, own_address: str) -> ClusterPlan:
    """A state for the example cluster; its first master has the address of this machine."""
    text = description.read_text().replace("172.30.20.11", own_address)
    description.write_text(text)
    plan = make_real_plan(load_cluster(description).cluster)
    with open_state(description.parent / "lab.state", create=True) as state:
        ensure_pki(state, plan, datetime.now(UTC))
    return plan


@pytest.fixture
def bundler(description: Path, site: ClusterPlan) -> Run:
    assert site.name == "lab"

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_bundler(
            ["certs", "check", *arguments],
            cwd=description.parent, capture_output=True, text=True, check=False,
        )  # fmt: skip

    return run


def test_the_command_checks_against_the_state(bundler: Run, description: Path) -> None:
    pki = description.parent / "lab.state/pki"
    own = pki / "nodes/master1/scheduler-server"
    with serve(own / "cert.pem", own / "key.pem", port=10259):
        good = bundler("--live", "master1:10259", "--json", "--warn", "60d")
        assert good.returncode == 0, good.stderr
        (row,) = read_shape(good.stdout, "certs-check")["servers"]
        assert row["faults"] == []
        assert row["known_as"] == "pki/nodes/master1/scheduler-server"
        assert row["days_left"] in {363, 364, 365}
        assert bundler("--live", "127.0.0.1:10259", "--warn", "400d").returncode == 1
        assert bundler("--live", "127.0.0.1:10259").returncode == 0
        # without the state directory, --ca selects the trusted CA
        shutil.move(pki.parent, description.parent / "away")
        assert bundler("--live", "127.0.0.1:10259").returncode == 4
        ca = description.parent / "away/pki/kubernetes-ca/cert.pem"
        assert bundler("--live", "127.0.0.1:10259", "--ca", str(ca)).returncode == 0
        wrong = description.parent / "away/pki/etcd-ca/cert.pem"
        assert bundler("--live", "127.0.0.1:10259", "--ca", str(wrong)).returncode == 1


def test_a_server_with_the_old_certificate_is_reported(bundler: Run, description: Path) -> None:
    own = description.parent / "lab.state/pki/nodes/master1/scheduler-server"
    old = description.parent / "old"
    shutil.copytree(own, old)
    shutil.rmtree(own)
    with open_state(description.parent / "lab.state") as state:
        ensure_pki(state, make_real_plan(load_cluster(description).cluster), datetime.now(UTC))
    with serve(old / "cert.pem", old / "key.pem", port=10259):
        done = bundler("--live", "master1:10259")
    assert done.returncode == 1
    assert "is not pki/nodes/master1/scheduler-server of the state directory" in done.stderr
    assert done.stdout.startswith("!")


def test_servers_are_contacted_only_with_live(bundler: Run) -> None:
    assert bundler().returncode == 2
    assert bundler("127.0.0.1:6443").returncode == 2
    assert bundler("--live", "127.0.0.1").returncode == 2
