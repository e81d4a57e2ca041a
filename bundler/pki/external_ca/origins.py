"""Where an authority comes from, and how the state directory keeps it.

    pki/<authority>/cert.pem     the authority itself: the anchor of all trust in the cluster
    pki/<authority>/key.pem      not there if its certificates are signed elsewhere
    pki/<authority>/chain.pem    those above it, the nearest first, as far as they were given
    pki/<authority>/origin       a word; not there if bundler made the authority itself
    pki/…/request.pem            a request for a signature that has not come back yet

Programs of the cluster believe the authority alone, never the root above it: a client certificate
that another authority of the same root signed for system:masters must not open this cluster.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from bundler.errors import PkiError
from bundler.pki import declarations, issuing
from bundler.pki.external_ca.chains import is_self_issued
from bundler.pki.key_pairs import KeyPair, load_pair
from bundler.state.directory import RESTORE, State

ORIGIN = "origin"
CHAIN = "chain.pem"
REQUEST = "request.pem"
SIGN_AGAIN = (
    "have it signed anew for the same key: `bundler certs request --all`, then `bundler certs"
    " import`"
)


class CaOrigin(StrEnum):
    """Who made an authority, and where its key is."""

    MADE = "made"
    IMPORTED = "imported"
    REQUESTED = "requested"
    ELSEWHERE = "elsewhere"


IMPORT_AGAIN = (
    "have it renewed for the same key and name, and take that: `bundler certs import --authority"
    " NAME --cert PEM`"
)
RENEWALS = {
    CaOrigin.MADE: declarations.NEW_AUTHORITIES,
    CaOrigin.IMPORTED: IMPORT_AGAIN,
    CaOrigin.REQUESTED: SIGN_AGAIN,
    CaOrigin.ELSEWHERE: "have it renewed where its key is, then every certificate under it:"
    " `bundler certs request --all`, `bundler certs import`",
}
"""What to do about an authority that ends."""

DESCRIPTIONS = {
    CaOrigin.MADE: "",
    CaOrigin.IMPORTED: "own authority, given as files",
    CaOrigin.REQUESTED: "own authority, signed elsewhere for a key made here",
    CaOrigin.ELSEWHERE: "own authority, whose key is elsewhere",
}
"""What `bundler certs list` says of an authority."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """An authority of the state directory, parsed."""

    certificate: x509.Certificate
    pair: KeyPair  # its key is empty if it is elsewhere
    key: issuing.PrivateKey | None
    issuers: tuple[x509.Certificate, ...]
    origin: CaOrigin

    @property
    def issuer(self) -> issuing.Issuer:
        """The authority as one that signs others."""
        if self.key is None:
            raise PkiError("the key of this authority is elsewhere", hint=SIGN_AGAIN)
        return issuing.Issuer(certificate=self.certificate, key=self.key)

    @property
    def intermediates_pem(self) -> bytes:
        """What a server shows beside its own certificate, for those who know the root alone."""
        above = (self.certificate, *self.issuers)
        return encode_all(one for one in above if not is_self_issued(one))

    @property
    def whole_pem(self) -> bytes:
        """Itself and all above it, for those who cannot trust anything but a root."""
        return encode_all((self.certificate, *self.issuers))


def encode_all(certificates: Iterable[x509.Certificate]) -> bytes:
    """Certificates as PEM, one after another."""
    return b"".join(map(issuing.encode_certificate, certificates))


def read_origin(directory: Path) -> CaOrigin:
    """Of the authority that lives there; raises PkiError for a word that is not known."""
    path = directory / ORIGIN
    if not path.exists():
        return CaOrigin.MADE
    word = path.read_text(errors="replace").strip()
    if word not in set(CaOrigin):
        raise PkiError(f"{path}: not what bundler wrote there", hint=RESTORE)
    return CaOrigin(word)


def is_elsewhere(state: State) -> bool:
    """Whether the certificates of this cluster are signed elsewhere, each of them."""
    return read_origin(state.directory / "pki" / declarations.KUBERNETES_CA) is CaOrigin.ELSEWHERE


def load_authority(directory: Path, state: State) -> Authority:
    """Read an authority; raises PkiError if something is missing, unreadable or at odds."""
    origin = read_origin(directory)
    issuers: tuple[x509.Certificate, ...] = ()
    if (directory / CHAIN).exists():
        issuers = _load_certificates(directory / CHAIN, state)
    if origin is CaOrigin.ELSEWHERE:
        certificate = _load_certificates(directory / "cert.pem", state)[0]
        return Authority(
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
    return Authority(
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
            declarations.read_content(certificate)  # its extensions can be read, too
    except (ValueError, UnsupportedAlgorithm) as error:
        raise PkiError(f"{path}: not a certificate in PEM", hint=RESTORE) from error
    return found
