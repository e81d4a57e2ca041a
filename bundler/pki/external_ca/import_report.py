"""The result of an import: what was imported, and warnings about weak CAs and certificates."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from bundler.cluster.plan import ClusterPlan
from bundler.pki.chains import Chain, is_complete, is_self_issued
from bundler.pki.extensions import find_extension, get_display_name

ONE_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedCertificate:
    """One certificate that was imported."""

    name: str
    path: Path
    certificate: x509.Certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """The result of an import."""

    imported: tuple[ImportedCertificate, ...]
    roots: tuple[x509.Certificate, ...]  # the ends of the chains
    notes: tuple[str, ...]


def warn_of_ca(
    name: str, own: x509.Certificate, issuers: Chain, plan: ClusterPlan, now: datetime
) -> Iterator[str]:
    """Yield a warning for each weakness of a CA that is usable."""
    if own.not_valid_after_utc - now < timedelta(days=plan.cluster.pki.days):
        yield (
            f"warning: {name} and its certificates end on {own.not_valid_after_utc:%Y-%m-%d}:"
            f" sooner than the {plan.cluster.pki.days} days of pki.days"
        )
    for issuer in issuers:
        if issuer.not_valid_after_utc - now < timedelta(days=plan.cluster.pki.days):
            yield (
                f"warning: {get_display_name(issuer)}, above {name}, ends on"
                f" {issuer.not_valid_after_utc:%Y-%m-%d}. The cluster continues to work, but"
                " programs that trust only a root do not trust the API server after that date"
            )
    if is_self_issued(own):
        yield (
            f"warning: {name} is a root ({get_display_name(own)}): the cluster trusts everything"
            " that it signs, so use it for this cluster only"
        )
    elif not is_complete(own, issuers):
        top = (own, *issuers)[-1]
        yield (
            f"warning: the chain of {name} is partial: the certificate of"
            f" {top.issuer.rfc4514_string()} is missing. The cluster works, but programs in pods"
            " that trust only a root do not trust the API server. Fix: import it with --chain"
        )
    basic = find_extension(own, x509.BasicConstraints)
    if basic is not None and basic.path_length != 0:
        yield (
            f"warning: {get_display_name(own)} may sign further CAs (no pathlen:0), and the cluster"
            f" trusts what they sign for {name}"
        )


def warn_of_leaf(name: str, leaf: x509.Certificate, ca: x509.Certificate) -> Iterator[str]:
    """Yield a warning if a certificate ends after its CA: it is not valid for longer than that."""
    if leaf.not_valid_after_utc > ca.not_valid_after_utc:
        yield (
            f"warning: {name} ends after {get_display_name(ca)}, which signed it, so it is valid"
            f" only until {ca.not_valid_after_utc:%Y-%m-%d}"
        )
