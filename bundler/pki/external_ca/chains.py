"""From a certificate up to its root: who issued it, and whether those above may."""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from bundler.pki.external_ca.extensions import find_extension, name_of

Chain = tuple[x509.Certificate, ...]

LONGEST = 8
WEAK_DIGESTS = ("md5", "sha1")
"""Go refuses signatures over these since 1.18, and openssl at its usual level."""


def is_self_issued(certificate: x509.Certificate) -> bool:
    """Whether it is a root: signed by its own key."""
    return certificate.subject == certificate.issuer and is_issued_by(certificate, certificate)


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether the issuer's name and key are those that the certificate was signed with."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def find_chain(
    certificate: x509.Certificate, pool: Collection[x509.Certificate], now: datetime
) -> Chain:
    """Its issuers, the nearest first: up to a root if the pool has one, else as far as it leads.

    Where authorities vouch for one another there are several ways up: one without a fault is taken.
    """
    ways = sorted(_list_ways(certificate, pool, ()), key=len, reverse=True)
    whole = [way for way in ways if is_self_issued(_top(certificate, way))]
    good = (way for way in reversed(whole) if not any(list_faults(certificate, way, now)))
    return next(good, (whole or ways)[0])


def is_whole(certificate: x509.Certificate, chain: Chain) -> bool:
    """Whether it ends with a root."""
    return is_self_issued(_top(certificate, chain))


def list_faults(certificate: x509.Certificate, chain: Chain, now: datetime) -> Iterator[str]:
    """What is wrong with those above a certificate, and with the signatures between them."""
    counts = is_authority(certificate)
    for below, issuer in enumerate(chain):
        name = name_of(issuer)
        basic = find_extension(issuer, x509.BasicConstraints)
        usage = find_extension(issuer, x509.KeyUsage)
        if basic is None or not basic.ca:
            yield f"its issuer {name} is no authority (basicConstraints has no CA:TRUE)"
        elif basic.path_length is not None and below + counts > basic.path_length:
            yield f"{name} allows {basic.path_length} authorities below it, and here are more"
        if usage is not None and not usage.key_cert_sign:
            yield f"its issuer {name} may not sign certificates (keyUsage has no keyCertSign)"
        if issuer.not_valid_after_utc <= now:
            yield f"its issuer {name} ended on {issuer.not_valid_after_utc:%Y-%m-%d}"
        elif issuer.not_valid_before_utc > now:
            yield f"its issuer {name} is valid from {issuer.not_valid_before_utc:%Y-%m-%d} only"
    for signed in (certificate, *chain):
        digest = _digest_of(signed)
        if digest in WEAK_DIGESTS and not is_self_issued(signed):
            yield f"{name_of(signed)} is signed over {digest}, which nobody takes any more"


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether it says that it may sign others."""
    basic = find_extension(certificate, x509.BasicConstraints)
    return basic is not None and basic.ca


def _list_ways(
    certificate: x509.Certificate, pool: Collection[x509.Certificate], way: Chain
) -> Iterator[Chain]:
    issuers = [
        issuer
        for issuer in pool
        if issuer != certificate and issuer not in way and is_issued_by(certificate, issuer)
    ]
    if is_self_issued(certificate) or not issuers or len(way) == LONGEST:
        yield way
    else:
        for issuer in issuers:
            yield from _list_ways(issuer, pool, (*way, issuer))


def _top(certificate: x509.Certificate, chain: Sequence[x509.Certificate]) -> x509.Certificate:
    return chain[-1] if chain else certificate


def _digest_of(certificate: x509.Certificate) -> str | None:
    try:
        digest = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return None
    return digest.name if digest else None


def has_same_key(one: x509.Certificate, other: x509.Certificate) -> bool:
    """Whether both are for one key, whatever else they say."""
    return one.public_key() == other.public_key()


def is_renewal(new: x509.Certificate, old: x509.Certificate) -> bool:
    """Whether what the old authority signed holds under the new certificate, too."""
    return has_same_key(new, old) and new.subject == old.subject
