"""https.sh against real TLS servers: what they answer, and why there is no answer."""

import ipaddress
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from support.ca import CertificateAuthority
from support.https_servers import serve
from support.offline_root import OfflineRoot
from support.shells import TEMPLATES, Sh

HTTPS = TEMPLATES / "common" / "lib" / "core" / "https.sh"
Ask = Callable[..., str]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Two authorities' files and the ports of servers."""
    directory = tmp_path_factory.mktemp("site")
    ours, other = CertificateAuthority(directory, "ours"), CertificateAuthority(directory, "other")
    here: list[x509.GeneralName] = [
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.DNSName("localhost"),
    ]
    good = ours.issue("good", here)
    root = OfflineRoot(directory / "bank")
    middle = root.issue_ca("middle")
    names = "extendedKeyUsage=serverAuth\nsubjectAltName=IP:127.0.0.1"
    bare = root.issue("bare", "/CN=bare", names, issuer=middle)
    chained = bare.with_name("chained.crt")
    chained.write_bytes(bare.read_bytes() + middle.read_bytes())
    shutil.copy(bare.with_suffix(".key"), chained.with_suffix(".key"))
    servers = {
        "bare": serve(bare),
        "chained": serve(chained),
        "good": serve(good),
        "expired": serve(ours.issue("expired", here, days=-1)),
        "address": serve(ours.issue("address", here[:1])),
        "name": serve(ours.issue("name", here[1:])),
        "strict": serve(good, clients=ours.file),
    }
    stalled = socket.create_server(("127.0.0.1", 0))
    with socket.create_server(("127.0.0.1", 0)) as closed:
        closed_port = closed.getsockname()[1]
    yield {
        **{name: server.server_port for name, server in servers.items()},
        "stalled": stalled.getsockname()[1],
        "closed": closed_port,
        "ours": ours.file,
        "other": other.file,
        "middle": middle,
        "root": root.file,
        "client": ours.issue("client", []),
        "unknown": other.issue("unknown", []),
    }
    stalled.close()
    for server in servers.values():
        server.shutdown()
        server.server_close()


@pytest.fixture
def ask(sh: Sh, tmp_path: Path, site: dict[str, Any]) -> Ask:
    """Ask a server of the site: what https_status or another function prints."""
    (tmp_path / "tmp").mkdir()

    def run(
        server: str, path: str = "/200", *, host: str = "127.0.0.1", authority: str = "ours",
        client: str = "", function: str = "https_status", **environment: str,
    ) -> str:  # fmt: skip
        file = site.get(authority, Path(authority))
        identity = f"{site[client]} {site[client].with_suffix('.key')}" if client else ""
        script = tmp_path / "script.sh"
        script.write_text(
            f"set -u\n. {HTTPS}\n{function} {host} {site[server]} {path} {file} {identity}\n"
        )
        done = sh(script, TMPDIR=str(tmp_path / "tmp"), **environment)
        assert done.stderr == ""
        assert list((tmp_path / "tmp").iterdir()) == []
        return done.stdout

    return run


@pytest.mark.parametrize("status", [200, 403, 404])
def test_the_status_is_the_servers(ask: Ask, status: int) -> None:
    assert ask("good", f"/{status}") == f"{status}\n"


def test_a_request_to_a_host_name_checks_that_name(ask: Ask) -> None:
    assert ask("good", host="localhost") == "200\n"


def test_the_body_is_complete(ask: Ask) -> None:
    body = ask("good", function="https_get")
    assert body == "200\nQ is no command\n\nlast, without an end\n"


@pytest.mark.parametrize(
    ("server", "host", "authority", "reason"),
    [
        ("good", "127.0.0.1", "other", "certificate: unable to get local issuer certificate"),
        ("expired", "127.0.0.1", "ours", "certificate: certificate has expired"),
        ("address", "localhost", "ours", "certificate: hostname mismatch"),
        ("name", "127.0.0.1", "ours", "certificate: IP address mismatch"),
        ("good", "127.0.0.1", "/nonexistent", "/nonexistent"),
    ],
    ids=["other authority", "expired", "other name", "other address", "no authority"],
)
def test_an_invalid_certificate_is_reported(
    ask: Ask, server: str, host: str, authority: str, reason: str
) -> None:
    said = ask(server, host=host, authority=authority)
    assert said.startswith("000 ")
    assert reason in said


@pytest.mark.parametrize("server", ["bare", "chained"])
def test_a_ca_need_not_be_a_root(ask: Ask, server: str) -> None:
    assert ask(server, authority="middle") == "200\n"
    assert ask(server, authority="other").startswith("000 certificate: unable to get")


def test_a_server_that_sends_its_chain_is_trusted_by_the_root(ask: Ask) -> None:
    assert ask("chained", authority="root") == "200\n"
    assert ask("bare", authority="root").startswith("000 certificate: unable to get")


def test_a_client_certificate_is_presented(ask: Ask) -> None:
    assert ask("strict", client="client") == "200\n"


@pytest.mark.parametrize("client", ["", "unknown"])
def test_the_wrong_client_gets_the_servers_alert(ask: Ask, client: str) -> None:
    said = ask("strict", client=client)
    assert said.startswith("000 ")
    assert "alert" in said


def test_a_closed_port_is_reported(ask: Ask) -> None:
    assert "Connection refused" in ask("closed")


@pytest.mark.parametrize("path", ["/garbage", "/nothing"])
def test_an_answer_that_is_not_http_is_an_error(ask: Ask, path: str) -> None:
    assert ask("good", path) == "000 the connection was closed without an answer\n"


@pytest.mark.slow
@pytest.mark.parametrize("program", ["coreutils", "busybox"])
def test_a_silent_server_times_out(ask: Ask, tmp_path: Path, program: str) -> None:
    path = "/usr/bin:/bin"
    if program == "busybox":
        busybox = shutil.which("busybox")
        assert busybox
        (tmp_path / "applets").mkdir()
        (tmp_path / "applets" / "timeout").symlink_to(busybox)
        path = f"{tmp_path}/applets:{path}"
    assert ask("stalled", HTTPS_TIMEOUT="1", PATH=path) == "000 no answer within 1 s\n"


def test_openssl_has_the_options_that_https_uses() -> None:
    text = subprocess.run(
        ["openssl", "s_client", "-help"], capture_output=True, text=True, check=False
    ).stderr
    for option in ("-verify_ip", "-verify_hostname", "-verify_return_error"):
        assert option in text
