"""A kubectl that stores certificate requests in a directory and signs them there.

    signing_api.py DIRECTORY [kubectl's arguments…]

DIRECTORY/issuer.pem   the CA that signs (certificate and key); without it requests stay pending
DIRECTORY/refused-NAME what the server answers to clients with NAME.kubeconfig, in place of all else
DIRECTORY/requests/    the requests that were created
DIRECTORY/calls        a line for each call: the kubeconfig and the verb
"""

import base64
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


def sign(pem: bytes, issuer: bytes) -> bytes:
    ca = x509.load_pem_x509_certificate(issuer)
    key = serialization.load_pem_private_key(issuer[issuer.index(b"-----BEGIN EC") :], None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    request = x509.load_pem_x509_csr(pem)
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(request.subject)
        .issuer_name(ca.subject)
        .public_key(request.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=20))
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def fail(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.exit(1)


def main(directory: Path, words: list[str]) -> None:
    who = Path(words[words.index("--kubeconfig") + 1]).stem
    verb = next(word for word in words if word in {"get", "create"})
    with (directory / "calls").open("a") as calls:
        calls.write(f"{who} {verb}\n")
    refused = directory / f"refused-{who}"
    if refused.exists():
        fail(refused.read_text())
    requests = directory / "requests"
    requests.mkdir(exist_ok=True)
    if verb == "create":
        document = yaml.safe_load(sys.stdin)
        (requests / document["metadata"]["name"]).write_text(yaml.safe_dump(document))
        return
    path = requests / words[words.index("certificatesigningrequest") + 1]
    if not path.exists():
        fail(f'Error from server (NotFound): certificatesigningrequests "{path.name}" not found')
    pem = base64.b64decode(yaml.safe_load(path.read_text())["spec"]["request"])
    issuer = directory / "issuer.pem"
    if issuer.exists():
        certificate = base64.b64encode(sign(pem, issuer.read_bytes())).decode()
        sys.stdout.write(f"Approved {certificate}")


main(Path(sys.argv[1]), sys.argv[2:])
