"""The certificates below the authorities: what is there, what is outdated, what is written."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.exceptions import InvalidSignature

from bundler.cluster.plan import ClusterPlan, NodePlan
from bundler.errors import PkiError
from bundler.pki import declarations, issuing
from bundler.pki.external_ca.origins import (
    SIGN_AGAIN,
    Authority,
)
from bundler.pki.external_ca.pending import HAVE_SIGNED, explain_lacking
from bundler.pki.key_pairs import (
    NODES,
    RENEW,
    KeyPair,
    StoredPair,
    leaf_directory,
    load_key,
    load_pair,
    write_pair,
)
from bundler.state.directory import State

LEAF_WARNING = timedelta(days=30)
RENEW_AND_BUILD = "bundler certs renew --expiring 90d, then build again and install the new bundles"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """One certificate of the plan: where it lives, what it must say, and what is there already."""

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
    """Every certificate of the plan, with what there is of it; all faults are raised at once."""
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
            content = declarations.make_content(spec, plan, node)
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
    stored = load_pair(directory, state, hint=RENEW)
    return stored.key, stored


def check_signable(
    leaves: tuple[Leaf, ...],
    reasons: dict[Path, str],
    authorities: dict[str, Authority],
    plan: ClusterPlan,
) -> None:
    """Raise PkiError, naming all, where certificates are needed that only others can sign."""
    lacking = tuple(
        f"{leaf.title} ({reasons[leaf.directory]})"
        for leaf in leaves
        if leaf.directory in reasons
        and not authorities[declarations.authority_of(leaf.spec, plan)].key
    )
    if lacking:
        raise PkiError(explain_lacking(lacking), hint=HAVE_SIGNED)


def explain_reissues(
    leaves: tuple[Leaf, ...], authorities: dict[str, Authority], plan: ClusterPlan, *, now: datetime
) -> dict[Path, str]:
    """Why which certificate is issued anew; raises PkiError for others that ended."""
    reasons: dict[Path, str] = {}
    ended: list[PkiError] = []
    for leaf in leaves:
        authority = declarations.authority_of(leaf.spec, plan)
        reason = explain_outdated(leaf, authority, authorities[authority])
        if reason:
            reasons[leaf.directory] = reason
        elif leaf.stored and leaf.stored.pair.not_after <= now:
            ended.append(
                PkiError(
                    f"{leaf.directory / 'cert.pem'}: {leaf.title} ended on"
                    f" {leaf.stored.pair.not_after:%Y-%m-%d}",
                    hint=RENEW_AND_BUILD if authorities[authority].key else SIGN_AGAIN,
                )
            )
    _raise_all(ended)
    return reasons


def explain_outdated(leaf: Leaf, name: str, authority: Authority) -> str | None:
    """Why a certificate that is there is issued anew; None if it is well, or not there yet."""
    if leaf.key is None:
        return None  # it is new
    if leaf.stored is None:
        return "its cert.pem was not there"
    try:
        leaf.stored.certificate.verify_directly_issued_by(authority.certificate)
    except (ValueError, TypeError, InvalidSignature):
        return f"another {name} than the present one signed it"
    return declarations.explain_change(
        declarations.read_content(leaf.stored.certificate), leaf.content
    )


def write_leaf(
    leaf: Leaf, issuer: issuing.Issuer, state: State, plan: ClusterPlan, *, now: datetime
) -> KeyPair:
    """Issue it, for its key where it has one, and put it into the state directory."""
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


def note_written(leaves: tuple[Leaf, ...], reasons: dict[Path, str]) -> Iterator[str]:
    """What was made, and what was made anew and why: a line each."""
    created: dict[str, list[str]] = {}
    for leaf in leaves:
        if leaf.key is None:
            created.setdefault(leaf.owner, []).append(leaf.spec.name)
    for owner, names in created.items():
        yield f"certificates of {owner}: created {', '.join(names)}"
    for leaf in leaves:
        if leaf.directory in reasons:
            yield f"{leaf.title}: reissued, because {reasons[leaf.directory]}"


def note_other_keys(leaves: tuple[Leaf, ...], plan: ClusterPlan) -> Iterator[str]:
    """Keys of another kind than new ones would have."""
    kind = plan.cluster.pki.key
    others = [
        leaf.title
        for leaf in leaves
        if leaf.key and issuing.get_key_kind(leaf.key.public_key()) != kind
    ]
    if others:
        yield (
            f"pki.key is {kind}, which counts for new keys only: {len(others)} existing keys of"
            f" another kind stay as they are ({others[0]} …)"
        )


def note_cut_short(
    leaves: tuple[Leaf, ...],
    reasons: dict[Path, str],
    authorities: dict[str, Authority],
    plan: ClusterPlan,
    now: datetime,
) -> Iterator[str]:
    """No certificate outlives its authority: say so where new ones are shorter for it."""
    days = plan.cluster.pki.days
    new = {
        declarations.authority_of(leaf.spec, plan)
        for leaf in leaves
        if leaf.stored is None or leaf.directory in reasons
    }
    for name, authority in authorities.items():
        if name in new and authority.pair.not_after - now < timedelta(days=days - 1):
            yield (
                f"warning: {name} ends on {authority.pair.not_after:%Y-%m-%d}, and its new"
                f" certificates with it: sooner than the {days} days of pki.days"
            )


def note_ending(
    leaves: tuple[Leaf, ...], pairs: dict[Path, KeyPair], now: datetime, kubernetes: Authority
) -> Iterator[str]:
    """What ends soon, and how it is renewed."""
    for leaf in leaves:
        pair = pairs[leaf.directory]
        if pair.not_after - now < get_warning_time(pair, LEAF_WARNING):
            yield (
                f"warning: {leaf.title} ends on {pair.not_after:%Y-%m-%d}; to renew it,"
                f" {RENEW_AND_BUILD if kubernetes.key else SIGN_AGAIN}"
            )


def get_warning_time(pair: KeyPair, usual: timedelta) -> timedelta:
    """How long before its end to warn: not from the first day on if it is meant to be short."""
    return min(usual, (pair.not_after - pair.not_before) / 3)


def _raise_all(faults: list[PkiError]) -> None:
    if faults:
        hints = dict.fromkeys(fault.hint for fault in faults if fault.hint)
        raise PkiError("\n".join(fault.message for fault in faults), hint="\n".join(hints) or None)
