"""The audit log reaches a syslog server: the real rsyslog with what bundler renders, over TLS and TCP."""

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from support.ca import CertificateAuthority
from support.etcd_hosts import wait_for
from support.paths import LAB_CACHE

from bundler.cluster.audit_syslog import CLIENT, SYSLOG_CONFIG, list_syslog_files
from bundler.cluster.loader import load_cluster

pytestmark = pytest.mark.slow

PACKAGES = ("rsyslog", "rsyslog-gnutls", "libestr0", "libfastjson4", "liblognorm5")
LIBRARIES = Path("usr/lib/x86_64-linux-gnu")
OUTAGE = re.compile("onnect|suspended|TCP|GnuTLS")
LARGE = 100_000  # bytes: the API server truncates events above that


@pytest.fixture(scope="module")
def rsyslog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of Debian's rsyslog, unpacked; its packages stay in the lab's cache."""
    packages = LAB_CACHE / "rsyslog"
    if not all(list(packages.glob(f"{name}_*.deb")) for name in PACKAGES):
        packages.mkdir(parents=True, exist_ok=True)
        got = shutil.which("apt-get") and subprocess.run(
            ["apt-get", "download", *PACKAGES], cwd=packages, capture_output=True, check=False
        )
        if not got or got.returncode:
            pytest.skip("rsyslog cannot run: its Debian packages cannot be downloaded")
    root = tmp_path_factory.mktemp("rsyslog")
    for package in packages.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, root], check=True)
    return root


class SyslogServer:
    """Keeps the messages that it gets: frames with a count of bytes (RFC 6587, RFC 5425)."""

    def __init__(self, address: str, context: ssl.SSLContext | None, port: int = 0) -> None:
        self.messages: list[str] = []
        self.peers: list[Any] = []
        self.socket = socket.create_server((address, port))
        self.port = self.socket.getsockname()[1]
        self.context = context
        self.open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.socket.accept()
                if self.context:
                    client = self.context.wrap_socket(client, server_side=True)
                    self.peers.append(client.getpeercert())
            except ssl.SSLError:
                continue
            except OSError:
                return
            self.open.append(client)
            threading.Thread(target=self._read, args=(client,), daemon=True).start()

    def _read(self, client: socket.socket) -> None:
        with client.makefile("rb") as stream:
            try:
                while length := b"".join(iter(lambda: stream.read(1).strip(), b"")):
                    self.messages.append(stream.read(int(length)).decode())
            except OSError:
                return

    def stop(self) -> None:
        for each in (self.socket, *self.open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def read_events(self) -> list[Any]:
        return [json.loads(message.partition(" - audit - ")[2])["n"] for message in self.messages]


class Follower:
    """rsyslogd of a control plane, with the audit log and its files below a directory."""

    def __init__(self, rsyslog: Path, directory: Path, syslog: dict[str, object]) -> None:
        self.directory, self.programs = directory, rsyslog
        self.log = directory / "audit.log"
        self.process: subprocess.Popen[bytes] | None = None
        (directory / "work").mkdir(exist_ok=True)
        description = directory / "cluster.yaml"
        document = {
            "apiVersion": "bundler/v1alpha1", "name": "logs", "audit": {"syslog": syslog},
            "dns": {"provider": "none"}, "images": [{"ref": "a.example/web:1", "use": "verify"}],
            "nodes": [{"name": "one", "address": "192.0.2.1", "roles": ["etcd", "control-plane", "worker"]}],
        }  # fmt: skip
        description.write_text(json.dumps(document))
        cluster = load_cluster(description).cluster
        files = {
            file.path: file.read().decode() for file in list_syslog_files(cluster, cluster.nodes[0])
        }
        config = files.pop(SYSLOG_CONFIG).replace("/var/log/kubernetes/audit.log", str(self.log))
        for path, text in files.items():
            (directory / Path(path).name).write_text(text)
        config = config.replace(CLIENT, str(directory / Path(CLIENT).name))
        (directory / "own.conf").write_text(config)
        (directory / "rsyslog.conf").write_text(
            f'global(workDirectory="{directory}/work")\ninclude(file="{directory}/own.conf")\n'
        )

    def command(self, *arguments: str) -> list[str]:
        program = self.programs / "usr/sbin/rsyslogd"
        modules = self.programs / LIBRARIES / "rsyslog"
        return [str(program), f"-M{modules}", "-f", f"{self.directory}/rsyslog.conf", *arguments]

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "LD_LIBRARY_PATH": str(self.programs / LIBRARIES)}

    def check(self) -> str:
        done = subprocess.run(
            self.command("-N1"), capture_output=True, text=True, env=self.environment, check=False
        )
        return f"{done.returncode} {done.stderr}"

    def start(self) -> None:
        with (self.directory / "output").open("ab") as output:
            self.process = subprocess.Popen(
                self.command("-n", "-i", f"{self.directory}/pid"),
                env=self.environment, stdout=output, stderr=output,
            )  # fmt: skip

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(30)

    def write(self, *numbers: int, size: int = 10) -> None:
        with self.log.open("a") as file:
            file.writelines(
                json.dumps({"n": number, "text": "x" * size}) + "\n" for number in numbers
            )

    def rotate(self) -> None:
        self.log.rename(self.log.with_name(f"audit-{time.time_ns()}.log"))


@pytest.fixture
def started() -> Iterator[list[Any]]:
    running: list[Any] = []
    yield running
    for each in reversed(running):
        each.stop()


@pytest.mark.parametrize("protocol", ["tls", "tcp"])
def test_every_event_arrives_over_rotation_restart_and_an_outage(
    rsyslog: Path, tmp_path: Path, started: list[Any], protocol: str
) -> None:
    address = "127.0.0.1"
    ca = CertificateAuthority(tmp_path, "logs-ca")
    own = ca.issue("logs", [x509.IPAddress(ip_address(address)), x509.DNSName("logs.example")])
    client = ca.issue("node", [])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own, own.with_suffix(".key"))
    context.load_verify_locations(ca.file)
    context.verify_mode = ssl.CERT_REQUIRED
    server = SyslogServer(address, context if protocol == "tls" else None)
    started.append(server)
    syslog = {"host": address, "port": server.port, "protocol": protocol}
    if protocol == "tls":
        syslog |= {
            "ca": str(ca.file),
            "server_name": "logs.example",
            "certificate": str(client),
            "key": str(client.with_suffix(".key")),
        }
    follower = Follower(rsyslog, tmp_path, syslog)
    assert follower.check().startswith("0 "), follower.check()
    follower.write(0)
    follower.write(1, size=LARGE)
    follower.start()
    started.append(follower)
    wait_for("the events", lambda: server.read_events() == [0, 1])
    assert "<134>1 " in server.messages[0]
    assert " kube-apiserver - audit - {" in server.messages[0]
    assert len(server.messages[1]) > LARGE
    follower.rotate()
    follower.write(2)
    wait_for("the events", lambda: server.read_events() == [0, 1, 2])
    follower.stop()
    follower.write(3)
    follower.start()
    wait_for("the events", lambda: server.read_events() == [0, 1, 2, 3])
    server.stop()
    # rsyslog sees at a later event that the connection is gone: syslog knows no receipt
    output, lost = tmp_path / "output", count(100)
    wait_for(
        "the outage",
        lambda: follower.write(next(lost)) or OUTAGE.search(output.read_text()),
        60,
    )
    follower.write(5, 6)
    server = SyslogServer(address, server.context, server.port)
    started.append(server)
    wait_for("the events", lambda: {5, 6} <= set(server.read_events()), 120)
    if protocol == "tls":
        assert server.peers[0]["subject"] == ((("commonName", "node"),),)


def test_events_go_to_no_server_with_another_name(
    rsyslog: Path, tmp_path: Path, started: list[Any]
) -> None:
    ca = CertificateAuthority(tmp_path, "logs-ca")
    other = ca.issue("other", [x509.DNSName("other.example")])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(other, other.with_suffix(".key"))
    server = SyslogServer("127.0.0.1", context)
    started.append(server)
    follower = Follower(
        rsyslog, tmp_path,
        {"host": "127.0.0.1", "server_name": "logs.example", "port": server.port, "ca": str(ca.file)},
    )  # fmt: skip
    follower.write(0)
    follower.start()
    started.append(follower)
    wait_for("the refusal", lambda: "not permitted" in (tmp_path / "output").read_text())
    assert server.messages == []
