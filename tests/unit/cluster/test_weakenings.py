"""Settings that weaken the cluster: refused, named with their place, or accepted by name."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from bundler.cache.store import Cache
from bundler.catalog import read_table
from bundler.cluster.components import EXTRA_COMPONENTS, MINORS
from bundler.cluster.loader import load_cluster
from bundler.cluster.plan import make_plan
from bundler.cluster.schema import Cluster
from bundler.cluster.settings import list_flags
from bundler.cluster.weakenings import OWN_KEYS, find_weakenings, is_weak, list_weakenings
from bundler.errors import ConfigError
from bundler.project import Inputs, load
from bundler.render.context import make_context

ONE_HOST: dict[str, Any] = {
    "apiVersion": "bundler/v1alpha1",
    "name": "weak",
    "kubernetes": {"version": "1.36.2"},
    "runtime": {"engine": "containerd"},
    "dns": {"provider": "none"},
    "nodes": [
        {"name": "one", "address": "192.0.2.1", "roles": ["etcd", "control-plane", "worker"]}
    ],
    "images": [{"ref": "nginx:1.22", "use": "verify"}],
}


def write(directory: Path, text: str, accept: tuple[str, ...] = (), **more: object) -> Path:
    """A cluster.yaml with `extra` in it."""
    path = directory / "cluster.yaml"
    document = {**ONE_HOST, **more, "security": {"accept": list(accept)}}
    path.write_text(yaml.safe_dump(document) + (f"extra:\n  {text}\n" if text else ""))
    return path


REFUSED = [
    ("kube-apiserver: {flags: {enable-admission-plugins: PodNodeSelector}}", "enable-admission-plugins: .*add NodeRestriction"),
    ("kube-apiserver: {flags: {enable-admission-plugins: noderestriction}}", "enable-admission-plugins: .*add NodeRestriction"),
    ("kube-apiserver: {flags: {disable-admission-plugins: 'LimitRanger,NodeRestriction'}}", "disable-admission-plugins: .*remove it"),
    ("kube-apiserver: {flags: {disable-admission-plugins: 'LimitRanger,\"NodeRestriction\"'}}", "disable-admission-plugins: .*remove it"),
    ("kube-apiserver: {flags: {disable-admission-plugins: ' NodeRestriction '}}", "disable-admission-plugins: .*remove it"),
    ("kube-apiserver: {flags: {admission-control: AlwaysAdmit}}", "admission-control: .*use admission.plugins"),
    ("kube-apiserver: {flags: {authorization-mode: AlwaysAllow}}", "authorization-mode: .*add Node to"),
    ("kube-apiserver: {flags: {authorization-mode: 'Node,Webhook'}}", "authorization-mode: .*add RBAC to"),
    ("kube-apiserver: {flags: {authorization-mode: 'RBAC,Node=RBAC'}}", "authorization-mode: .*add Node to"),
    ("kube-apiserver: {flags: {authorization-config: /etc/a.yaml}}", "authorization-config: .*use authorization.webhooks"),
    ("kubelet: {flags: {anonymous-auth: true}}", "anonymous-auth: it overrides the field authentication"),
    ("kubelet: {flags: {rotate-certificates: false}}", "rotate-certificates: it overrides the field rotateCertificates"),
    ("kubelet: {config: {authentication: {anonymous: {enabled: true}}}}", "bundler sets this itself"),
    ("etcd: {flags: {config-file: /etc/etcd.yaml}}", "config-file: etcd ignores every other flag"),
]  # fmt: skip


@pytest.mark.parametrize(("extra", "expected"), REFUSED)
def test_what_security_rests_on_is_refused_in_every_spelling(
    tmp_path: Path, extra: str, expected: str
) -> None:
    with pytest.raises(ConfigError, match=rf":\d+:\d+: extra\..*{expected}"):
        load_cluster(write(tmp_path, extra))


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ("kube-apiserver: {flags: {port: 8080}}", "another name of insecure-port"),
        ("kube-apiserver: {flags: {experimental-encryption-provider-config: /dev/null}}", "another name of encryption-provider-config"),
        ("kubelet: {flags: {experimental-bootstrap-kubeconfig: /x}}", "another name of bootstrap-kubeconfig"),
    ],
)  # fmt: skip
def test_another_name_of_a_fixed_flag_is_refused(tmp_path: Path, extra: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        load_cluster(write(tmp_path, extra, kubernetes={"version": "1.20.2"}))


WEAK = [
    ("kube-apiserver: {flags: {authorization-mode: 'Node,RBAC,AlwaysAllow'}}", "apiserver-always-allow"),
    ("kube-apiserver: {flags: {authorization-mode: 'Node,RBAC,\"AlwaysAllow\"'}}", "apiserver-always-allow"),
    ("kube-apiserver: {flags: {enable-admission-plugins: 'NodeRestriction,AlwaysAdmit'}}", "apiserver-always-admit"),
    ("kube-apiserver: {flags: {disable-admission-plugins: PodSecurity}}", "apiserver-disabled-admission"),
    ("kube-apiserver: {flags: {anonymous-auth: true}}", "apiserver-anonymous"),
    ("kube-apiserver: {flags: {anonymous-auth: 'True'}}", "apiserver-anonymous"),
    ("kube-apiserver: {flags: {anonymous-auth: 1}}", "apiserver-anonymous"),
    ("kube-apiserver: {flags: {anonymous-auth: T}}", "apiserver-anonymous"),
    ("kube-apiserver: {flags: {anonymous-auth: unclear}}", "apiserver-anonymous"),
    ("kube-apiserver: {flags: {token-auth-file: /x}}", "apiserver-token-auth-file"),
    ("kube-apiserver: {flags: {profiling: true}}", "apiserver-profiling"),
    ("kube-apiserver: {flags: {service-account-lookup: 'f'}}", "apiserver-service-account-lookup"),
    ("kube-apiserver: {flags: {tls-min-version: VersionTLS10}}", "apiserver-tls-version"),
    ("kube-apiserver: {flags: {tls-cipher-suites: 'TLS_AES_128_GCM_SHA256,TLS_RSA_WITH_RC4_128_SHA'}}", "apiserver-tls-ciphers"),
    ("kube-apiserver: {flags: {runtime-config: 'api/all=true'}}", "apiserver-alpha-apis"),
    ("kube-apiserver: {flags: {authentication-config: /x}}", "apiserver-authentication-config"),
    ("kube-apiserver: {flags: {etcd-servers-overrides: '/events#http://192.0.2.9:2379'}}", "apiserver-etcd-http"),
    ("kube-apiserver: {flags: {audit-log-maxage: 1}}", "apiserver-audit"),
    ("kube-apiserver: {flags: {feature-gates: 'AllAlpha=T'}}", "gate-all-alpha"),
    ("kubelet: {flags: {feature-gates: ' AllAlpha = 1 ,'}}", "gate-all-alpha"),
    ("kubelet: {config: {featureGates: {AllAlpha: true}}}", "gate-all-alpha"),
    ("kube-apiserver: {flags: {feature-gates: 'AllowInsecureKubeletCertificateSigningRequests=true'}}", "gate-allow-insecure-kubelet-certificate-signing-requests"),
    ("kube-controller-manager: {flags: {use-service-account-credentials: false}}", "controller-manager-credentials"),
    ("kube-controller-manager: {flags: {controllers: '*,-csrcleaner'}}", "controller-manager-tokens"),
    ("kube-controller-manager: {flags: {authorization-always-allow-paths: '/healthz,/metrics'}}", "controller-manager-always-allow"),
    ("kube-scheduler: {config: {enableProfiling: true}}", "scheduler-profiling"),
    ("kube-scheduler: {config: {extenders: [{urlPrefix: 'http://x.example'}]}}", "scheduler-extender-http"),
    ("kubelet: {config: {readOnlyPort: 10255}}", "kubelet-read-only-port"),
    ("kubelet: {flags: {read-only-port: 10255}}", "kubelet-read-only-port"),
    ("kubelet: {config: {authorization: {mode: AlwaysAllow}}}", "kubelet-authorization"),
    ("kubelet: {config: {authorization: {mode: alwaysallow}}}", "kubelet-authorization"),
    ("kubelet: {config: {authorization: ~}}", "kubelet-authorization"),
    ("kubelet: {flags: {authorization-mode: AlwaysAllow}}", "kubelet-authorization"),
    ("kubelet: {config: {tlsMinVersion: VersionTLS10}}", "kubelet-tls-version"),
    ("kubelet: {config: {tlsCipherSuites: [TLS_RSA_WITH_AES_128_CBC_SHA]}}", "kubelet-tls-ciphers"),
    ("kubelet: {config: {seccompDefault: false}}", "kubelet-seccomp"),
    ("kubelet: {config: {seccompDefault: ~}}", "kubelet-seccomp"),
    ("kubelet: {config: {streamingConnectionIdleTimeout: 0s}}", "kubelet-streaming-timeout"),
    ("kubelet: {config: {healthzBindAddress: 0.0.0.0}}", "kubelet-healthz"),
    ("kubelet: {config: {staticPodURL: 'https://x.example'}}", "kubelet-static-pod-url"),
    ("kubelet: {config: {allowedUnsafeSysctls: ['net.*']}}", "kubelet-unsafe-sysctls"),
    ("kubelet: {flags: {config-dir: /etc/x}}", "kubelet-config-dir"),
    ("kubelet: {flags: {v: 9}}", "log-bodies"),
    ("kubelet: {config: {logging: {verbosity: 8}}}", "log-bodies"),
    ("kube-proxy: {config: {metricsBindAddress: ':10249'}}", "proxy-metrics"),
    ("kube-proxy: {config: {metricsBindAddress: '[::]:10249'}}", "proxy-metrics"),
    ("etcd: {flags: {auto-tls: true}}", "etcd-auto-tls"),
    ("etcd: {flags: {listen-metrics-urls: 'http://0.0.0.0:2381'}}", "etcd-http"),
    ("etcd: {flags: {tls-min-version: TLS1.0}}", "etcd-tls-version"),
    ("containerd: {config: {grpc: {tcp_address: '0.0.0.0:1'}}}", "containerd-tcp"),
    ("containerd: {config: {GRPC: {TCP_Address: '0.0.0.0:1'}}}", "containerd-tcp"),
    ("containerd: {config: {plugins: {io.containerd.cri.v1.images: {registry: {configs: {x.example: {tls: {insecure_skip_verify: true}}}}}}}}", "containerd-insecure-registries"),
]  # fmt: skip


@pytest.mark.parametrize(("extra", "name"), WEAK, ids=[f"{n}: {e[:60]}" for e, n in WEAK])
@pytest.mark.usefixtures("no_line_has_ended")
def test_a_weakening_is_named_with_its_place_and_strict_refuses_it(
    tmp_path: Path, extra: str, name: str
) -> None:
    path = write(tmp_path, extra)
    loaded = load_cluster(path)
    lines = [line for line in loaded.warnings if f"({name}): " in line]
    assert len(lines) == 1, loaded.warnings
    place = extra.split(":", maxsplit=1)[0]
    assert re.match(rf"{re.escape(str(path))}:\d+:\d+: extra\.{place}\.", lines[0])
    strict = Inputs(description=path, cache=Cache(tmp_path), strict=True)
    with pytest.raises(ConfigError, match=re.escape(f"({name}): ")) as caught:
        load(strict)
    assert f"security: {{accept: [{name}]}}" in (caught.value.hint or "")

    write(tmp_path, extra, (name,))
    assert not [line for line in load_cluster(path).warnings if f"({name}): " in line]
    load(strict)


HARMLESS = [
    "kube-apiserver: {flags: {enable-admission-plugins: 'PodNodeSelector,NodeRestriction'}}",
    "kube-apiserver: {flags: {authorization-mode: 'Node,RBAC,Webhook'}}",
    "kube-apiserver: {flags: {anonymous-auth: 'F', profiling: 0, tls-min-version: VersionTLS13, audit-log-maxage: 90}}",
    "kubelet: {config: {readOnlyPort: 0, authorization: {mode: Webhook}, streamingConnectionIdleTimeout: 4h0m0s, healthzBindAddress: 127.0.0.1}}",
    "kubelet: {config: {logging: {verbosity: 4}}, flags: {v: 4}}",
    "kube-proxy: {config: {metricsBindAddress: '127.0.0.1:10249', conntrack: {maxPerCore: 0}}}",
    "etcd: {flags: {listen-metrics-urls: 'https://192.0.2.1:2381', tls-min-version: TLS1.3}}",
    "kube-apiserver: {flags: {feature-gates: 'AllAlpha=false'}}",
]  # fmt: skip


@pytest.mark.parametrize("extra", HARMLESS)
def test_what_weakens_nothing_has_no_warning(tmp_path: Path, extra: str) -> None:
    assert load_cluster(write(tmp_path, extra)).weakenings == {}


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ({"runtime": {"engine": "containerd", "registries": [{"host": "a.example"}, {"host": "b.example", "insecure": True}]}}, "registry-insecure"),
        ({"runtime": {"engine": "containerd", "registries": [{"host": "b.example", "mirrors": ["http://c.example"]}]}}, "registry-http"),
        ({"pki": {"authorities": "single"}}, "single-ca"),
    ],
)  # fmt: skip
def test_weak_keys_of_cluster_yaml_are_named_too(
    tmp_path: Path, more: dict[str, Any], name: str
) -> None:
    path = write(tmp_path, "", **more)
    assert list(load_cluster(path).weakenings.values()) == [name]
    write(tmp_path, "", (name,), **more)
    assert load_cluster(path).weakenings == {}


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (("apiserver-profilling",), r"accept\[0\]: apiserver-profilling is not the name of a weakening; did you mean 'apiserver-profiling'"),
        (("apiserver-profiling", "etcd-cors"), r"accept\[1\]: nothing in this file needs etcd-cors: remove it"),
        (("apiserver-profiling", "apiserver-profiling"), r"accept\[1\]: apiserver-profiling is listed twice"),
    ],
)  # fmt: skip
def test_only_what_is_needed_can_be_accepted(
    tmp_path: Path, accept: tuple[str, ...], expected: str
) -> None:
    path = write(tmp_path, "kube-apiserver: {flags: {profiling: true}}", accept)
    with pytest.raises(ConfigError, match=rf":\d+:\d+: security.{expected}"):
        load_cluster(path)


def test_a_refused_setting_cannot_be_accepted() -> None:
    refused = [row for row in list_weakenings() if not row.name]
    assert len(refused) > 20
    assert {row.name for row in list_weakenings() if row.name} & {""} == set()
    assert all(re.search(r": (add|remove|use) ", row.why) for row in refused)


def test_every_row_is_about_something_that_a_program_has() -> None:
    tables = {
        "--": {(row["component"], f"--{row['flag']}") for row in read_table("accepted-flags.tsv")},
        "gate": {("*", f"gate {row['gate']}") for row in read_table("feature-gates.tsv")},
        "": {(row["component"], row["field"]) for row in read_table("accepted-fields.tsv")},
    }
    with_fields = {component for component, _ in tables[""]}
    with_flags = {component for component, _ in tables["--"]}
    for row in list_weakenings():
        assert row.component in {*EXTRA_COMPONENTS, OWN_KEYS, "*"}, row
        assert re.fullmatch(r"[a-z0-9-]*", row.name), row
        assert row.why, row
        is_weak(row.weak, [""])  # the rule exists
        known = (row.component, row.setting)
        if row.setting.startswith("gate ") and not row.setting.startswith("gate All"):
            assert known in tables["gate"], row
        elif row.setting.startswith("--") and row.component in with_flags:
            assert known in tables["--"], row
        elif row.component in with_fields and row.setting[:2] != "--":
            names = {(row.component, row.setting), (row.component, f"{row.setting}.*")}
            assert names & tables[""] or row.setting.startswith("gate"), row


@pytest.mark.slow
@pytest.mark.parametrize("minor", MINORS)
def test_no_setting_of_bundler_itself_is_weak(minor: str) -> None:
    runtime = {"engine": "containerd"}
    cluster = Cluster.model_validate(
        {**ONE_HOST, "kubernetes": {"version": f"{minor}.9"}, "runtime": runtime}
    )
    plan = make_plan(cluster)
    context = make_context(plan, plan.nodes[0], None)
    extra: dict[str, Any] = {}
    for component in (
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kubelet",
        "kube-proxy",
        "etcd",
        "containerd",
    ):
        target = EXTRA_COMPONENTS[component]
        parts = (
            [flag[2:].partition("=") for flag in context["flags"](component)]
            if target.has_flags
            else []
        )
        config = context["config"](component) if target.has_config else {}
        extra[component] = {"flags": {name: value for name, _, value in parts}, "config": config}
    found = find_weakenings(
        Cluster.model_validate({**cluster.model_dump(by_alias=True), "extra": extra})
    )
    # these are other names of fields: bundler may set them where the minor has no field
    own = {"--container-runtime-endpoint"}
    assert [one for one in found if one.row.setting not in own] == []


SECURITY = re.compile(
    r"auth|anonym|tls|insecure|token|admission|profil|debug|pprof|audit|cors|sysctl|seccomp|unsafe"
    r"|privileg|lookup|encrypt|redirect|manifest-url|config-dir|config-file|bind-address|skip-.*verif"
)
CONSIDERED = {
    r"allow-privileged": "bundler sets it itself: network and storage daemons need it",
    r"audit-log-.*|audit-webhook-.*|experimental-logging-sanitization": "how events are written, not which",
    r".*-cache-.*ttl": "how long an answer is reused",
    r"authentication-token-webhook-.*|authorization-webhook-.*": "another service decides in addition to RBAC",
    r"authorization-policy-file": "read only with ABAC, which is a row",
    r"authentication-skip-lookup": "the CA files are flags of bundler's",
    r"admission-control-config-file|egress-selector-config-file|tracing-config-file|policy-config-file|use-legacy-policy-config": "configures what other flags turn on",
    r"bind-address|bind-address-hard-fail|healthz-bind-address": "HTTPS with authentication, or as bundler sets it",
    r"oidc-.*": "another issuer of users, whose rights RBAC decides",
    r"service-account-.*token-expiration|legacy-service-account-token-clean-up-period": "lifetimes of tokens",
    r"concurrent-.*-syncs": "how much work at the same time",
    r"tls-sni-cert-key|tls-cert-file|tls-private-key-file|tls-curve-preferences": "another certificate or order of curves",
    r"docker-tls.*": "used only with docker-endpoint over TCP, which is a row",
    r"enable-debugging-handlers|contention-profiling": "needs rights at the kubelet",
    r"seccomp-profile-root": "a directory",
    r"encryption-provider-config-automatic-reload": "when a file that bundler writes is read",
    r"manifest-url-header": "used only with manifest-url, which is a row",
    r"auth-token|auth-token-ttl": "etcd's users, whom nothing here uses",
    r"discovery-token|unsafe-no-fsync|self-signed-cert-validity": "about data and discovery, not rights",
    r"image-credential-provider-config|container-log-.*": "no rights",
}  # fmt: skip


@pytest.mark.parametrize(
    "component",
    [
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kubelet",
        "kube-proxy",
        "etcd",
    ],
)
def test_every_flag_that_sounds_like_security_was_considered(component: str) -> None:
    """A new minor's flags are in accepted-flags.tsv: each is fixed, a row, or here with its reason."""
    fixed = {row.flag for row in list_flags(component) if row.fixed}
    rows = {
        row.setting.removeprefix("--") for row in list_weakenings() if row.component == component
    }
    names = {
        row["flag"] for row in read_table("accepted-flags.tsv") if row["component"] == component
    }
    left = {
        name
        for name in names - fixed - rows
        if SECURITY.search(name) and not any(re.fullmatch(rule, name) for rule in CONSIDERED)
    }
    assert left == set()
