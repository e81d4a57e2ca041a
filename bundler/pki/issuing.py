"""Create keys and issue certificates; does not access files.

Keys are encoded in the traditional formats ("EC PRIVATE KEY", "RSA PRIVATE KEY"), because every
reader from Kubernetes 1.14 to 1.36 accepts them: client-go's util/keyutil/key.go also accepts
PKCS#8 private keys, but its ParsePublicKeysPEM (--service-account-key-file) reads EC private keys
in the traditional format only; crypto/tls and cfssl's helpers (the CSR signer of 1.14) accept both.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from bundler.errors import PkiError
from bundler.pki.declarations import (
    NEW_CAS_HINT,
    Content,
    SanName,
    read_content,
)

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
KeyKind = Literal["ecdsa-p256", "rsa-2048"]
BACKDATE = timedelta(minutes=5)
"""So that hosts whose clock is slightly behind accept a new certificate; kube-controller-manager
backdates by the same (pkg/controller/certificates/signer)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """A CA certificate and its key."""

    certificate: x509.Certificate
    key: PrivateKey


def make_key(kind: KeyKind) -> PrivateKey:
    """Generate a private key of the kind that pki.key in cluster.yaml selects."""
    if kind == "rsa-2048":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1())


def issue_ca(
    name: str,
    cluster: str,
    key: PrivateKey,
    now: datetime,
    days: int,
    *,
    rotation_id: str | None = None,
) -> x509.Certificate:
    """Issue a self-signed CA that may sign leaves only; valid for `days` from `now`.

    `rotation_id` distinguishes it from earlier CAs of the same name (rotation_stages.py).
    """
    subject = make_name(name, cluster, rotation_id)
    not_before, not_after = _validity(now, days)
    builder = _builder(subject, subject, key.public_key(), not_before, not_after)
    for extension in list_ca_extensions():
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(key, hashes.SHA256())


def issue(
    content: Content, key: PublicKey, issuer: Issuer, now: datetime, days: int
) -> x509.Certificate:
    """Issue a leaf for `key`, valid for `days` from `now` (UTC) but no longer than its issuer.

    It is valid from five minutes before `now`, rounded down to the minute: see BACKDATE.
    Raises PkiError if the issuer itself is not valid now.
    """
    ca = issuer.certificate
    _check_issuer_valid(ca, now)
    not_before, not_after = _validity(now, days)
    builder = _builder(
        make_name(content.common_name, content.organization),
        ca.subject,
        key,
        max(not_before, ca.not_valid_before_utc),
        min(not_after, ca.not_valid_after_utc),
    ).add_extension(_authority_key_identifier(issuer), critical=False)
    for extension, is_critical in list_leaf_extensions(content, key):
        builder = builder.add_extension(extension, critical=is_critical)
    return builder.sign(issuer.key, hashes.SHA256())


def list_ca_extensions() -> tuple[x509.ExtensionType, ...]:
    """The extensions of a CA that may sign leaves only; all are critical."""
    constraints = x509.BasicConstraints(ca=True, path_length=0)
    return constraints, _key_usage(signs_certificates=True)


def list_leaf_extensions(
    content: Content, key: PublicKey
) -> Iterator[tuple[x509.ExtensionType, bool]]:
    """The extensions of a leaf, and whether each is critical."""
    yield x509.BasicConstraints(ca=False, path_length=None), True
    yield _key_usage(enciphers_keys=isinstance(key, rsa.RSAPublicKey)), True
    usages = [x509.ObjectIdentifier(usage) for usage in content.usages]
    yield x509.ExtendedKeyUsage(usages), False
    if content.names:
        names = [_general_name(name) for name in content.names]
        yield x509.SubjectAlternativeName(names), False


def encode_certificate(certificate: x509.Certificate) -> bytes:
    """The certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def encode_private_key(key: PrivateKey) -> bytes:
    """The key as unencrypted PEM in the traditional format (see the module docstring)."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def encode_public_key(key: PublicKey) -> bytes:
    """The key as PEM ("PUBLIC KEY")."""
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def get_key_kind(key: PublicKey) -> str:
    """The kind of a key, spelled as pki.key in cluster.yaml."""
    if isinstance(key, rsa.RSAPublicKey):
        return f"rsa-{key.key_size}"
    return "ecdsa-p256" if isinstance(key.curve, ec.SECP256R1) else f"ecdsa-{key.curve.name}"


def _validity(now: datetime, days: int) -> tuple[datetime, datetime]:
    minute = now.replace(second=0, microsecond=0)
    return minute - BACKDATE, minute + timedelta(days=days)


def _check_issuer_valid(ca: x509.Certificate, now: datetime) -> None:
    name = read_content(ca).common_name
    if now < ca.not_valid_before_utc:
        raise PkiError(
            f"{name} is valid from {ca.not_valid_before_utc:%Y-%m-%d %H:%M} UTC,"
            f" but the clock of this machine shows {now:%Y-%m-%d %H:%M} UTC",
            hint="correct the clock of this machine",
        )
    if now >= ca.not_valid_after_utc:
        raise PkiError(
            f"{name} ended on {ca.not_valid_after_utc:%Y-%m-%d} and can no longer sign",
            hint=NEW_CAS_HINT,
        )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: PublicKey,
    not_before: datetime,
    not_after: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, signs_certificates: bool = False, enciphers_keys: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=enciphers_keys,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_key_identifier(issuer: Issuer) -> x509.AuthorityKeyIdentifier:
    for extension in issuer.certificate.extensions:
        if isinstance(extension.value, x509.SubjectKeyIdentifier):
            return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(extension.value)
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())


def make_name(
    common_name: str, organization: str | None, organizational_unit: str | None = None
) -> x509.Name:
    """A subject. Kubernetes reads the common name as the user and the organization as a group."""
    parts = (
        (NameOID.ORGANIZATION_NAME, organization),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, organizational_unit),
        (NameOID.COMMON_NAME, common_name),
    )
    return x509.Name([x509.NameAttribute(oid, text) for oid, text in parts if text])


def _general_name(name: SanName) -> x509.GeneralName:
    return x509.IPAddress(name) if isinstance(name, IPv4Address) else x509.DNSName(name)
