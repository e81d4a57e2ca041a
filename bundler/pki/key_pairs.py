"""Read, check and write a private key and its certificate in the state directory."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from bundler.cluster.plan import NodePlan
from bundler.errors import PkiError
from bundler.pki import declarations, issuing
from bundler.state.directory import RESTORE, State

REISSUE_HINT = (
    "restore it from your backup of the state directory, or delete this cert.pem (never key.pem):"
    " it is issued again for the same key"
)
NODES = "nodes"


def leaf_directory(root: Path, spec: declarations.CertificateSpec, node: NodePlan | None) -> Path:
    """The directory of a certificate and its key; `root` is pki/ of the state directory."""
    return root.joinpath(*((NODES, node.name) if node else ()), spec.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """A certificate and its private key, both PEM."""

    certificate_pem: bytes
    key_pem: bytes = field(repr=False)
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPair:
    """A pair of the state directory, parsed."""

    key: issuing.PrivateKey
    certificate: x509.Certificate
    pair: KeyPair

    @property
    def issuer(self) -> issuing.Issuer:
        """The pair as the issuer of other certificates."""
        return issuing.Issuer(certificate=self.certificate, key=self.key)


def load_pair(directory: Path, state: State, *, hint: str = RESTORE) -> StoredPair:
    """Read `directory`/{cert.pem,key.pem}; raises PkiError, with `hint` if cert.pem is damaged."""
    key, key_pem = load_key(directory, state)
    path = directory / "cert.pem"
    certificate_pem = state.read_file(path)
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        fits = certificate.public_key() == key.public_key()
        declarations.read_content(certificate)  # raises if an extension is malformed
    except (ValueError, UnsupportedAlgorithm) as error:
        raise PkiError(f"{path}: not a certificate in PEM", hint=hint) from error
    if not fits:
        raise PkiError(
            f"{directory}: cert.pem and key.pem do not belong together",
            hint=f"restore both from the same backup; {RESTORE}",
        )
    pair = KeyPair(
        certificate_pem=certificate_pem,
        key_pem=key_pem,
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
    )
    return StoredPair(key=key, certificate=certificate, pair=pair)


def load_key(directory: Path, state: State) -> tuple[issuing.PrivateKey, bytes]:
    """Read `directory`/key.pem; returns the key and its PEM. Raises PkiError."""
    path = directory / "key.pem"
    key_pem = state.read_file(path)
    try:
        key = load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise PkiError(f"{path}: not an unencrypted private key in PEM", hint=RESTORE) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise PkiError(f"{path}: expected an ECDSA or RSA key", hint=RESTORE)
    return key, key_pem


def write_pair(
    directory: Path, key: issuing.PrivateKey, certificate: x509.Certificate, state: State
) -> None:
    """Create `directory` with the pair, atomically."""
    files = {
        "key.pem": issuing.encode_private_key(key),
        "cert.pem": issuing.encode_certificate(certificate),
    }
    state.write_directory(directory, files)


def get_warning_time(pair: KeyPair, usual: timedelta) -> timedelta:
    """How long before its end to warn: at most a third of the lifetime, for short certificates."""
    return min(usual, (pair.not_after - pair.not_before) / 3)
