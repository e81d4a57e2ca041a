"""Access for people: kubeconfigs for more users, and the administrator's identity for a browser."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    load_pem_private_key,
    pkcs12,
)

from bundler.errors import ConfigError, OutputError, PkiError
from bundler.files import write_atomically
from bundler.pipeline import open_secrets
from bundler.pki import declarations, issuing
from bundler.pki.key_pairs import KeyPair
from bundler.pki.kubeconfig import render_kubeconfig
from bundler.project import Inputs, check

RESERVED = ("system:",)
"""Names that belong to Kubernetes itself: a person must not carry them."""

SHORTEST_PASSWORD = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A person's new identity."""

    name: str
    group: str | None
    not_after: datetime
    path: Path


def create_user(inputs: Inputs, *, name: str, group: str | None, days: int, output: Path) -> User:
    """Write a kubeconfig (0600) for a user whom RBAC knows by name and group.

    The certificate cannot be taken back before it ends, so `days` should be few. Raises
    ConfigError for names of Kubernetes' own, OutputError where the file exists.
    """
    for word in filter(None, (name, group)):
        if word.startswith(RESERVED) or not word.isprintable() or word != word.strip():
            raise ConfigError(
                f"{word!r} cannot be a person's name or group",
                hint="names that begin with system: are Kubernetes' own",
            )
    _refuse_existing(output)
    cluster = check(inputs)
    with open_secrets(cluster, inputs) as (plan, secrets):
        authority = secrets.pki.authorities[declarations.KUBERNETES_CA]
        if not authority.key_pem:
            raise PkiError(
                f"the key of {declarations.KUBERNETES_CA} is elsewhere: nothing can be signed here",
                hint="have a client certificate signed where it is: the common name is the user,"
                " the organization the group",
            )
        key = issuing.make_key(cluster.pki.key)
        content = declarations.Content(
            common_name=name,
            organization=group,
            usages=(declarations.CLIENT.dotted_string,),
            names=(),
        )
        certificate = issuing.issue(content, key.public_key(), _issuer(authority), _now(), days)
        pair = KeyPair(
            certificate_pem=issuing.encode_certificate(certificate),
            key_pem=issuing.encode_private_key(key),
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
        )
        text = render_kubeconfig(
            cluster=plan.name,
            server=plan.endpoint,
            authority_pem=secrets.pki.servers_anchors,
            user=name,
            client=pair,
        )
    write_atomically(output, text)
    return User(name=name, group=group, not_after=pair.not_after, path=output)


def export_admin(inputs: Inputs, *, password: str, output: Path) -> None:
    """Write the administrator's certificate and key as PKCS#12 (0600), for a browser or keychain.

    Raises ConfigError for a short password, OutputError where the file exists.
    """
    if len(password) < SHORTEST_PASSWORD:
        raise ConfigError(f"the password is shorter than {SHORTEST_PASSWORD} characters")
    _refuse_existing(output)
    cluster = check(inputs)
    with open_secrets(cluster, inputs) as (plan, secrets):
        pair = secrets.pki.cluster["admin"]
        data = pkcs12.serialize_key_and_certificates(
            f"admin@{plan.name}".encode(),
            _load_key(pair.key_pem),
            x509.load_pem_x509_certificate(pair.certificate_pem),
            x509.load_pem_x509_certificates(secrets.pki.servers_anchors),
            BestAvailableEncryption(password.encode()),
        )
    write_atomically(output, data)


def _refuse_existing(output: Path) -> None:
    if output.exists():
        raise OutputError(
            f"{output} exists already", hint="choose another file, or remove it first"
        )


def _issuer(pair: KeyPair) -> issuing.Issuer:
    certificate = x509.load_pem_x509_certificate(pair.certificate_pem)
    return issuing.Issuer(certificate=certificate, key=_load_key(pair.key_pem))


def _load_key(pem: bytes) -> issuing.PrivateKey:
    key = load_pem_private_key(pem, None)
    assert isinstance(key, issuing.PrivateKey)  # noqa: S101 - the state holds no other kinds
    return key


def _now() -> datetime:
    return datetime.now(UTC)
