"""The cluster's certificates: one declaration each, and how each is issued; no file is touched.

Key files are written in the traditional forms ("EC PRIVATE KEY", "RSA PRIVATE KEY"), the ones that
every reader from Kubernetes 1.14 to 1.36 takes: client-go's util/keyutil/key.go also takes PKCS#8
private keys, but its ParsePublicKeysPEM (--service-account-key-file) reads an EC private key in
the traditional form only; crypto/tls and cfssl's helpers (the CSR signer of 1.14) take both.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bundler.components import has_feature
from bundler.config import Role
from bundler.errors import PkiError
from bundler.plan import NodePlan, Plan

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
KeyKind = Literal["ecdsa-p256", "rsa-2048"]
SanName = str | IPv4Address

SERVER = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH

BACKDATE = timedelta(minutes=5)
"""Hosts whose clock is a little behind the builder's accept a new certificate all the same; the
signer of kube-controller-manager backdates by the same (pkg/controller/certificates/signer)."""

KUBERNETES_CA = "kubernetes-ca"
ETCD_CA = "etcd-ca"
FRONT_PROXY_CA = "front-proxy-ca"
AUTHORITIES = (ETCD_CA, FRONT_PROXY_CA, KUBERNETES_CA)
KUBELET_CA = "kubelet-ca"
"""Signs kubelets' certificates; there only if the key of kubernetes-ca is elsewhere."""
NEW_AUTHORITIES = (
    "the cluster needs new authorities: build with a new, empty state directory and install every"
    " node anew"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateSpec:
    """One certificate that the cluster needs.

    With `roles`, every node that holds one of them has its own, and `names` gives its SANs;
    without, the whole cluster shares one. A `common_name` of None is the node's name. With
    `feature`, only clusters that have chosen it need the certificate.
    """

    name: str
    authority: str
    common_name: str | None
    organization: str | None = None
    usages: tuple[x509.ObjectIdentifier, ...]
    roles: tuple[Role, ...] = ()
    names: Callable[[Plan, NodePlan | None], tuple[SanName, ...]] | None = None
    feature: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a certificate says: if an existing one says something else, it is issued anew."""

    common_name: str
    organization: str | None
    usages: tuple[str, ...]  # dotted object identifiers
    names: tuple[SanName, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """A certificate authority in memory."""

    certificate: x509.Certificate
    key: PrivateKey


def _apiserver_names(plan: Plan, _node: NodePlan | None) -> tuple[SanName, ...]:
    """Every name under which a client may reach any API server: the same on each of them."""
    masters = plan.having(Role.CONTROL_PLANE)
    return _unique(
        plan.service_ip,
        IPv4Address("127.0.0.1"),
        _parse_host(plan.endpoint_host),
        *(node.address for node in masters),
        *(node.name for node in masters),
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        f"kubernetes.default.svc.{plan.cluster.network.dns_domain}",
        "localhost",
    )


def _own_names(_plan: Plan, node: NodePlan | None) -> tuple[SanName, ...]:
    """The names of one host, for what listens on its own address and on loopback."""
    if node is None:
        raise ValueError("a certificate that the cluster shares has no host's names")
    return _unique(node.name, "localhost", node.address, IPv4Address("127.0.0.1"))


def _metrics_server_names(plan: Plan, _node: NodePlan | None) -> tuple[SanName, ...]:
    """The Service's names: the API server's aggregator checks the first one that is a full name."""
    service = "metrics-server.kube-system.svc"
    return (service, f"{service}.{plan.cluster.network.dns_domain}")


def _client(
    name: str,
    common_name: str,
    *,
    authority: str = KUBERNETES_CA,
    organization: str | None = None,
    feature: str | None = None,
) -> CertificateSpec:
    return CertificateSpec(
        feature=feature,
        name=name,
        authority=authority,
        common_name=common_name,
        organization=organization,
        usages=(CLIENT,),
    )


def _server(name: str, common_name: str) -> CertificateSpec:
    return CertificateSpec(
        name=name,
        authority=KUBERNETES_CA,
        common_name=common_name,
        usages=(SERVER,),
        roles=(Role.CONTROL_PLANE,),
        names=_apiserver_names if name == "apiserver" else _own_names,
    )


def _etcd_member(name: str) -> CertificateSpec:
    # A member is its own client: etcd's gRPC gateway dials with the server's certificate.
    return CertificateSpec(
        name=name,
        authority=ETCD_CA,
        common_name=None,
        usages=(SERVER, CLIENT),
        roles=(Role.ETCD,),
        names=_own_names,
    )


# User names as Kubernetes' default RBAC expects them:
# https://kubernetes.io/docs/reference/access-authn-authz/rbac/#core-component-roles
# Only the administrator is in system:masters; the API server's own client certificate needs a
# ClusterRoleBinding of system:kubelet-api-admin instead.
CERTIFICATES = (
    _server("apiserver", "kube-apiserver"),
    _server("controller-manager-server", "kube-controller-manager"),
    _server("scheduler-server", "kube-scheduler"),
    _etcd_member("etcd-server"),
    _etcd_member("etcd-peer"),
    _client("etcd-healthcheck-client", "kube-etcd-healthcheck-client", authority=ETCD_CA),
    _client("apiserver-etcd-client", "kube-apiserver-etcd-client", authority=ETCD_CA),
    _client("apiserver-kubelet-client", "kube-apiserver-kubelet-client"),
    _client("front-proxy-client", "aggregator", authority=FRONT_PROXY_CA),
    _client("controller-manager", "system:kube-controller-manager"),
    _client("scheduler", "system:kube-scheduler"),
    _client("kube-proxy", "system:kube-proxy"),
    _client("csr-approver", "bundler:csr-approver"),
    _client("admin", "kubernetes-admin", organization="system:masters"),
    _client("flannel", "bundler:flannel", feature="flannel-kubernetes"),
    _client(
        "flannel-etcd-client", "flannel-etcd-client", authority=ETCD_CA, feature="flannel-etcd"
    ),
    CertificateSpec(
        name="metrics-server",
        authority=KUBERNETES_CA,
        common_name="metrics-server",
        usages=(SERVER,),
        names=_metrics_server_names,
        feature="metrics-server",
    ),
)


def list_certificates(plan: Plan) -> tuple[CertificateSpec, ...]:
    """The declarations that hold for the cluster."""
    return tuple(spec for spec in CERTIFICATES if has_feature(spec.feature, plan.features))


def authority_of(spec: CertificateSpec, plan: Plan) -> str:
    """Who signs it: its own authority, or the only one that the cluster has."""
    return spec.authority if spec.authority in list_authorities(plan) else KUBERNETES_CA


def list_authorities(plan: Plan) -> tuple[str, ...]:
    """The cluster's authorities, in the order in which they are made."""
    return AUTHORITIES if plan.cluster.pki.authorities == "separate" else (KUBERNETES_CA,)


def list_owners(spec: CertificateSpec, plan: Plan) -> tuple[NodePlan | None, ...]:
    """The nodes that have a certificate of their own; None alone where the cluster shares one."""
    if not spec.roles:
        return (None,)
    return tuple(node for node in plan.nodes if any(node.has(role) for role in spec.roles))


def make_content(spec: CertificateSpec, plan: Plan, node: NodePlan | None) -> Content:
    """What the declared certificate must say in this cluster, for this node if it is a node's."""
    common_name = spec.common_name or (node.name if node else spec.name)
    return Content(
        common_name=common_name,
        organization=spec.organization,
        usages=tuple(usage.dotted_string for usage in spec.usages),
        names=spec.names(plan, node) if spec.names else (),
    )


def read_content(certificate: x509.Certificate) -> Content:
    """What an existing certificate says."""
    names: list[SanName] = []
    usages: list[str] = []
    for extension in certificate.extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            for name in extension.value:
                value = name.value
                names.append(value if isinstance(value, IPv4Address) else str(value))
        elif isinstance(extension.value, x509.ExtendedKeyUsage):
            usages += [usage.dotted_string for usage in extension.value]
    return Content(
        common_name=_subject(certificate, NameOID.COMMON_NAME) or "",
        organization=_subject(certificate, NameOID.ORGANIZATION_NAME),
        usages=tuple(usages),
        names=tuple(names),
    )


def explain_change(found: Content, wanted: Content) -> str | None:
    """Why the one is not the other, for people; None if they say the same (in whatever order)."""
    reasons = []
    if found.common_name != wanted.common_name:
        reasons.append(f"its name changed from {found.common_name} to {wanted.common_name}")
    if found.organization != wanted.organization:
        reasons.append(f"its organization changed to {wanted.organization or 'none'}")
    if set(found.usages) != set(wanted.usages):
        reasons.append("its usages changed")
    for verb, some in (
        ("gained", set(wanted.names) - set(found.names)),
        ("lost", set(found.names) - set(wanted.names)),
    ):
        if some:
            reasons.append(f"SANs {verb} {', '.join(sorted(map(str, some)))}")
    return " and ".join(reasons) or None


def make_key(kind: KeyKind) -> PrivateKey:
    """A new private key of the kind that cluster.yaml's pki.key names."""
    if kind == "rsa-2048":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1())


def issue_authority(
    name: str, cluster: str, key: PrivateKey, now: datetime, days: int, *, unit: str | None = None
) -> x509.Certificate:
    """A self-signed authority that may sign leaves only; valid for `days` from now.

    `unit` tells it from others of its name (stages.py).
    """
    subject = make_name(name, cluster, unit)
    not_before, not_after = _validity(now, days)
    builder = _builder(subject, subject, key.public_key(), not_before, not_after)
    for extension in list_authority_extensions():
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(key, hashes.SHA256())


def issue(
    content: Content, key: PublicKey, issuer: Issuer, now: datetime, days: int
) -> x509.Certificate:
    """A leaf for `key`, valid for `days` from `now` (aware, UTC) but never beyond its issuer.

    It starts five minutes before `now`, rounded down to the minute: see BACKDATE.
    Raises PkiError if the issuer itself is not valid now.
    """
    authority = issuer.certificate
    _check_issuer_valid(authority, now)
    not_before, not_after = _validity(now, days)
    builder = _builder(
        make_name(content.common_name, content.organization),
        authority.subject,
        key,
        max(not_before, authority.not_valid_before_utc),
        min(not_after, authority.not_valid_after_utc),
    ).add_extension(_authority_key_identifier(issuer), critical=False)
    for extension, is_critical in list_leaf_extensions(content, key):
        builder = builder.add_extension(extension, critical=is_critical)
    return builder.sign(issuer.key, hashes.SHA256())


def list_authority_extensions() -> tuple[x509.ExtensionType, ...]:
    """What makes a certificate one that may sign leaves only; all of it critical."""
    constraints = x509.BasicConstraints(ca=True, path_length=0)
    return constraints, _key_usage(signs_certificates=True)


def list_leaf_extensions(
    content: Content, key: PublicKey
) -> Iterator[tuple[x509.ExtensionType, bool]]:
    """What a leaf says beside its subject, and whether that is critical."""
    yield x509.BasicConstraints(ca=False, path_length=None), True
    yield _key_usage(enciphers_keys=isinstance(key, rsa.RSAPublicKey)), True
    usages = [x509.ObjectIdentifier(usage) for usage in content.usages]
    yield x509.ExtendedKeyUsage(usages), False
    if content.names:
        names = [_general_name(name) for name in content.names]
        yield x509.SubjectAlternativeName(names), False


def encode_certificate(certificate: x509.Certificate) -> bytes:
    """The certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def encode_private_key(key: PrivateKey) -> bytes:
    """The key as PEM, not encrypted, in its traditional form (see the module's docstring)."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def encode_public_key(key: PublicKey) -> bytes:
    """The key as PEM ("PUBLIC KEY")."""
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def get_key_kind(key: PublicKey) -> str:
    """The kind of a key, in the spelling of cluster.yaml's pki.key."""
    if isinstance(key, rsa.RSAPublicKey):
        return f"rsa-{key.key_size}"
    return "ecdsa-p256" if isinstance(key.curve, ec.SECP256R1) else f"ecdsa-{key.curve.name}"


def _validity(now: datetime, days: int) -> tuple[datetime, datetime]:
    minute = now.replace(second=0, microsecond=0)
    return minute - BACKDATE, minute + timedelta(days=days)


def _check_issuer_valid(authority: x509.Certificate, now: datetime) -> None:
    name = _subject(authority, NameOID.COMMON_NAME)
    if now < authority.not_valid_before_utc:
        raise PkiError(
            f"{name} is valid from {authority.not_valid_before_utc:%Y-%m-%d %H:%M} UTC,"
            f" but this machine's clock says {now:%Y-%m-%d %H:%M} UTC",
            hint="set the clock of this machine",
        )
    if now >= authority.not_valid_after_utc:
        raise PkiError(
            f"{name} ended on {authority.not_valid_after_utc:%Y-%m-%d}, and cannot sign any more",
            hint=NEW_AUTHORITIES,
        )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: PublicKey,
    not_before: datetime,
    not_after: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, signs_certificates: bool = False, enciphers_keys: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=enciphers_keys,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_key_identifier(issuer: Issuer) -> x509.AuthorityKeyIdentifier:
    for extension in issuer.certificate.extensions:
        if isinstance(extension.value, x509.SubjectKeyIdentifier):
            return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(extension.value)
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())


def make_name(common_name: str, organization: str | None, unit: str | None = None) -> x509.Name:
    """A subject as Kubernetes reads it: the user's name, and the group."""
    parts = (
        (NameOID.ORGANIZATION_NAME, organization),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, unit),
        (NameOID.COMMON_NAME, common_name),
    )
    return x509.Name([x509.NameAttribute(oid, text) for oid, text in parts if text])


def _subject(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> str | None:
    values = [str(attribute.value) for attribute in certificate.subject.get_attributes_for_oid(oid)]
    return ", ".join(values) or None


def _general_name(name: SanName) -> x509.GeneralName:
    return x509.IPAddress(name) if isinstance(name, IPv4Address) else x509.DNSName(name)


def _parse_host(host: str) -> SanName:
    try:
        return IPv4Address(host)
    except ValueError:
        return host


def _unique(*names: SanName) -> tuple[SanName, ...]:
    return tuple(dict.fromkeys(names))
