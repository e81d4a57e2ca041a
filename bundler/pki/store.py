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

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from bundler.cluster.plan import ClusterPlan
from bundler.errors import PkiError
from bundler.pki import declarations, issuing
from bundler.pki.external_ca.constraints import list_refused_names
from bundler.pki.external_ca.origins import (
    ORIGIN,
    RENEWALS,
    Authority,
    CaOrigin,
    encode_all,
    load_authority,
)
from bundler.pki.external_ca.pending import check_signed
from bundler.pki.external_ca.rules import make_needs
from bundler.pki.key_pairs import (
    KeyPair,
    load_key,
    write_pair,
)
from bundler.pki.leaf_certificates import (
    check_signable,
    explain_reissues,
    get_warning_time,
    load_leaves,
    note_cut_short,
    note_ending,
    note_other_keys,
    note_written,
    write_leaf,
)
from bundler.pki.rotation_stages import (
    RotationStage,
    load_beside,
    read_stage,
    unit_of,
)
from bundler.state.directory import RESTORE, State, has_entries

SERVICE_ACCOUNT = "service-account"
AUTHORITY_WARNING = timedelta(days=180)
ENDINGS = {CaOrigin.MADE: "`bundler certs rotate trust` begins to replace it"}


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


def ensure_pki(state: State, plan: ClusterPlan, now: datetime) -> Pki:
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
    if stage is not RotationStage.SETTLED:
        notes.append(
            f"new authorities: stage {stage.value}; bundler certs rotate says what is next"
        )
    reasons = explain_reissues(leaves, authorities, plan, now=now)
    check_signable(leaves, reasons, authorities, plan)
    pairs: dict[Path, KeyPair] = {}
    for leaf in leaves:
        authority = authorities[declarations.authority_of(leaf.spec, plan)]
        if leaf.stored and leaf.directory not in reasons:
            pair = leaf.stored.pair
        else:
            pair = write_leaf(leaf, authority.issuer, state, plan, now=now)
        pairs[leaf.directory] = _show(leaf.spec, pair, authority)
    notes += note_written(leaves, reasons)
    notes += note_cut_short(leaves, reasons, authorities, plan, now)
    notes += note_other_keys(leaves, plan)
    notes += note_ending(leaves, pairs, now, authorities[declarations.KUBERNETES_CA])
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
    is_ours = all(authority.origin is CaOrigin.MADE for authority in authorities.values())
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


def ensure_beginnings(state: State, plan: ClusterPlan, notes: list[str]) -> tuple[bytes, bytes]:
    """What is made before every certificate; the service accounts' key and its public half."""
    state.ensure_encryption_key()  # first of all, so that its loss is always noticed
    state.make_directory(state.directory / "pki")
    return _ensure_service_account(state, plan, notes)


def ensure_kubelet_authority(
    kubernetes: Authority | None,
    state: State,
    plan: ClusterPlan,
    *,
    now: datetime,
    notes: list[str],
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


def _get_path(state: State, *names: str) -> Path:
    return state.directory.joinpath("pki", *names)


def _ensure_service_account(
    state: State, plan: ClusterPlan, notes: list[str]
) -> tuple[bytes, bytes]:
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
    name: str, state: State, plan: ClusterPlan, *, now: datetime, notes: list[str]
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
    if found.pair.not_after - now < get_warning_time(found.pair, AUTHORITY_WARNING):
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


def _check_authority(
    name: str, path: Path, found: Authority, plan: ClusterPlan, *, now: datetime
) -> None:
    certificate = found.certificate
    if not any(
        isinstance(extension.value, x509.BasicConstraints) and extension.value.ca
        for extension in certificate.extensions
    ):
        raise PkiError(f"{path}: not the certificate of an authority", hint=RESTORE)
    content = declarations.read_content(certificate)
    is_ours = found.origin is CaOrigin.MADE and content.common_name == name
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
