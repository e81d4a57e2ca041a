"""The origin of each CA, and its files in the state directory.

    pki/<ca>/cert.pem     the CA certificate: the trust anchor of the cluster
    pki/<ca>/key.pem      absent if certificates are signed elsewhere
    pki/<ca>/chain.pem    the issuers of the CA, nearest first, as far as they were imported
    pki/<ca>/origin       a CaOrigin; absent if bundler made the CA
    pki/…/request.pem     a request whose certificate has not been imported yet

Programs of the cluster trust the CA only, never the root above it: otherwise a client certificate
for system:masters from another CA below the same root would be an administrator of this cluster.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from bundler.errors import PkiError
from bundler.pki import declarations, issuing
from bundler.pki.chains import is_self_issued
from bundler.pki.key_pairs import KeyPair, load_pair
from bundler.state.directory import RESTORE, State

ORIGIN = "origin"
CHAIN = "chain.pem"
REQUEST = "request.pem"
SIGN_AGAIN_HINT = (
    "have it signed again for the same key: `bundler certs request --all`, then `bundler certs"
    " import`"
)


class CaOrigin(StrEnum):
    """Who made a CA, and where its key is."""

    MADE = "made"  # by bundler
    IMPORTED = "imported"  # certificate and key come from files
    REQUESTED = "requested"  # the key is here, the certificate is signed elsewhere
    ELSEWHERE = "elsewhere"  # the key is elsewhere; each certificate is signed there


RENEWAL_HINTS = {
    CaOrigin.MADE: declarations.NEW_CAS_HINT,
    CaOrigin.IMPORTED: "have it renewed for the same key and name, then import the certificate:"
    " `bundler certs import --authority NAME --cert PEM`",
    CaOrigin.REQUESTED: SIGN_AGAIN_HINT,
    CaOrigin.ELSEWHERE: "have it and every certificate below it renewed by the PKI that holds its"
    " key: `bundler certs request --all`, then `bundler certs import`",
}
"""How to renew or replace a CA before it ends."""

DESCRIPTIONS = {
    CaOrigin.MADE: "",
    CaOrigin.IMPORTED: "external CA, imported from files",
    CaOrigin.REQUESTED: "external CA, signed elsewhere for a key made here",
    CaOrigin.ELSEWHERE: "external CA, whose key is elsewhere",
}
"""The note of a CA in `bundler certs list`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateAuthority:
    """A CA of the state directory, parsed."""

    certificate: x509.Certificate
    pair: KeyPair  # without a key if that is elsewhere
    key: issuing.PrivateKey | None
    issuers: tuple[x509.Certificate, ...]
    origin: CaOrigin

    @property
    def issuer(self) -> issuing.Issuer:
        """The CA as the issuer of other certificates."""
        if not self.key:
            raise PkiError("the key of this CA is elsewhere", hint=SIGN_AGAIN_HINT)
        return issuing.Issuer(certificate=self.certificate, key=self.key)

    @property
    def intermediates_pem(self) -> bytes:
        """The CAs below the root, which servers send for clients that trust only the root."""
        above = (self.certificate, *self.issuers)
        return encode_all(one for one in above if not is_self_issued(one))

    @property
    def full_chain_pem(self) -> bytes:
        """The CA and all its issuers, for clients that can only trust a root."""
        return encode_all((self.certificate, *self.issuers))


def encode_all(certificates: Iterable[x509.Certificate]) -> bytes:
    """The certificates as concatenated PEM."""
    return b"".join(map(issuing.encode_certificate, certificates))


def read_origin(directory: Path) -> CaOrigin:
    """The origin of the CA in `directory`; raises PkiError for an unknown value."""
    path = directory / ORIGIN
    if not path.exists():
        return CaOrigin.MADE
    value = path.read_text(errors="replace").strip()
    if value not in set(CaOrigin):
        raise PkiError(f"{path}: unknown origin; the file is damaged", hint=RESTORE)
    return CaOrigin(value)


def is_signed_elsewhere(state: State) -> bool:
    """Whether every certificate of this cluster is signed elsewhere."""
    return read_origin(state.directory / "pki" / declarations.KUBERNETES_CA) is CaOrigin.ELSEWHERE


def load_ca(directory: Path, state: State) -> CertificateAuthority:
    """Read a CA; raises PkiError if a file is missing, unreadable or inconsistent."""
    origin = read_origin(directory)
    issuers: tuple[x509.Certificate, ...] = ()
    if (directory / CHAIN).exists():
        issuers = _load_certificates(directory / CHAIN, state)
    if origin is CaOrigin.ELSEWHERE:
        certificate = _load_certificates(directory / "cert.pem", state)[0]
        return CertificateAuthority(
            certificate=certificate,
            pair=KeyPair(
                certificate_pem=issuing.encode_certificate(certificate),
                key_pem=b"",
                not_before=certificate.not_valid_before_utc,
                not_after=certificate.not_valid_after_utc,
            ),
            key=None,
            issuers=issuers,
            origin=origin,
        )
    stored = load_pair(directory, state)
    return CertificateAuthority(
        certificate=stored.certificate,
        pair=stored.pair,
        key=stored.key,
        issuers=issuers,
        origin=origin,
    )


def _load_certificates(path: Path, state: State) -> tuple[x509.Certificate, ...]:
    try:
        found = tuple(x509.load_pem_x509_certificates(state.read_file(path)))
        for certificate in found:
            declarations.read_content(certificate)  # raises if an extension is malformed
    except (ValueError, UnsupportedAlgorithm) as error:
        raise PkiError(f"{path}: not a certificate in PEM", hint=RESTORE) from error
    return found
