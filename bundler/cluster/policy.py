"""What the policy keys of cluster.yaml mean at a minor: features, plugins, webhooks.

Sources: k8s.io/apiserver, pkg/apis/apiserver and pkg/features of each minor's branch.
"""

from collections.abc import Iterator

from bundler.cluster.components import key_of, minor_of
from bundler.cluster.schema import Cluster
from bundler.cluster.schema_policy import Webhook

POLICY = "/etc/kubernetes/policy"
"""The directory of the policy files on control planes."""

STRUCTURED_SINCE = "1.30"
"""The first minor with AuthenticationConfiguration and AuthorizationConfiguration by default."""

POD_SECURITY_SINCE = "1.23"
"""The first minor with the plugin PodSecurity by default; before it there is PodSecurityPolicy."""

POD_SECURITY_POLICIES_UNTIL = "1.24"
"""The first minor that needs no policies: during the upgrade to 1.23 API servers of 1.22 do."""

MANIFESTS_SINCE, MANIFESTS_DEFAULT_SINCE = "1.36", "1.37"
"""The first minor with the feature gate of `admission.manifests`, and the first with it on."""

KMS_SPANS = {"v1": ("", "1.29"), "v2": ("1.27", "")}
"""Version of a KMS plugin's API → the first minor with it by default, and the first without it."""

MANIFESTS_GATE = "ManifestBasedAdmissionControlConfig"
ALWAYS_PLUGINS = ("NodeRestriction",)
PLUGINS = {
    "AlwaysPullImages": ("", ""),
    "DenyServiceExternalIPs": ("1.21", ""),
    "ExtendedResourceToleration": ("", ""),
    "LimitPodHardAntiAffinityTopology": ("", ""),
    "NamespaceAutoProvision": ("", ""),
    "NamespaceExists": ("", ""),
    "OwnerReferencesPermissionEnforcement": ("", ""),
    "PodNodeSelector": ("", ""),
    "PodSecurityPolicy": ("", "1.25"),
    "PodTolerationRestriction": ("", ""),
}
"""Admission plugins that upstream has off by default and that need no file → since, until."""


WITHOUT_FILES = {
    "admission-plugins",
    "admission-manifests-gate",
    "kms-plugin",
    "pod-security-policies",
}
"""Features that need no file in POLICY."""

LOG_FEATURES = {
    "max_age_days": "audit-log-maxage",
    "max_files": "audit-log-maxbackup",
    "max_megabytes": "audit-log-maxsize",
    "mode": "audit-log-mode",
}
"""Key of `audit.log` → the feature by which its flag replaces bundler's value."""


def is_structured(cluster: Cluster) -> bool:
    """Whether the API server reads authentication and authorization from files."""
    return key_of(minor_of(cluster.kubernetes.version)) >= key_of(STRUCTURED_SINCE)


def list_policy_features(cluster: Cluster) -> Iterator[str]:
    """Yield the features that the policy keys add, by which tables select rows."""
    admission, structured = cluster.admission, is_structured(cluster)
    authentication, authorization = cluster.authentication, cluster.authorization
    minor = key_of(minor_of(cluster.kubernetes.version))
    chosen = {
        "admission-plugins": admission is not None,
        "admission-config": admission is not None
        and bool(
            "PodSecurity" in list_plugins(cluster)
            or admission.event_rate_limit
            or admission.image_policy
            or admission.manifests
        ),
        "pod-security-policies": admission is not None
        and admission.pod_security is not None
        and minor < key_of(POD_SECURITY_POLICIES_UNTIL),
        "admission-manifests-gate": admission is not None
        and bool(admission.manifests)
        and key_of(MANIFESTS_SINCE) <= minor < key_of(MANIFESTS_DEFAULT_SINCE),
        "oidc-flags": authentication is not None and bool(authentication.oidc) and not structured,
        "authentication-config": authentication is not None
        and bool(authentication.oidc)
        and structured,
        "token-webhook": authentication is not None and authentication.webhook is not None,
        "authorization-webhook": authorization is not None
        and bool(authorization.webhooks)
        and not structured,
        "authorization-config": authorization is not None
        and bool(authorization.webhooks)
        and structured,
        "audit-webhook": cluster.audit.webhook is not None,
        "kms-plugin": cluster.encryption.kms is not None
        and cluster.encryption.kms.plugin is not None,
    }
    found = [feature for feature, is_chosen in chosen.items() if is_chosen]
    yield from found
    yield from _list_oidc_features(cluster)
    yield from (
        feature
        for field, feature in LOG_FEATURES.items()
        if getattr(cluster.audit.log, field) is not None
    )
    if set(found) - WITHOUT_FILES:
        yield "policy-files"


def _list_oidc_features(cluster: Cluster) -> Iterator[str]:
    """Yield a feature for each flag that the issuer needs before STRUCTURED_SINCE."""
    issuers = cluster.authentication.oidc if cluster.authentication else ()
    if not issuers or is_structured(cluster):
        return
    given = {
        "oidc-ca": issuers[0].ca,
        "oidc-groups": issuers[0].groups,
        "oidc-claims": issuers[0].required_claims,
        "oidc-algorithms": issuers[0].signing_algorithms,
    }
    yield from (feature for feature, value in given.items() if value)


def list_plugins(cluster: Cluster) -> tuple[str, ...]:
    """The admission plugins to enable, sorted."""
    admission = cluster.admission
    if admission is None:
        return ALWAYS_PLUGINS
    by_key = {
        "EventRateLimit": admission.event_rate_limit is not None,
        "ImagePolicyWebhook": admission.image_policy is not None,
        name_pod_security(cluster): admission.pod_security is not None,
    }
    added = {name for name, is_used in by_key.items() if is_used}
    return tuple(sorted({*ALWAYS_PLUGINS, *admission.plugins} | added))


def name_pod_security(cluster: Cluster) -> str:
    """The plugin that enforces `admission.pod_security`."""
    minor = minor_of(cluster.kubernetes.version)
    is_old = key_of(minor) < key_of(POD_SECURITY_SINCE)
    return "PodSecurityPolicy" if is_old else "PodSecurity"


def list_webhooks(cluster: Cluster) -> Iterator[tuple[str, tuple[str | int, ...], Webhook]]:
    """Yield name of its kubeconfig, path in cluster.yaml, and the server, of every webhook."""
    if cluster.admission and cluster.admission.image_policy:
        yield "image-policy", ("admission", "image_policy"), cluster.admission.image_policy
    if cluster.authentication and cluster.authentication.webhook:
        yield "token", ("authentication", "webhook"), cluster.authentication.webhook
    for index, webhook in enumerate(
        cluster.authorization.webhooks if cluster.authorization else ()
    ):
        yield f"authorization-{webhook.name}", ("authorization", "webhooks", index), webhook
    if cluster.audit.webhook:
        yield "audit", ("audit", "webhook"), cluster.audit.webhook


def kubeconfig_of(name: str) -> str:
    """The path on a control plane of the file with which API servers reach a webhook."""
    return f"{POLICY}/{name}.kubeconfig"
