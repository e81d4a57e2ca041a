"""CA certificates: load or create them.

    encryption-key                       made first, see service_account.py
    pki/service-account/{key.pem,pub.pem}
    pki/<ca>/{cert.pem,key.pem}          kubernetes-ca; if separate, etcd-ca and front-proxy-ca too;
                                         flannel-etcd-ca, if the cluster has that feature

They are made in this order. A CA that is missing is therefore lost, not new, as soon as anything
that is made later exists: then the build stops. flannel-etcd-ca may be new in an old state: it is
lost if a certificate that it signed exists.
"""

from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from bundler.cluster.plan import ClusterPlan
from bundler.errors import PkiError
from bundler.pki import declarations, issuing
from bundler.pki.ca_origins import ORIGIN, RENEWAL_HINTS, CaOrigin, CertificateAuthority, load_ca
from bundler.pki.certificate_rules import make_needs
from bundler.pki.key_pairs import get_warning_time, load_pair, write_pair
from bundler.pki.name_constraints import check_name_constraints
from bundler.pki.rotation_stages import SERVICE_ACCOUNT
from bundler.state.directory import GET_STATE, RESTORE, State, check_is_state, has_entries

CA_WARNING = timedelta(days=180)
REPLACEMENT_HINTS = {CaOrigin.MADE: "start its replacement with `bundler certs rotate trust`"}


def ensure_cas(
    state: State, plan: ClusterPlan, *, now: datetime, notes: list[str]
) -> dict[str, CertificateAuthority]:
    """Load or create every CA of the cluster, by name."""
    return {
        name: _ensure_ca(name, state, plan, now=now, notes=notes)
        for name in declarations.list_ca_names(plan)
    }


def ensure_kubelet_ca(
    kubernetes: CertificateAuthority | None,
    state: State,
    plan: ClusterPlan,
    *,
    now: datetime,
    notes: list[str],
) -> CertificateAuthority:
    """The CA that signs kubelet certificates: kubernetes-ca, or kubelet-ca if its key is absent."""
    if kubernetes and kubernetes.key:
        return kubernetes
    return _ensure_ca(declarations.KUBELET_CA, state, plan, now=now, notes=notes)


def check_has_cas(directory: Path, plan: ClusterPlan) -> None:
    """Raise PkiError if a CA is missing in a state directory, so that a build must come first."""
    check_is_state(directory)
    for name in declarations.list_site_ca_names(plan):
        if not (directory / "pki" / name / "cert.pem").is_file():
            raise PkiError(f"{directory}: {name} is missing", hint=GET_STATE)


def check_not_lost(directory: Path, *, after: tuple[str, ...]) -> None:
    """Raise PkiError if `directory` must have existed before, because something newer exists.

    `after` names the directories that are made earlier, which may exist already.
    """
    for other in sorted(directory.parent.iterdir()):
        if other.name in after or (other / ORIGIN).exists():  # external CAs are imported first
            continue
        if has_entries(other):
            raise PkiError(
                f"{directory}: missing, but {other.name}, which is made later, exists",
                hint=RESTORE,
            )


def _ensure_ca(
    name: str, state: State, plan: ClusterPlan, *, now: datetime, notes: list[str]
) -> CertificateAuthority:
    directory = state.directory / "pki" / name
    if not directory.is_dir():
        _create_ca(name, directory, state, plan, now=now, notes=notes)
    ca = load_ca(directory, state)
    _check_ca(name, directory / "cert.pem", ca, plan, now=now)
    if ca.pair.not_after - now < get_warning_time(ca.pair, CA_WARNING):
        hint = REPLACEMENT_HINTS.get(ca.origin, RENEWAL_HINTS[ca.origin])
        notes.append(
            f"warning: {name} ends on {ca.pair.not_after:%Y-%m-%d}, and so does every certificate"
            f" that it signed; {hint}"
        )
    return ca


def _create_ca(
    name: str, directory: Path, state: State, plan: ClusterPlan, *, now: datetime, notes: list[str]
) -> None:
    if name == declarations.FLANNEL_ETCD_CA:
        _check_signed_nothing(name, directory, state)
    else:
        order = (*declarations.list_ca_names(plan), declarations.KUBELET_CA)
        earlier = order[: order.index(name)]
        check_not_lost(directory, after=(SERVICE_ACCOUNT, *earlier))
    key = issuing.make_key(plan.cluster.pki.key)
    certificate = issuing.issue_ca(name, plan.name, key, now, plan.cluster.pki.ca_days)
    write_pair(directory, key, certificate, state)
    notes.append(f"{name}: created, ends on {certificate.not_valid_after_utc:%Y-%m-%d}")


def _check_signed_nothing(name: str, directory: Path, state: State) -> None:
    for spec in (spec for spec in declarations.CERTIFICATES if spec.ca == name):
        for path in sorted(directory.parent.glob(f"nodes/*/{spec.name}/cert.pem")):
            issuer = load_pair(path.parent, state).certificate.issuer
            if name in {
                str(one.value) for one in issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
            }:
                raise PkiError(f"{directory}: missing, but it signed {path}", hint=RESTORE)


def _check_ca(
    name: str, path: Path, ca: CertificateAuthority, plan: ClusterPlan, *, now: datetime
) -> None:
    certificate = ca.certificate
    if not any(
        isinstance(extension.value, x509.BasicConstraints) and extension.value.ca
        for extension in certificate.extensions
    ):
        raise PkiError(f"{path}: not a CA certificate", hint=RESTORE)
    content = declarations.read_content(certificate)
    is_made_by_bundler = ca.origin is CaOrigin.MADE and content.common_name == name
    if is_made_by_bundler and content.organization not in (None, plan.name):
        raise PkiError(
            f"{path}: belongs to the cluster {content.organization}, not to {plan.name}",
            hint="use one state directory for each cluster, or restore the name in cluster.yaml",
        )
    if certificate.not_valid_after_utc <= now:
        raise PkiError(
            f"{path}: {name} ended on {certificate.not_valid_after_utc:%Y-%m-%d}",
            hint=RENEWAL_HINTS[ca.origin],
        )
    names = make_needs(plan, name).names
    refused = tuple(check_name_constraints((certificate, *ca.issuers), names))
    if refused:
        raise PkiError(
            "\n".join(f"{path}: {text}" for text in refused),
            hint="have the CA signed without these constraints, or rename the hosts",
        )
