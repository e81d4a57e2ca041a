"""Two real control planes and over 1,000 Secrets: the encryption key is rotated while clients read and write."""

import base64
import http.client
import itertools
import json
import os
import signal
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pytest
from support.break_glass import write_break_glass
from support.two_control_planes import ControlPlane, Site, run_site

from bundler.cluster.plan import make_plan
from bundler.state.encryption import ENCRYPTION

pytestmark = pytest.mark.long

SECRETS = 1200
FINISH = "finish-rotation.sh"
OLD = "aescbc:key1"


@dataclass
class Clients:
    """One client that reads all Secrets in turn, and one that changes them, through any API server.

    Like a client of a load balancer, they go on to the other API server if one refuses the connection. Any other answer
    than the expected one is a failure.
    """

    site: Site
    failures: list[str] = field(default_factory=list)
    reads: int = 0
    written: dict[str, int] = field(default_factory=dict)  # Secret → its last acknowledged number
    stop: threading.Event = field(default_factory=threading.Event)

    @cached_property
    def context(self) -> ssl.SSLContext:
        """Made once: the files of a host are being replaced while clients work."""
        pki = self.site.one.root / "etc/kubernetes/pki"
        made = ssl.create_default_context(cafile=str(pki / "ca-servers.crt"))
        made.verify_flags &= ~ssl.VERIFY_X509_STRICT
        made.load_cert_chain(
            self.site.directory / "masters.crt", self.site.directory / "masters.key"
        )
        return made

    def ask(
        self, method: str, path: str, body: object = None, kind: str = "json"
    ) -> dict[str, object]:
        for attempt in range(40):
            host = self.site.hosts[attempt % 2]
            try:
                connection = http.client.HTTPSConnection(
                    host.address, 6443, context=self.context, timeout=20
                )
                connection.request(
                    method, path, json.dumps(body) if body else None, {"Content-Type": kind}
                )
                answer = connection.getresponse()
                content = answer.read()
                connection.close()
            except (ConnectionError, ssl.SSLEOFError, http.client.RemoteDisconnected):
                if method == "GET" or attempt % 2 == 1:
                    time.sleep(0.1)
                continue  # the API server is being restarted
            except TimeoutError:
                self.failures.append(f"{method} {path}: no answer of {host.name} within 20 s")
                return {}
            if answer.status == 409 and method == "PUT":
                return {}
            if answer.status != 200:
                self.failures.append(f"{method} {path}: {answer.status} {content[:200]!r}")
                return {}
            return dict(json.loads(content))
        self.failures.append(f"{method} {path}: no API server answers")
        return {}

    def read(self) -> None:
        for number in itertools.cycle(range(SECRETS)):
            if self.stop.is_set():
                return
            found = self.ask("GET", f"/api/v1/namespaces/load/secrets/s{number}")
            if found and decode(found, "fixed") != f"value {number}":
                self.failures.append(f"s{number} has another value: {found}")
            self.reads += 1

    def list(self) -> None:
        while not self.stop.is_set():
            found = self.ask("GET", "/api/v1/namespaces/load/secrets?limit=500")
            if found and len(list(found["items"])) != 500:  # type: ignore[call-overload]
                self.failures.append("a list is not complete")
            self.stop.wait(0.5)

    def write(self) -> None:
        """Read, change and replace one Secret after another: a lost update would show in its number."""
        for number in itertools.cycle(range(0, SECRETS, 7)):
            if self.stop.is_set():
                return
            name = f"s{number}"
            path = f"/api/v1/namespaces/load/secrets/{name}"
            found = self.ask("GET", path)
            if not found:
                continue
            count = int(decode(found, "count"))
            if count < self.written.get(name, 0):
                self.failures.append(
                    f"{name}: {self.written[name]} was acknowledged, and {count} is there"
                )
            found["data"]["count"] = encode(str(count + 1))  # type: ignore[index]
            if self.ask("PUT", path, found, "application/json"):
                self.written[name] = count + 1

    @contextmanager
    def working(self) -> Iterator[None]:
        self.stop.clear()
        assert self.context
        threads = [
            threading.Thread(target=work, daemon=True)
            for work in (self.read, self.list, self.write)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.stop.set()
            for thread in threads:
                thread.join(60)


def encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def decode(secret: dict[str, object], key: str) -> str:
    return base64.b64decode(secret["data"][key]).decode()  # type: ignore[index]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with run_site(tmp_path_factory) as site:
        write_break_glass(site.state, make_plan(site.cluster), site.directory)
        create_secrets(site)
        yield site


def create_secrets(site: Site) -> None:
    items = [
        {
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"s{number}", "namespace": "load"},
            "immutable": number % 7 == 3,
            "data": {"fixed": encode(f"value {number}"), "count": encode("0")},
        }
        for number in range(SECRETS)
    ]  # fmt: skip
    site.one.kubectl("create", "namespace", "load")
    for start in range(0, SECRETS, 300):
        body = {"apiVersion": "v1", "kind": "List", "items": items[start : start + 300]}
        site.one.kubectl("create", "-f", "-", stdin=json.dumps(body))


@pytest.fixture(scope="module")
def clients(site: Site) -> Clients:
    return Clients(site)


@pytest.fixture(scope="module")
def trees(site: Site) -> dict[str, dict[str, Path]]:
    return {
        "settled": {host.name: site.directory / "builds/0-first" / host.name for host in site.hosts}
    }


def no_api_server_writes_with_a_key_that_another_cannot_read(
    site: Site, clients: Clients, trees: dict[str, dict[str, Path]]
) -> None:
    trees["read"] = site.rotate(ENCRYPTION, "read")
    with clients.working():
        assert site.one.obstacle(trees["read"]["one"]) == ""
        site.one.install(trees["read"]["one"])
        trees["write"] = site.rotate(ENCRYPTION, "write")
        said = site.one.obstacle(trees["write"]["one"])
        assert "the API server of two cannot read the key with which this bundle writes" in said
        # files that no API server has loaded do not count
        site.two.install(trees["read"]["two"], restart=())
        assert "the API server of two cannot read the key" in site.one.obstacle(
            trees["write"]["one"]
        )
        site.two.restart("kube-apiserver")
        assert site.one.obstacle(trees["write"]["one"]) == ""
    assert clients.failures == []
    assert site.count_keys().keys() == {OLD}


def no_secret_is_written_again_before_every_api_server_writes_with_the_new_key(
    site: Site, clients: Clients, trees: dict[str, dict[str, Path]]
) -> None:
    with clients.working():
        site.one.install(trees["write"]["one"])
        before = site.count_keys()[OLD]
        process = site.one.script(FINISH)
        assert process.stdout
        assert "the API server of two writes Secrets with aescbc:key1" in process.stdout.readline()
        stop(process)
        trees["drop"] = site.rotate(ENCRYPTION, "drop")
        said = site.one.obstacle(trees["drop"]["one"])
        assert (
            "the API server of two writes Secrets with a key that this bundle cannot read" in said
        )
        assert site.two.obstacle(trees["write"]["two"]) == ""
        site.two.install(trees["write"]["two"])
    assert clients.failures == []
    assert before > SECRETS / 2


def the_old_key_stays_while_etcd_holds_a_secret_under_it(
    site: Site, trees: dict[str, dict[str, Path]]
) -> None:
    for host in site.hosts:
        said = host.obstacle(trees["drop"][host.name])
        assert said.startswith(f"etcd holds {site.count_keys()[OLD]} Secrets under a key that this")
        assert f"under {OLD}" in said
    done = verify(site.one)
    assert done.returncode == 1
    assert f"{site.count_keys()[OLD]} Secrets: {OLD}" in done.stdout


def verify(host: ControlPlane) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["sh", host.root / "opt/k8s/bundle/verify.sh", "--only", "secret-keys", "--timeout", "0"],
        env=host.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def stop(process: "subprocess.Popen[str]") -> None:
    """Kill the script and what it has started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout:
        process.stdout.close()


def a_killed_rewrite_goes_on_where_it_was(site: Site, clients: Clients) -> None:
    with clients.working():
        for share in (0.2, 0.5, 0.8):
            left = site.count_keys().get(OLD, 0)
            goal = int(SECRETS * (1 - share))
            process = site.one.script(FINISH, CHUNK="20")
            wait_until(lambda goal=goal: site.count_keys().get(OLD, 0) <= goal, site.one)
            stop(process)
            now = site.count_keys().get(OLD, 0)
            assert 0 < now < left
        both = [host.script(FINISH, CHUNK="50") for host in site.hosts]  # two at once
        said = [process.communicate(timeout=240)[0] for process in both]
        assert [process.returncode for process in both] == [0, 0], said
        assert "etcd holds every Secret under aescbc:key-" in said[0]
    assert clients.failures == []
    assert OLD not in site.count_keys()
    done = verify(site.one)
    assert done.returncode == 0, done.stdout
    assert sum(site.count_keys().values()) > SECRETS


def wait_until(holds: Callable[[], bool], host: ControlPlane) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        host.revive()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def the_old_key_is_dropped_and_no_read_fails(
    site: Site, clients: Clients, trees: dict[str, dict[str, Path]]
) -> None:
    with clients.working():
        site.install(trees["drop"])
        time.sleep(2)
    assert clients.failures == []
    assert clients.reads > 500
    assert len(clients.written) > 20
    assert set(site.count_keys()) == {f"aescbc:{key}" for key in read_names(site)}


def read_names(site: Site) -> set[str]:
    text = (site.one.root / "etc/kubernetes/encryption-config.yaml").read_text()
    names = {line.split()[-1] for line in text.splitlines() if "- name:" in line}
    assert len(names) == 1
    assert "key1" not in names
    return names


def every_secret_has_its_last_acknowledged_value(site: Site, clients: Clients) -> None:
    found = json.loads(site.two.kubectl("-n", "load", "get", "secrets", "-o", "json"))["items"]
    values = {item["metadata"]["name"]: item for item in found if item["type"] == "Opaque"}
    assert len(values) == SECRETS
    for number in range(SECRETS):
        secret = values[f"s{number}"]
        assert decode(secret, "fixed") == f"value {number}"
        count, acknowledged = int(decode(secret, "count")), clients.written.get(f"s{number}", 0)
        assert count in {acknowledged, acknowledged + 1}  # the answer to the last may be lost


def a_host_with_the_old_configuration_can_read_nothing_and_is_refused(
    site: Site, trees: dict[str, dict[str, Path]]
) -> None:
    said = site.two.obstacle(trees["settled"]["two"])
    assert "cannot read the key with which this bundle writes Secrets (aescbc:key1)" in said
    site.two.install(trees["settled"]["two"], restart=())
    site.two.stop("kube-apiserver")
    with (site.two.root / "old.log").open("wb"):
        start_anyway(site.two)
    answer = site.two.kubectl("-n", "load", "get", "secret", "s1", "-o", "name", check=False)
    assert answer == ""
    site.two.install(trees["drop"]["two"])
    site.two.restart("kube-apiserver")
    assert site.two.kubectl("-n", "load", "get", "secret", "s1", "-o", "name") == "secret/s1\n"


def start_anyway(host: ControlPlane) -> None:
    """Start the API server, which is never ready with this configuration, and wait until it answers."""
    host.is_ready = host.is_alive  # type: ignore[method-assign]
    try:
        host.restart("kube-apiserver")
    finally:
        del host.is_ready  # type: ignore[attr-defined]


def test_the_encryption_key_is_replaced_step_by_step(
    site: Site, clients: Clients, trees: dict[str, dict[str, Path]]
) -> None:
    """One test, because pytest-xdist may give the tests of a file to several processes."""
    no_api_server_writes_with_a_key_that_another_cannot_read(site, clients, trees)
    no_secret_is_written_again_before_every_api_server_writes_with_the_new_key(site, clients, trees)
    the_old_key_stays_while_etcd_holds_a_secret_under_it(site, trees)
    a_killed_rewrite_goes_on_where_it_was(site, clients)
    the_old_key_is_dropped_and_no_read_fails(site, clients, trees)
    every_secret_has_its_last_acknowledged_value(site, clients)
    a_host_with_the_old_configuration_can_read_nothing_and_is_refused(site, trees)
