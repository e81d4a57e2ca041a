"""Schema of cluster.yaml: tls, admission, authentication and authorization."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from bundler.cluster.values import DnsLabel, DnsName, Kind, Model, WebAddress


def _check_https(value: str) -> str:
    if not value.startswith("https://"):
        raise ValueError("must start with https://")
    if "@" in value or "?" in value or "#" in value:
        raise ValueError("must have no user, ? or #")
    return value


HttpsUrl = Annotated[WebAddress, AfterValidator(_check_https), Kind("URL")]

CIPHER_SUITES = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256": "ECDHE-ECDSA-AES128-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256": "ECDHE-RSA-AES128-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_RSA_WITH_AES_128_GCM_SHA256": "AES128-GCM-SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384": "AES256-GCM-SHA384",
}
"""The suites of TLS 1.2 that may be chosen: IANA's name, which Go has too → OpenSSL's name.

Go's suites with RC4 and 3DES are left out. TLS 1.3 has suites of its own, which Go always offers.
"""

CipherSuite = StrEnum("CipherSuite", {name: name for name in CIPHER_SUITES})  # type: ignore[misc]


class Tls(Model):
    """What every server of the cluster accepts."""

    min_version: Literal["TLS1.2", "TLS1.3"] | None = Field(
        default=None,
        description="The oldest version of TLS that API server, controller manager, scheduler,"
        " kubelet, etcd and metrics-server accept. `TLS1.3` needs Kubernetes 1.17 or later, etcd"
        " 3.4.25 or 3.5.8 or later, and hosts with OpenSSL 1.1.1. Default: TLS 1.2.",
    )
    cipher_suites: Annotated[tuple[CipherSuite, ...], Field(min_length=1)] | None = Field(
        default=None,
        description="The cipher suites that these servers accept with TLS 1.2; those of TLS 1.3"
        " cannot be chosen. Suites for ECDSA and for RSA keys are needed. Default: those of each"
        " program. Example: `[TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,"
        " TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]`.",
    )


ClientCertificate = Annotated[
    Path | None,
    Field(
        description="A PEM file with the client certificate that control planes show, with `key`."
        " Default: none."
    ),
]
ClientKey = Annotated[
    Path | None,
    Field(
        description="A PEM file with the private key of `certificate`. It is in the bundles of the"
        " control planes, in a file that only root can read. Default: none."
    ),
]


class Webhook(Model):
    """A server of the site that API servers ask or tell, over HTTPS."""

    url: HttpsUrl = Field(
        description="The URL of the server. Example: `https://policy.example:8443/review`."
    )
    ca: Path | None = Field(
        default=None,
        description="A PEM file with the CA certificates to trust for it; the path is relative to"
        " cluster.yaml. Default: the CAs that the host trusts.",
    )
    certificate: ClientCertificate = None
    key: ClientKey = None
    token: Path | None = Field(
        default=None,
        description="A file with the bearer token that the API servers send, instead of a"
        " certificate. It is in the bundles as `key` is. Default: none.",
    )


PodSecurityLevel = Literal["privileged", "baseline", "restricted"]
LevelVersion = Annotated[
    str, Field(pattern=r"^(latest|v1\.[0-9]{1,3})$"), Kind("`latest` or a minor such as v1.33")
]


class PodSecurity(Model):
    """Pod Security Standards for namespaces that have no labels of their own."""

    enforce: PodSecurityLevel = Field(
        default="privileged", description="Pods that do not meet it are refused."
    )
    enforce_version: LevelVersion = Field(
        default="latest", description="The version of the standard that `enforce` means."
    )
    audit: PodSecurityLevel = Field(
        default="privileged", description="Pods that do not meet it are noted in the audit log."
    )
    audit_version: LevelVersion = Field(
        default="latest", description="The version of the standard that `audit` means."
    )
    warn: PodSecurityLevel = Field(
        default="privileged", description="Clients that create such pods are warned."
    )
    warn_version: LevelVersion = Field(
        default="latest", description="The version of the standard that `warn` means."
    )
    exempt_namespaces: tuple[DnsLabel, ...] = Field(
        default=("kube-system",),
        description="Namespaces that no level holds for. metrics-server in kube-system uses the"
        " host's network, which only `privileged` allows.",
    )
    exempt_users: tuple[str, ...] = Field(
        default=(), description="Users whose pods no level holds for; not service accounts."
    )
    exempt_runtime_classes: tuple[DnsName, ...] = Field(
        default=(), description="RuntimeClasses whose pods no level holds for."
    )


class EventLimit(Model):
    """How many events may be created."""

    type: Literal["Server", "Namespace", "User", "SourceAndObject"] = Field(
        description="What the limit is for: the API server as a whole, each namespace, each user,"
        " or each combination of a source and an object."
    )
    qps: int = Field(ge=1, le=100000, description="Events a second.")
    burst: int = Field(ge=1, le=1000000, description="Events at once.")
    cache_size: int | None = Field(
        default=None,
        ge=1,
        le=1000000,
        description="How many namespaces, users or combinations are remembered; not with `Server`."
        " Default: 4096.",
    )


class ImagePolicyWebhook(Webhook):
    """A server that decides which images pods may use (`imagepolicy.k8s.io/v1alpha1`)."""

    allow_ttl: int = Field(
        default=50, ge=1, le=1800, description="Seconds that an approval is remembered."
    )
    deny_ttl: int = Field(
        default=50, ge=1, le=1800, description="Seconds that a refusal is remembered."
    )
    retry_backoff: int = Field(
        default=500, ge=1, le=300000, description="Milliseconds between two tries."
    )
    default_allow: bool = Field(
        default=False,
        description="Allow every image while the server does not answer; a weak setting.",
    )


class Admission(Model):
    """What API servers check before they store an object."""

    plugins: tuple[str, ...] = Field(
        default=(),
        description="More admission plugins, in addition to those of upstream's default,"
        " NodeRestriction, and those of the other keys here. Example: `[AlwaysPullImages]`.",
    )
    pod_security: PodSecurity | None = Field(
        default=None,
        description="Pod Security Standards for namespaces without labels of their own. Before"
        " Kubernetes 1.23 PodSecurityPolicies enforce them, for all namespaces, and nothing warns."
        " Example: `{enforce: baseline, exempt_namespaces: [kube-system, storage]}`.",
    )
    event_rate_limit: Annotated[tuple[EventLimit, ...], Field(min_length=1)] | None = Field(
        default=None,
        description="Limits for the creation of events, one of each type at most."
        " Example: `[{type: Namespace, qps: 50, burst: 100}]`.",
    )
    image_policy: ImagePolicyWebhook | None = Field(
        default=None, description="A server that decides which images pods may use."
    )
    manifests: tuple[Path, ...] = Field(
        default=(),
        description="YAML files with admission policies, their bindings, and webhook configurations"
        " (`admissionregistration.k8s.io/v1`) that nobody can change through the API, from"
        " Kubernetes 1.36 on. Their names end with `.static.k8s.io`.",
    )


class Claim(Model):
    """Which claim of a token names the user or the groups."""

    claim: str = Field(min_length=1, description="The name of the claim. Example: `email`.")
    prefix: str = Field(
        default="oidc:",
        description="What is put before its value, so that no token can name a user or group of the"
        " cluster itself; an empty one is a weak setting.",
    )


class ClaimRule(Model):
    """A condition for the claims of a token, as an expression in CEL."""

    expression: str = Field(
        min_length=1,
        description="An expression in CEL that must be true."
        " Example: `claims.hd == 'example.com'`.",
    )
    message: str | None = Field(
        default=None, description="What the log says if it is not. Default: the expression."
    )


class Oidc(Model):
    """An issuer of OpenID Connect tokens that API servers accept."""

    issuer: HttpsUrl = Field(
        description="The URL of the issuer, as `iss` in its tokens. Every API server must reach it."
        " Example: `https://login.example/realms/site`."
    )
    audiences: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        description="The audiences of which a token must have one, as `aud`; before Kubernetes 1.30"
        " exactly one. Example: `[kubernetes]`."
    )
    ca: Path | None = Field(
        default=None,
        description="A PEM file with the CA certificates to trust for the issuer; the path is"
        " relative to cluster.yaml. Default: the CAs that the host trusts.",
    )
    username: Claim = Field(
        default=Claim(claim="sub"), description="The claim that is the name of the user."
    )
    groups: Claim | None = Field(
        default=None,
        description="The claim that lists the user's groups. Default: no groups."
        " Example: `{claim: groups}`.",
    )
    required_claims: dict[str, str] = Field(
        default_factory=dict,
        description="Claims that a token must have, with their values."
        " Example: `{hd: example.com}`.",
    )
    signing_algorithms: tuple[
        Literal["RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512"],
        ...,
    ] = Field(
        default=(),
        description="The algorithms with which a token may be signed, before Kubernetes 1.30."
        " Default: RS256; from 1.30 on all of these.",
    )
    discovery_url: HttpsUrl | None = Field(
        default=None,
        description="Where the issuer's configuration is, from Kubernetes 1.30 on. Default: at the"
        " issuer, below `/.well-known/openid-configuration`.",
    )
    claim_rules: tuple[ClaimRule, ...] = Field(
        default=(), description="Conditions for the claims of a token, from Kubernetes 1.30 on."
    )
    user_rules: tuple[ClaimRule, ...] = Field(
        default=(),
        description="Conditions for the user that a token names, from Kubernetes 1.30 on."
        " Example: `[{expression: \"!user.username.startsWith('system:')\"}]`.",
    )


class TokenWebhook(Webhook):
    """A server that says whose a bearer token is (TokenReview)."""

    cache_ttl: int = Field(
        default=120, ge=0, le=3600, description="Seconds that an answer is remembered."
    )


class Authentication(Model):
    """Whom API servers know, in addition to certificates, service accounts and bootstrap tokens."""

    oidc: tuple[Oidc, ...] = Field(
        default=(),
        description="Issuers of OpenID Connect tokens; before Kubernetes 1.30 one at most. Rendered"
        " as flags before 1.30, then as an AuthenticationConfiguration.",
    )
    webhook: TokenWebhook | None = Field(
        default=None, description="A server that says whose a bearer token is."
    )


class MatchCondition(Model):
    """Which requests the server is asked about, as an expression in CEL."""

    expression: str = Field(
        min_length=1,
        description="An expression in CEL. Example: `!('system:nodes' in request.groups)`.",
    )


class AuthorizationWebhook(Webhook):
    """A server that is asked whether a request is allowed (SubjectAccessReview)."""

    name: DnsName = Field(
        default="webhook", description="The name in logs and metrics, from Kubernetes 1.30 on."
    )
    position: Literal["first", "last"] = Field(
        default="last",
        description="Whether it is asked before Node and RBAC, where it can refuse what they allow,"
        " or after them. `first` needs Kubernetes 1.30.",
    )
    authorized_ttl: int = Field(
        default=300, ge=1, le=3600, description="Seconds that a permission is remembered."
    )
    unauthorized_ttl: int = Field(
        default=30, ge=1, le=3600, description="Seconds that a refusal is remembered."
    )
    timeout: int = Field(
        default=3, ge=1, le=30, description="Seconds for an answer, from Kubernetes 1.30 on."
    )
    failure_policy: Literal["NoOpinion", "Deny"] = Field(
        default="NoOpinion",
        description="What no answer means: the next authorizer decides, or the request is refused."
        " `Deny` needs Kubernetes 1.30.",
    )
    match_conditions: Annotated[tuple[MatchCondition, ...], Field(max_length=64)] = Field(
        default=(),
        description="Only requests for which all are true are sent, from Kubernetes 1.30 on.",
    )


class Authorization(Model):
    """Who may do what, in addition to Node and RBAC, which are always in force."""

    webhooks: tuple[AuthorizationWebhook, ...] = Field(
        default=(),
        description="Servers that are asked whether a request is allowed; before Kubernetes 1.30"
        " one at most. Rendered as flags before 1.30, then as an AuthorizationConfiguration.",
    )
