"""Reuse or create on disk: the plan's authorities, certificates and keys, in the state directory.

    pki/<authority>/{cert.pem,key.pem}        kubernetes-ca; if separate etcd-ca, front-proxy-ca
    pki/service-account/{key.pem,pub.pem}
    pki/<name>/{cert.pem,key.pem}             certificates that the whole cluster shares
    pki/nodes/<node>/<name>/{cert.pem,key.pem}

A pair is made once. A certificate is issued anew, for the same key, when what it must say
changed, or when its cert.pem was deleted; renew.py makes it anew before it ends. What cannot be
read is never overwritten.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from bundler import pki
from bundler.errors import PkiError
from bundler.pki_files import RENEW, KeyPair, StoredPair, load_key, load_pair, write_pair
from bundler.plan import NodePlan, Plan
from bundler.state import RESTORE, State, has_entries

__all__ = ["KeyPair", "Leaf", "Pki", "ensure_pki", "load_leaves"]

SERVICE_ACCOUNT = "service-account"
NODES = "nodes"
LEAF_WARNING = timedelta(days=30)
AUTHORITY_WARNING = timedelta(days=180)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pki:
    """Everything of the PKI that the plan needs, in memory."""

    authorities: dict[str, KeyPair]  # of every name; the same pair where there is a single one
    cluster: dict[str, KeyPair]
    nodes: dict[str, dict[str, KeyPair]]  # by node, then by certificate; every node has an entry
    service_account_key: bytes = field(repr=False)
    service_account_public: bytes
    notes: tuple[str, ...]  # what was created or reissued and what ends soon, one line each


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """One certificate of the plan: where it lives, what it must say, and what is there already."""

    spec: pki.CertificateSpec
    node: NodePlan | None
    directory: Path
    content: pki.Content
    key: pki.PrivateKey | None = None
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
    leaves = load_leaves(state, plan)
    notes: list[str] = []
    state.ensure_encryption_key()  # before any certificate, so that its loss is always noticed
    state.make_directory(state.directory / "pki")
    key_pem, public_pem = _ensure_service_account(state, plan, notes)
    authorities = {
        name: _ensure_authority(name, state, plan, now=now, notes=notes)
        for name in pki.list_authorities(plan)
    }
    reasons = _explain_reissues(leaves, authorities, plan, now=now)
    pairs: dict[Path, KeyPair] = {}
    for leaf in leaves:
        if leaf.stored and leaf.directory not in reasons:
            pairs[leaf.directory] = leaf.stored.pair
        else:
            issuer = authorities[pki.authority_of(leaf.spec, plan)].issuer
            pairs[leaf.directory] = _write_leaf(leaf, issuer, state, plan, now=now)
    notes += _note_written(leaves, reasons)
    notes += _note_other_keys(leaves, plan)
    notes += _note_ending(leaves, pairs, now)
    return Pki(
        authorities={
            name: authorities[name if name in authorities else pki.KUBERNETES_CA].pair
            for name in pki.AUTHORITIES
        },
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


def load_leaves(state: State, plan: Plan) -> tuple[Leaf, ...]:
    """Every certificate of the plan, with what there is of it; all faults are raised at once."""
    leaves: list[Leaf] = []
    faults: list[PkiError] = []
    for spec in pki.list_certificates(plan):
        for node in _get_owners(spec, plan):
            directory = _get_path(state, *((NODES, node.name) if node else ()), spec.name)
            try:
                key, stored = _load_leaf(directory, state)
            except PkiError as error:
                faults.append(error)
                continue
            content = pki.make_content(spec, plan, node)
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


def _get_owners(spec: pki.CertificateSpec, plan: Plan) -> tuple[NodePlan | None, ...]:
    if not spec.roles:
        return (None,)
    return tuple(node for node in plan.nodes if any(node.has(role) for role in spec.roles))


def _get_path(state: State, *names: str) -> Path:
    return state.directory.joinpath("pki", *names)


def _load_leaf(directory: Path, state: State) -> tuple[pki.PrivateKey | None, StoredPair | None]:
    if not directory.is_dir():
        return None, None
    if not (directory / "cert.pem").exists():
        return load_key(directory, state)[0], None
    stored = load_pair(directory, state, hint=RENEW)
    return stored.key, stored


def _ensure_service_account(state: State, plan: Plan, notes: list[str]) -> tuple[bytes, bytes]:
    directory = _get_path(state, SERVICE_ACCOUNT)
    if not directory.is_dir():
        _check_not_lost(directory, after=())
        key = pki.make_key(plan.cluster.pki.key)
        files = {
            "key.pem": pki.encode_private_key(key),
            "pub.pem": pki.encode_public_key(key.public_key()),
        }
        state.write_directory(directory, files)
        notes.append("service-account key pair: created")
    key, key_pem = load_key(directory, state)
    public_pem = state.read_file(directory / "pub.pem")
    if pki.encode_public_key(key.public_key()).split() != public_pem.split():
        raise PkiError(
            f"{directory}: key.pem and pub.pem do not belong together",
            hint=f"restore both from the same backup; {RESTORE}",
        )
    return key_pem, public_pem


def _ensure_authority(
    name: str, state: State, plan: Plan, *, now: datetime, notes: list[str]
) -> StoredPair:
    directory = _get_path(state, name)
    if not directory.is_dir():
        every = pki.list_authorities(plan)
        earlier = every[: every.index(name)]
        _check_not_lost(directory, after=(SERVICE_ACCOUNT, *earlier))
        key = pki.make_key(plan.cluster.pki.key)
        certificate = pki.issue_authority(name, plan.name, key, now, plan.cluster.pki.ca_days)
        write_pair(directory, key, certificate, state)
        notes.append(f"{name}: created, ends on {certificate.not_valid_after_utc:%Y-%m-%d}")
    stored = load_pair(directory, state)
    _check_authority(name, directory / "cert.pem", stored.certificate, plan, now=now)
    if stored.pair.not_after - now < _get_warning_time(stored.pair, AUTHORITY_WARNING):
        notes.append(
            f"warning: {name} ends on {stored.pair.not_after:%Y-%m-%d}, and with it every"
            " certificate it signed; a new one means to install every node anew"
        )
    return stored


def _check_not_lost(directory: Path, *, after: tuple[str, ...]) -> None:
    """Refuse to make anew what was there: what is made after it exists already.

    The service-account pair is made first, then the authorities in the order of the table, then
    the rest; so only the names of `after` may be there yet.
    """
    for other in sorted(directory.parent.iterdir()):
        if other.name not in after and has_entries(other):
            raise PkiError(
                f"{directory}: missing, but what was made after it exists ({other.name})",
                hint=RESTORE,
            )


def _check_authority(
    name: str, path: Path, certificate: x509.Certificate, plan: Plan, *, now: datetime
) -> None:
    if not any(
        isinstance(extension.value, x509.BasicConstraints) and extension.value.ca
        for extension in certificate.extensions
    ):
        raise PkiError(f"{path}: not the certificate of an authority", hint=RESTORE)
    content = pki.read_content(certificate)
    if content.common_name == name and content.organization not in (None, plan.name):
        raise PkiError(
            f"{path}: belongs to the cluster {content.organization}, not to {plan.name}",
            hint="give each cluster its own state directory, or put the name back in cluster.yaml",
        )
    if certificate.not_valid_after_utc <= now:
        raise PkiError(
            f"{path}: {name} ended on {certificate.not_valid_after_utc:%Y-%m-%d}",
            hint=pki.NEW_AUTHORITIES,
        )


def _explain_reissues(
    leaves: tuple[Leaf, ...], authorities: dict[str, StoredPair], plan: Plan, *, now: datetime
) -> dict[Path, str]:
    """Why which certificate is issued anew; raises PkiError for others that ended."""
    reasons: dict[Path, str] = {}
    ended: list[PkiError] = []
    for leaf in leaves:
        authority = pki.authority_of(leaf.spec, plan)
        reason = _explain_reissue(leaf, authority, authorities[authority])
        if reason:
            reasons[leaf.directory] = reason
        elif leaf.stored and leaf.stored.pair.not_after <= now:
            ended.append(
                PkiError(
                    f"{leaf.directory / 'cert.pem'}: {leaf.title} ended on"
                    f" {leaf.stored.pair.not_after:%Y-%m-%d}",
                    hint="bundler certs renew --expiring 0d, then build again and install the new"
                    " bundles",
                )
            )
    _raise_all(ended)
    return reasons


def _explain_reissue(leaf: Leaf, name: str, authority: StoredPair) -> str | None:
    if leaf.key is None:
        return None  # it is new
    if leaf.stored is None:
        return "its cert.pem was not there"
    try:
        leaf.stored.certificate.verify_directly_issued_by(authority.certificate)
    except (ValueError, TypeError, InvalidSignature):
        return f"another {name} than the present one signed it"
    return pki.explain_change(pki.read_content(leaf.stored.certificate), leaf.content)


def _write_leaf(
    leaf: Leaf, issuer: pki.Issuer, state: State, plan: Plan, *, now: datetime
) -> KeyPair:
    key = leaf.key or pki.make_key(plan.cluster.pki.key)
    certificate = pki.issue(leaf.content, key.public_key(), issuer, now, plan.cluster.pki.days)
    if leaf.key:
        state.write_file(leaf.directory / "cert.pem", pki.encode_certificate(certificate))
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
        if leaf.key and pki.get_key_kind(leaf.key.public_key()) != kind
    ]
    if others:
        yield (
            f"pki.key is {kind}, which counts for new keys only: {len(others)} existing keys of"
            f" another kind stay as they are ({others[0]} …)"
        )


def _note_ending(
    leaves: tuple[Leaf, ...], pairs: dict[Path, KeyPair], now: datetime
) -> Iterator[str]:
    for leaf in leaves:
        pair = pairs[leaf.directory]
        if pair.not_after - now < _get_warning_time(pair, LEAF_WARNING):
            yield (
                f"warning: {leaf.title} ends on {pair.not_after:%Y-%m-%d}: bundler certs renew"
                " --expiring 90d, then build again and install"
            )


def _get_warning_time(pair: KeyPair, usual: timedelta) -> timedelta:
    """How long before its end to warn: not from the first day on if it is meant to be short."""
    return min(usual, (pair.not_after - pair.not_before) / 3)


def _raise_all(faults: list[PkiError]) -> None:
    if faults:
        hints = dict.fromkeys(fault.hint for fault in faults if fault.hint)
        raise PkiError("\n".join(fault.message for fault in faults), hint="\n".join(hints) or None)
