"""Certificate chains: find the issuers of a certificate up to its root, and check them."""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from bundler.pki.extensions import find_extension, get_display_name

Chain = tuple[x509.Certificate, ...]

MAX_LENGTH = 8
WEAK_DIGESTS = ("md5", "sha1")
"""Go refuses signatures over these since 1.18, and openssl at its usual level."""


def is_self_issued(certificate: x509.Certificate) -> bool:
    """Whether the certificate is a root: signed by its own key."""
    return certificate.subject == certificate.issuer and is_issued_by(certificate, certificate)


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether the certificate names this issuer and is signed by its key."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def find_chain(
    certificate: x509.Certificate, pool: Collection[x509.Certificate], now: datetime
) -> Chain:
    """The issuers, nearest first: up to a root if the pool has one, else as far as possible.

    Cross-signed CAs have several chains: the shortest complete one without a fault is used.
    """
    chains = sorted(_list_chains(certificate, pool, ()), key=len, reverse=True)
    complete = [chain for chain in chains if is_complete(certificate, chain)]
    good = (chain for chain in reversed(complete) if not any(check_chain(certificate, chain, now)))
    return next(good, (complete or chains)[0])


def is_complete(certificate: x509.Certificate, chain: Chain) -> bool:
    """Whether the chain ends with a root."""
    return is_self_issued(_top(certificate, chain))


def check_chain(certificate: x509.Certificate, chain: Chain, now: datetime) -> Iterator[str]:
    """Yield every fault of the issuers of a certificate and of their signatures."""
    depth = int(is_ca(certificate))
    for below, issuer in enumerate(chain):
        name = get_display_name(issuer)
        basic = find_extension(issuer, x509.BasicConstraints)
        usage = find_extension(issuer, x509.KeyUsage)
        if not basic or not basic.ca:
            yield f"its issuer {name} is not a CA (basicConstraints has no CA:TRUE)"
        elif basic.path_length is not None and below + depth > basic.path_length:
            yield f"{name} allows {basic.path_length} CAs below it, but the chain has more"
        if usage is not None and not usage.key_cert_sign:
            yield f"its issuer {name} may not sign certificates (keyUsage has no keyCertSign)"
        if issuer.not_valid_after_utc <= now:
            yield f"its issuer {name} ended on {issuer.not_valid_after_utc:%Y-%m-%d}"
        elif issuer.not_valid_before_utc > now:
            yield f"its issuer {name} is not valid before {issuer.not_valid_before_utc:%Y-%m-%d}"
    for signed in (certificate, *chain):
        digest = _digest_of(signed)
        if digest in WEAK_DIGESTS and not is_self_issued(signed):
            yield f"{get_display_name(signed)} is signed with {digest}, which clients refuse"


def is_ca(certificate: x509.Certificate) -> bool:
    """Whether the certificate has CA:TRUE."""
    basic = find_extension(certificate, x509.BasicConstraints)
    return basic is not None and basic.ca


def _list_chains(
    certificate: x509.Certificate, pool: Collection[x509.Certificate], chain: Chain
) -> Iterator[Chain]:
    issuers = [
        issuer
        for issuer in pool
        if issuer != certificate and issuer not in chain and is_issued_by(certificate, issuer)
    ]
    if is_self_issued(certificate) or not issuers or len(chain) == MAX_LENGTH:
        yield chain
    else:
        for issuer in issuers:
            yield from _list_chains(issuer, pool, (*chain, issuer))


def _top(certificate: x509.Certificate, chain: Sequence[x509.Certificate]) -> x509.Certificate:
    return chain[-1] if chain else certificate


def _digest_of(certificate: x509.Certificate) -> str | None:
    try:
        digest = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return None
    return digest.name if digest else None


def has_same_key(one: x509.Certificate, other: x509.Certificate) -> bool:
    """Whether both certificates have the same public key."""
    return one.public_key() == other.public_key()


def is_renewal(new: x509.Certificate, old: x509.Certificate) -> bool:
    """Whether the new CA certificate also verifies everything that the old one signed."""
    return has_same_key(new, old) and new.subject == old.subject
