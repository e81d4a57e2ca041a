"""The policy of a cluster on its control planes: values for templates, and the files it needs.

Every file is in /etc/kubernetes/policy, and the API server restarts when one changes. Files with
credentials are kubeconfigs, which are secret by their name.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from bundler.cluster.accepted import is_within
from bundler.cluster.components import ENCRYPTION_PROVIDERS, minor_of, row_for
from bundler.cluster.plan import ClusterPlan, NodePlan
from bundler.cluster.policy import (
    PLUGINS,
    POLICY,
    kubeconfig_of,
    list_plugins,
    list_webhooks,
    name_pod_security,
)
from bundler.cluster.policy_checks import MANIFEST_PLUGINS
from bundler.cluster.schema import Cluster, Role
from bundler.cluster.schema_encryption import KmsPlugin
from bundler.cluster.schema_policy import (
    CIPHER_SUITES,
    Admission,
    AuthorizationWebhook,
    Oidc,
)
from bundler.files import SECRET_MODE
from bundler.formats.bounded_yaml import read_document
from bundler.formats.yaml_output import dump_yaml
from bundler.pki.kubeconfig import render_webhook_kubeconfig
from bundler.render.tree import File
from bundler.state.encryption import EncryptionKey

KMS_PROGRAM = "/opt/k8s/bin/kms-plugin"
KMS_ENVIRONMENT = f"{POLICY}/kms-plugin.env"
TLS_VERSIONS = {None: "", "TLS1.2": "VersionTLS12", "TLS1.3": "VersionTLS13"}
"""A version of `tls.min_version` as Kubernetes' programs name it."""

ADMISSION_API = {"1.14": "apiserver.k8s.io/v1alpha1", "1.17": "apiserver.config.k8s.io/v1"}
POD_SECURITY_API = {
    "1.14": "pod-security.admission.config.k8s.io/v1beta1",
    "1.25": "pod-security.admission.config.k8s.io/v1",
}
AUTHENTICATION_API = {
    "1.14": "apiserver.config.k8s.io/v1beta1",
    "1.34": "apiserver.config.k8s.io/v1",
}
AUTHORIZATION_API = {
    "1.14": "apiserver.config.k8s.io/v1beta1",
    "1.32": "apiserver.config.k8s.io/v1",
}
"""First minor → the API version of a file, from pkg/apis of k8s.io/apiserver of each minor."""

REVIEW_API = {"1.14": "v1beta1", "1.17": "v1"}
"""First minor → the version of the reviews that webhooks get; 1.17 has the flags for it."""

POD_VOLUMES = {
    "csi": "1.16", "configMap": "", "downwardAPI": "", "emptyDir": "", "ephemeral": "1.20",
    "persistentVolumeClaim": "", "projected": "", "secret": "",
}  # fmt: skip
BASELINE_VOLUMES = (
    "awsElasticBlockStore", "azureDisk", "azureFile", "cephFS", "cinder", "fc", "flexVolume",
    "flocker", "gcePersistentDisk", "gitRepo", "glusterfs", "iscsi", "nfs", "photonPersistentDisk",
    "portworxVolume", "quobyte", "rbd", "scaleIO", "storageos", "vsphereVolume",
)  # fmt: skip
"""Volumes that `restricted` allows → the first minor with a PodSecurityPolicy that knows them.

`baseline` allows the others too, but no hostPath. Source: FSType in k8s.io/api, policy/v1beta1.
"""

MANIFEST_CONFIGS = {
    "ValidatingAdmissionPolicy": "ValidatingAdmissionPolicyConfiguration",
    "MutatingAdmissionPolicy": "MutatingAdmissionPolicyConfiguration",
    "ValidatingAdmissionWebhook": "WebhookAdmissionConfiguration",
    "MutatingAdmissionWebhook": "WebhookAdmissionConfiguration",
}
"""Plugin → the kind of its configuration."""


def make_policy_values(cluster: Cluster) -> dict[str, Any]:
    """Make the values; empty where cluster.yaml does not have the key."""
    suites = cluster.tls.cipher_suites or ()
    authentication, authorization = cluster.authentication, cluster.authorization
    return {
        "tls_min_version": TLS_VERSIONS[cluster.tls.min_version],
        "tls_suites": ",".join(map(name_suite, suites)),
        "tls_openssl_suites": ":".join(CIPHER_SUITES[suite] for suite in suites),
        "policy": POLICY,
        "admission_plugins": ",".join(list_plugins(cluster)),
        "review_api": row_for(REVIEW_API, minor_of(cluster.kubernetes.version)),
        "oidc": authentication.oidc[0] if authentication and authentication.oidc else None,
        "token_webhook": authentication.webhook if authentication else None,
        "authorization_webhook": authorization.webhooks[0]
        if authorization and authorization.webhooks
        else None,
        "kubeconfig_of": kubeconfig_of,
        "kms": cluster.encryption.kms,
        "pod_security": cluster.admission.pod_security if cluster.admission else None,
        "pod_security_volumes": list_pod_volumes(cluster),
        "has_pod_security_policies": is_within(
            "", PLUGINS["PodSecurityPolicy"][1], minor_of(cluster.kubernetes.version)
        ),
    }


def list_pod_volumes(cluster: Cluster) -> list[str]:
    """The kinds of volumes that a PodSecurityPolicy for the level of `enforce` allows."""
    minor = minor_of(cluster.kubernetes.version)
    pods = cluster.admission.pod_security if cluster.admission else None
    more = BASELINE_VOLUMES if pods and pods.enforce == "baseline" else ()
    known = [name for name, since in POD_VOLUMES.items() if is_within(since, "", minor)]
    return sorted([*known, *more])


def group_keys(cluster: Cluster, keys: Sequence[EncryptionKey]) -> dict[str, list[EncryptionKey]]:
    """Group the keys by provider: the first key of the first provider writes, all of them read."""
    order = list(row_for(ENCRYPTION_PROVIDERS, minor_of(cluster.kubernetes.version)))
    if cluster.encryption.provider in order:
        order.sort(key=lambda provider: provider != cluster.encryption.provider)
    groups: dict[str, list[EncryptionKey]] = {}
    for key in keys:
        for provider in key.list_providers(order):
            groups.setdefault(provider, []).append(key)
    return groups


def name_suite(suite: str) -> str:
    """Name a cipher suite as every version of Kubernetes and etcd knows it.

    Programs built before Go 1.14 know the suites with ChaCha20 only without `_SHA256`.
    """
    return suite.removesuffix("_SHA256") if "CHACHA20" in suite else suite


def make_policy_files(plan: ClusterPlan, node: NodePlan) -> Iterator[File]:
    """Yield the files of the policy, for a control plane."""
    cluster = plan.cluster
    if not node.has(Role.CONTROL_PLANE):
        return
    if "admission-config" in plan.features and cluster.admission:
        yield _make_yaml("admission.yaml", make_admission(cluster, cluster.admission), "admission")
        yield from _make_manifests(cluster.admission)
    issuers = cluster.authentication.oidc if cluster.authentication else ()
    if "authentication-config" in plan.features:
        made = make_authentication(cluster, issuers)
        yield _make_yaml("authentication.yaml", made, "authentication.oidc")
    elif issuers and issuers[0].ca:
        path, pem = f"rootfs{POLICY}/oidc-ca.crt", issuers[0].ca.read_bytes()
        yield File(path=path, mode=0o644, content=pem, origin="authentication.oidc")
    if "authorization-config" in plan.features and cluster.authorization:
        made = make_authorization(cluster, cluster.authorization.webhooks)
        yield _make_yaml("authorization.yaml", made, "authorization")
    if cluster.encryption.kms and (plugin := cluster.encryption.kms.plugin):
        yield from _make_plugin(plugin)
    for name, where, webhook in list_webhooks(cluster):
        content = render_webhook_kubeconfig(
            name=name, server=webhook.url,
            ca_pem=webhook.ca.read_bytes() if webhook.ca else None,
            certificate_pem=webhook.certificate.read_bytes() if webhook.certificate else None,
            key_pem=webhook.key.read_bytes() if webhook.key else None,
            token=webhook.token.read_text().strip() if webhook.token else None,
        )  # fmt: skip
        origin = ".".join(map(str, where))
        path = f"rootfs{kubeconfig_of(name)}"
        yield File(path=path, mode=SECRET_MODE, content=content, origin=origin)


def _make_plugin(plugin: KmsPlugin) -> Iterator[File]:
    """Yield the program of kube-kms-plugin.service, and its environment."""
    origin, program = "encryption.kms.plugin", plugin.program.read_bytes()
    yield File(path=f"rootfs{KMS_PROGRAM}", mode=0o755, content=program, origin=origin)
    content = plugin.environment.read_bytes() if plugin.environment else b""
    path = f"rootfs{KMS_ENVIRONMENT}"
    yield File(path=path, mode=SECRET_MODE, content=content, origin=origin)


def _make_yaml(name: str, content: dict[str, Any], origin: str) -> File:
    text = f"{dump_yaml(content)}\n"
    return File(path=f"rootfs{POLICY}/{name}", mode=0o644, content=text.encode(), origin=origin)


def make_admission(cluster: Cluster, admission: Admission) -> dict[str, Any]:
    """Make the AdmissionConfiguration."""
    minor = minor_of(cluster.kubernetes.version)
    plugins: dict[str, dict[str, Any]] = {}
    if limits := admission.event_rate_limit:
        plugins["EventRateLimit"] = {
            "apiVersion": "eventratelimit.admission.k8s.io/v1alpha1",
            "kind": "Configuration",
            "limits": [
                {"type": one.type, "qps": one.qps, "burst": one.burst}
                | ({"cacheSize": one.cache_size} if one.cache_size else {})
                for one in limits
            ],
        }
    if image := admission.image_policy:
        plugins["ImagePolicyWebhook"] = {
            "imagePolicy": {
                "kubeConfigFile": kubeconfig_of("image-policy"),
                "allowTTL": image.allow_ttl,
                "denyTTL": image.deny_ttl,
                "retryBackoff": image.retry_backoff,
                "defaultAllow": image.default_allow,
            }
        }
    pods = admission.pod_security
    if pods and name_pod_security(cluster) == "PodSecurity":
        plugins["PodSecurity"] = {
            "apiVersion": row_for(POD_SECURITY_API, minor),
            "kind": "PodSecurityConfiguration",
            "defaults": {
                "enforce": pods.enforce, "enforce-version": pods.enforce_version,
                "audit": pods.audit, "audit-version": pods.audit_version,
                "warn": pods.warn, "warn-version": pods.warn_version,
            },
            "exemptions": {
                "usernames": list(pods.exempt_users),
                "runtimeClasses": list(pods.exempt_runtime_classes),
                "namespaces": list(pods.exempt_namespaces),
            },
        }  # fmt: skip
    for plugin in _sort_manifests(admission):
        plugins[plugin] = {
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": MANIFEST_CONFIGS[plugin],
            "staticManifestsDir": f"{POLICY}/{plugin}",
        }
    return {
        "apiVersion": row_for(ADMISSION_API, minor),
        "kind": "AdmissionConfiguration",
        "plugins": [{"name": name, "configuration": plugins[name]} for name in sorted(plugins)],
    }


def _sort_manifests(admission: Admission) -> dict[str, list[str]]:
    """The texts of `admission.manifests` by the plugin that reads them."""
    found: dict[str, list[str]] = {}
    for path in admission.manifests:
        text = path.read_text(encoding="utf-8-sig")
        kind = read_document(text).data["kind"]
        found.setdefault(MANIFEST_PLUGINS[kind], []).append(text)
    return dict(sorted(found.items()))


def _make_manifests(admission: Admission) -> Iterator[File]:
    """Yield one file for each plugin, with its objects in the order of cluster.yaml."""
    for plugin, texts in _sort_manifests(admission).items():
        content = "---\n".join(text if text.endswith("\n") else f"{text}\n" for text in texts)
        path = f"rootfs{POLICY}/{plugin}/manifests.yaml"
        yield File(path=path, mode=0o644, content=content.encode(), origin="admission.manifests")


def make_authentication(cluster: Cluster, issuers: tuple[Oidc, ...]) -> dict[str, Any]:
    """Make the AuthenticationConfiguration."""
    minor = minor_of(cluster.kubernetes.version)
    return {
        "apiVersion": row_for(AUTHENTICATION_API, minor),
        "kind": "AuthenticationConfiguration",
        "jwt": [_make_issuer(issuer) for issuer in issuers],
    }


def _make_issuer(issuer: Oidc) -> dict[str, Any]:
    about: dict[str, Any] = {"url": issuer.issuer}
    if issuer.discovery_url:
        about["discoveryURL"] = issuer.discovery_url
    if issuer.ca:
        about["certificateAuthority"] = issuer.ca.read_text()
    about["audiences"] = list(issuer.audiences)
    if len(issuer.audiences) > 1:
        about["audienceMatchPolicy"] = "MatchAny"
    rules = [
        *(
            {"claim": name, "requiredValue": value}
            for name, value in issuer.required_claims.items()
        ),
        *(rule.model_dump(exclude_none=True) for rule in issuer.claim_rules),
    ]
    mappings = {"username": issuer.username.model_dump()}
    if issuer.groups:
        mappings["groups"] = issuer.groups.model_dump()
    made: dict[str, Any] = {"issuer": about}
    if rules:
        made["claimValidationRules"] = rules
    made["claimMappings"] = mappings
    if issuer.user_rules:
        made["userValidationRules"] = [r.model_dump(exclude_none=True) for r in issuer.user_rules]
    return made


def make_authorization(
    cluster: Cluster, webhooks: tuple[AuthorizationWebhook, ...]
) -> dict[str, Any]:
    """Make the AuthorizationConfiguration: Node and RBAC, and the servers before and after them."""
    minor = minor_of(cluster.kubernetes.version)
    before = [_make_authorizer(one) for one in webhooks if one.position == "first"]
    after = [_make_authorizer(one) for one in webhooks if one.position == "last"]
    own = [{"type": "Node", "name": "node"}, {"type": "RBAC", "name": "rbac"}]
    return {
        "apiVersion": row_for(AUTHORIZATION_API, minor),
        "kind": "AuthorizationConfiguration",
        "authorizers": [*before, *own, *after],
    }


def _make_authorizer(webhook: AuthorizationWebhook) -> dict[str, Any]:
    return {
        "type": "Webhook",
        "name": webhook.name,
        "webhook": {
            "authorizedTTL": f"{webhook.authorized_ttl}s",
            "unauthorizedTTL": f"{webhook.unauthorized_ttl}s",
            "timeout": f"{webhook.timeout}s",
            "subjectAccessReviewVersion": "v1",
            "matchConditionSubjectAccessReviewVersion": "v1",
            "failurePolicy": webhook.failure_policy,
            "connectionInfo": {
                "type": "KubeConfigFile",
                "kubeConfigFile": kubeconfig_of(f"authorization-{webhook.name}"),
            },
            "matchConditions": [one.model_dump() for one in webhook.match_conditions],
        },
    }
