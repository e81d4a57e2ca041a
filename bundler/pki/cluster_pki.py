"""The complete PKI of a cluster: load what the state directory holds, create or issue the rest.

    pki/<ca>/{cert.pem,key.pem}                see ca_certificates.py
    pki/service-account/{key.pem,pub.pem}
    pki/<name>/{cert.pem,key.pem}              certificates that the whole cluster shares
    pki/nodes/<node>/<name>/{cert.pem,key.pem}

External CAs: see ca_origins.py. CA rotation: see rotation_stages.py.

Keys are made once. A certificate is issued again, for the same key, when its required content
changed or its cert.pem was deleted; renew.py renews it before it ends. An unreadable file is never
overwritten.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from cryptography import x509

from bundler.cluster.plan import ClusterPlan
from bundler.pki import declarations
from bundler.pki.admin_group import read_admin_group
from bundler.pki.ca_certificates import ensure_cas, ensure_kubelet_ca
from bundler.pki.ca_origins import CaOrigin, CertificateAuthority, encode_all
from bundler.pki.key_pairs import KeyPair
from bundler.pki.leaf_certificates import (
    Leaf,
    check_signable,
    explain_reissues,
    load_leaves,
    note_ending,
    note_issued,
    note_other_key_kinds,
    note_shortened,
    write_leaf,
)
from bundler.pki.pending import check_signed
from bundler.pki.retired import archive_retired
from bundler.pki.rotation_stages import (
    RotationStage,
    get_rotation_id,
    load_other_trusted_cas,
    read_stage,
)
from bundler.pki.service_account import ServiceAccountKeys, ensure_first_secrets
from bundler.state.directory import State

KUBERNETES_CA = declarations.KUBERNETES_CA


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustAnchors:
    """The CA certificates (PEM) that each kind of client trusts."""

    by_ca: dict[str, bytes]  # for programs of the cluster, by CA name
    servers: bytes  # for clients of servers that need a chain up to a root
    etcd_servers: bytes  # the same for servers whose certificates etcd-ca signed
    api: bytes  # for clients of API servers, in kubeconfigs


@dataclass(frozen=True, slots=True, kw_only=True)
class Pki:
    """Every key and certificate of the cluster, in memory."""

    cas: dict[str, KeyPair]  # by CA name; one pair has several names if the cluster has one CA
    kubelet_ca: KeyPair  # signs kubelet certificates: kubernetes-ca, if its key is in the state
    trust: TrustAnchors
    signing_rotation_id: str  # of the CAs that sign (rotation_stages.py); empty for external CAs
    trusted_rotation_ids: tuple[str, ...]  # of all trusted CAs, the signing ones first
    cluster: dict[str, KeyPair]
    nodes: dict[str, dict[str, KeyPair]]  # by node, then by certificate; every node has an entry
    service_account: ServiceAccountKeys
    admin_group: str
    notes: tuple[str, ...]  # what was created or issued again and what ends soon, one line each


def ensure_pki(state: State, plan: ClusterPlan, now: datetime) -> Pki:
    """Load the PKI of the cluster from the state directory; create or issue what is missing.

    `now` is timezone-aware. Everything is read and checked before anything is written.
    Raises PkiError if a file is unreadable, lost, inconsistent or has ended, OutputError if a
    write fails.
    """
    check_signed(state.directory, plan)
    leaves = load_leaves(state, plan)
    notes: list[str] = []
    service_account = ensure_first_secrets(state, plan, notes)
    cas = ensure_cas(state, plan, now=now, notes=notes)
    kubernetes = cas[KUBERNETES_CA]
    kubelet_ca = ensure_kubelet_ca(kubernetes, state, plan, now=now, notes=notes)
    notes += _note_rotation(state)
    pairs = _ensure_leaves(leaves, cas, state, plan, now=now, notes=notes)
    notes += archive_retired(state, now)
    others = {name: load_other_trusted_cas(name, state) for name in cas}
    signing_id, *other_ids = _list_rotation_ids(cas, others) or ("",)
    return Pki(
        cas={name: _get_ca(name, cas).pair for name in _list_names(cas)},
        kubelet_ca=kubelet_ca.pair,
        trust=_make_trust_anchors(cas, others, kubelet_ca),
        signing_rotation_id=signing_id,
        trusted_rotation_ids=(signing_id, *other_ids) if signing_id else (),
        cluster={leaf.spec.name: pairs[leaf.directory] for leaf in leaves if not leaf.node},
        nodes={
            node.name: {
                leaf.spec.name: pairs[leaf.directory] for leaf in leaves if leaf.node is node
            }
            for node in plan.nodes
        },
        service_account=service_account,
        admin_group=read_admin_group(state),
        notes=tuple(notes),
    )


def _note_rotation(state: State) -> Iterator[str]:
    stage = read_stage(state.directory)
    if stage is not RotationStage.SETTLED:
        yield f"certs rotate is in stage {stage.value}; bundler certs rotate shows the next step"


def _ensure_leaves(
    leaves: tuple[Leaf, ...],
    cas: Mapping[str, CertificateAuthority],
    state: State,
    plan: ClusterPlan,
    *,
    now: datetime,
    notes: list[str],
) -> dict[Path, KeyPair]:
    """Issue the leaf certificates that are missing or outdated; return all, as they are served."""
    reasons = explain_reissues(leaves, cas, plan, now=now)
    check_signable(leaves, reasons, cas, plan)
    pairs: dict[Path, KeyPair] = {}
    for leaf in leaves:
        ca = cas[declarations.get_ca_name(leaf.spec, plan)]
        if leaf.stored and leaf.directory not in reasons:
            pair = leaf.stored.pair
        else:
            pair = write_leaf(leaf, ca.issuer, state, plan, now=now)
        pairs[leaf.directory] = _add_intermediates(leaf.spec, pair, ca)
    notes += note_issued(leaves, reasons)
    notes += note_shortened(leaves, reasons, cas, plan, now)
    notes += note_other_key_kinds(leaves, plan)
    notes += note_ending(leaves, pairs, now, cas[KUBERNETES_CA])
    return pairs


def _add_intermediates(
    spec: declarations.CertificateSpec, pair: KeyPair, ca: CertificateAuthority
) -> KeyPair:
    """Append the intermediate CAs to a server certificate: clients may trust the root only."""
    if declarations.SERVER not in spec.usages:
        return pair
    return replace(pair, certificate_pem=pair.certificate_pem + ca.intermediates_pem)


def _list_names(cas: Mapping[str, CertificateAuthority]) -> tuple[str, ...]:
    """Every CA name that templates may use; see _get_ca."""
    return tuple(dict.fromkeys((*declarations.CA_NAMES, *cas)))


def _get_ca(name: str, cas: Mapping[str, CertificateAuthority]) -> CertificateAuthority:
    """The CA of that name; kubernetes-ca where the cluster has a single CA."""
    return cas.get(name, cas[KUBERNETES_CA])


def _make_trust_anchors(
    cas: Mapping[str, CertificateAuthority],
    others: Mapping[str, tuple[x509.Certificate, ...]],
    kubelet_ca: CertificateAuthority,
) -> TrustAnchors:
    others_pem = {
        name: encode_all(others.get(name, others[KUBERNETES_CA])) for name in _list_names(cas)
    }
    by_ca = {
        name: _get_ca(name, cas).pair.certificate_pem + others_pem[name]
        for name in _list_names(cas)
    }
    kubernetes, etcd = cas[KUBERNETES_CA], _get_ca(declarations.ETCD_CA, cas)
    kubelets = b"" if kubelet_ca is kubernetes else kubelet_ca.pair.certificate_pem
    return TrustAnchors(
        by_ca={**by_ca, KUBERNETES_CA: by_ca[KUBERNETES_CA] + kubelets},
        servers=kubernetes.full_chain_pem + others_pem[KUBERNETES_CA] + kubelets,
        etcd_servers=etcd.full_chain_pem + others_pem[declarations.ETCD_CA],
        api=by_ca[KUBERNETES_CA],
    )


def _list_rotation_ids(
    cas: Mapping[str, CertificateAuthority], others: Mapping[str, tuple[x509.Certificate, ...]]
) -> tuple[str, ...]:
    """The rotation ids of the trusted CAs, the signing one first; none for external CAs."""
    if any(ca.origin is not CaOrigin.MADE for ca in cas.values()):
        return ()
    return tuple(map(get_rotation_id, (cas[KUBERNETES_CA].certificate, *others[KUBERNETES_CA])))
