"""Reuse or create on disk: the plan's authorities, certificates and keys, in the state directory.

    pki/<authority>/{cert.pem,key.pem}        kubernetes-ca; if separate etcd-ca, front-proxy-ca
    pki/service-account/{key.pem,pub.pem}
    pki/<name>/{cert.pem,key.pem}             certificates that the whole cluster shares
    pki/nodes/<node>/<name>/{cert.pem,key.pem}

Where authorities are the user's own: see own/origins.py; while new ones come in: stages.py.

A pair is made once. A certificate is issued anew, for the same key, when what it must say
changed, or when its cert.pem was deleted; renew.py makes it anew before it ends. What cannot be
read is never overwritten.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from bundler.cluster.plan import NodePlan, Plan
from bundler.errors import PkiError
from bundler.pki import declarations, issuing
from bundler.pki.own.constraints import list_refused_names
from bundler.pki.own.lacking import HAVE_SIGNED, check_signed, explain_lacking
from bundler.pki.own.origins import (
    ORIGIN,
    RENEWALS,
    SIGN_AGAIN,
    Authority,
    Origin,
    encode_all,
    load_authority,
)
from bundler.pki.own.rules import make_needs
from bundler.pki.pairs import (
    NODES,
    RENEW,
    KeyPair,
    StoredPair,
    leaf_directory,
    load_key,
    load_pair,
    write_pair,
)
from bundler.pki.stages import (
    Stage,
    load_beside,
    read_stage,
    unit_of,
)
from bundler.state.directory import RESTORE, State, has_entries

__all__ = [
    "KeyPair",
    "Leaf",
    "Pki",
    "check_not_lost",
    "ensure_beginnings",
    "ensure_kubelet_authority",
    "ensure_pki",
    "explain_outdated",
    "load_leaves",
]

SERVICE_ACCOUNT = "service-account"
LEAF_WARNING = timedelta(days=30)
AUTHORITY_WARNING = timedelta(days=180)
RENEW_AND_BUILD = "bundler certs renew --expiring 90d, then build again and install the new bundles"
ENDINGS = {Origin.MADE: "`bundler certs rotate trust` begins to replace it"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pki:
    """Everything of the PKI that the plan needs, in memory."""

    authorities: dict[str, KeyPair]  # of every name; the same pair where there is a single one
    kubelet_authority: KeyPair  # signs kubelets' certificates: kubernetes-ca, if its key is here
    anchors: dict[str, bytes]  # PEM, by authority: who is believed by the programs of the cluster
    servers_anchors: bytes  # PEM: who is believed for servers by those who need to see a root
    endpoint_anchors: bytes  # PEM: who is believed for API servers, in kubeconfigs
    signs: str  # unit of the authorities that sign (stages.py); empty if they are the user's own
    believed: tuple[str, ...]  # units of all that are believed, the one that signs first
    cluster: dict[str, KeyPair]
    nodes: dict[str, dict[str, KeyPair]]  # by node, then by certificate; every node has an entry
    service_account_key: bytes = field(repr=False)
    service_account_public: bytes
    notes: tuple[str, ...]  # what was created or reissued and what ends soon, one line each


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


def ensure_pki(state: State, plan: Plan, now: datetime) -> Pki:
    """Load what the state directory holds of the plan's PKI, and create or reissue the rest.

    `now` is aware. Everything there is read and checked before anything is written.
    Raises PkiError if something is unreadable, lost, at odds or ended, OutputError if writing
    fails.
    """
    check_signed(state.directory, plan)
    leaves = load_leaves(state, plan)
    notes: list[str] = []
    key_pem, public_pem = ensure_beginnings(state, plan, notes)
    authorities = {
        name: _ensure_authority(name, state, plan, now=now, notes=notes)
        for name in declarations.list_authorities(plan)
    }
    kubelets = ensure_kubelet_authority(
        authorities[declarations.KUBERNETES_CA], state, plan, now=now, notes=notes
    )
    stage = read_stage(state.directory)
    if stage is not Stage.SETTLED:
        notes.append(
            f"new authorities: stage {stage.value}; bundler certs rotate says what is next"
        )
    reasons = _explain_reissues(leaves, authorities, plan, now=now)
    _check_signable(leaves, reasons, authorities, plan)
    pairs: dict[Path, KeyPair] = {}
    for leaf in leaves:
        authority = authorities[declarations.authority_of(leaf.spec, plan)]
        if leaf.stored and leaf.directory not in reasons:
            pair = leaf.stored.pair
        else:
            pair = _write_leaf(leaf, authority.issuer, state, plan, now=now)
        pairs[leaf.directory] = _show(leaf.spec, pair, authority)
    notes += _note_written(leaves, reasons)
    notes += _note_cut_short(leaves, reasons, authorities, plan, now)
    notes += _note_other_keys(leaves, plan)
    notes += _note_ending(leaves, pairs, now, authorities[declarations.KUBERNETES_CA])
    every = {
        name: authorities.get(name, authorities[declarations.KUBERNETES_CA])
        for name in declarations.AUTHORITIES
    }
    others = {name: load_beside(name, state) for name in authorities}
    others_pem = {
        name: encode_all(others.get(name, others[declarations.KUBERNETES_CA]))
        for name in declarations.AUTHORITIES
    }
    anchors = {
        name: authority.pair.certificate_pem + others_pem[name] for name, authority in every.items()
    }
    kubernetes = every[declarations.KUBERNETES_CA]
    beside = b"" if kubelets is kubernetes else kubelets.pair.certificate_pem
    is_ours = all(authority.origin is Origin.MADE for authority in authorities.values())
    units = (kubernetes.certificate, *others[declarations.KUBERNETES_CA])
    return Pki(
        authorities={name: authority.pair for name, authority in every.items()},
        kubelet_authority=kubelets.pair,
        anchors={
            **anchors,
            declarations.KUBERNETES_CA: anchors[declarations.KUBERNETES_CA] + beside,
        },
        servers_anchors=kubernetes.whole_pem + others_pem[declarations.KUBERNETES_CA] + beside,
        endpoint_anchors=anchors[declarations.KUBERNETES_CA],
        signs=unit_of(kubernetes.certificate) if is_ours else "",
        believed=tuple(map(unit_of, units)) if is_ours else (),
        cluster={leaf.spec.name: pairs[leaf.directory] for leaf in leaves if leaf.node is None},
        nodes={
            node.name: {
                leaf.spec.name: pairs[leaf.directory] for leaf in leaves if leaf.node is node
            }
            for node in plan.nodes
        },
        service_account_key=key_pem,
        service_account_public=public_pem,
        notes=tuple(notes),
    )


def ensure_beginnings(state: State, plan: Plan, notes: list[str]) -> tuple[bytes, bytes]:
    """What is made before every certificate; the service accounts' key and its public half."""
    state.ensure_encryption_key()  # first of all, so that its loss is always noticed
    state.make_directory(state.directory / "pki")
    return _ensure_service_account(state, plan, notes)


def ensure_kubelet_authority(
    kubernetes: Authority | None, state: State, plan: Plan, *, now: datetime, notes: list[str]
) -> Authority:
    """Who signs kubelets' certificates: kubernetes-ca, or one for that alone where it cannot."""
    if kubernetes and kubernetes.key:
        return kubernetes
    return _ensure_authority(declarations.KUBELET_CA, state, plan, now=now, notes=notes)


def _show(spec: declarations.CertificateSpec, pair: KeyPair, authority: Authority) -> KeyPair:
    """As it is shown to others: a server's with those between it and the root."""
    if declarations.SERVER not in spec.usages:
        return pair
    return replace(pair, certificate_pem=pair.certificate_pem + authority.intermediates_pem)


def load_leaves(state: State, plan: Plan) -> tuple[Leaf, ...]:
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


def _get_path(state: State, *names: str) -> Path:
    return state.directory.joinpath("pki", *names)


def _load_leaf(
    directory: Path, state: State
) -> tuple[issuing.PrivateKey | None, StoredPair | None]:
    if not directory.is_dir():
        return None, None
    if not (directory / "cert.pem").exists():
        return load_key(directory, state)[0], None
    stored = load_pair(directory, state, hint=RENEW)
    return stored.key, stored


def _ensure_service_account(state: State, plan: Plan, notes: list[str]) -> tuple[bytes, bytes]:
    directory = _get_path(state, SERVICE_ACCOUNT)
    if not directory.is_dir():
        check_not_lost(directory, after=())
        key = issuing.make_key(plan.cluster.pki.key)
        files = {
            "key.pem": issuing.encode_private_key(key),
            "pub.pem": issuing.encode_public_key(key.public_key()),
        }
        state.write_directory(directory, files)
        notes.append("service-account key pair: created")
    key, key_pem = load_key(directory, state)
    public_pem = state.read_file(directory / "pub.pem")
    if issuing.encode_public_key(key.public_key()).split() != public_pem.split():
        raise PkiError(
            f"{directory}: key.pem and pub.pem do not belong together",
            hint=f"restore both from the same backup; {RESTORE}",
        )
    return key_pem, public_pem


def _ensure_authority(
    name: str, state: State, plan: Plan, *, now: datetime, notes: list[str]
) -> Authority:
    directory = _get_path(state, name)
    if not directory.is_dir():
        every = (*declarations.list_authorities(plan), declarations.KUBELET_CA)
        earlier = every[: every.index(name)]
        check_not_lost(directory, after=(SERVICE_ACCOUNT, *earlier))
        key = issuing.make_key(plan.cluster.pki.key)
        certificate = issuing.issue_authority(name, plan.name, key, now, plan.cluster.pki.ca_days)
        write_pair(directory, key, certificate, state)
        notes.append(f"{name}: created, ends on {certificate.not_valid_after_utc:%Y-%m-%d}")
    found = load_authority(directory, state)
    _check_authority(name, directory / "cert.pem", found, plan, now=now)
    if found.pair.not_after - now < _get_warning_time(found.pair, AUTHORITY_WARNING):
        notes.append(
            f"warning: {name} ends on {found.pair.not_after:%Y-%m-%d}, and with it every"
            f" certificate it signed; {ENDINGS.get(found.origin, RENEWALS[found.origin])}"
        )
    return found


def check_not_lost(directory: Path, *, after: tuple[str, ...]) -> None:
    """Refuse to make anew what was there: what is made after it exists already.

    The service-account pair is made first, then the authorities in the order of the table, then
    the rest; so only the names of `after` may be there yet.
    """
    for other in sorted(directory.parent.iterdir()):
        if other.name in after or (other / ORIGIN).exists():  # what is the user's own comes first
            continue
        if has_entries(other):
            raise PkiError(
                f"{directory}: missing, but what was made after it exists ({other.name})",
                hint=RESTORE,
            )


def _check_authority(name: str, path: Path, found: Authority, plan: Plan, *, now: datetime) -> None:
    certificate = found.certificate
    if not any(
        isinstance(extension.value, x509.BasicConstraints) and extension.value.ca
        for extension in certificate.extensions
    ):
        raise PkiError(f"{path}: not the certificate of an authority", hint=RESTORE)
    content = declarations.read_content(certificate)
    is_ours = found.origin is Origin.MADE and content.common_name == name
    if is_ours and content.organization not in (None, plan.name):
        raise PkiError(
            f"{path}: belongs to the cluster {content.organization}, not to {plan.name}",
            hint="give each cluster its own state directory, or put the name back in cluster.yaml",
        )
    if certificate.not_valid_after_utc <= now:
        raise PkiError(
            f"{path}: {name} ended on {certificate.not_valid_after_utc:%Y-%m-%d}",
            hint=RENEWALS[found.origin],
        )
    refused = tuple(list_refused_names((certificate, *found.issuers), make_needs(plan, name).names))
    if refused:
        raise PkiError(
            "\n".join(f"{path}: {text}" for text in refused),
            hint="have the authority signed without these constraints, or name the hosts otherwise",
        )


def _check_signable(
    leaves: tuple[Leaf, ...],
    reasons: dict[Path, str],
    authorities: dict[str, Authority],
    plan: Plan,
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


def _explain_reissues(
    leaves: tuple[Leaf, ...], authorities: dict[str, Authority], plan: Plan, *, now: datetime
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


def _write_leaf(
    leaf: Leaf, issuer: issuing.Issuer, state: State, plan: Plan, *, now: datetime
) -> KeyPair:
    key = leaf.key or issuing.make_key(plan.cluster.pki.key)
    certificate = issuing.issue(leaf.content, key.public_key(), issuer, now, plan.cluster.pki.days)
    if leaf.key:
        state.write_file(leaf.directory / "cert.pem", issuing.encode_certificate(certificate))
    else:
        if leaf.node:
            state.make_directory(_get_path(state, NODES))
            state.make_directory(leaf.directory.parent)
        write_pair(leaf.directory, key, certificate, state)
    return load_pair(leaf.directory, state).pair


def _note_written(leaves: tuple[Leaf, ...], reasons: dict[Path, str]) -> Iterator[str]:
    created: dict[str, list[str]] = {}
    for leaf in leaves:
        if leaf.key is None:
            created.setdefault(leaf.owner, []).append(leaf.spec.name)
    for owner, names in created.items():
        yield f"certificates of {owner}: created {', '.join(names)}"
    for leaf in leaves:
        if leaf.directory in reasons:
            yield f"{leaf.title}: reissued, because {reasons[leaf.directory]}"


def _note_other_keys(leaves: tuple[Leaf, ...], plan: Plan) -> Iterator[str]:
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


def _note_cut_short(
    leaves: tuple[Leaf, ...],
    reasons: dict[Path, str],
    authorities: dict[str, Authority],
    plan: Plan,
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


def _note_ending(
    leaves: tuple[Leaf, ...], pairs: dict[Path, KeyPair], now: datetime, kubernetes: Authority
) -> Iterator[str]:
    for leaf in leaves:
        pair = pairs[leaf.directory]
        if pair.not_after - now < _get_warning_time(pair, LEAF_WARNING):
            yield (
                f"warning: {leaf.title} ends on {pair.not_after:%Y-%m-%d}; to renew it,"
                f" {RENEW_AND_BUILD if kubernetes.key else SIGN_AGAIN}"
            )


def _get_warning_time(pair: KeyPair, usual: timedelta) -> timedelta:
    """How long before its end to warn: not from the first day on if it is meant to be short."""
    return min(usual, (pair.not_after - pair.not_before) / 3)


def _raise_all(faults: list[PkiError]) -> None:
    if faults:
        hints = dict.fromkeys(fault.hint for fault in faults if fault.hint)
        raise PkiError("\n".join(fault.message for fault in faults), hint="\n".join(hints) or None)
