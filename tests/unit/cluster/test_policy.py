"""Policy keys: what is refused, what weakens, and the files and flags of each minor."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from support.ca import CertificateAuthority
from support.external_ca_cluster import describe
from support.projects import open_plan
from support.rendered_flags import render_flags

from bundler.cache.store import Cache
from bundler.cluster.components import MINORS
from bundler.cluster.loader import load_cluster
from bundler.errors import ConfigError
from bundler.project import Inputs
from bundler.render.bundle_manifest import ContentSource
from bundler.render.node import render_node, sort_site_files
from bundler.render.tree import Tree

FOLDER = "rootfs/etc/kubernetes/policy"
URL = "https://site.example:8443/x"
ISSUER = {"issuer": "https://login.example", "audiences": ["own"]}
PATCHES = {minor: f"{minor}.3" for minor in MINORS} | {"1.20": "1.20.2", "1.37": "1.37.1"}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A directory with the files that webhooks need, and files that they cannot use."""
    (tmp_path / "site").mkdir()
    ca = CertificateAuthority(tmp_path / "site", "ca")
    for name in ("client", "other"):
        ca.issue(name, [x509.DNSName(name)])
    (tmp_path / "site/token").write_text("hush-hush-token\n")
    (tmp_path / "site/two words").write_text("two words\n")
    (tmp_path / "site/empty.pem").write_text("")
    return tmp_path


def write(directory: Path, version: str = "1.33.5", **keys: object) -> Path:
    data = describe("192.0.2.1") | {"kubernetes": {"version": version}, "etcd": {}, **keys}
    if "nodes" not in keys:
        data["nodes"] = [
            {"name": "one", "address": "192.0.2.1", "roles": ["etcd", "control-plane"]},
            {"name": "two", "address": "192.0.2.2", "roles": ["worker"]},
        ]
    path = directory / "cluster.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


def refuse(directory: Path, version: str = "1.33.5", **keys: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load_cluster(write(directory, version, **keys))
    return caught.value.message


def render(directory: Path, version: str = "1.33.5", node: int = 0, **keys: object) -> Tree:
    path = write(directory, version, **keys)
    cluster = load_cluster(path).cluster
    inputs = Inputs(description=path, cache=Cache(directory / "cache"))
    with open_plan(cluster, inputs) as (plan, secrets):
        return render_node(plan, plan.nodes[node], secrets)


def read(tree: Tree, name: str) -> Any:
    content = tree[f"{FOLDER}/{name}"].content
    assert isinstance(content, bytes)
    return yaml.safe_load(content)


def webhook(**more: object) -> dict[str, object]:
    return {
        "url": URL,
        "ca": "site/ca.crt",
        "certificate": "site/client.crt",
        "key": "site/client.key",
        **more,
    }


PSP = {"admission": {"plugins": ["PodSecurityPolicy"]}}
RIGHTS = {"url": URL}
REFUSED = [
    ("1.33.5", {"admission": {"plugins": ["EventRateLimit"]}}, "admission.plugins[0]: EventRateLimit needs settings: use admission.event_rate_limit"),
    ("1.33.5", {"admission": {"plugins": ["AlwaysPullImage"]}}, "did you mean 'AlwaysPullImages'"),
    ("1.33.5", {"admission": {"plugins": ["AlwaysAdmit"]}}, "AlwaysAdmit is not a plugin that is off by default"),
    ("1.33.5", {"admission": {"plugins": ["AlwaysPullImages", "AlwaysPullImages"]}}, "is listed twice"),
    ("1.25.3", PSP, "Kubernetes 1.25 has no plugin PodSecurityPolicy: 1.25 no longer has it"),
    ("1.20.2", {"admission": {"plugins": ["DenyServiceExternalIPs"]}}, "1.21 has it first"),
    ("1.22.3", {"admission": {"pod_security": {"warn": "restricted"}}}, "admission.pod_security.warn: Kubernetes 1.22 has PodSecurityPolicy, which has no such setting: remove it, or use 1.23"),
    ("1.20.2", {"admission": {"pod_security": {"exempt_runtime_classes": ["kata"]}}}, "exempt_runtime_classes: Kubernetes 1.20 has PodSecurityPolicy"),
    ("1.20.2", {"admission": {"pod_security": {"enforce_version": "v1.19"}}}, "enforce_version: Kubernetes 1.20 has PodSecurityPolicy"),
    ("1.20.2", {"metrics_server": {}, "admission": {"pod_security": {"enforce": "baseline", "exempt_namespaces": []}}}, "add kube-system"),
    ("1.33.5", {"admission": {"pod_security": {"enforce": "strict"}}}, "must be 'privileged', 'baseline' or 'restricted', not 'strict'"),
    ("1.33.5", {"admission": {"pod_security": {"warn_version": "v1.34"}}}, "v1.34 is newer than Kubernetes 1.33"),
    ("1.33.5", {"admission": {"pod_security": {"warn_version": "1.33"}}}, "warn_version"),
    ("1.33.5", {"metrics_server": {}, "admission": {"pod_security": {"enforce": "baseline", "exempt_namespaces": []}}}, "add kube-system"),
    ("1.33.5", {"dns": {"provider": "coredns"}, "admission": {"pod_security": {"enforce": "restricted", "exempt_namespaces": []}}}, "CoreDNS in kube-system may run as root, which restricted forbids"),
    ("1.33.5", {"admission": {"event_rate_limit": []}}, "must not be empty"),
    ("1.33.5", {"admission": {"event_rate_limit": [{"type": "User", "qps": 1, "burst": 1}] * 2}}, "a second limit of type User: keep one"),
    ("1.33.5", {"admission": {"event_rate_limit": [{"type": "Server", "qps": 1, "burst": 1, "cache_size": 9}]}}, "remembers nothing"),
    ("1.33.5", {"admission": {"image_policy": {"url": "http://site.example/x"}}}, "must start with https://"),
    ("1.33.5", {"admission": {"image_policy": {"url": "https://me:pw@site.example/x"}}}, "must have no user, ? or #"),
    ("1.33.5", {"admission": {"image_policy": {}}}, "admission.image_policy.url: is missing"),
    ("1.35.3", {"admission": {"manifests": ["site/none.yaml"]}}, "Kubernetes 1.35 reads no admission manifests: use 1.36 or later"),
    ("1.36.4", {"admission": {"manifests": ["site/none.yaml"]}}, "none.yaml: No such file"),
    ("1.33.5", {"encryption": {"provider": "kms"}}, "kms needs encryption.kms"),
    ("1.26.3", {"encryption": {"provider": "kms", "kms": {"name": "vault"}}}, "Kubernetes 1.26 has no v2 by default"),
    ("1.29.3", {"encryption": {"provider": "kms", "kms": {"name": "vault", "version": "v1"}}}, "Kubernetes 1.29 has no v1 by default"),
    ("1.33.5", {"encryption": {"resources": ["configmaps"]}}, "must have secrets, and each resource once"),
    ("1.33.5", {"encryption": {"resources": ["secrets", "pods"]}}, "must be 'secrets' or 'configmaps', not 'pods'"),
    ("1.33.5", {"encryption": {"kms": {"name": "key1"}}}, "must not start with key"),
    ("1.33.5", {"encryption": {"kms": {"name": "vault", "plugin": {"program": "site/none"}}}}, "none: no such file"),
    ("1.33.5", {"encryption": {"kms": {"name": "vault", "plugin": {"program": "site/token", "environment": "site/token"}}}}, "site/token:1: must be NAME=VALUE"),
    ("1.33.5", {"encryption": {"kms": {"name": "vault", "plugin": {"program": "site/token"}}}}, "is not a program for Linux (ELF)"),
    ("1.33.5", {"audit": {"webhook": webhook(ca="site/none.crt")}}, "audit.webhook.ca: "),
    ("1.33.5", {"audit": {"webhook": webhook(ca="site/empty.pem")}}, "must be a PEM file with certificates"),
    ("1.33.5", {"audit": {"webhook": webhook(ca="site/ca.key")}}, "has a private key: keep only certificates"),
    ("1.33.5", {"audit": {"webhook": webhook(key="site/other.key")}}, "other.key: is not the key of"),
    ("1.33.5", {"audit": {"webhook": webhook(key="site/empty.pem")}}, "must be a PEM file with a private key"),
    ("1.33.5", {"audit": {"webhook": {"url": URL, "certificate": "site/client.crt"}}}, "add key"),
    ("1.33.5", {"audit": {"webhook": webhook(token="site/token")}}, "has a token and a certificate: keep one"),
    ("1.33.5", {"audit": {"webhook": {"url": URL, "token": "site/two words"}}}, "must hold one line with a token"),
    ("1.29.3", {"authentication": {"oidc": [ISSUER, ISSUER | {"issuer": "https://b.example"}]}}, "Kubernetes 1.29 accepts one issuer: keep one, or use 1.30 or later"),
    ("1.33.5", {"authentication": {"oidc": [ISSUER, ISSUER]}}, "https://login.example is listed twice"),
    ("1.29.3", {"authentication": {"oidc": [ISSUER | {"audiences": ["a", "b"]}]}}, "more than one audience needs Kubernetes 1.30"),
    ("1.33.5", {"authentication": {"oidc": [ISSUER | {"audiences": ["a", "a"]}]}}, "has an empty or repeated audience"),
    ("1.29.3", {"authentication": {"oidc": [ISSUER | {"user_rules": [{"expression": "true"}]}]}}, "user_rules: it needs Kubernetes 1.30"),
    ("1.33.5", {"authentication": {"oidc": [ISSUER | {"signing_algorithms": ["ES256"]}]}}, "has no effect from Kubernetes 1.30 on"),
    ("1.33.5", {"authentication": {"oidc": [ISSUER | {"discovery_url": "https://login.example/"}]}}, "is the issuer itself: remove it"),
    ("1.33.5", {"authentication": {"oidc": [ISSUER | {"issuer": "https://kubernetes.default.svc.cluster.local"}]}}, "is the cluster's own issuer"),
    ("1.29.3", {"authorization": {"webhooks": [RIGHTS, RIGHTS | {"name": "b"}]}}, "Kubernetes 1.29 asks one server"),
    ("1.33.5", {"authorization": {"webhooks": [RIGHTS, RIGHTS]}}, "webhook is the name of another authorizer"),
    ("1.33.5", {"authorization": {"webhooks": [RIGHTS | {"name": "rbac"}]}}, "rbac is the name of another authorizer"),
    ("1.29.3", {"authorization": {"webhooks": [RIGHTS | {"position": "first"}]}}, "position: needs Kubernetes 1.30 or later"),
    ("1.29.3", {"authorization": {"webhooks": [RIGHTS | {"failure_policy": "Deny"}]}}, "failure_policy: needs Kubernetes 1.30"),
    ("1.33.5", {"authorization": {"webhooks": [RIGHTS | {"unauthorized_ttl": 0}]}}, "unauthorized_ttl"),
]  # fmt: skip


@pytest.mark.parametrize(("version", "keys", "said"), REFUSED)
def test_what_the_api_server_would_refuse_is_an_error(
    site: Path, version: str, keys: dict[str, object], said: str
) -> None:
    assert said in refuse(site, version, **keys)


@pytest.mark.parametrize(
    ("flag", "value", "keys"),
    [
        ("admission-control-config-file", "/a", {"admission": {"plugins": []}}),
        ("enable-admission-plugins", "NodeRestriction", {"admission": {"plugins": ["AlwaysPullImages"]}}),
        ("oidc-client-id", "x", {"authentication": {"oidc": [ISSUER]}}),
        ("authentication-token-webhook-config-file", "/a", {"authentication": {"webhook": {"url": URL}}}),
        ("authorization-mode", "Node,RBAC", {"authorization": {"webhooks": [RIGHTS]}}),
        ("audit-webhook-config-file", "/a", {"audit": {"webhook": {"url": URL}}}),
        ("audit-log-maxage", 40, {"audit": {"log": {"max_age_days": 30}}}),
    ],
)  # fmt: skip
def test_extra_cannot_contradict_a_key(
    site: Path, flag: str, value: object, keys: dict[str, object]
) -> None:
    extra = {"kube-apiserver": {"flags": {flag: value}}}
    said = refuse(site, extra=extra, **keys)
    assert f"extra.kube-apiserver.flags.{flag}: cluster.yaml has " in said
    load_cluster(write(site, extra=extra))


def test_a_plugin_of_a_key_cannot_be_disabled(site: Path) -> None:
    extra = {"kube-apiserver": {"flags": {"disable-admission-plugins": "PodSecurity"}}}
    said = refuse(site, extra=extra, admission={"pod_security": {}})
    assert "PodSecurity is enabled by the key admission" in said


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("image-policy-default-allow", {"admission": {"image_policy": {"url": URL, "default_allow": True}}}),
        ("pod-security-exempt-users", {"admission": {"pod_security": {"exempt_users": ["ci"]}}}),
        ("oidc-no-prefix", {"authentication": {"oidc": [ISSUER | {"username": {"claim": "sub", "prefix": ""}}]}}),
        ("oidc-no-prefix", {"authentication": {"oidc": [ISSUER | {"groups": {"claim": "g", "prefix": ""}}]}}),
        ("apiserver-audit", {"audit": {"log": {"max_age_days": 3}}}),
        ("apiserver-audit", {"audit": {"log": {"max_files": 3}}}),
        ("encryption-aesgcm", {"encryption": {"provider": "aesgcm"}}),
    ],
)  # fmt: skip
def test_weak_choices_are_named_until_they_are_accepted(
    site: Path, name: str, keys: dict[str, object]
) -> None:
    assert set(load_cluster(write(site, **keys)).weakenings.values()) == {name}
    assert not load_cluster(write(site, security={"accept": [name]}, **keys)).weakenings


def test_safe_choices_weaken_nothing(site: Path) -> None:
    keys = {
        "admission": {"pod_security": {"enforce": "restricted"}, "image_policy": {"url": URL}},
        "authentication": {"oidc": [ISSUER]}, "audit": {"log": {"max_age_days": 0}, "webhook": {"url": URL}},
    }  # fmt: skip
    assert not load_cluster(write(site, **keys)).weakenings


@pytest.mark.parametrize("minor", MINORS)
def test_the_flags_of_every_minor_are_those_that_the_program_has(site: Path, minor: str) -> None:
    """test_settings.py compares the rows with accepted-flags.tsv; here is which of them are set."""
    number = int(minor.partition(".")[2])
    keys: dict[str, Any] = {
        "authentication": {"oidc": [ISSUER | {"groups": {"claim": "g"}}], "webhook": {"url": URL}},
        "authorization": {"webhooks": [RIGHTS]}, "audit": {"webhook": {"url": URL}, "log": {"max_age_days": 30}},
        "admission": {"event_rate_limit": [{"type": "Server", "qps": 1, "burst": 1}]},
    }  # fmt: skip
    runtime = {"engine": "containerd"}
    cluster = load_cluster(write(site, PATCHES[minor], runtime=runtime, **keys)).cluster
    flags = render_flags(cluster, "kube-apiserver")
    structured = number >= 30
    assert ("authorization-config" in flags, "authentication-config" in flags) == (
        structured,
        structured,
    )
    assert ("authorization-mode" in flags, "oidc-issuer-url" in flags) == (
        not structured,
        not structured,
    )
    assert flags.get("authorization-mode", "Node,RBAC,Webhook") == "Node,RBAC,Webhook"
    assert flags.get("oidc-username-prefix", "oidc:") == "oidc:"
    assert ("authentication-token-webhook-version" in flags) == (number >= 17)
    assert flags["enable-admission-plugins"] == "EventRateLimit,NodeRestriction"
    assert (flags["audit-log-maxage"], flags["audit-log-maxbackup"]) == ("30", "10")
    assert flags["audit-webhook-initial-backoff"] == "10s"


def test_without_keys_nothing_is_rendered(site: Path) -> None:
    tree = render(site)
    assert not [file.path for file in tree if file.path.startswith(FOLDER)]
    unit = tree["rootfs/etc/systemd/system/kube-apiserver.service"].content
    assert isinstance(unit, bytes)
    assert b"/etc/kubernetes/policy" not in unit


@pytest.mark.parametrize(
    ("version", "api", "pods"),
    [
        ("1.16.15", "apiserver.k8s.io/v1alpha1", ""),
        ("1.20.2", "apiserver.config.k8s.io/v1", ""),
        ("1.24.3", "apiserver.config.k8s.io/v1", "v1beta1"),
        ("1.33.5", "apiserver.config.k8s.io/v1", "v1"),
    ],
)
def test_one_file_has_the_settings_of_all_plugins(
    site: Path, version: str, api: str, pods: str
) -> None:
    admission: dict[str, Any] = {
        "event_rate_limit": [{"type": "User", "qps": 5, "burst": 9, "cache_size": 7}],
        "image_policy": webhook(),
    }
    if pods:
        admission["pod_security"] = {
            "enforce": "baseline",
            "warn": "restricted",
            "warn_version": "v1.24",
        }
    made = read(render(site, version, admission=admission), "admission.yaml")
    assert (made["apiVersion"], made["kind"]) == (api, "AdmissionConfiguration")
    plugins = {one["name"]: one["configuration"] for one in made["plugins"]}
    assert list(plugins) == sorted(plugins)
    assert plugins["EventRateLimit"]["limits"] == [
        {"type": "User", "qps": 5, "burst": 9, "cacheSize": 7}
    ]
    assert (
        plugins["ImagePolicyWebhook"]["imagePolicy"]["kubeConfigFile"]
        == "/etc/kubernetes/policy/image-policy.kubeconfig"
    )
    assert ("PodSecurity" in plugins) == bool(pods)
    if pods:
        found = plugins["PodSecurity"]
        assert found["apiVersion"] == f"pod-security.admission.config.k8s.io/{pods}"
        assert found["defaults"] == {
            "enforce": "baseline", "enforce-version": "latest", "audit": "privileged",
            "audit-version": "latest", "warn": "restricted", "warn-version": "v1.24",
        }  # fmt: skip
        assert found["exemptions"] == {
            "usernames": [],
            "runtimeClasses": [],
            "namespaces": ["kube-system"],
        }


ADDONS = "rootfs/etc/kubernetes/addons/pod-security.yaml"


@pytest.mark.parametrize(
    ("version", "plugin", "has_policies"),
    [
        ("1.14.10", "PodSecurityPolicy", True),
        ("1.22.3", "PodSecurityPolicy", True),
        ("1.23.3", "PodSecurity", True),  # other control planes may still be of 1.22
        ("1.24.3", "PodSecurity", False),
    ],
)
def test_before_the_plugin_policies_enforce_the_level(
    site: Path, version: str, plugin: str, has_policies: bool
) -> None:
    keys = {
        "enforce": "baseline",
        "exempt_namespaces": ["kube-system", "storage"],
        "exempt_users": ["ci"],
    }
    description: dict[str, Any] = {
        "runtime": {"engine": "containerd"}, "admission": {"pod_security": keys},
        "security": {"accept": ["pod-security-exempt-users"]},
    }  # fmt: skip
    flags = render_flags(
        load_cluster(write(site, version, **description)).cluster, "kube-apiserver"
    )
    assert flags["enable-admission-plugins"] == f"NodeRestriction,{plugin}"
    tree = render(site, version, **description)
    assert (ADDONS in [file.path for file in tree]) == has_policies
    if not has_policies:
        return
    content = tree[ADDONS].content
    assert isinstance(content, bytes)
    objects = list(yaml.safe_load_all(content))
    names = [
        (each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"])
        for each in objects
    ]
    assert names == [
        ("PodSecurityPolicy", None, "bundler-privileged"),
        ("PodSecurityPolicy", None, "bundler-baseline"),
        ("ClusterRole", None, "bundler:pod-security-privileged"),
        ("ClusterRole", None, "bundler:pod-security-baseline"),
        ("ClusterRoleBinding", None, "bundler:pod-security"),
        ("ClusterRoleBinding", None, "bundler:pod-security-exempt-users"),
        ("RoleBinding", "kube-system", "bundler:pod-security-exempt"),
        ("Namespace", None, "storage"),
        ("RoleBinding", "storage", "bundler:pod-security-exempt"),
    ]
    assert objects[4]["roleRef"]["name"] == "bundler:pod-security-baseline"
    assert objects[5]["subjects"][0]["name"] == "ci"
    volumes = objects[1]["spec"]["volumes"]
    assert "nfs" in volumes
    assert "hostPath" not in volumes
    assert ("csi" in volumes, "ephemeral" in volumes) == (version != "1.14.10",) * 2


@pytest.mark.parametrize(
    ("keys", "left"),
    [
        ({}, ["baseline", "privileged", "restricted"]),
        ({"admission": {"pod_security": {"enforce": "restricted"}}}, ["baseline"]),
        ({"admission": {"pod_security": {}}}, ["baseline", "restricted"]),
    ],
)
def test_policies_that_nothing_needs_are_deleted(
    site: Path, keys: dict[str, Any], left: list[str]
) -> None:
    content = render(site, "1.20.2", **keys)["rootfs/etc/kubernetes/obsolete-objects"].content
    assert isinstance(content, bytes)
    rows = [
        line.split()[2]
        for line in content.decode().splitlines()
        if line.startswith("PodSecurityPolicy ")
    ]
    assert rows == [f"bundler-{level}" for level in left]
    newer = render(site, "1.25.3", runtime={"engine": "containerd"})[
        "rootfs/etc/kubernetes/obsolete-objects"
    ].content
    assert b"PodSecurityPolicy" not in newer  # type: ignore[operator]


# Fields of k8s.io/apiserver, pkg/apis/apiserver/v1beta1/types.go at v0.30.0; later minors have more.
AUTHENTICATOR = {"issuer", "claimValidationRules", "claimMappings", "userValidationRules"}
ISSUER_FIELDS = {"url", "discoveryURL", "certificateAuthority", "audiences", "audienceMatchPolicy"}
WEBHOOK_FIELDS = {
    "authorizedTTL", "unauthorizedTTL", "timeout", "subjectAccessReviewVersion",
    "matchConditionSubjectAccessReviewVersion", "failurePolicy", "connectionInfo", "matchConditions",
}  # fmt: skip


@pytest.mark.parametrize(
    ("version", "authentication", "authorization"),
    [("1.30.3", "v1beta1", "v1beta1"), ("1.32.3", "v1beta1", "v1"), ("1.34.3", "v1", "v1"), ("1.37.1", "v1", "v1")],
)  # fmt: skip
def test_structured_files_have_the_fields_of_their_api(
    site: Path, version: str, authentication: str, authorization: str
) -> None:
    rich = {
        "issuer": "https://a.example", "audiences": ["one", "two"], "ca": "site/ca.crt",
        "discovery_url": "https://d.example/x", "username": {"claim": "email", "prefix": "a:"},
        "groups": {"claim": "groups"}, "required_claims": {"hd": "x"},
        "claim_rules": [{"expression": "claims.x == 'y'", "message": "no"}],
        "user_rules": [{"expression": "!user.username.startsWith('system:')"}],
    }  # fmt: skip
    webhooks = [
        webhook(name="last"),
        {"url": URL, "name": "first", "position": "first", "failure_policy": "Deny", "timeout": 5,
         "match_conditions": [{"expression": "request.user != 'x'"}]},
    ]  # fmt: skip
    tree = render(
        site, version, authentication={"oidc": [rich, ISSUER]}, authorization={"webhooks": webhooks}
    )
    made = read(tree, "authentication.yaml")
    assert made["apiVersion"] == f"apiserver.config.k8s.io/{authentication}"
    first, second = made["jwt"]
    assert set(first) == AUTHENTICATOR
    assert set(first["issuer"]) == ISSUER_FIELDS
    assert first["issuer"]["certificateAuthority"] == (site / "site/ca.crt").read_text()
    assert first["issuer"]["audienceMatchPolicy"] == "MatchAny"
    assert first["claimValidationRules"] == [
        {"claim": "hd", "requiredValue": "x"}, {"expression": "claims.x == 'y'", "message": "no"},
    ]  # fmt: skip
    assert first["claimMappings"] == {
        "username": {"claim": "email", "prefix": "a:"}, "groups": {"claim": "groups", "prefix": "oidc:"},
    }  # fmt: skip
    assert second == {
        "issuer": {"url": "https://login.example", "audiences": ["own"]},
        "claimMappings": {"username": {"claim": "sub", "prefix": "oidc:"}},
    }

    made = read(tree, "authorization.yaml")
    assert made["apiVersion"] == f"apiserver.config.k8s.io/{authorization}"
    assert [one["name"] for one in made["authorizers"]] == ["first", "node", "rbac", "last"]
    settings = made["authorizers"][0]["webhook"]
    assert set(settings) == WEBHOOK_FIELDS
    assert settings["connectionInfo"] == {
        "type": "KubeConfigFile", "kubeConfigFile": "/etc/kubernetes/policy/authorization-first.kubeconfig",
    }  # fmt: skip
    assert (settings["timeout"], settings["failurePolicy"]) == ("5s", "Deny")


def test_credentials_are_in_secret_files_of_control_planes_only(site: Path) -> None:
    keys = {
        "authentication": {"webhook": {"url": URL, "token": "site/token"}}, "audit": {"webhook": webhook()},
    }  # fmt: skip
    tree = render(site, **keys)
    files = {
        file.path.removeprefix(f"{FOLDER}/"): file for file in tree if file.path.startswith(FOLDER)
    }
    assert {name: file.mode for name, file in files.items()} == {
        "token.kubeconfig": 0o600,
        "audit.kubeconfig": 0o600,
    }
    user = read(tree, "token.kubeconfig")["users"][0]["user"]
    assert user == {"token": "hush-hush-token"}
    assert set(read(tree, "audit.kubeconfig")["users"][0]["user"]) == {
        "client-certificate-data",
        "client-key-data",
    }
    assert (
        "certificate-authority-data" not in read(tree, "token.kubeconfig")["clusters"][0]["cluster"]
    )
    worker = render(site, node=1, **keys)
    assert not [file.path for file in worker if file.path.startswith(FOLDER)]


def test_a_bundle_without_secrets_has_no_credentials(site: Path) -> None:
    path = write(site, admission={"image_policy": webhook()})
    cluster = load_cluster(path).cluster
    inputs = Inputs(description=path, cache=Cache(site / "cache"))
    with open_plan(cluster, inputs) as (plan, _):
        public, absent = sort_site_files(plan, plan.nodes[0])
    assert f"{FOLDER}/admission.yaml" in {file.path for file in public}
    assert absent == {f"{FOLDER}/image-policy.kubeconfig": ContentSource.STATE}


@pytest.mark.parametrize(("version", "api"), [("1.20.2", "v1"), ("1.33.5", "v2")])
def test_a_key_management_service_has_its_plugin_as_a_unit(
    site: Path, version: str, api: str
) -> None:
    (site / "site/kms.env").write_text("# secret\nVAULT_TOKEN=hush\n\n")
    (site / "site/plugin").write_bytes(b"\x7fELF and more")
    plugin = {
        "program": "site/plugin",
        "arguments": ["-listen", "unix:///run/kube-kms/plugin.sock", "a b"],
        "environment": "site/kms.env",
    }
    kms = {"name": "vault", "version": api, "plugin": plugin}
    tree = render(site, version, encryption={"provider": "kms", "kms": kms})
    content = tree["rootfs/etc/kubernetes/encryption-config.yaml"].content
    assert isinstance(content, bytes)
    service = {"name": "vault", "endpoint": "unix:///run/kube-kms/plugin.sock", "timeout": "3s"}
    expected = service | ({"apiVersion": "v2"} if api == "v2" else {})
    assert yaml.safe_load(content)["resources"][0]["providers"] == [
        {"kms": expected},
        {"identity": {}},
    ]
    unit = tree["rootfs/etc/systemd/system/kube-kms-plugin.service"].content
    assert isinstance(unit, bytes)
    assert (
        b'ExecStart=/opt/k8s/bin/kms-plugin -listen unix:///run/kube-kms/plugin.sock "a b"\n'
        in unit
    )
    program, secret = tree["rootfs/opt/k8s/bin/kms-plugin"], tree[f"{FOLDER}/kms-plugin.env"]
    assert (program.mode, secret.mode) == (0o755, 0o600)
    state = tree["state.env"].content
    assert isinstance(state, bytes)
    assert b"SECRETS_WRITTEN_WITH='kms:vault'" in state


POLICY_OBJECT = {
    "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
    "metadata": {"name": "site.static.k8s.io"}, "spec": {"validations": [{"expression": "true"}]},
}  # fmt: skip
BINDING = POLICY_OBJECT | {
    "kind": "ValidatingAdmissionPolicyBinding", "spec": {"policyName": "site.static.k8s.io", "validationActions": ["Deny"]},
}  # fmt: skip
HOOKS = POLICY_OBJECT | {
    "kind": "ValidatingWebhookConfiguration", "spec": None,
    "webhooks": [{"name": "a.example", "clientConfig": {"url": "https://a.example"}}],
}  # fmt: skip


def write_manifests(directory: Path, *objects: dict[str, Any]) -> list[str]:
    names = [f"site/{number}.yaml" for number, _ in enumerate(objects)]
    for name, each in zip(names, objects, strict=True):
        (directory / name).write_text(yaml.safe_dump(each))
    return names


@pytest.mark.parametrize(("version", "gate"), [("1.36.4", True), ("1.37.1", False)])
def test_admission_manifests_are_sorted_by_the_plugin_that_reads_them(
    site: Path, version: str, gate: bool
) -> None:
    names = write_manifests(site, POLICY_OBJECT, HOOKS, BINDING)
    tree = render(site, version, admission={"manifests": names})
    plugins = {one["name"]: one["configuration"] for one in read(tree, "admission.yaml")["plugins"]}
    assert plugins == {
        "ValidatingAdmissionPolicy": {
            "apiVersion": "apiserver.config.k8s.io/v1", "kind": "ValidatingAdmissionPolicyConfiguration",
            "staticManifestsDir": "/etc/kubernetes/policy/ValidatingAdmissionPolicy",
        },
        "ValidatingAdmissionWebhook": {
            "apiVersion": "apiserver.config.k8s.io/v1", "kind": "WebhookAdmissionConfiguration",
            "staticManifestsDir": "/etc/kubernetes/policy/ValidatingAdmissionWebhook",
        },
    }  # fmt: skip
    content = tree[f"{FOLDER}/ValidatingAdmissionPolicy/manifests.yaml"].content
    assert isinstance(content, bytes)
    assert [one["kind"] for one in yaml.safe_load_all(content)] == [
        POLICY_OBJECT["kind"],
        BINDING["kind"],
    ]
    unit = tree["rootfs/etc/systemd/system/kube-apiserver.service"].content
    assert isinstance(unit, bytes)
    assert (b"--feature-gates=ManifestBasedAdmissionControlConfig=true" in unit) == gate


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"apiVersion": "admissionregistration.k8s.io/v1beta1"}, "must be admissionregistration.k8s.io/v1"),
        ({"kind": "ConfigMap"}, "must be one of ValidatingAdmissionPolicy, "),
        ({"metadata": {"name": "site"}}, "must be a name that ends with .static.k8s.io"),
        ({"spec": {"paramKind": {"kind": "ConfigMap"}}}, "is not supported in manifests: remove it"),
        ({"spec": None}, "must be a mapping"),
        (BINDING | {"spec": {"policyName": "site"}}, "must be a name that ends with .static.k8s.io"),
        (BINDING | {"spec": {"policyName": "b.static.k8s.io"}}, "no file has the ValidatingAdmissionPolicy b.static.k8s.io"),
        (HOOKS | {"webhooks": [{"clientConfig": {"service": {}}}]}, "clientConfig must have a url, and no service"),
        (HOOKS | {"webhooks": []}, "must be a list of webhooks"),
    ],
)  # fmt: skip
def test_a_manifest_that_the_api_server_would_refuse_is_an_error(
    site: Path, changed: dict[str, Any], said: str
) -> None:
    names = write_manifests(site, POLICY_OBJECT | changed)
    found = refuse(site, "1.37.1", admission={"manifests": names})
    assert said in found
    assert "0.yaml:" in found


def test_manifests_need_their_feature_gate(site: Path) -> None:
    names = write_manifests(site, POLICY_OBJECT)
    extra = {"kube-apiserver": {"flags": {"feature-gates": "WatchList=true"}}}
    said = refuse(site, "1.36.4", admission={"manifests": names}, extra=extra)
    assert "needs the feature gate ManifestBasedAdmissionControlConfig=true: add it" in said
    two = write_manifests(site, POLICY_OBJECT, POLICY_OBJECT)
    assert "is in two files: keep one" in refuse(site, "1.37.1", admission={"manifests": two})
