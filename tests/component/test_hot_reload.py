"""Real programs (Kubernetes 1.20.2, etcd 3.4) reload new certificates without a restart.

One host is a directory and a loopback address: etcd, kube-apiserver, kube-controller-manager and
kube-scheduler run with the flags and files of its rendered bundle. Then the files change.
"""

import http.client
import json
import shutil
import ssl
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from support.external_ca_cluster import without_election
from support.networks import take_network
from support.paths import LAB_CACHE
from support.tokens import make_tokens

from bundler.cluster.plan import ClusterPlan, make_plan
from bundler.cluster.schema import Cluster
from bundler.pki import declarations, issuing
from bundler.pki.cluster_pki import ensure_pki
from bundler.pki.key_pairs import load_pair
from bundler.pki.live import fetch_chain
from bundler.pki.renew import Selection, renew
from bundler.render.node import render_node
from bundler.render.state_values import Secrets
from bundler.render.tree import write_tree
from bundler.state.directory import open_state
from bundler.state.encryption import ensure_encryption_keys

MIRROR = LAB_CACHE / "mirror"
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
RELOAD_TIME = 75  # seconds; the programs read their files every minute


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the programs of the lab."""
    directory = tmp_path_factory.mktemp("programs")
    found = (
        *MIRROR.glob("github.com/etcd-io/etcd/releases/download/*/*amd64.tar.gz"),
        *MIRROR.glob("dl.k8s.io/v1.20.2/kubernetes-server-linux-amd64.tar.gz"),
    )
    for archive in found:
        with tarfile.open(archive) as opened:
            for member in opened:
                if Path(member.name).name in PROGRAMS and member.isreg():
                    member.name = Path(member.name).name
                    opened.extract(member, directory)
    if not all((directory / name).exists() for name in PROGRAMS):
        pytest.skip(
            "hot reload cannot be tested: there is no etcd or Kubernetes 1.20.2 in the lab's cache (make lab)"
        )
    return directory


def wait_for(what: str, holds: Callable[[], object], seconds: float = 180) -> None:
    started = time.monotonic()
    while not holds():
        assert time.monotonic() - started < seconds, f"after {seconds} s still waiting for: {what}"
        time.sleep(0.5)


@dataclass
class Host:
    """The directory of a host, its state directory, and its processes."""

    directory: Path
    programs: Path
    address: str
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        return self.directory / "root"

    @property
    def plan(self) -> ClusterPlan:
        node = {"name": "one", "address": self.address, "roles": ["etcd", "control-plane"]}
        cluster = Cluster.model_validate(
            {
                "apiVersion": "bundler/v1alpha1", "name": "real", "nodes": [node],
                "kubernetes": {"version": "1.20.2"}, "etcd": {"version": "3.4.23"},
                "dns": {"provider": "none"},
            }
        )  # fmt: skip
        return make_plan(cluster)

    def write(self) -> None:
        """Install the files of the node's bundle; changed files of a running host are replaced."""
        with open_state(self.directory / "state", create=True) as state:
            made = ensure_pki(state, self.plan, datetime.now(UTC))
            secrets = Secrets(
                state_id="0" * 64, pod_subnets={},
                pki=made, tokens=make_tokens(), encryption_keys=ensure_encryption_keys(state), initial_etcd_members=("one",)
            )  # fmt: skip
            tree = render_node(self.plan, self.plan.nodes[0], secrets)
        new = self.directory / "new"
        shutil.rmtree(new, ignore_errors=True)
        write_tree(tree, new)
        config = new / "rootfs/etc/kubernetes/scheduler-config.yaml"
        text = config.read_text().replace("/etc/", f"{self.root}/etc/")
        config.write_text(without_election(text))
        for file in sorted((new / "rootfs").rglob("*")):
            target = self.root / file.relative_to(new / "rootfs")
            if file.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            elif not target.exists() or target.read_bytes() != file.read_bytes():
                file.replace(target)

    def start(self, name: str) -> None:
        unit = without_election((self.root / f"etc/systemd/system/{name}.service").read_text())
        words = unit.partition("ExecStart=")[2].split("\n\n")[0].partition("\nRestart")[0]
        flags = [word.strip() for word in words.splitlines()[1:] if word.strip().startswith("--")]
        flags = [flag.removesuffix("\\").strip().strip('"') for flag in flags]
        for place in ("/etc/", "/var/"):
            flags = [flag.replace(f"={place}", f"={self.root}{place}") for flag in flags]
        if name == "etcd":
            flags = [f.replace(",https://127.0.0.1:2379", "") for f in flags]
            flags.append(
                f"--initial-cluster=one=https://{self.address}:2380"
            )  # as in etcd-start.sh
        with (self.directory / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [self.programs / name, *flags], stdout=log, stderr=log, cwd=self.directory
            )

    def stop(self, *names: str) -> None:
        for name in names or tuple(self.running):
            process = self.running.pop(name)
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def pids(self) -> dict[str, int]:
        assert all(process.poll() is None for process in self.running.values())
        return {name: process.pid for name, process in self.running.items()}

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text(errors="replace")

    def file(self, path: str) -> Path:
        return self.root / path

    def presents(self, port: int, path: str) -> bool:
        """Whether the server on that port presents the certificate of that file."""
        own = x509.load_pem_x509_certificate(self.file(path).read_bytes())
        return fetch_chain(self.address, port)[0] == own

    def request(
        self, method: str, path: str, body: object = None, *, client: str = "admin", **headers: str
    ) -> tuple[int, Any]:
        """Send a request with a client certificate, as the administrator by default."""
        state = self.directory / "state/pki"
        context = ssl.create_default_context(cafile=state / "kubernetes-ca/cert.pem")
        context.load_cert_chain(state / client / "cert.pem", state / client / "key.pem")
        connection = http.client.HTTPSConnection(self.address, 6443, context=context, timeout=20)
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        with closing(connection):
            text = json.dumps(body) if body else None
            connection.request(method, path, text, {"Content-Type": kind, **sent})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def bind_administrator(self) -> None:
        """Apply the object that gives the administrator its rights, as kube-apply.service does."""
        file = self.file("etc/kubernetes/addons/cluster-admins.yaml")
        status, answer = self.request(
            "POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
            yaml.safe_load(file.read_text()), client="front-proxy-client",
            X_Remote_User="bundler:kube-apply", X_Remote_Group="system:masters",
        )  # fmt: skip
        assert status == 201, answer

    def is_ready(self) -> bool:
        try:
            return self.request("GET", "/readyz")[0] == 200
        except OSError:
            return False

    def can_write(self) -> bool:
        name = f"x{time.monotonic_ns()}"
        try:
            body = {"metadata": {"name": name}}
            return self.request("POST", "/api/v1/namespaces/default/configmaps", body)[0] == 201
        except OSError:
            return False

    def renew(self, *names: str) -> None:
        selection = Selection(names=names)
        renewed = renew(self.directory / "state", self.plan, selection, datetime.now(UTC))
        assert renewed
        self.write()


@pytest.fixture(scope="module")
def host(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    address = f"{take_network()}.1"
    made = Host(tmp_path_factory.mktemp("host"), programs, address)
    made.write()
    made.file("var/log/kubernetes").mkdir(parents=True)
    made.file("var/lib").mkdir(parents=True, exist_ok=True)
    try:
        for name in PROGRAMS:
            made.start(name)
        wait_for("the API server is ready", made.is_ready)
        made.bind_administrator()
        yield made
    finally:
        made.stop()


@pytest.mark.long
def test_servers_present_new_certificates_without_a_restart(host: Host) -> None:
    pids = host.pids()
    files = {
        2379: "etc/etcd/pki/server.crt",
        2380: "etc/etcd/pki/peer.crt",
        6443: "etc/kubernetes/pki/apiserver.crt",
        10257: "etc/kubernetes/pki/controller-manager.crt",
        10259: "etc/kubernetes/pki/scheduler.crt",
    }
    wait_for("all serve", lambda: all(host.presents(port, path) for port, path in files.items()))
    host.renew("nodes/one/*")
    assert host.presents(2379, files[2379])  # immediately: etcd reads the file at each handshake
    assert host.presents(2380, files[2380])
    for port in (6443, 10257, 10259):
        wait_for(
            f"{port} presents it",
            lambda port=port: host.presents(port, files[port]),
            seconds=RELOAD_TIME,
        )
    assert host.can_write()
    assert host.pids() == pids


@dataclass(frozen=True)
class Kubelet:
    """A fake kubelet that records client certificates."""

    callers: list[bytes]
    port: int


@contextmanager
def serve_kubelet(host: Host) -> Iterator[Kubelet]:
    state = host.directory / "state"
    with open_state(state) as opened:
        ca = load_pair(state / "pki/kubernetes-ca", opened).issuer
    key = issuing.make_key("ecdsa-p256")
    content = declarations.Content(
        common_name="system:node:two", organization="system:nodes",
        usages=(declarations.SERVER.dotted_string,), names=(IPv4Address(host.address),),
    )  # fmt: skip
    certificate = issuing.issue(content, key.public_key(), ca, datetime.now(UTC), 1)
    files = host.directory / "kubelet.crt", host.directory / "kubelet.key"
    files[0].write_bytes(issuing.encode_certificate(certificate))
    files[1].write_bytes(issuing.encode_private_key(key))
    callers: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            callers.append(self.connection.getpeercert(binary_form=True))  # type: ignore[attr-defined]
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_arguments: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(state / "pki/kubernetes-ca/cert.pem")
    server = ThreadingHTTPServer((host.address, 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Kubelet(callers=callers, port=server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def add_node(host: Host, port: int) -> None:
    assert host.request("POST", "/api/v1/nodes", {"metadata": {"name": "two"}})[0] == 201
    status = {
        "status": {
            "addresses": [{"type": "InternalIP", "address": host.address}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        }
    }
    assert host.request("PATCH", "/api/v1/nodes/two/status", status)[0] == 200


@pytest.mark.long
def test_kubelets_and_aggregated_apis_get_the_new_client_certificates(host: Host) -> None:
    pids = host.pids()
    with serve_kubelet(host) as kubelet:
        add_node(host, kubelet.port)

        def ask() -> bytes:
            status, body = host.request("GET", f"/api/v1/nodes/https:two:{kubelet.port}/proxy/x")
            assert status == 200, body
            return kubelet.callers[-1]

        file = host.file("etc/kubernetes/pki/apiserver-kubelet-client.crt")
        old = x509.load_pem_x509_certificate(file.read_bytes())
        assert x509.load_der_x509_certificate(ask()) == old
        loaded = host.log("kube-apiserver").count('"aggregator-proxy-cert::')
        host.renew("apiserver-kubelet-client", "front-proxy-client")
        new = x509.load_pem_x509_certificate(file.read_bytes())
        assert new != old
        wait_for(
            "the kubelet gets the new certificate",
            lambda: x509.load_der_x509_certificate(ask()) == new,
            seconds=30,
        )
    text = 'Loaded a new cert/key pair for "aggregator-proxy-cert::'
    wait_for(
        "the aggregator has the new one",
        lambda: host.log("kube-apiserver").count(text) > 0 and
        host.log("kube-apiserver").count('"aggregator-proxy-cert::') > loaded,
        seconds=RELOAD_TIME,
    )  # fmt: skip
    assert host.pids() == pids


def test_the_api_server_presents_its_new_client_certificate_to_etcd(host: Host) -> None:
    """etcd restarts with another client CA: only a client that has reloaded its file can connect."""
    pid = host.running["kube-apiserver"].pid
    other = issuing.make_key("ecdsa-p256")
    ca = issuing.issue_ca("etcd-ca", "real", other, datetime.now(UTC), 10)
    trusted = host.file("etc/etcd/pki/ca.crt")
    trusted.write_bytes(issuing.encode_certificate(ca))
    host.stop("etcd")
    host.start("etcd")
    time.sleep(3)
    assert not host.can_write()
    key = issuing.make_key("ecdsa-p256")
    spec = next(s for s in declarations.CERTIFICATES if s.name == "apiserver-etcd-client")
    content = declarations.make_content(spec, host.plan, None)
    issuer = issuing.Issuer(certificate=ca, key=other)
    certificate = issuing.issue(content, key.public_key(), issuer, datetime.now(UTC), 5)
    for name, data in (
        ("crt", issuing.encode_certificate(certificate)),
        ("key", issuing.encode_private_key(key)),
    ):
        new = host.directory / "swap"
        new.write_bytes(data)
        new.replace(host.file(f"etc/kubernetes/pki/apiserver-etcd-client.{name}"))
    wait_for("the API server writes again", host.can_write, seconds=60)
    assert host.running["kube-apiserver"].pid == pid


def test_the_api_server_presents_its_loopback_certificate_for_its_sni_name(host: Host) -> None:
    """kube-certs.sh depends on this (lib/core/certificates.sh, served_certificate)."""
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"{host.address}:6443", "-servername", "apiserver-loopback-client"],
        input=b"", capture_output=True, check=False,
    )  # fmt: skip
    shown = x509.load_pem_x509_certificate(
        b"-----BEGIN CERTIFICATE-----" + done.stdout.partition(b"-----BEGIN CERTIFICATE-----")[2]
    )
    assert shown.subject.rfc4514_string().startswith("CN=apiserver-loopback-client@")
    assert (shown.not_valid_after_utc - datetime.now(UTC)).days in {363, 364}
