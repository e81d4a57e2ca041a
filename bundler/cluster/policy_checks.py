"""Checks of `admission`, `authentication`, `authorization` and `audit.webhook`.

The rules are those of the API server: k8s.io/apiserver, pkg/apis/apiserver/validation, and
plugin/pkg/admission/eventratelimit and imagepolicy of Kubernetes.
"""

import re
from collections.abc import Iterator
from typing import Any

from bundler.cluster.accepted import is_within
from bundler.cluster.client_checks import check_client
from bundler.cluster.components import key_of, minor_of
from bundler.cluster.parts import YamlFile, read_yaml
from bundler.cluster.policy import (
    KMS_SPANS,
    MANIFESTS_DEFAULT_SINCE,
    MANIFESTS_GATE,
    MANIFESTS_SINCE,
    PLUGINS,
    POD_SECURITY_SINCE,
    STRUCTURED_SINCE,
    is_structured,
    list_plugins,
    list_webhooks,
)
from bundler.cluster.problem import Problem, suggest
from bundler.cluster.schema import Cluster
from bundler.cluster.schema_encryption import KmsPlugin
from bundler.cluster.schema_policy import (
    Admission,
    Authorization,
    Oidc,
    PodSecurity,
    Webhook,
)
from bundler.cluster.sourced import make_plain
from bundler.errors import ConfigError

Where = tuple[str | int, ...]

POLICY_KEYS = ("enforce", "exempt_namespaces", "exempt_users")
"""Keys of `admission.pod_security` that a PodSecurityPolicy can express."""

VARIABLE = re.compile(rb"([A-Za-z_][A-Za-z0-9_]*=[^\x00-\x08\x0a-\x1f]*|[ \t]*|#.*)")
"""A line of an environment file: systemd.exec(5), EnvironmentFile."""

STATIC_SUFFIX = ".static.k8s.io"
MANIFEST_PLUGINS = {
    "ValidatingAdmissionPolicy": "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding": "ValidatingAdmissionPolicy",
    "MutatingAdmissionPolicy": "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding": "MutatingAdmissionPolicy",
    "ValidatingWebhookConfiguration": "ValidatingAdmissionWebhook",
    "MutatingWebhookConfiguration": "MutatingAdmissionWebhook",
}
"""Kind of an object in `admission.manifests` → the plugin that reads it."""

ADD_ONS = {
    "metrics-server": (("baseline", "restricted"), "uses the host's network"),
    "CoreDNS": (("restricted",), "may run as root"),
}
"""Add-on of the bundle → the levels of the Pod Security Standards that forbid its pods, and why."""

MANIFEST_API = "admissionregistration.k8s.io/v1"


def check_policy(cluster: Cluster) -> Iterator[Problem]:
    """What an API server of the minor would refuse, or could not do."""
    for _, where, webhook in list_webhooks(cluster):
        yield from _check_webhook(webhook, where)
    yield from _check_encryption(cluster)
    if cluster.admission:
        yield from _check_admission(cluster, cluster.admission)
    if cluster.authentication:
        yield from _check_issuers(cluster, cluster.authentication.oidc)
    if cluster.authorization:
        yield from _check_authorization(cluster, cluster.authorization)


def _check_encryption(cluster: Cluster) -> Iterator[Problem]:
    resources = cluster.encryption.resources
    if "secrets" not in resources or len(set(resources)) < len(resources):
        text = "must have secrets, and each resource once"
        yield Problem(path=("encryption", "resources"), text=text)
    kms, minor = cluster.encryption.kms, minor_of(cluster.kubernetes.version)
    where: Where = ("encryption", "kms")
    if kms is None:
        if cluster.encryption.provider == "kms":
            text = "kms needs encryption.kms: name the plugin and its socket there"
            yield Problem(path=("encryption", "provider"), text=text)
        return
    if not is_within(*KMS_SPANS[kms.version], minor):
        text = f"Kubernetes {minor} has no {kms.version} by default: v1 is up to 1.28, v2 from 1.27"
        yield Problem(path=(*where, "version"), text=text)
    if kms.name.startswith("key"):
        text = "must not start with key, as bundler's own keys do"
        yield Problem(path=(*where, "name"), text=text)
    if kms.plugin:
        yield from _check_plugin(kms.plugin)


def _check_plugin(plugin: KmsPlugin) -> Iterator[Problem]:
    where: Where = ("encryption", "kms", "plugin")
    for field, path in (("program", plugin.program), ("environment", plugin.environment)):
        if path and not path.is_file():
            yield Problem(path=(*where, field), text=f"{path}: no such file")
    if plugin.environment and plugin.environment.is_file():
        lines = plugin.environment.read_bytes().split(b"\n")
        wrong = [n for n, line in enumerate(lines, 1) if not VARIABLE.fullmatch(line)]
        if wrong:  # its content is secret
            text = f"{plugin.environment}:{wrong[0]}: must be NAME=VALUE, empty, or begin with #"
            yield Problem(path=(*where, "environment"), text=text)
    if plugin.program.is_file():
        with plugin.program.open("rb") as file:
            if file.read(4) != b"\x7fELF":
                text = f"{plugin.program}: is not a program for Linux (ELF)"
                yield Problem(path=(*where, "program"), text=text)


def _check_webhook(webhook: Webhook, where: Where) -> Iterator[Problem]:
    from bundler.formats.client_files import find_token_faults  # noqa: PLC0415 - slow to import

    yield from check_client(webhook, where)
    if webhook.token:
        for text in find_token_faults(webhook.token):
            yield Problem(path=(*where, "token"), text=text)
        if webhook.certificate:
            text = "has a token and a certificate: keep one"
            yield Problem(path=(*where, "token"), text=text)


def _check_admission(cluster: Cluster, admission: Admission) -> Iterator[Problem]:
    minor = minor_of(cluster.kubernetes.version)
    yield from _check_plugins(cluster, admission, minor)
    yield from _check_pod_security(cluster, admission, minor)
    seen: set[str] = set()
    for index, limit in enumerate(admission.event_rate_limit or ()):
        where = ("admission", "event_rate_limit", index)
        if limit.type in seen:
            yield Problem(path=where, text=f"a second limit of type {limit.type}: keep one")
        seen.add(limit.type)
        if limit.type == "Server" and limit.cache_size is not None:
            text = "a limit of type Server remembers nothing: remove it"
            yield Problem(path=(*where, "cache_size"), text=text)
    yield from _check_manifests(cluster, admission, minor)


def _check_plugins(cluster: Cluster, admission: Admission, minor: str) -> Iterator[Problem]:
    own = {
        "EventRateLimit": "event_rate_limit",
        "ImagePolicyWebhook": "image_policy",
        "PodSecurity": "pod_security",
    }
    for index, name in enumerate(admission.plugins):
        where = ("admission", "plugins", index)
        if name in own:
            text = f"{name} needs settings: use admission.{own[name]}"
        elif name not in PLUGINS:
            text = (
                f"{name} is not a plugin that is off by default{suggest(name, list(PLUGINS))};"
                f" known: {', '.join(PLUGINS)}"
            )
        elif not is_within(*PLUGINS[name], minor):
            since, until = PLUGINS[name]
            span = f"{since} has it first" if since else f"{until} no longer has it"
            text = f"Kubernetes {minor} has no plugin {name}: {span}"
        elif name in admission.plugins[:index]:
            text = f"{name} is listed twice: keep one"
        else:
            continue
        yield Problem(path=where, text=text)
    extra = cluster.extra.get("kube-apiserver")
    disabled = str(extra.flags.get("disable-admission-plugins", "")) if extra else ""
    for name in {word.strip() for word in disabled.split(",")} & set(list_plugins(cluster)):
        text = f"{name} is enabled by the key admission: remove it from this list, or that key"
        yield Problem(
            path=("extra", "kube-apiserver", "flags", "disable-admission-plugins"), text=text
        )


def _check_pod_security(cluster: Cluster, admission: Admission, minor: str) -> Iterator[Problem]:
    given, where = admission.pod_security, ("admission", "pod_security")
    if given is None:
        return
    if key_of(minor) < key_of(POD_SECURITY_SINCE):
        default = PodSecurity()
        for key in PodSecurity.model_fields:
            if key not in POLICY_KEYS and getattr(given, key) != getattr(default, key):
                text = (
                    f"Kubernetes {minor} has PodSecurityPolicy, which has no such setting:"
                    f" remove it, or use {POD_SECURITY_SINCE} or later"
                )
                yield Problem(path=(*where, key), text=text)
    for mode in ("enforce", "audit", "warn"):
        version = getattr(given, f"{mode}_version")
        if version != "latest" and key_of(version.removeprefix("v")) > key_of(minor):
            text = f"{version} is newer than Kubernetes {minor}: use latest, or v{minor}"
            yield Problem(path=(*where, f"{mode}_version"), text=text)
    if "kube-system" not in given.exempt_namespaces:
        for name, (forbidding, why) in ADD_ONS.items():
            if given.enforce in forbidding and _has_add_on(cluster, name):
                text = (
                    f"{name} in kube-system {why}, which {given.enforce} forbids: add kube-system"
                )
                yield Problem(path=(*where, "exempt_namespaces"), text=text)


def _has_add_on(cluster: Cluster, name: str) -> bool:
    if name == "CoreDNS":
        return cluster.dns.provider == "coredns"
    return cluster.metrics_server is not None


def _check_manifests(cluster: Cluster, admission: Admission, minor: str) -> Iterator[Problem]:
    if not admission.manifests:
        return
    where: Where = ("admission", "manifests")
    if key_of(minor) < key_of(MANIFESTS_SINCE):
        text = f"Kubernetes {minor} reads no admission manifests: use {MANIFESTS_SINCE} or later"
        yield Problem(path=where, text=text)
    extra = cluster.extra.get("kube-apiserver")
    gates = str(extra.flags.get("feature-gates", "")) if extra else ""
    needed = f"{MANIFESTS_GATE}=true"
    is_off = key_of(minor) < key_of(MANIFESTS_DEFAULT_SINCE) and gates and needed not in gates
    if is_off or f"{MANIFESTS_GATE}=false" in gates:
        text = f"admission.manifests needs the feature gate {needed}: add it"
        yield Problem(path=("extra", "kube-apiserver", "flags", "feature-gates"), text=text)
    objects = []
    for index, path in enumerate(admission.manifests):
        try:
            document = read_yaml(path, "apiVersion, kind, metadata and spec")
        except ConfigError as error:
            for line in error.message.splitlines():
                yield Problem(path=(*where, index), text=line)
            continue
        data = make_plain(document.root)
        faults = list(_find_manifest_faults(data))
        for place, text in faults:
            yield Problem(path=(*where, index), text=document.describe(place, text))
        if not faults:
            objects.append((index, document, data))
    yield from _check_manifest_names(objects, where)


def _find_manifest_faults(data: dict[str, Any]) -> Iterator[tuple[Where, str]]:
    """Yield place and text of what the API server's loader refuses in one object."""
    kind, metadata = data.get("kind"), data.get("metadata")
    if data.get("apiVersion") != MANIFEST_API:
        yield ("apiVersion",), f"must be {MANIFEST_API}"
    if kind not in MANIFEST_PLUGINS:
        yield ("kind",), f"must be one of {', '.join(MANIFEST_PLUGINS)}"
        return
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str) or not name.endswith(STATIC_SUFFIX):
        yield ("metadata", "name"), f"must be a name that ends with {STATIC_SUFFIX}"
    yield from (_find_client_faults if kind.endswith("Configuration") else _find_spec_faults)(data)


def _find_client_faults(data: dict[str, Any]) -> Iterator[tuple[Where, str]]:
    """Yield what is wrong with the servers of a webhook configuration."""
    webhooks = data.get("webhooks")
    if not isinstance(webhooks, list) or not webhooks:
        yield ("webhooks",), "must be a list of webhooks"
        return
    for index, webhook in enumerate(webhooks):
        client = webhook.get("clientConfig") if isinstance(webhook, dict) else None
        if not isinstance(client, dict) or "service" in client or not client.get("url"):
            yield ("webhooks", index), "clientConfig must have a url, and no service"


def _find_spec_faults(data: dict[str, Any]) -> Iterator[tuple[Where, str]]:
    """Yield what is wrong with the spec of a policy or a binding."""
    spec = data.get("spec")
    if not isinstance(spec, dict):
        yield ("spec",), "must be a mapping"
        return
    for field in ("paramKind", "paramRef"):
        if spec.get(field) is not None:
            yield ("spec", field), "is not supported in manifests: remove it"
    is_binding = str(data["kind"]).endswith("Binding")
    if is_binding and not str(spec.get("policyName", "")).endswith(STATIC_SUFFIX):
        yield ("spec", "policyName"), f"must be a name that ends with {STATIC_SUFFIX}"


def _check_manifest_names(
    objects: list[tuple[int, YamlFile, dict[str, Any]]], where: Where
) -> Iterator[Problem]:
    seen: dict[tuple[str, str], int] = {}
    for index, document, data in objects:
        key = data["kind"], data["metadata"]["name"]
        if key in seen:
            text = document.describe(("metadata", "name"), f"{key[1]} is in two files: keep one")
            yield Problem(path=(*where, index), text=text)
        seen[key] = index
    for index, document, data in objects:
        kind = data["kind"].removesuffix("Binding")
        if kind != data["kind"] and (kind, data["spec"]["policyName"]) not in seen:
            text = f"no file has the {kind} {data['spec']['policyName']}"
            described = document.describe(("spec", "policyName"), text)
            yield Problem(path=(*where, index), text=described)


def _check_issuers(cluster: Cluster, issuers: tuple[Oidc, ...]) -> Iterator[Problem]:
    from bundler.formats.client_files import find_ca_faults  # noqa: PLC0415 - slow to import

    structured, where = is_structured(cluster), ("authentication", "oidc")
    minor = minor_of(cluster.kubernetes.version)
    if len(issuers) > 1 and not structured:
        text = (
            f"Kubernetes {minor} accepts one issuer: keep one, or use {STRUCTURED_SINCE} or later"
        )
        yield Problem(path=(*where, 1), text=text)
    for index, issuer in enumerate(issuers):
        at = (*where, index)
        for text in find_ca_faults(issuer.ca) if issuer.ca else ():
            yield Problem(path=(*at, "ca"), text=text)
        if issuer.issuer in {other.issuer for other in issuers[:index]}:
            yield Problem(path=(*at, "issuer"), text=f"{issuer.issuer} is listed twice: keep one")
        if issuer.issuer == f"https://kubernetes.default.svc.{cluster.network.dns_domain}":
            text = "is the cluster's own issuer of service account tokens: give another"
            yield Problem(path=(*at, "issuer"), text=text)
        for field, text in _find_issuer_faults(issuer, structured=structured):
            yield Problem(path=(*at, field), text=text)


def _find_issuer_faults(issuer: Oidc, *, structured: bool) -> Iterator[tuple[str, str]]:
    """Yield key and text of what the minor does not have, or the API server refuses."""
    newer = {
        "audiences": len(issuer.audiences) > 1,
        "discovery_url": issuer.discovery_url is not None,
        "claim_rules": bool(issuer.claim_rules),
        "user_rules": bool(issuer.user_rules),
    }
    for field in (name for name, is_used in newer.items() if is_used and not structured):
        what = "more than one audience" if field == "audiences" else "it"
        yield field, f"{what} needs Kubernetes {STRUCTURED_SINCE} or later"
    if structured and issuer.signing_algorithms:
        yield (
            "signing_algorithms",
            f"has no effect from Kubernetes {STRUCTURED_SINCE} on: remove it",
        )
    if len(set(issuer.audiences)) < len(issuer.audiences) or "" in issuer.audiences:
        yield "audiences", "has an empty or repeated audience"
    url = issuer.discovery_url
    if url is not None and url.rstrip("/") == issuer.issuer.rstrip("/"):
        yield "discovery_url", "is the issuer itself: remove it"
    for claim in issuer.required_claims:
        if not claim or "=" in claim:
            yield "required_claims", f"'{claim}' cannot be the name of a claim"


def _check_authorization(cluster: Cluster, authorization: Authorization) -> Iterator[Problem]:
    structured, where = is_structured(cluster), ("authorization", "webhooks")
    minor = minor_of(cluster.kubernetes.version)
    if len(authorization.webhooks) > 1 and not structured:
        text = f"Kubernetes {minor} asks one server: keep one, or use {STRUCTURED_SINCE} or later"
        yield Problem(path=(*where, 1), text=text)
    names: set[str] = {"node", "rbac"}
    for index, webhook in enumerate(authorization.webhooks):
        at = (*where, index)
        if webhook.name in names:
            text = f"{webhook.name} is the name of another authorizer: give another"
            yield Problem(path=(*at, "name"), text=text)
        names.add(webhook.name)
        newer = {
            "position": webhook.position != "last",
            "failure_policy": webhook.failure_policy != "NoOpinion",
            "match_conditions": bool(webhook.match_conditions),
            "timeout": webhook.timeout != type(webhook).model_fields["timeout"].default,
        }
        for field in (name for name, is_given in newer.items() if is_given and not structured):
            text = f"needs Kubernetes {STRUCTURED_SINCE} or later: remove it"
            yield Problem(path=(*at, field), text=text)
