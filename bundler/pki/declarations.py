"""One declaration for each certificate of the cluster, and its content; does not access files."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bundler.cluster.components import has_feature
from bundler.cluster.plan import ClusterPlan, NodePlan
from bundler.cluster.schema import Role

SanName = str | IPv4Address
SERVER = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
KUBERNETES_CA = "kubernetes-ca"
ETCD_CA = "etcd-ca"
FRONT_PROXY_CA = "front-proxy-ca"
CA_NAMES = (ETCD_CA, FRONT_PROXY_CA, KUBERNETES_CA)
KUBELET_CA = "kubelet-ca"
"""Signs kubelet certificates; exists only if the key of kubernetes-ca is elsewhere."""
FLANNEL_ETCD_CA = "flannel-etcd-ca"
"""Signs what workers show to etcd-flannel-proxy.service; etcd itself does not trust it.

bundler always makes it: nginx verifies up to a root, and with an external root it would accept
every certificate below that root.
"""
ADMIN_GROUP = "bundler:cluster-admins"
"""The group of the administrator. A ClusterRoleBinding gives it all rights, so that they can be
revoked (admin_group.py); system:masters has them in every API server for ever."""
MAX_COMMON_NAME = 64
BUILD_FIRST = "run `bundler build`: it makes a CA that is new, and says so if one is lost"
NEW_CAS_HINT = (
    "the cluster needs new CAs: build with a new, empty state directory and reinstall every node"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateSpec:
    """One certificate that the cluster needs.

    With `roles`, each node with one of them has its own certificate, and `names` returns its SANs.
    Without `roles`, the whole cluster shares one. `{node}` in `common_name` is the node's name.
    With `feature`, only clusters that use the feature have the certificate.
    """

    name: str
    ca: str
    common_name: str
    organization: str | None = None
    usages: tuple[x509.ObjectIdentifier, ...]
    roles: tuple[Role, ...] = ()
    names: Callable[[ClusterPlan, NodePlan | None], tuple[SanName, ...]] | None = None
    feature: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """The content of a certificate: one whose content is outdated is issued again."""

    common_name: str
    organization: str | None
    usages: tuple[str, ...]  # dotted object identifiers
    names: tuple[SanName, ...]


def _apiserver_names(plan: ClusterPlan, _node: NodePlan | None) -> tuple[SanName, ...]:
    """Every name and address of every API server: the same SANs on each of them."""
    masters = plan.having(Role.CONTROL_PLANE)
    return _unique(
        plan.service_ip,
        IPv4Address("127.0.0.1"),
        _parse_host(plan.endpoint_host),
        *(node.address for node in masters),
        *(node.name for node in masters),
        *(san for node in masters for san in node.sans),
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        f"kubernetes.default.svc.{plan.cluster.network.dns_domain}",
        "localhost",
    )


def _own_names(_plan: ClusterPlan, node: NodePlan | None) -> tuple[SanName, ...]:
    """The names of one host, for servers on its address and on loopback."""
    if not node:
        raise ValueError("a certificate that the whole cluster shares has no node names")
    return _unique(node.name, "localhost", node.address, IPv4Address("127.0.0.1"), *node.sans)


def _registry_names(plan: ClusterPlan, node: NodePlan | None) -> tuple[SanName, ...]:
    """The names of one host of the registry, and the registry's own."""
    registry = plan.cluster.registry
    return _unique(
        *_own_names(plan, node), *([registry.name] if registry and registry.name else [])
    )


def _metrics_server_names(plan: ClusterPlan, _node: NodePlan | None) -> tuple[SanName, ...]:
    """The names of the Service, through which the API server's aggregator connects."""
    service = "metrics-server.kube-system.svc"
    return (service, f"{service}.{plan.cluster.network.dns_domain}")


def _client(
    name: str,
    common_name: str,
    *,
    ca: str = KUBERNETES_CA,
    organization: str | None = None,
) -> CertificateSpec:
    return CertificateSpec(
        name=name,
        ca=ca,
        common_name=common_name,
        organization=organization,
        usages=(CLIENT,),
    )


def _server(name: str, common_name: str) -> CertificateSpec:
    return CertificateSpec(
        name=name,
        ca=KUBERNETES_CA,
        common_name=common_name,
        usages=(SERVER,),
        roles=(Role.CONTROL_PLANE,),
        names=_apiserver_names if name == "apiserver" else _own_names,
    )


def _etcd_member(name: str) -> CertificateSpec:
    # clientAuth too: etcd's gRPC gateway connects to its own member with the server certificate
    return CertificateSpec(
        name=name,
        ca=ETCD_CA,
        common_name="{node}",
        usages=(SERVER, CLIENT),
        roles=(Role.ETCD,),
        names=_own_names,
    )


CERTIFICATES = (
    _server("apiserver", "kube-apiserver"),
    _server("controller-manager-server", "kube-controller-manager"),
    _server("scheduler-server", "kube-scheduler"),
    _etcd_member("etcd-server"),
    _etcd_member("etcd-peer"),
    _client("etcd-healthcheck-client", "kube-etcd-healthcheck-client", ca=ETCD_CA),
    _client("apiserver-etcd-client", "kube-apiserver-etcd-client", ca=ETCD_CA),
    _client("apiserver-kubelet-client", "kube-apiserver-kubelet-client"),
    _client("front-proxy-client", "aggregator", ca=FRONT_PROXY_CA),
    _client("controller-manager", "system:kube-controller-manager"),
    _client("scheduler", "system:kube-scheduler"),
    CertificateSpec(
        name="kube-proxy",
        ca=KUBERNETES_CA,
        common_name="system:kube-proxy:{node}",
        organization="bundler:kube-proxies",
        usages=(CLIENT,),
        roles=(Role.WORKER,),
        feature="kube-proxy",
    ),
    CertificateSpec(
        name="kube-router",
        ca=KUBERNETES_CA,
        common_name="bundler:kube-router:{node}",
        organization="bundler:kube-routers",
        usages=(CLIENT,),
        roles=(Role.WORKER,),
        feature="kube-router",
    ),
    _client("csr-approver", "bundler:csr-approver"),
    _client("node-remover", "bundler:node-remover"),
    _client("node-labeler", "bundler:node-labeler"),
    _client("admin", "kubernetes-admin", organization=ADMIN_GROUP),
    CertificateSpec(
        name="flannel-etcd-client",
        ca=FLANNEL_ETCD_CA,
        common_name="flannel-etcd-client:{node}",
        usages=(CLIENT,),
        roles=(Role.WORKER,),
        feature="flannel-etcd",
    ),
    CertificateSpec(
        name="registry-server",
        ca=KUBERNETES_CA,
        common_name="kube-registry:{node}",
        usages=(SERVER,),
        roles=(Role.REGISTRY,),
        names=_registry_names,
        feature="registry",
    ),
    CertificateSpec(
        name="metrics-server",
        ca=KUBERNETES_CA,
        common_name="metrics-server",
        usages=(SERVER,),
        names=_metrics_server_names,
        feature="metrics-server",
    ),
)


def list_certificates(plan: ClusterPlan) -> tuple[CertificateSpec, ...]:
    """The declarations that apply to the cluster."""
    return tuple(spec for spec in CERTIFICATES if has_feature(spec.feature, plan.features))


def get_ca_name(spec: CertificateSpec, plan: ClusterPlan) -> str:
    """The CA that signs the certificate: the declared one, or the only one of the cluster."""
    return spec.ca if spec.ca in list_ca_names(plan) else KUBERNETES_CA


def list_ca_names(plan: ClusterPlan) -> tuple[str, ...]:
    """The CAs of the cluster, in the order in which they are created."""
    flannel = (FLANNEL_ETCD_CA,) if "flannel-etcd" in plan.features else ()
    return (*list_site_ca_names(plan), *flannel)


def list_site_ca_names(plan: ClusterPlan) -> tuple[str, ...]:
    """Those that a site can import or sign; see FLANNEL_ETCD_CA."""
    return CA_NAMES if plan.cluster.pki.authorities == "separate" else (KUBERNETES_CA,)


def list_site_certificates(plan: ClusterPlan) -> tuple[CertificateSpec, ...]:
    """The declarations whose certificates a site's PKI can sign."""
    return tuple(spec for spec in list_certificates(plan) if spec.ca != FLANNEL_ETCD_CA)


def list_owners(spec: CertificateSpec, plan: ClusterPlan) -> tuple[NodePlan | None, ...]:
    """The nodes that have their own certificate; only None if the whole cluster shares one."""
    if not spec.roles:
        return (None,)
    return tuple(node for node in plan.nodes if any(node.has(role) for role in spec.roles))


def make_content(
    spec: CertificateSpec,
    plan: ClusterPlan,
    node: NodePlan | None,
    admin_group: str = ADMIN_GROUP,
) -> Content:
    """The required content of a declared certificate in this cluster, for `node` if it has one."""
    common_name = spec.common_name.format(node=node.name) if node else spec.common_name
    return Content(
        common_name=_shorten(common_name),
        organization=admin_group if spec.organization == ADMIN_GROUP else spec.organization,
        usages=tuple(usage.dotted_string for usage in spec.usages),
        names=spec.names(plan, node) if spec.names else (),
    )


def _shorten(common_name: str) -> str:
    """A name of at most 64 characters, X.509's limit: the end of a longer one becomes a digest."""
    if len(common_name) <= MAX_COMMON_NAME:
        return common_name
    digest = hashlib.sha256(common_name.encode()).hexdigest()[:16]
    return f"{common_name[: MAX_COMMON_NAME - len(digest) - 1]}-{digest}"


def read_content(certificate: x509.Certificate) -> Content:
    """The content of an existing certificate."""
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
    """The differences as text; None if both are the same, in any order."""
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


def _subject(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> str | None:
    values = [str(attribute.value) for attribute in certificate.subject.get_attributes_for_oid(oid)]
    return ", ".join(values) or None


def _parse_host(host: str) -> SanName:
    try:
        return IPv4Address(host)
    except ValueError:
        return host


def _unique(*names: SanName) -> tuple[SanName, ...]:
    return tuple(dict.fromkeys(names))
