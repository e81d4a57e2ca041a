"""Access for people: kubeconfigs for more users, and the administrator's identity as PKCS#12."""

from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    load_pem_private_key,
    pkcs12,
)

from bundler.cluster.plan import ClusterPlan
from bundler.errors import ConfigError, PkiError
from bundler.pki import declarations, issuing
from bundler.pki.cluster_pki import Pki
from bundler.pki.key_pairs import KeyPair
from bundler.pki.kubeconfig import render_kubeconfig

RESERVED = "system:"
"""Prefix of Kubernetes' own users and groups, which people must not have."""

MIN_PASSWORD = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class UserKubeconfig:
    """A kubeconfig with the certificate and key of one user."""

    content: bytes
    not_after: datetime


def check_names(name: str, group: str | None) -> None:
    """Raise ConfigError for a user or group name that belongs to Kubernetes or is not plain."""
    for word in filter(None, (name, group)):
        if word.startswith(RESERVED) or not word.isprintable() or word != word.strip():
            raise ConfigError(
                f"{word!r} cannot be the name of a user or group",
                hint=f"names that start with {RESERVED} are reserved for Kubernetes",
            )


def make_user_kubeconfig(
    pki: Pki, plan: ClusterPlan, now: datetime, *, name: str, group: str | None, days: int
) -> UserKubeconfig:
    """Issue a client certificate for a user and put it into a kubeconfig.

    The certificate cannot be revoked before it ends, so keep `days` short. Raises PkiError if the
    key of the CA is not in the state directory.
    """
    ca = pki.cas[declarations.KUBERNETES_CA]
    if not ca.key_pem:
        raise PkiError(
            f"the key of {declarations.KUBERNETES_CA} is not in the state directory, so bundler"
            " cannot sign certificates",
            hint="have the external CA sign a client certificate: the common name is the user, the"
            " organization is the group",
        )
    key = issuing.make_key(plan.cluster.pki.key)
    content = declarations.Content(
        common_name=name,
        organization=group,
        usages=(declarations.CLIENT.dotted_string,),
        names=(),
    )
    certificate = issuing.issue(content, key.public_key(), _make_issuer(ca), now, days)
    pair = KeyPair(
        certificate_pem=issuing.encode_certificate(certificate),
        key_pem=issuing.encode_private_key(key),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
    )
    text = render_kubeconfig(
        cluster=plan.name,
        server=plan.endpoint,
        ca_pem=pki.trust.servers,
        user=name,
        client=pair,
    )
    return UserKubeconfig(content=text, not_after=pair.not_after)


def check_password(password: str) -> None:
    """Raise ConfigError for a short password."""
    if len(password) < MIN_PASSWORD:
        raise ConfigError(f"the password has less than {MIN_PASSWORD} characters")


def make_admin_pkcs12(pki: Pki, plan: ClusterPlan, password: str) -> bytes:
    """Put the administrator's certificate and key into PKCS#12, for a browser or keychain."""
    pair = pki.cluster["admin"]
    return pkcs12.serialize_key_and_certificates(
        f"admin@{plan.name}".encode(),
        _load_key(pair.key_pem),
        x509.load_pem_x509_certificate(pair.certificate_pem),
        x509.load_pem_x509_certificates(pki.trust.servers),
        BestAvailableEncryption(password.encode()),
    )


def _make_issuer(pair: KeyPair) -> issuing.Issuer:
    certificate = x509.load_pem_x509_certificate(pair.certificate_pem)
    return issuing.Issuer(certificate=certificate, key=_load_key(pair.key_pem))


def _load_key(pem: bytes) -> issuing.PrivateKey:
    key = load_pem_private_key(pem, None)
    assert isinstance(key, issuing.PrivateKey)  # noqa: S101 - the state holds no other kinds
    return key
