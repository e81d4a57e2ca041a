"""approve-csrs.sh with forged requests, and as a service over many checks."""

import base64
import ipaddress
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import AttributeOID, NameOID
from support.kubelet_requests import format_request, make_request, write_kubectl
from support.shells import SHELLS, TEMPLATES, Sh, link_parts

SCRIPT = TEMPLATES / "control-plane/rootfs/opt/k8s/libexec/approve-csrs.sh"
PLAN = "worker1\t172.30.20.21\nworker2\t172.30.20.22\n10\t172.30.20.30\n"
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
BEGIN = b"-----BEGIN CERTIFICATE REQUEST-----\n"
END = b"-----END CERTIFICATE REQUEST-----\n"

EC_KEY = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
DNS = x509.DNSName("worker1")
ADDRESS = x509.IPAddress(ipaddress.ip_address("172.30.20.21"))


def forge(
    names: list[x509.GeneralName],
    *,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = EC_KEY,
    critical: bool = False,
    subject: tuple[tuple[x509.ObjectIdentifier, str], ...] = (
        (NameOID.ORGANIZATION_NAME, "system:nodes"),
        (NameOID.COMMON_NAME, "system:node:worker1"),
    ),
    password: bool = False,
) -> bytes:
    """A request of worker1 with these alternative names; DER."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(kind, value) for kind, value in subject])
    )
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=critical)
    if password:
        builder = builder.add_attribute(AttributeOID.CHALLENGE_PASSWORD, b"secret")
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def to_pem(der: bytes) -> bytes:
    return x509.load_der_x509_csr(der).public_bytes(serialization.Encoding.PEM)


def with_wrong_signature(pem: bytes) -> bytes:
    """The same request with a signature of another key; everything else is valid."""
    ours = x509.load_pem_x509_csr(pem)
    other = x509.load_pem_x509_csr(make_request())
    der = ours.public_bytes(serialization.Encoding.DER)
    body = (
        ours.tbs_certrequest_bytes
        + der[der.index(ours.tbs_certrequest_bytes) :][len(ours.tbs_certrequest_bytes) :][
            : -len(ours.signature) - 3
        ]
    )
    body += b"\x03" + bytes([len(other.signature) + 1]) + b"\x00" + other.signature
    text = base64.encodebytes(b"\x30\x82" + len(body).to_bytes(2) + body)
    return BEGIN + text + END


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A root directory with nodes.tsv, and a kubectl that lists `pending` and records approvals."""
    (tmp_path / "etc/kubernetes").mkdir(parents=True)
    link_parts(tmp_path)
    (tmp_path / "etc/kubernetes/nodes.tsv").write_text(PLAN)
    (tmp_path / "etc/kubernetes/tokens.tsv").write_text("# none\n")
    write_kubectl(tmp_path)
    return tmp_path


@pytest.fixture
def look(sh: Sh, host: Path) -> Callable[[str], tuple[str, str]]:
    """Run the script once: (its output, what it approved)."""

    def run(pending: str) -> tuple[str, str]:
        (host / "pending").write_text(pending)
        (host / "approved").write_text("")
        done = sh(SCRIPT, "--once", DESTDIR=str(host), PATH=f"{host}/bin:{SYSTEM_PATH}")
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout, (host / "approved").read_text()

    return run


Look = Callable[[str], tuple[str, str]]


@pytest.mark.parametrize(
    "der",
    [
        forge([DNS, ADDRESS]),
        forge([ADDRESS, DNS]),
        forge([DNS]),
        forge([ADDRESS]),
        forge([DNS, ADDRESS], key=RSA_KEY),
    ],
    ids=["name and address", "address first", "name alone", "address alone", "RSA key"],
)
def test_a_request_for_name_and_address_only_is_approved(look: Look, der: bytes) -> None:
    said, approved = look(format_request(to_pem(der)))
    assert said == "approved csr-1: node worker1, address 172.30.20.21\n"
    assert approved.count("certificate approve csr-1") == 1


GOOD = make_request()
FORGED = [
    ("upper-case name", to_pem(forge([x509.DNSName("Worker1"), ADDRESS])), "DNS:Worker1"),
    ("the name twice", to_pem(forge([DNS, DNS, ADDRESS])), "it requests"),
    ("a wildcard", to_pem(forge([x509.DNSName("*"), ADDRESS])), "it requests"),
    ("an e-mail address", to_pem(forge([DNS, ADDRESS, x509.RFC822Name("a@b")])), "email:a@b"),
    ("a URI", to_pem(forge([DNS, ADDRESS, x509.UniformResourceIdentifier("spiffe://x")])), "URI:"),
    ("the address as a name", to_pem(forge([x509.DNSName("172.30.20.21")])), "it requests"),
    ("critical names", to_pem(forge([DNS, ADDRESS], critical=True)), "it requests"),
    ("a challenge password", to_pem(forge([DNS, ADDRESS], password=True)), "it requests"),
    (
        "one more part of the subject",
        to_pem(
            forge(
                [DNS, ADDRESS],
                subject=(
                    (NameOID.ORGANIZATION_NAME, "system:nodes"),
                    (NameOID.ORGANIZATION_NAME, "system:masters"),
                    (NameOID.COMMON_NAME, "system:node:worker1"),
                ),
            )
        ),
        "its subject is",
    ),
    (
        "a comma within the name",
        to_pem(
            forge(
                [DNS, ADDRESS],
                subject=((NameOID.COMMON_NAME, "system:node:worker1,O=system:nodes"),),
            )
        ),
        "its subject is",
    ),
    ("a signature by another key", with_wrong_signature(GOOD), "not signed with its own key"),
    ("text before the block", b"x\n" + GOOD, "not exactly one PEM block"),
    ("text after the block", GOOD + b"x\n", "not exactly one PEM block"),
    ("two blocks", GOOD + GOOD, "not exactly one PEM block"),
    ("a header in the block", GOOD.replace(BEGIN, BEGIN + b"A: b\n\n"), "not exactly one"),
    ("line ends of Windows", GOOD.replace(b"\n", b"\r\n"), "not exactly one PEM block"),
    ("another label", GOOD.replace(b"CERTIFICATE REQ", b"NEW CERTIFICATE REQ"), "not exactly one"),
    ("no end", GOOD.replace(END, b""), "not exactly one PEM block"),
]


@pytest.mark.parametrize(
    ("pem", "reason"), [case[1:] for case in FORGED], ids=[case[0] for case in FORGED]
)
def test_a_forged_request_is_refused_with_the_reason(look: Look, pem: bytes, reason: str) -> None:
    said, approved = look(format_request(pem))
    assert approved == ""
    assert said.startswith("refused csr-1: ")
    assert reason in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("name", ["1e1", "010", "10.0"])
def test_a_name_that_is_equal_only_as_a_number_is_not_planned(
    look: Look, host: Path, name: str
) -> None:
    pem = make_request(f"system:node:{name}", dns=(name,), addresses=("172.30.20.30",))
    said, approved = look(format_request(pem, user=f'"system:node:{name}"'))
    assert said == f"refused csr-1: the node {name} is not in {host}/etc/kubernetes/nodes.tsv\n"
    assert approved == ""


def test_a_node_whose_name_is_a_number_is_approved(look: Look) -> None:
    pem = make_request("system:node:10", dns=("10",), addresses=("172.30.20.30",))
    said, _ = look(format_request(pem, user='"system:node:10"'))
    assert said == "approved csr-1: node 10, address 172.30.20.30\n"


@pytest.mark.parametrize(
    "groups", ['["x\\"system:nodes\\""]', '["system:nodes2"]', '["xsystem:nodes"]', "[]"]
)
def test_a_group_that_only_contains_system_nodes_in_its_name_is_refused(
    look: Look, groups: str
) -> None:
    said, approved = look(format_request(GOOD, groups=groups))
    assert approved == ""
    assert "is not in the group system:nodes" in said


def test_each_request_of_a_list_is_decided_alone(look: Look) -> None:
    bad = format_request(make_request(dns=("worker2",))).replace("csr-1", "csr-bad")
    said, approved = look(bad + "\n" + format_request(GOOD) + bad.replace("csr-bad", "csr-worse"))
    assert [row.split(":")[0] for row in said.splitlines()] == [
        "refused csr-bad",
        "approved csr-1",
        "refused csr-worse",
    ]
    assert approved.count("approve csr-") == 1


@pytest.fixture(params=SHELLS, ids=[shell[0] for shell in SHELLS])
def watcher(request: pytest.FixtureRequest, host: Path) -> Iterator[Callable[[], list[str]]]:
    """The script as a service; each call waits for two more complete checks and returns the log.

    A check is counted when it starts: the first of four may have started before the call, and the
    last has not ended.
    """
    log = host / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*request.param, str(SCRIPT)], stdout=output, stderr=subprocess.STDOUT,
            env={"PATH": f"{host}/bin:{SYSTEM_PATH}", "DESTDIR": str(host), "INTERVAL": "0.05"},
        )  # fmt: skip

    def await_looks() -> list[str]:
        looks = host / "looks"
        wanted = (len(looks.read_text()) if looks.exists() else 0) + 4
        end = time.monotonic() + 60
        while not looks.exists() or len(looks.read_text()) < wanted:
            assert time.monotonic() < end
            time.sleep(0.02)
        return log.read_text().splitlines()[1:]

    yield await_looks
    process.terminate()
    assert process.wait(10) == 0


def put(host: Path, pending: str) -> None:
    """Replace the list atomically: the script reads it all the time."""
    (host / "new").write_text(pending)
    (host / "new").rename(host / "pending")


@pytest.mark.slow
def test_a_refusal_is_logged_once_and_again_if_the_request_comes_back(
    host: Path, watcher: Callable[[], list[str]]
) -> None:
    bad = format_request(make_request(dns=("worker2",)))
    put(host, bad + bad.replace("csr-1", "csr-11"))
    assert [row.split(":")[0] for row in watcher()] == ["refused csr-1", "refused csr-11"]
    put(host, "")
    assert len(watcher()) == 2
    put(host, bad)
    assert [row.split(":")[0] for row in watcher()[2:]] == ["refused csr-1"]


@pytest.mark.slow
def test_a_failed_approval_is_logged_once_and_tried_again(
    host: Path, watcher: Callable[[], list[str]]
) -> None:
    (host / "broken").write_text(" approve ")
    put(host, format_request(GOOD))
    assert watcher() == ["could not approve csr-1: no answer"]
    assert (host / "calls").read_text().count("approve csr-1") >= 2
