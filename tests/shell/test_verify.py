"""verify.sh without a cluster: options, refusals, and HTTPS requests with openssl."""

import datetime as dt
import ipaddress
import json
import re
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support.shells import TEMPLATES, Sh, write_program
from support.trees import Trees

LIB = TEMPLATES / "common" / "lib"


@pytest.mark.parametrize(
    ("node", "arguments", "code", "expected"),
    [
        ("master1", ["--help"], 0, "Usage: verify.sh"),
        ("master1", ["--list"], 0, "pod-network"),
        ("master1", ["--bogus"], 2, "unknown option --bogus"),
        ("master1", ["--only", "nothing"], 2, "there is no check nothing"),
        ("master1", ["--timeout", "x"], 2, "x is not a number of seconds"),
        ("master1", ["--timeout"], 2, "--timeout needs a value"),
        ("master1", ["--namespace", "A_b"], 2, "is not a valid name of a namespace"),
        (
            "worker1",
            [],
            3,
            "worker1 is not a control-plane node: run it on one of: master1 master2 master3",
        ),
        ("master1", [], 3, "install this node's bundle first"),
    ],
)
def test_options_and_the_host_are_checked(
    sh: Sh,
    rendered: Path,
    tmp_path: Path,
    node: str,
    arguments: list[str],
    code: int,
    expected: str,
) -> None:
    done = sh(rendered / node / "verify.sh", *arguments, DESTDIR=str(tmp_path))
    if code == 3 and done.returncode == 2:
        assert "run it as root" in done.stderr
        return
    assert done.returncode == code
    assert expected in done.stdout + done.stderr


def test_every_check_has_one_row_and_one_function(rendered: Path, sh: Sh) -> None:
    """Documentation reads the names from the rows of table.sh, whatever roles a node has."""
    rows = re.findall(r"^ *row ([a-z-]+) ", (LIB / "verify/table.sh").read_text(), re.MULTILINE)
    parts = [*LIB.glob("verify/*.sh"), TEMPLATES / "registry-client/lib/registry.sh"]
    source = "".join(path.read_text() for path in parts)
    assert len(rows) == len(set(rows)) > 40
    for name in rows:
        assert f"check_{name.replace('-', '_')}() " in source
    defined = re.findall(r"^(\w+)\(\)", source, re.MULTILINE)
    assert len(defined) == len(set(defined)), "a function is defined twice: the last one counts"
    listed = [
        line.split()[0]
        for mode in ((), ("--node",), ("--failover",))
        for node in ("master1", "worker1")
        for line in sh(rendered / node / "verify.sh", "--list", *mode).stdout.splitlines()
    ]
    assert set(rows) - set(listed) == {
        "addons", "coredns-ready", "cluster-dns", "metrics-server", "network-policy", "registry-images",
    }  # fmt: skip
    assert set(listed) <= set(rows)


def test_a_changed_node_env_is_not_run(trees: Trees, sh: Sh) -> None:
    facts = trees / "master1" / "node.env"
    facts.write_text(facts.read_text() + "touch /tmp/never\n")
    done = sh(trees / "master1" / "verify.sh")
    assert done.returncode == 2
    assert "does not match its digest in MANIFEST" in done.stderr


def run_part(sh: Sh, tmp_path: Path, part: str, command: str) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "script.sh"
    script.write_text(f". {LIB}/{part}.sh\n{command}\n")
    return sh(script)


@pytest.mark.parametrize("text", ["plain", 'a "quote" and \\ more', "tab\there", "é"])
def test_any_text_becomes_a_valid_json_string(sh: Sh, tmp_path: Path, text: str) -> None:
    quoted = text.replace("'", "'\\''")
    done = run_part(sh, tmp_path, "core/json", f"json_string '{quoted}'")
    assert json.loads(done.stdout) == "".join(c for c in text if " " <= c <= "~")


@dataclass
class TlsServer:
    port: int
    authority: Path
    other_authority: Path


def make_certificate(directory: Path, name: str, issuer: tuple[Any, Any] | None) -> tuple[Any, Any]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    today = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - dt.timedelta(days=1))
        .not_valid_after(today + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=not issuer, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(issuer[1] if issuer else key, hashes.SHA256())
    )
    (directory / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / f"{name}.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate, key


BYTES = bytes(range(256)) * 3000 + b"\r\n\n\0"
"""Every byte, and more than a pipe holds."""


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    directory = tmp_path_factory.mktemp("tls")
    authority = make_certificate(directory, "authority", None)
    make_certificate(directory, "other", None)
    make_certificate(directory, "server", authority)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, _, kind = self.path.lstrip("/").partition("/")
            self.send_response(int(code))
            self.send_header("Docker-Content-Digest", "sha256:1")
            self.end_headers()
            self.wfile.write(BYTES if kind else b"first line\nsecond line\n")

        def log_message(self, *arguments: Any) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "server.crt", directory / "server.key")
    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield TlsServer(server.server_port, directory / "authority.crt", directory / "other.crt")
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("status", [200, 401, 403, 500])
def test_the_status_of_the_server_is_printed(
    sh: Sh, tmp_path: Path, tls_server: TlsServer, status: int
) -> None:
    command = f"https_status 127.0.0.1 {tls_server.port} /{status} {tls_server.authority}"
    assert run_part(sh, tmp_path, "core/https", command).stdout == f"{status}\n"


def test_the_body_follows_the_status(sh: Sh, tmp_path: Path, tls_server: TlsServer) -> None:
    command = f"https_get 127.0.0.1 {tls_server.port} /200 {tls_server.authority}"
    assert run_part(sh, tmp_path, "core/https", command).stdout == "200\nfirst line\nsecond line\n"


def save(
    sh: Sh, directory: Path, file: str, server: TlsServer, ca: Path | None = None
) -> list[str]:
    """What https_save prints for an answer of any bytes."""
    words = f"'' 127.0.0.1 {server.port} /200/bytes {ca or server.authority}"
    return run_part(sh, directory, "core/https", f"https_save {file} {words}").stdout.splitlines()


def test_a_body_of_any_bytes_is_saved_and_the_headers_are_printed(
    sh: Sh, tmp_path: Path, tls_server: TlsServer
) -> None:
    status, *headers = save(sh, tmp_path, f"{tmp_path}/body", tls_server)
    assert status == "200"
    assert "Docker-Content-Digest: sha256:1" in headers
    assert (tmp_path / "body").read_bytes() == BYTES


def test_a_body_that_cannot_be_saved_is_told_from_an_answer_that_did_not_come(
    sh: Sh, tmp_path: Path, tls_server: TlsServer
) -> None:
    assert save(sh, tmp_path, "/dev/full", tls_server) == ["507"]
    status, reason = save(sh, tmp_path, f"{tmp_path}/body", tls_server, tls_server.other_authority)
    assert status == "000"
    assert reason.startswith("certificate: ")


@pytest.mark.parametrize(
    ("host", "authority", "expected"),
    [
        ("127.0.0.1", "other_authority", "000 certificate: "),
        ("127.0.0.2", "authority", "000 "),
    ],
)
def test_a_certificate_that_does_not_verify_gives_status_000(
    sh: Sh, tmp_path: Path, tls_server: TlsServer, host: str, authority: str, expected: str
) -> None:
    command = f"https_status {host} {tls_server.port} /200 {getattr(tls_server, authority)}"
    assert run_part(sh, tmp_path, "core/https", command).stdout.startswith(expected)


def test_a_closed_port_gives_status_000(sh: Sh, tmp_path: Path, tls_server: TlsServer) -> None:
    command = f"https_status 127.0.0.1 9 /200 {tls_server.authority}"
    assert run_part(sh, tmp_path, "core/https", command).stdout.startswith("000 ")


PENDING = """\
"csr-1"\t"system:node:w1"\t"kubernetes.io/kubelet-serving"
"csr-2"\t"system:node:not-planned"\t"kubernetes.io/kubelet-serving"
"csr-3"\t"system:bootstrap:abcdef"\t"kubernetes.io/kube-apiserver-client-kubelet"
"csr-4"\t"system:node:w1"\t"kubernetes.io/kube-apiserver-client-kubelet"
"csr-5"\t"alice"\t"kubernetes.io/kube-apiserver-client"
"a\\tb"\t"system:node:w1"\t"kubernetes.io/kubelet-serving"
"""


def test_pending_requests_of_kubelets_and_of_tokens_are_faults(sh: Sh, tmp_path: Path) -> None:
    (tmp_path / "pending").write_text(PENDING)
    script = tmp_path / "check.sh"
    script.write_text(
        f"here={LIB.parent} pki=/none work={tmp_path}\n. {LIB}/verify/workers.sh\n"
        f"kube() {{ cat {tmp_path}/pending; }}\nexpect() {{ :; }}\nfor_each() {{ :; }}\nnode_pairs() {{ :; }}\n"
        'count_nodes() { echo 1; }\nis_planned() { [ "$2" = w1 ]; }\nconclude() { printf "%s\\n" "$1"; }\n'
        "check_kubelet_certificates\n"
    )
    assert sh(script).stdout.splitlines() == [
        f"request {name} of {who} is not approved (journalctl -u kube-csr-approver)"
        for name, who in (
            ('"csr-1"', '"system:node:w1"'),
            ('"csr-3"', '"system:bootstrap:abcdef"'),
            ('"a\\tb"', '"system:node:w1"'),
        )
    ]


# etcdctl 3.6 warns of the variable, and every etcdctl warns of a member that does not answer.
WARNING = '{"level":"warn","msg":"unrecognized environment variable","environment-variable":"ETCDCTL_API=3"}'


def test_what_etcdctl_warns_of_is_not_part_of_a_value(sh: Sh, tmp_path: Path) -> None:
    write_program(
        tmp_path / "etcdctl",
        f"""echo '{WARNING}' >&2
        case " $* " in
        *"--print-value-only "*) printf 'k8s:enc:secretbox:v1:key1:\\001\\377\\000x\\n' ;;
        *"--keys-only "*) printf '/registry/namespaces/kube-system\\n\\n/registry/services/specs/default/kubernetes\\n' ;;
        esac
        """,
    )
    (tmp_path / "secret.value").write_text("a value in plain text")
    script = tmp_path / "script.sh"
    script.write_text(
        f"""here={LIB.parent} work={tmp_path} results={tmp_path} etcdctl={tmp_path}/etcdctl
        etcd_commas= pki= namespace=n secret_name=s
        . {LIB}/verify/report.sh; . {LIB}/verify/run.sh; . {LIB}/verify/etcd.sh; . {LIB}/verify/control-plane.sh
        node_pairs() {{ :; }}; count_nodes() {{ echo 3; }}
        for check in secrets-encrypted etcd-registry; do
            "check_$(echo "$check" | tr - _)"; echo "$check $? $(cat "$results/$check.seen")"
        done
        """
    )
    assert sh(script).stdout.splitlines() == [
        "secrets-encrypted 0 k8s:enc:secretbox:v1:key1, readable through 3 API servers",
        "etcd-registry 0 2 keys",
    ]
