"""bundler certs renew and check --live: new certificates in time, and what servers really show."""

import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from bundler import pki
from bundler.build import open_secrets
from bundler.cache import Cache
from bundler.certs import list_state
from bundler.errors import ConfigError, PkiError
from bundler.gather import Inputs
from bundler.live import list_servers, look_at_all
from bundler.loader import load_cluster
from bundler.plan import make_plan
from bundler.renew import choose, list_renewable, renew

Run = Callable[..., subprocess.CompletedProcess[str]]
NOW = datetime.now(UTC)


@pytest.fixture
def inputs(description: Path, tmp_path: Path) -> Inputs:
    made = Inputs(description=description, cache=Cache(tmp_path / "cache"), offline=True)
    with open_secrets(load_cluster(description).cluster, made):
        pass
    return made


@pytest.fixture
def state(description: Path, inputs: Inputs) -> Path:
    assert inputs.offline
    return description.parent / "lab.state"


@pytest.fixture
def bundler(description: Path) -> Run:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [Path(sys.executable).parent / "bundler", "certs", *arguments],
            cwd=description.parent, capture_output=True, text=True, check=False,
            env={**os.environ, "NO_COLOR": "1"},
        )  # fmt: skip

    return run


def read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((path / "cert.pem").read_bytes())


def test_a_renewed_certificate_has_another_key_and_the_old_pair_is_kept(
    inputs: Inputs, state: Path
) -> None:
    path = "pki/nodes/master1/apiserver"
    before = read(state / path)
    key = (state / path / "key.pem").read_bytes()
    others = {e.path: read(state / e.path) for e in list_state(state, NOW) if e.path != path}
    chosen = choose(
        list_renewable(inputs), ["nodes/master1/apiserver"], everything=False, days=None
    )
    (made,) = renew(inputs, chosen, keep_keys=False)
    after = read(state / path)
    assert made.path == path
    assert after.serial_number != before.serial_number
    assert (state / path / "key.pem").read_bytes() != key
    assert pki.read_content(after) == pki.read_content(before)
    after.verify_directly_issued_by(read(state / "pki/kubernetes-ca"))
    (aside,) = (state / "archive").glob(f"*/{path}")
    assert (read(aside), (aside / "key.pem").read_bytes()) == (before, key)
    assert {other: read(state / other) for other in others} == others
    assert all(p.stat().st_mode & 0o077 == 0 for p in (state / "archive").rglob("*"))


def test_keys_stay_when_asked(inputs: Inputs, state: Path) -> None:
    path = state / "pki/admin"
    key, before = (path / "key.pem").read_bytes(), read(path)
    renew(
        inputs,
        choose(list_renewable(inputs), ["admin"], everything=False, days=None),
        keep_keys=True,
    )
    assert (path / "key.pem").read_bytes() == key
    assert read(path).serial_number != before.serial_number
    assert read(path).public_key() == before.public_key()


def test_all_are_renewed_but_authorities(inputs: Inputs, state: Path) -> None:
    before = {entry.path: read(state / entry.path) for entry in list_state(state, NOW)}
    renew(inputs, choose(list_renewable(inputs), [], everything=True, days=None), keep_keys=False)
    same = {path for path, certificate in before.items() if read(state / path) == certificate}
    assert same == {"pki/kubernetes-ca", "pki/etcd-ca", "pki/front-proxy-ca"}


def test_patterns_and_days_choose(inputs: Inputs) -> None:
    entries = list_renewable(inputs)
    names = {
        entry.path for entry in choose(entries, ["nodes/*/apiserver"], everything=False, days=None)
    }
    assert names == {f"pki/nodes/master{n}/apiserver" for n in (1, 2, 3)}
    assert choose(entries, [], everything=False, days=10) == ()
    assert len(choose(entries, [], everything=False, days=400)) == len(entries) - 3


@pytest.mark.parametrize(
    ("name", "said"), [("etcd-ca", "is an authority"), ("nobody", "no such certificate")]
)
def test_what_cannot_be_renewed_is_refused(inputs: Inputs, name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        choose(list_renewable(inputs), [name], everything=False, days=None)


def test_a_kill_after_a_pair_was_moved_is_healed_by_what_opens_the_state(
    inputs: Inputs, state: Path, description: Path
) -> None:
    (state / "archive").mkdir()
    (state / "pki/admin").rename(state / "archive/admin")
    with open_secrets(load_cluster(description).cluster, inputs):
        pass
    assert read(state / "pki/admin") != read(state / "archive/admin")


def test_the_commands(inputs: Inputs, bundler: Run) -> None:
    assert inputs.offline
    assert bundler("renew").returncode == 2
    planned = bundler("renew", "--all", "--dry-run")
    assert (planned.returncode, "pki/admin" in planned.stdout) == (0, True)
    assert not (inputs.description.parent / "lab.state/archive").exists()
    done = bundler("renew", "admin", "scheduler")
    assert [line.split()[-1] for line in done.stdout.splitlines()] == ["pki/admin", "pki/scheduler"]
    assert "bundler build --since" in done.stderr


@contextmanager
def serving(pair: Path, *, asks: Path | None = None, newest: ssl.TLSVersion) -> Iterator[str]:
    """A TLS server with the pair on a port of 127.0.0.1; with `asks` it wants clients' certificates."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = newest
    context.load_cert_chain(pair / "cert.pem", pair / "key.pem")
    if asks:
        context.load_verify_locations(asks / "cert.pem")
        context.verify_mode = ssl.CERT_REQUIRED
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            try:
                context.wrap_socket(plain, server_side=True).close()
            except OSError:
                plain.close()

    threading.Thread(target=serve, daemon=True).start()
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    listener.close()


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_etcd_that_asks_clients_for_certificates_is_seen(
    state: Path, newest: ssl.TLSVersion
) -> None:
    pair = state / "pki/nodes/master1/etcd-server"
    with serving(pair, asks=state / "pki/etcd-ca", newest=newest) as address:
        (seen,) = look_at_all([(address, "etcd")], state, NOW)
    assert (seen.faults, seen.authority) == ((), "etcd-ca")
    assert seen.stored == "pki/nodes/master1/etcd-server"
    assert seen.days_left is not None
    assert 300 < seen.days_left < 366


def test_what_is_not_the_clusters_is_told(state: Path, tmp_path: Path) -> None:
    key = pki.make_key("ecdsa-p256")
    stranger = pki.issue_authority("etcd-ca", "other", key, NOW, 30)
    pair = tmp_path / "pair"
    pair.mkdir()
    (pair / "cert.pem").write_bytes(pki.encode_certificate(stranger))
    (pair / "key.pem").write_bytes(pki.encode_private_key(key))
    with serving(pair, newest=ssl.TLSVersion.TLSv1_3) as address:
        (seen,) = look_at_all([(address, "")], state, NOW)
    assert seen.faults == (
        "none of the state's authorities signed it",
        "it does not name 127.0.0.1",
    )


def test_nobody_there_is_a_fault(state: Path) -> None:
    (seen,) = look_at_all([("127.0.0.1:1", "kubelet")], state, NOW)
    assert seen.faults == ("no certificate: Connection refused",)


def test_without_a_state_there_is_nothing_to_compare_with(tmp_path: Path) -> None:
    with pytest.raises(PkiError, match="holds no authority"):
        look_at_all([("127.0.0.1:1", "")], tmp_path, NOW)


@pytest.mark.parametrize("address", ["master1", "master1:", ":6443", "master1:0", "master1:https"])
def test_an_address_needs_a_port(state: Path, address: str) -> None:
    with pytest.raises(ConfigError, match="expected HOST:PORT"):
        look_at_all([(address, "")], state, NOW)


def test_the_plans_servers_are_all_listed(description: Path) -> None:
    servers = dict(list_servers(make_plan(load_cluster(description).cluster, {})))
    assert len(servers) == 3 * 5 + 2 + 1
    assert servers["172.30.20.250:8443"] == "the API's endpoint"


def test_check_has_an_exit_code_and_json(bundler: Run, state: Path) -> None:
    with serving(state / "pki/nodes/master1/apiserver", newest=ssl.TLSVersion.TLSv1_3) as address:
        good = bundler("check", "--live", address)
        assert (good.returncode, good.stdout.startswith("ok ")) == (0, True), good.stdout
        soon = bundler("check", "--live", address, "--warn", "500d")
        assert (soon.returncode, soon.stdout.startswith("soon ")) == (1, True)
        (told,) = json.loads(bundler("check", "--json", "--live", address).stdout)
    assert told["stored"] == "pki/nodes/master1/apiserver"
    gone = bundler("check", "--live", "127.0.0.1:1")
    assert (gone.returncode, "no certificate" in gone.stdout) == (1, True)
