"""flannel with `store: etcd`: what a worker's certificate opens in a real cluster of etcd, and what it does not.

flannel_etcd_rights.tsv has the requests. The members and the proxies in front of them are started from their bundles.
"""

import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.etcd_hosts import Member, Site, find_etcd, wait_for, wait_ready
from support.networks import take_network
from support.paths import LAB_CACHE
from support.shells import SHELLS
from support.stand_in_systemctl import read_unit, relocate

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:{LAB_CACHE}/programs/usr/bin:/usr/sbin")
KEY = "/kubernetes/network"
BODIES = {"@large": "value=" + "a" * 2000, "@grpc": "\0\0\0\0\x03\n\x01/"}
REFUSED = (ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)
ROWS = [
    tuple(line.split("\t"))
    for line in Path(__file__).with_name("flannel_etcd_rights.tsv").read_text().splitlines()[3:]
    if not line.startswith("#")
]


class Proxy:
    """etcd-flannel-proxy.service of one etcd host."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.unit = read_unit(member.root, "etcd-flannel-proxy.service")
        assert NGINX
        program = member.root / "opt/k8s/bin/nginx"
        program.unlink(missing_ok=True)
        program.symlink_to(NGINX)
        directory = member.root / "run/etcd-flannel-proxy"
        directory.mkdir(exist_ok=True)
        config = member.root / "etc/etcd-flannel-proxy/nginx.conf"
        text = config.read_text().replace("/run/etcd-flannel-proxy/", f"{directory}/")
        config.write_text(text.replace("/etc/etcd/", f"{member.root}/etc/etcd/"))
        _, self.describing, self.testing = self.unit["ExecStartPre"]  # first unit-files.sh

    def describe(self) -> subprocess.Popen[bytes]:
        command = relocate(self.member.root, self.describing)
        return subprocess.Popen(command, env=self.member.environment, stderr=subprocess.PIPE)

    def start(self) -> None:
        """Run what the unit runs; nginx starts only after the network's configuration is in etcd."""
        with self.describe() as described:
            assert described.wait(timeout=40) == 0
        for command in (self.testing, self.unit["ExecStart"][0]):
            words = relocate(self.member.root, command)
            self.process = subprocess.Popen(words, env=self.member.environment)
            if command == self.testing:
                assert self.process.wait(timeout=20) == 0
        wait_for("the proxy listens", lambda: is_open(self.member.address, 2382))

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=20)


def is_open(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=2):
            return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[Proxy], Member]]:
    """The proxies of three etcd hosts, and worker w1."""
    if not NGINX:
        pytest.skip("the proxies cannot run: there is no nginx (make lab)")
    directory = tmp_path_factory.mktemp("site")
    site = Site(
        directory, find_etcd(tmp_path_factory.mktemp("etcd")), take_network(), workers=("w1",),
        choices={
            "runtime": {"engine": "docker"},
            "network": {"plugin": "flannel", "flannel": {"store": "etcd"}},
        },
    )  # fmt: skip
    members = site.build("m1", "m2", "m3")
    for member in members:
        member.start()
    proxies = [Proxy(member) for member in members]
    try:
        wait_ready(members)
        members[0].etcdctl("put", "/registry/secrets/default/a", "the Secret")
        for proxy in proxies:
            proxy.start()
        yield proxies, site.made["w1"]
    finally:
        for proxy in proxies:
            if hasattr(proxy, "process"):
                proxy.stop()
        with ThreadPoolExecutor() as pool:
            list(pool.map(Member.stop, members))


def make_context(
    host: Member, certificate: str | None, ca: str = "etc/etcd/pki/ca.crt"
) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=host.root / ca)
    if certificate:
        context.load_cert_chain(host.root / f"{certificate}.crt", host.root / f"{certificate}.key")
    return context


def as_worker(worker: Member) -> ssl.SSLContext:
    return make_context(worker, "etc/flannel/pki/client", "etc/flannel/pki/etcd-ca.crt")


def as_member(member: Member) -> ssl.SSLContext:
    return make_context(member, "etc/etcd/pki/healthcheck-client")


def ask(
    context: ssl.SSLContext, address: str, port: int, method: str, path: str,
    headers: str = "", body: str = "",
) -> tuple[int, bytes]:  # fmt: skip
    connection = http.client.HTTPSConnection(address, port, context=context, timeout=10)
    try:
        given = dict([headers.split(": ", 1)]) if headers else {}
        connection.request(method, path, BODIES.get(body, body) or None, given)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: " ".join(row[1:3])[:80])
@pytest.mark.parametrize("number", range(3))
def test_a_worker_can_do_what_flannel_does_and_no_more(
    cluster: tuple[list[Proxy], Member], number: int, row: tuple[str, ...]
) -> None:
    status, *request = row
    address = cluster[0][number].member.address
    got, body = ask(as_worker(cluster[1]), address, 2382, *request)
    assert (got, b"Secret" in body) == (int(status), False), body
    assert status != "403" or b"nginx" in body, "etcd answered"


def test_nothing_but_flannels_configuration_is_in_the_v2_api(
    cluster: tuple[list[Proxy], Member],
) -> None:
    """After all rows of the table; and the members are those that were built."""
    member = cluster[0][0].member
    _, body = ask(as_member(member), member.address, 2379, "GET", "/v2/keys/?recursive=true")
    (top,) = json.loads(body)["node"]["nodes"]
    (network,) = top["nodes"]
    assert {node["key"]: node.get("value") for node in network["nodes"]} == {
        f"{KEY}/config": (member.root / "etc/etcd-flannel-proxy/network.json").read_text().strip(),
        f"{KEY}/subnets": None,
    }
    assert set(member.members()) == {"m1", "m2", "m3"}
    assert list(member.list_keys()) == ["L3JlZ2lzdHJ5L3NlY3JldHMvZGVmYXVsdC9h"]


@pytest.mark.parametrize(
    ("port", "method", "path"),
    [
        (2379, "GET", f"/v2/keys{KEY}/config"),
        (2379, "POST", "/v3/kv/range"),
        (2379, "GET", "/health"),
        (2380, "GET", "/members"),
        (2380, "POST", "/members"),
        (2380, "POST", "/raft"),
        (2380, "POST", "/raft/snapshot"),
    ],
)
def test_a_worker_cannot_connect_to_a_member(
    cluster: tuple[list[Proxy], Member], port: int, method: str, path: str
) -> None:
    for proxy in cluster[0]:
        with pytest.raises(REFUSED):
            ask(as_worker(cluster[1]), proxy.member.address, port, method, path, body="a")
        member = as_member(proxy.member)
        assert ask(member, proxy.member.address, 2379, "GET", "/health")[0] == 200


def test_a_proxy_does_not_speak_http2(cluster: tuple[list[Proxy], Member]) -> None:
    (proxy, *_), worker = cluster
    context = as_worker(worker)
    context.set_alpn_protocols(["h2"])
    with pytest.raises(ssl.SSLError, match="no application protocol"):
        ask(context, proxy.member.address, 2382, "GET", f"/v2/keys{KEY}/config")
    done = run_etcdctl(worker, 3, cluster[0][:1], "get", "", "--prefix", "--command-timeout=3s")
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.parametrize(
    "certificate",
    [None, "m1 etc/etcd/pki/healthcheck-client", "m1 etc/etcd/pki/server", "m1 etc/kubernetes/pki/apiserver-kubelet-client"],
)  # fmt: skip
def test_a_proxy_refuses_every_certificate_but_flannels(
    cluster: tuple[list[Proxy], Member], certificate: str | None
) -> None:
    member = cluster[0][0].member
    context = make_context(member, certificate.split()[1] if certificate else None)
    status, body = ask(context, member.address, 2382, "GET", f"/v2/keys{KEY}/config")
    assert (status, b"certificate" in body) == (400, True)


def run_etcdctl(
    worker: Member, api: int, proxies: list[Proxy], *words: str
) -> subprocess.CompletedProcess[str]:
    """etcdctl's v2 client is the Go package that flannel has."""
    pki, names = (
        worker.root / "etc/flannel/pki",
        {2: ("ca-file", "cert-file", "key-file"), 3: ("cacert", "cert", "key")},
    )
    files = zip(names[api], ("etcd-ca.crt", "client.crt", "client.key"), strict=True)
    return subprocess.run(
        [
            proxies[0].member.root / "opt/k8s/bin/etcdctl",
            "--endpoints", ",".join(f"https://{one.member.address}:2382" for one in proxies),
            *(f"--{name}={pki / file}" for name, file in files), *(["--no-sync"] if api == 2 else []), *words,
        ],
        capture_output=True, text=True, check=False, timeout=60,
        env={"PATH": os.environ["PATH"], "ETCDCTL_API": str(api)},
    )  # fmt: skip


def test_flannels_client_works_with_two_of_three_members(
    cluster: tuple[list[Proxy], Member],
) -> None:
    proxies, worker = cluster
    proxies[0].member.stop()
    try:
        for _ in range(5):  # the client begins with a random proxy
            assert run_etcdctl(worker, 2, proxies, "get", f"{KEY}/config").returncode == 0
        subnet = f"{KEY}/subnets/10.200.9.0-24"
        made = run_etcdctl(worker, 2, proxies[1:], "set", "--ttl", "600", subnet, "{}")
        assert made.returncode == 0, made.stderr
        with ThreadPoolExecutor() as pool:
            words = ("watch", "--recursive", f"{KEY}/subnets")
            watch = pool.submit(run_etcdctl, worker, 2, proxies[1:2], *words)
            time.sleep(1)
            run_etcdctl(worker, 2, proxies[2:], "set", "--ttl", "600", subnet, "again")
            assert watch.result().stdout == f"[set] {subnet}\nagain\n"
        assert run_etcdctl(worker, 2, proxies[1:], "rm", subnet).returncode == 0
    finally:
        proxies[0].member.start()
        wait_ready([proxies[0].member])


def test_an_emptied_v2_api_gets_its_configuration_before_a_proxy_serves(
    cluster: tuple[list[Proxy], Member],
) -> None:
    """As after restore.sh; workers wait for it."""
    proxies, worker = cluster
    first = proxies[0]
    wait = relocate(worker.root, read_unit(worker.root, "flannel.service")["ExecStartPre"][0])
    for shell in SHELLS:
        subprocess.run([*shell, *wait], env=worker.environment, timeout=40, check=True)
    member = as_member(first.member)
    path = "/v2/keys/kubernetes?recursive=true"
    assert ask(member, first.member.address, 2379, "DELETE", path)[0] == 200
    waiting = subprocess.Popen(wait, env=worker.environment)
    reason = worker.root / "run/flannel/reason"
    wait_for("the reason", lambda: reason.exists() and "not in etcd yet" in reason.read_text())
    first.stop()
    first.member.stop()
    with first.describe() as describing:
        assert describing.stderr is not None
        assert b"waiting for etcd: " in describing.stderr.readline()
        first.member.start()
        assert describing.wait(timeout=60) == 0
    assert waiting.wait(timeout=40) == 0, "another proxy serves it"
    assert not reason.exists()
    first.start()
    assert (
        ask(as_worker(worker), first.member.address, 2382, "GET", f"/v2/keys{KEY}/config")[0] == 200
    )
