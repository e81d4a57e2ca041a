"""Leaf certificates: load them, find the outdated ones, issue and write them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.exceptions import InvalidSignature

from bundler.cluster.plan import ClusterPlan, NodePlan
from bundler.errors import PkiError
from bundler.pki import declarations, issuing
from bundler.pki.admin_group import read_admin_group
from bundler.pki.ca_origins import SIGN_AGAIN_HINT, CertificateAuthority
from bundler.pki.key_pairs import (
    NODES,
    REISSUE_HINT,
    KeyPair,
    StoredPair,
    get_warning_time,
    leaf_directory,
    load_key,
    load_pair,
    write_pair,
)
from bundler.pki.pending import GET_SIGNED_HINT, explain_pending
from bundler.state.directory import State

LEAF_WARNING = timedelta(days=30)
RENEW_AND_BUILD = "bundler certs renew --expiring 90d, then build again and install the new bundles"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """One leaf certificate of the plan: its directory, required content and stored files."""

    spec: declarations.CertificateSpec
    node: NodePlan | None
    directory: Path
    content: declarations.Content
    key: issuing.PrivateKey | None = None
    stored: StoredPair | None = None

    @property
    def owner(self) -> str:
        return self.node.name if self.node else "the cluster"

    @property
    def title(self) -> str:
        return f"{self.spec.name} of {self.owner}"


def load_leaves(state: State, plan: ClusterPlan) -> tuple[Leaf, ...]:
    """Load every leaf certificate of the plan; raises PkiError with all faults at once."""
    admin_group = read_admin_group(state)
    leaves: list[Leaf] = []
    faults: list[PkiError] = []
    for spec in declarations.list_certificates(plan):
        for node in declarations.list_owners(spec, plan):
            directory = leaf_directory(state.directory / "pki", spec, node)
            try:
                key, stored = _load_leaf(directory, state)
            except PkiError as error:
                faults.append(error)
                continue
            content = declarations.make_content(spec, plan, node, admin_group)
            leaves.append(
                Leaf(
                    spec=spec,
                    node=node,
                    directory=directory,
                    content=content,
                    key=key,
                    stored=stored,
                )
            )
    _raise_all(faults)
    return tuple(leaves)


def _load_leaf(
    directory: Path, state: State
) -> tuple[issuing.PrivateKey | None, StoredPair | None]:
    if not directory.is_dir():
        return None, None
    if not (directory / "cert.pem").exists():
        return load_key(directory, state)[0], None
    stored = load_pair(directory, state, hint=REISSUE_HINT)
    return stored.key, stored


def check_signable(
    leaves: tuple[Leaf, ...],
    reasons: dict[Path, str],
    cas: Mapping[str, CertificateAuthority],
    plan: ClusterPlan,
) -> None:
    """Raise PkiError with every certificate that is needed and whose CA key is elsewhere."""
    pending = tuple(
        f"{leaf.title} ({reasons[leaf.directory]})"
        for leaf in leaves
        if leaf.directory in reasons and not cas[declarations.get_ca_name(leaf.spec, plan)].key
    )
    if pending:
        raise PkiError(explain_pending(pending), hint=GET_SIGNED_HINT)


def explain_reissues(
    leaves: tuple[Leaf, ...],
    cas: Mapping[str, CertificateAuthority],
    plan: ClusterPlan,
    *,
    now: datetime,
) -> dict[Path, str]:
    """The reason for each leaf that is issued again; raises PkiError for others that have ended."""
    reasons: dict[Path, str] = {}
    ended: list[PkiError] = []
    for leaf in leaves:
        ca = declarations.get_ca_name(leaf.spec, plan)
        reason = explain_outdated(leaf, ca, cas[ca])
        if reason:
            reasons[leaf.directory] = reason
        elif leaf.stored and leaf.stored.pair.not_after <= now:
            ended.append(
                PkiError(
                    f"{leaf.directory / 'cert.pem'}: {leaf.title} ended on"
                    f" {leaf.stored.pair.not_after:%Y-%m-%d}",
                    hint=RENEW_AND_BUILD if cas[ca].key else SIGN_AGAIN_HINT,
                )
            )
    _raise_all(ended)
    return reasons


def explain_outdated(leaf: Leaf, name: str, ca: CertificateAuthority) -> str | None:
    """Why an existing certificate is issued again; None if it is current or does not exist yet."""
    if not leaf.key:
        return None  # new
    if not leaf.stored:
        return "its cert.pem was missing"
    try:
        leaf.stored.certificate.verify_directly_issued_by(ca.certificate)
    except (ValueError, TypeError, InvalidSignature):
        return f"it was not signed by the current {name}"
    return declarations.explain_change(
        declarations.read_content(leaf.stored.certificate), leaf.content
    )


def write_leaf(
    leaf: Leaf, issuer: issuing.Issuer, state: State, plan: ClusterPlan, *, now: datetime
) -> KeyPair:
    """Issue the certificate, for its existing key if there is one, and store it."""
    key = leaf.key or issuing.make_key(plan.cluster.pki.key)
    certificate = issuing.issue(leaf.content, key.public_key(), issuer, now, plan.cluster.pki.days)
    if leaf.key:
        state.write_file(leaf.directory / "cert.pem", issuing.encode_certificate(certificate))
    else:
        if leaf.node:
            state.make_directory(state.directory / "pki" / NODES)
            state.make_directory(leaf.directory.parent)
        write_pair(leaf.directory, key, certificate, state)
    return load_pair(leaf.directory, state).pair


def note_issued(leaves: tuple[Leaf, ...], reasons: dict[Path, str]) -> Iterator[str]:
    """Yield a line for each owner of new certificates and each certificate issued again."""
    created: dict[str, list[str]] = {}
    for leaf in leaves:
        if not leaf.key:
            created.setdefault(leaf.owner, []).append(leaf.spec.name)
    for owner, names in created.items():
        yield f"certificates of {owner}: created {', '.join(names)}"
    for leaf in leaves:
        if leaf.directory in reasons:
            yield f"{leaf.title}: issued again, because {reasons[leaf.directory]}"


def note_other_key_kinds(leaves: tuple[Leaf, ...], plan: ClusterPlan) -> Iterator[str]:
    """Yield a line if keys differ in kind from what pki.key selects for new keys."""
    kind = plan.cluster.pki.key
    others = [
        leaf.title
        for leaf in leaves
        if leaf.key and issuing.get_key_kind(leaf.key.public_key()) != kind
    ]
    if others:
        yield (
            f"pki.key is {kind}, which applies to new keys only: {len(others)} existing keys of"
            f" another kind are kept ({others[0]} …)"
        )


def note_shortened(
    leaves: tuple[Leaf, ...],
    reasons: dict[Path, str],
    cas: Mapping[str, CertificateAuthority],
    plan: ClusterPlan,
    now: datetime,
) -> Iterator[str]:
    """Yield a warning where new certificates end early because their CA ends."""
    days = plan.cluster.pki.days
    new = {
        declarations.get_ca_name(leaf.spec, plan)
        for leaf in leaves
        if not leaf.stored or leaf.directory in reasons
    }
    for name, ca in cas.items():
        if name in new and ca.pair.not_after - now < timedelta(days=days - 1):
            yield (
                f"warning: {name} and its new certificates end on {ca.pair.not_after:%Y-%m-%d}:"
                f" sooner than the {days} days of pki.days"
            )


def note_ending(
    leaves: tuple[Leaf, ...],
    pairs: dict[Path, KeyPair],
    now: datetime,
    kubernetes: CertificateAuthority,
) -> Iterator[str]:
    """Yield a warning, with the fix, for each certificate that ends soon."""
    for leaf in leaves:
        pair = pairs[leaf.directory]
        if pair.not_after - now < get_warning_time(pair, LEAF_WARNING):
            yield (
                f"warning: {leaf.title} ends on {pair.not_after:%Y-%m-%d}; to renew it,"
                f" {RENEW_AND_BUILD if kubernetes.key else SIGN_AGAIN_HINT}"
            )


def _raise_all(faults: list[PkiError]) -> None:
    if faults:
        hints = dict.fromkeys(fault.hint for fault in faults if fault.hint)
        raise PkiError("\n".join(fault.message for fault in faults), hint="\n".join(hints) or None)
