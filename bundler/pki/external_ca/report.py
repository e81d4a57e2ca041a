"""What an import took, and what people should know of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from bundler.cluster.plan import ClusterPlan
from bundler.pki.external_ca.chains import Chain, is_self_issued, is_whole
from bundler.pki.external_ca.extensions import find_extension, name_of

ONE_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedCertificate:
    """One certificate that was taken."""

    name: str
    path: Path
    certificate: x509.Certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What an import took."""

    taken: tuple[ImportedCertificate, ...]
    roots: tuple[x509.Certificate, ...]  # that the chains end with
    notes: tuple[str, ...]


def note_authority(
    name: str, own: x509.Certificate, issuers: Chain, plan: ClusterPlan, now: datetime
) -> Iterator[str]:
    """What is weak about an authority that can be used all the same."""
    if own.not_valid_after_utc - now < timedelta(days=plan.cluster.pki.days):
        yield (
            f"warning: {name} ends on {own.not_valid_after_utc:%Y-%m-%d}, and its certificates with"
            f" it: sooner than the {plan.cluster.pki.days} days of pki.days"
        )
    for issuer in issuers:
        if issuer.not_valid_after_utc - now < timedelta(days=plan.cluster.pki.days):
            yield (
                f"warning: {name_of(issuer)}, above {name}, ends on"
                f" {issuer.not_valid_after_utc:%Y-%m-%d}. The cluster works on; but programs that"
                " trust nothing but a root will not believe the API server from then on"
            )
    if is_self_issued(own):
        yield (
            f"warning: {name} is a root ({name_of(own)}): the cluster believes everything that it"
            " ever signed or will sign, so it must serve this cluster alone"
        )
    elif not is_whole(own, issuers):
        top = (own, *issuers)[-1]
        yield (
            f"warning: the chain of {name} is partial: the certificate of"
            f" {top.issuer.rfc4514_string()} was not given. The cluster works; but programs in pods"
            " that trust nothing but a root will not believe the API server (--chain)"
        )
    basic = find_extension(own, x509.BasicConstraints)
    if basic is not None and basic.path_length != 0:
        yield (
            f"warning: {name_of(own)} may sign authorities in turn (no pathlen:0), and the cluster"
            f" believes what those sign for {name}"
        )


def note_leaf(name: str, leaf: x509.Certificate, authority: x509.Certificate) -> Iterator[str]:
    """A certificate counts no longer than the one above it."""
    if leaf.not_valid_after_utc > authority.not_valid_after_utc:
        yield (
            f"warning: {name} ends after {name_of(authority)}, which signed it, and counts until"
            f" then only: {authority.not_valid_after_utc:%Y-%m-%d}"
        )
