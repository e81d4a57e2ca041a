"""Certificate requests of kubelets, and the lines in which kubectl lists them."""

import base64
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

SERVING = '"kubernetes.io/kubelet-serving"'
USAGES = '["digital signature""key encipherment""server auth"]'
GROUPS = '["system:nodes""system:authenticated"]'


def make_request(
    name: str = "system:node:worker1",
    *,
    organization: str = "system:nodes",
    dns: tuple[str, ...] = ("worker1",),
    addresses: tuple[str, ...] = ("172.30.20.21",),
    extra: x509.ExtensionType | None = None,
) -> bytes:
    """A kubelet's request, or one that asks for something else."""
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )
    names: list[x509.GeneralName] = [x509.DNSName(value) for value in dns]
    names += [x509.IPAddress(ipaddress.ip_address(value)) for value in addresses]
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if extra is not None:
        builder = builder.add_extension(extra, critical=True)
    request = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def format_request(
    pem: bytes, *, user: str = '"system:node:worker1"', signer: str = SERVING, usages: str = USAGES,
    groups: str = GROUPS,
) -> str:  # fmt: skip
    """Format a pending request as approve-csrs.sh reads it from kubectl."""
    return "\t".join(["csr-1", signer, user, groups, usages, base64.b64encode(pem).decode()]) + "\n"
