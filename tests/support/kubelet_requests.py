"""Certificate requests of kubelets, the lines in which kubectl lists them, and a kubectl that does."""

import base64
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from support.shells import write_program

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
    groups: str = GROUPS, name: str = '"csr-1"',
) -> str:  # fmt: skip
    """Format a pending request as approve-csrs.sh reads it from kubectl."""
    return "\t".join([name, signer, user, groups, usages, base64.b64encode(pem).decode()]) + "\n"


KUBECTL = """\
cd {site}
echo "$*" >>calls
[ ! -s broken ] || case " $* " in *"$(cat broken)"*) echo "no answer" >&2; exit 1 ;; esac
case " $* " in
    *" approve "*) echo "$*" >>approved ;;
    *" get configmap "*) cat record ;;
    *" patch configmap "*) echo "$*" >>patched; echo 8 ;;
    *" get nodes "*) cat nodes ;;
    *" delete secret "*) echo "$*" >>deleted; echo 'secret "x" deleted' ;;
    *) cat pending; echo >>looks ;;
esac
"""


def write_kubectl(site: Path) -> None:
    """A kubectl in bin/ that answers with the files pending, record and nodes.

    It writes down what it approves, patches and deletes. If there is a file broken, calls with the
    words in it fail.
    """
    for name in ("pending", "nodes", "approved", "patched", "deleted", "calls", "looks"):
        (site / name).write_text("")
    (site / "record").write_text("7 uid-1\n")
    write_program(site / "bin/kubectl", KUBECTL.format(site=site))
