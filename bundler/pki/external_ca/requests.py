"""What is to be signed elsewhere: keys made here, and the requests (PKCS#10) for them.

Either the authorities (each becomes an intermediate of the site's root, and bundler issues under
it), or every certificate of the plan (then no key of an authority is here but the one that signs
kubelets' certificates, which the cluster itself must be able to do).

A request is kept until its certificate comes back, so that asking again gives the same bytes.
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
from bundler.pki.external_ca.origins import (
    REQUEST,
    CaOrigin,
    is_elsewhere,
    load_authority,
    read_origin,
)
from bundler.pki.external_ca.purposes import WHY
from bundler.pki.external_ca.signers import decide_signers
from bundler.pki.key_pairs import load_key
from bundler.pki.leaf_certificates import Leaf, explain_outdated, load_leaves
from bundler.state.directory import RESTORE, State

SOON = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningRequest:
    """A certificate that somebody else is to sign."""

    name: str  # of its files
    directory: Path
    authority: str | None  # who is to sign it; None: it is an authority, to be signed by the root
    content: declarations.Content
    days: int
    why: str
    key: issuing.PublicKey
    request: x509.CertificateSigningRequest

    @property
    def request_pem(self) -> bytes:
        """The request as it is handed over."""
        return self.request.public_bytes(serialization.Encoding.PEM)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """Something of the plan that others can sign."""

    name: str
    directory: Path
    authority: str | None
    content: declarations.Content
    days: int
    why: str
    is_due: bool = True  # it is not here, is not what the plan says, or ends soon

    @property
    def has_request(self) -> bool:
        return (self.directory / REQUEST).exists()


def ensure_requests(
    state: State,
    plan: ClusterPlan,
    now: datetime,
    *,
    authorities: Collection[str] = (),
    leaves: bool = False,
    again: bool = False,
) -> tuple[SigningRequest, ...]:
    """The requests for what is not signed yet; with `again` also for what is, for the same keys.

    `authorities` are those that others shall sign, by default all of the plan; with `leaves` others
    sign every certificate. Once decided, a state stays with it. Raises PkiError where the state has
    authorities that bundler made.
    """
    decide_signers(state, plan, now, authorities=authorities, leaves=leaves)
    return tuple(
        _ensure_request(target, state, plan)
        for target in _list_targets(state, plan, now)
        if again or target.is_due or target.has_request
    )


def list_outstanding(state: State, plan: ClusterPlan, now: datetime) -> tuple[SigningRequest, ...]:
    """What was asked for and has not come back; nothing is made."""
    return tuple(
        _ensure_request(target, state, plan, write=False)
        for target in _list_targets(state, plan, now)
        if target.has_request
    )


def _list_targets(state: State, plan: ClusterPlan, now: datetime) -> Iterator[_Target]:
    """What of the plan others sign, given who signs in this state."""
    root = state.directory / "pki"
    for name in (*declarations.list_authorities(plan), declarations.KUBELET_CA):
        if read_origin(root / name) is CaOrigin.REQUESTED:
            yield _Target(
                name=name,
                directory=root / name,
                authority=None,
                content=declarations.Content(
                    common_name=name, organization=plan.name, usages=(), names=()
                ),
                days=plan.cluster.pki.ca_days,
                why=WHY[name],
                is_due=_is_authority_due(root / name, state, now),
            )
    if is_elsewhere(state):
        for leaf in load_leaves(state, plan):
            yield _Target(
                name=f"{leaf.node.name}.{leaf.spec.name}" if leaf.node else leaf.spec.name,
                directory=leaf.directory,
                authority=declarations.authority_of(leaf.spec, plan),
                content=leaf.content,
                days=plan.cluster.pki.days,
                why=WHY[leaf.spec.name],
                is_due=_is_leaf_due(leaf, state, plan, now),
            )


def _is_authority_due(directory: Path, state: State, now: datetime) -> bool:
    if not (directory / "cert.pem").exists():
        return True
    return load_authority(directory, state).pair.not_after - now < SOON


def _is_leaf_due(leaf: Leaf, state: State, plan: ClusterPlan, now: datetime) -> bool:
    if leaf.stored is None or leaf.stored.pair.not_after - now < SOON:
        return True
    name = declarations.authority_of(leaf.spec, plan)
    authority = load_authority(state.directory / "pki" / name, state)
    return explain_outdated(leaf, name, authority) is not None


def _ensure_request(
    target: _Target, state: State, plan: ClusterPlan, *, write: bool = True
) -> SigningRequest:
    """Its request: the one that is kept if it still says what the plan does, else a new one."""
    if not target.directory.is_dir():
        if target.directory.parent.parent != state.directory:  # a node's
            state.make_directory(target.directory.parent.parent)
            state.make_directory(target.directory.parent)
        key = issuing.make_key(plan.cluster.pki.key)
        state.write_directory(target.directory, {"key.pem": issuing.encode_private_key(key)})
    key = load_key(target.directory, state)[0]
    path = target.directory / REQUEST
    request = _load_request(path, state) if path.exists() else None
    if request is None or (write and not _says(request, target, key.public_key())):
        request = _make_request(target, key)
        state.write_file(path, request.public_bytes(serialization.Encoding.PEM))
    return SigningRequest(
        name=target.name,
        directory=target.directory,
        authority=target.authority,
        content=target.content,
        days=target.days,
        why=target.why,
        key=key.public_key(),
        request=request,
    )


def _load_request(path: Path, state: State) -> x509.CertificateSigningRequest:
    try:
        return x509.load_pem_x509_csr(state.read_file(path))
    except ValueError as error:
        raise PkiError(
            f"{path}: not a request in PEM", hint=f"delete it, and ask again; or {RESTORE}"
        ) from error


def _make_request(target: _Target, key: issuing.PrivateKey) -> x509.CertificateSigningRequest:
    builder = x509.CertificateSigningRequestBuilder().subject_name(_subject(target))
    for extension, is_critical in _list_extensions(target, key.public_key()):
        builder = builder.add_extension(extension, critical=is_critical)
    return builder.sign(key, hashes.SHA256())


def _says(request: x509.CertificateSigningRequest, target: _Target, key: issuing.PublicKey) -> bool:
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
    if target.authority is None:
        for extension in issuing.list_authority_extensions():
            yield extension, True
    else:
        yield from issuing.list_leaf_extensions(target.content, key)
