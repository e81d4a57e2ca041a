"""Access for people: kubeconfigs for more users, the administrator's PKCS#12, its revocation."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    load_pem_private_key,
    pkcs12,
)

from bundler.cluster.plan import ClusterPlan
from bundler.errors import ConfigError, PkiError
from bundler.pki import admin_group, declarations, issuing
from bundler.pki.ca_certificates import check_has_cas
from bundler.pki.ca_origins import load_ca
from bundler.pki.cluster_pki import Pki
from bundler.pki.key_pairs import KeyPair
from bundler.pki.kubeconfig import render_kubeconfig
from bundler.pki.leaf_certificates import load_leaves
from bundler.state.directory import open_state
from bundler.state.replaced import keep_replaced
from bundler.state.transaction import write_transaction

RESERVED = "system:"
"""Prefix of Kubernetes' own users and groups, which people must not have."""

BREAK_GLASS_GROUP = "system:masters"
"""Every API server gives it all rights, whatever RBAC says, and nobody can revoke them."""

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
                hint=f"names that start with {RESERVED} are reserved for Kubernetes; for"
                f" {BREAK_GLASS_GROUP} give --break-glass",
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


def revoke_admin(directory: Path, plan: ClusterPlan, now: datetime) -> str:
    """Replace the administrator's group, key and certificate; returns the new group.

    The ClusterRoleBinding of the next bundles names the new group only, so that the former
    certificate has no rights any more.
    """
    check_has_cas(directory, plan)
    with open_state(directory) as state:
        leaf = next(leaf for leaf in load_leaves(state, plan) if leaf.spec.name == "admin")
        ca = load_ca(state.directory / "pki" / declarations.get_ca_name(leaf.spec, plan), state)
        group = f"{declarations.ADMIN_GROUP}:{now:%Y%m%dT%H%M%SZ}"
        key = issuing.make_key(plan.cluster.pki.key)
        content = declarations.make_content(leaf.spec, plan, None, group)
        certificate = issuing.issue(
            content, key.public_key(), ca.issuer, now, plan.cluster.pki.days
        )
        keep_replaced(leaf.directory, state, now)
        place = leaf.directory.relative_to(directory).as_posix()
        changed = {
            admin_group.FILE: f"{group}\n".encode(),
            f"{place}/cert.pem": issuing.encode_certificate(certificate),
            f"{place}/key.pem": issuing.encode_private_key(key),
        }
        write_transaction(directory, changed)
    return group


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
