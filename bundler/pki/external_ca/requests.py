"""Create keys and certificate requests (PKCS#10) for certificates that are signed elsewhere.

Either the CAs are signed elsewhere: each becomes an intermediate below the site's root, and bundler
issues the certificates below it. Or every certificate is signed elsewhere: then the state holds no
CA key except that of kubelet-ca, because the cluster itself must sign kubelet certificates.

A request is kept until its certificate is imported, so that a second run writes the same bytes.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from bundler.cluster.plan import ClusterPlan
from bundler.errors import PkiError
from bundler.pki import declarations, issuing
from bundler.pki.ca_origins import REQUEST, CaOrigin, is_signed_elsewhere, load_ca, read_origin
from bundler.pki.external_ca.purposes import PURPOSES
from bundler.pki.external_ca.signers import decide_signers
from bundler.pki.key_pairs import load_key
from bundler.pki.leaf_certificates import Leaf, explain_outdated, load_leaves
from bundler.state.directory import RESTORE, State

SOON = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningRequest:
    """A request for a certificate that is signed elsewhere."""

    name: str  # of its files
    directory: Path
    ca: str | None  # that signs it; None: it is a CA itself, signed by the root
    content: declarations.Content
    days: int
    purpose: str
    key: issuing.PublicKey
    request: x509.CertificateSigningRequest

    @property
    def request_pem(self) -> bytes:
        """The request as the signer receives it."""
        return self.request.public_bytes(serialization.Encoding.PEM)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """A certificate of the plan that can be signed elsewhere."""

    name: str
    directory: Path
    ca: str | None
    content: declarations.Content
    days: int
    purpose: str
    is_due: bool = True  # missing, different from the plan, or near its end

    @property
    def has_request(self) -> bool:
        return (self.directory / REQUEST).exists()


def ensure_requests(
    state: State,
    plan: ClusterPlan,
    now: datetime,
    *,
    cas: Collection[str] = (),
    leaves: bool = False,
    again: bool = False,
) -> tuple[SigningRequest, ...]:
    """Create the requests for unsigned certificates; with `again` for all, with the same keys.

    `cas` are the CAs that are signed elsewhere, by default all of the plan; with `leaves` every
    certificate is signed elsewhere. A state directory keeps the first choice. Raises PkiError if
    the state has CAs that bundler made.
    """
    decide_signers(state, plan, now, cas=cas, leaves=leaves)
    return tuple(
        _ensure_request(target, state, plan)
        for target in _list_targets(state, plan, now)
        if again or target.is_due or target.has_request
    )


def list_outstanding(state: State, plan: ClusterPlan, now: datetime) -> tuple[SigningRequest, ...]:
    """The requests whose certificates are not imported yet; creates nothing."""
    return tuple(
        _ensure_request(target, state, plan, write=False)
        for target in _list_targets(state, plan, now)
        if target.has_request
    )


def _list_targets(state: State, plan: ClusterPlan, now: datetime) -> Iterator[_Target]:
    """The certificates of the plan that are signed elsewhere in this state."""
    root = state.directory / "pki"
    for name in (*declarations.list_ca_names(plan), declarations.KUBELET_CA):
        if read_origin(root / name) is CaOrigin.REQUESTED:
            yield _Target(
                name=name,
                directory=root / name,
                ca=None,
                content=declarations.Content(
                    common_name=name, organization=plan.name, usages=(), names=()
                ),
                days=plan.cluster.pki.ca_days,
                purpose=PURPOSES[name],
                is_due=_is_ca_due(root / name, state, now),
            )
    if is_signed_elsewhere(state):
        wanted = declarations.list_site_certificates(plan)
        for leaf in (leaf for leaf in load_leaves(state, plan) if leaf.spec in wanted):
            yield _Target(
                name=f"{leaf.node.name}.{leaf.spec.name}" if leaf.node else leaf.spec.name,
                directory=leaf.directory,
                ca=declarations.get_ca_name(leaf.spec, plan),
                content=leaf.content,
                days=plan.cluster.pki.days,
                purpose=PURPOSES[leaf.spec.name],
                is_due=_is_leaf_due(leaf, state, plan, now),
            )


def _is_ca_due(directory: Path, state: State, now: datetime) -> bool:
    if not (directory / "cert.pem").exists():
        return True
    return load_ca(directory, state).pair.not_after - now < SOON


def _is_leaf_due(leaf: Leaf, state: State, plan: ClusterPlan, now: datetime) -> bool:
    if not leaf.stored or leaf.stored.pair.not_after - now < SOON:
        return True
    name = declarations.get_ca_name(leaf.spec, plan)
    ca = load_ca(state.directory / "pki" / name, state)
    return explain_outdated(leaf, name, ca) is not None


def _ensure_request(
    target: _Target, state: State, plan: ClusterPlan, *, write: bool = True
) -> SigningRequest:
    """The stored request if it still matches the plan, else a new one."""
    if not target.directory.is_dir():
        if target.directory.parent.parent != state.directory:  # below pki/nodes
            state.make_directory(target.directory.parent.parent)
            state.make_directory(target.directory.parent)
        key = issuing.make_key(plan.cluster.pki.key)
        state.write_directory(target.directory, {"key.pem": issuing.encode_private_key(key)})
    key = load_key(target.directory, state)[0]
    path = target.directory / REQUEST
    request = _load_request(path, state) if path.exists() else None
    if not request or (write and not _matches(request, target, key.public_key())):
        request = _make_request(target, key)
        state.write_file(path, request.public_bytes(serialization.Encoding.PEM))
    return SigningRequest(
        name=target.name,
        directory=target.directory,
        ca=target.ca,
        content=target.content,
        days=target.days,
        purpose=target.purpose,
        key=key.public_key(),
        request=request,
    )


def _load_request(path: Path, state: State) -> x509.CertificateSigningRequest:
    try:
        return x509.load_pem_x509_csr(state.read_file(path))
    except ValueError as error:
        raise PkiError(
            f"{path}: not a certificate request in PEM",
            hint=f"delete it and run bundler certs request again; or {RESTORE}",
        ) from error


def _make_request(target: _Target, key: issuing.PrivateKey) -> x509.CertificateSigningRequest:
    builder = x509.CertificateSigningRequestBuilder().subject_name(_subject(target))
    for extension, is_critical in _list_extensions(target, key.public_key()):
        builder = builder.add_extension(extension, critical=is_critical)
    return builder.sign(key, hashes.SHA256())


def _matches(
    request: x509.CertificateSigningRequest, target: _Target, key: issuing.PublicKey
) -> bool:
    """Whether a stored request still asks for what the plan needs."""
    wanted = [
        (value.public_bytes(), is_critical) for value, is_critical in _list_extensions(target, key)
    ]
    found = [
        (extension.value.public_bytes(), extension.critical) for extension in request.extensions
    ]
    return request.public_key() == key and request.subject == _subject(target) and found == wanted


def _subject(target: _Target) -> x509.Name:
    return issuing.make_name(target.content.common_name, target.content.organization)


def _list_extensions(
    target: _Target, key: issuing.PublicKey
) -> Iterator[tuple[x509.ExtensionType, bool]]:
    if not target.ca:
        for extension in issuing.list_ca_extensions():
            yield extension, True
    else:
        yield from issuing.list_leaf_extensions(target.content, key)
