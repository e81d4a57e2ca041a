"""approve-csrs.sh: only a planned worker's own name and address are approved, other requests are reported."""

import base64
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from support.kubelet_requests import format_request, make_request, write_kubectl
from support.shells import TEMPLATES, Sh, link_parts, write_program

SCRIPT = TEMPLATES / "control-plane/rootfs/opt/k8s/libexec/approve-csrs.sh"


@pytest.fixture
def look(sh: Sh, tmp_path: Path) -> Callable[[str], tuple[str, str]]:
    """Run the script once on pending requests: (its output, what it approved)."""
    (tmp_path / "etc/kubernetes").mkdir(parents=True)
    link_parts(tmp_path)
    (tmp_path / "etc/kubernetes/nodes.tsv").write_text(
        "worker1\t172.30.20.21\nworker2\t172.30.20.22\n"
    )
    (tmp_path / "etc/kubernetes/tokens.tsv").write_text("# none\n")
    write_kubectl(tmp_path)

    def run(pending: str) -> tuple[str, str]:
        (tmp_path / "pending").write_text(pending)
        (tmp_path / "approved").write_text("")
        path = f"{tmp_path}/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        done = sh(SCRIPT, "--once", DESTDIR=str(tmp_path), PATH=path)
        assert done.stderr == ""
        return done.stdout, (tmp_path / "approved").read_text()

    return run


Look = Callable[[str], tuple[str, str]]


def test_the_request_of_a_planned_kubelet_is_approved(look: Look) -> None:
    said, approved = look(format_request(make_request()))
    assert said == "approved csr-1: node worker1, address 172.30.20.21\n"
    assert "certificate approve csr-1" in approved


def test_a_request_without_key_encipherment_is_approved(look: Look) -> None:
    _, approved = look(format_request(make_request(), usages='["digital signature""server auth"]'))
    assert "csr-1" in approved


REFUSED = [
    ("another address", format_request(make_request(addresses=("172.30.20.22",)))),
    ("an address more", format_request(make_request(addresses=("172.30.20.21", "10.254.0.1")))),
    ("a name more", format_request(make_request(dns=("worker1", "kubernetes")))),
    ("another name", format_request(make_request(dns=("worker2",)))),
    ("no name at all", format_request(make_request(dns=(), addresses=()))),
    ("a CA", format_request(make_request(extra=x509.BasicConstraints(ca=True, path_length=None)))),
    ("another node's subject", format_request(make_request("system:node:worker2"))),
    ("an administrator's subject", format_request(make_request(organization="system:masters"))),
    ("a node that is not planned", format_request(make_request("system:node:worker9", dns=("worker9",)), user='"system:node:worker9"')),
    ("another requester", format_request(make_request(), user='"system:node:worker2"')),
    ("not a node", format_request(make_request(), user='"admin"')),
    ("a group that is not the nodes'", format_request(make_request(), groups='["system:authenticated"]')),
    ("a usage more", format_request(make_request(), usages='["client auth""digital signature""key encipherment""server auth"]')),
    ("a usage less", format_request(make_request(), usages='["digital signature"]')),
    ("two blocks", format_request(make_request() + make_request(organization="system:masters"))),
    ("no request", format_request(b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n")),
    ("an empty request", format_request(b"")),
    ("a name with a quote", format_request(make_request(), user='"system:node:worker1\\" x"')),
]  # fmt: skip


@pytest.mark.parametrize(
    "pending", [case[1] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_other_requests_stay_pending_and_are_reported(look: Look, pending: str) -> None:
    said, approved = look(pending)
    assert approved == ""
    assert said.startswith("refused csr-1: ")


def test_a_request_that_was_altered_is_refused(look: Look) -> None:
    der = bytearray(x509.load_pem_x509_csr(make_request()).public_bytes(serialization.Encoding.DER))
    der[der.index(b"worker1", 60)] ^= 1
    body = base64.encodebytes(bytes(der))
    pem = b"-----BEGIN CERTIFICATE REQUEST-----\n" + body + b"-----END CERTIFICATE REQUEST-----\n"
    said, approved = look(format_request(pem))
    assert approved == ""
    assert "refused" in said


def test_a_node_that_renews_its_client_certificate_is_left_to_the_controller_manager(
    look: Look,
) -> None:
    signer = '"kubernetes.io/kube-apiserver-client-kubelet"'
    usages = '["client auth""digital signature""key encipherment"]'
    assert look(
        format_request(make_request(dns=(), addresses=()), signer=signer, usages=usages)
    ) == ("", "")


def test_without_a_signer_name_the_usages_decide(look: Look) -> None:
    _, approved = look(format_request(make_request(), signer="-"))
    assert "csr-1" in approved


def test_an_api_that_does_not_answer_is_reported(sh: Sh, tmp_path: Path) -> None:
    link_parts(tmp_path)
    write_program(tmp_path / "bin/kubectl", "echo 'connection refused' >&2; exit 1\n")
    done = sh(SCRIPT, "--once", DESTDIR=str(tmp_path), PATH=f"{tmp_path}/bin:/usr/bin:/bin")
    assert done.returncode == 1
    assert done.stdout == "cannot list the requests: connection refused\n"
