"""`tls`: what is refused, what weakens, and the flags and fields of each server."""

from pathlib import Path

import pytest
import yaml
from support.external_ca_cluster import describe
from support.rendered_flags import render_flags

from bundler.catalog import read_table
from bundler.cluster.accepted import accepted_flags, field_types
from bundler.cluster.components import MINORS
from bundler.cluster.extra_checks import is_given
from bundler.cluster.loader import load_cluster
from bundler.cluster.schema import Cluster
from bundler.cluster.schema_policy import CIPHER_SUITES
from bundler.cluster.settings import make_config
from bundler.errors import ConfigError
from bundler.render.policy import name_suite

ECDSA, RSA = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
BOTH = [ECDSA, RSA]
CHACHA = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"
KUBERNETES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")


def write(directory: Path, version: str = "1.33.5", **keys: object) -> Path:
    data = describe("192.0.2.1") | {"kubernetes": {"version": version}, "etcd": {}, **keys}
    path = directory / "cluster.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def refuse(directory: Path, version: str = "1.33.5", **keys: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load_cluster(write(directory, version, **keys))
    return caught.value.message


@pytest.mark.parametrize(
    ("version", "keys", "said"),
    [
        ("1.16.15", {"tls": {"min_version": "TLS1.3"}}, "Kubernetes 1.16 has no TLS 1.3: use TLS1.2, or Kubernetes 1.17 or later"),
        ("1.20.2", {"tls": {"min_version": "TLS1.3"}}, "etcd 3.4.24 has no TLS 1.3: use TLS1.2, or etcd.version 3.5.8 or later"),
        ("1.33.5", {"tls": {"min_version": "TLS1.3"}, "etcd": {"version": "3.5.7"}}, "etcd 3.5.7 has no TLS 1.3"),
        ("1.33.5", {"tls": {"min_version": "TLS1.3"}, "dns": {"version": "1.6.2"}}, "coredns 1.6.2 has no TLS 1.3: use TLS1.2, or coredns 1.6.5 or later"),
        ("1.33.5", {"tls": {"min_version": "TLS1.3"}, "metrics_server": {"version": "0.3.7"}}, "metrics-server 0.3.7 has no TLS 1.3"),
        ("1.33.5", {"tls": {"min_version": "TLS1.3", "cipher_suites": BOTH}}, "has no effect with min_version TLS1.3"),
        ("1.33.5", {"tls": {"min_version": "TLS1.1"}}, "must be 'TLS1.2' or 'TLS1.3', not 'TLS1.1'"),
        ("1.33.5", {"tls": {"min_version": 1.3}}, "must be 'TLS1.2' or 'TLS1.3'"),
        ("1.33.5", {"tls": {"cipher_suites": []}}, "must not be empty"),
        ("1.33.5", {"tls": {"cipher_suites": [ECDSA]}}, f"no suite is for RSA keys, and API servers make such a certificate for themselves: add {RSA}"),
        ("1.33.5", {"tls": {"cipher_suites": [RSA]}}, f"no suite is for ECDSA keys, and kubelets make such keys for themselves: add {ECDSA}"),
        ("1.33.5", {"tls": {"cipher_suites": [CHACHA, CHACHA.replace("ECDSA", "RSA")]}}, f"HTTP/2 needs {ECDSA} or the same with RSA: add it"),
        ("1.33.5", {"tls": {"cipher_suites": [*BOTH, ECDSA]}}, "is listed twice"),
        ("1.33.5", {"tls": {"cipher_suites": [*BOTH, "TLS_RSA_WITH_RC4_128_SHA"]}}, "tls.cipher_suites[2]: must be "),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(
    tmp_path: Path, version: str, keys: dict[str, object], said: str
) -> None:
    assert said in refuse(tmp_path, version, **keys)


@pytest.mark.parametrize(
    ("component", "extra"),
    [
        *((component, {"flags": {"tls-min-version": "VersionTLS12"}}) for component in (*KUBERNETES, "kubelet")),
        *((component, {"flags": {"tls-cipher-suites": ECDSA}}) for component in (*KUBERNETES, "kubelet")),
        ("kubelet", {"config": {"tlsMinVersion": "VersionTLS12"}}), ("kubelet", {"config": {"tlsCipherSuites": BOTH}}),
        ("etcd", {"flags": {"tls-min-version": "TLS1.2"}}), ("etcd", {"flags": {"cipher-suites": ECDSA}}),
    ],
)  # fmt: skip
def test_extra_cannot_contradict_it(
    tmp_path: Path, component: str, extra: dict[str, dict[str, object]]
) -> None:
    keys = {"min_version": "TLS1.2", "cipher_suites": BOTH}
    ((kind, settings),) = extra.items()
    (setting,) = settings
    said = refuse(tmp_path, tls=keys, extra={component: extra})
    key = "tls.min_version" if "min" in setting.lower() else "tls.cipher_suites"
    assert f"extra.{component}.{kind}.{setting}: cluster.yaml has {key}, which sets this" in said
    load_cluster(write(tmp_path, extra={component: extra}))


def test_every_row_of_settings_that_keys_have_is_about_a_key_and_a_setting() -> None:
    cluster = Cluster.model_validate(describe("192.0.2.1"))
    for row in read_table("key-settings.tsv"):
        assert not is_given(cluster, row["key"])
        name = row["setting"].removeprefix("--")
        known = [
            accepted_flags(row["component"], minor) if name != row["setting"]
            else field_types(row["component"], minor)
            for minor in (*MINORS, "3.4", "3.6")
        ]  # fmt: skip
        assert any(name in names for names in known), row


@pytest.mark.parametrize("version", ["1.17.17", "1.20.2", "1.33.5", "1.37.1"])
def test_each_server_gets_the_version_and_the_suites(tmp_path: Path, version: str) -> None:
    etcd = {"version": "3.5.33"} if version < "1.30" else {}
    path = write(tmp_path, version, etcd=etcd, tls={"min_version": "TLS1.3"})
    cluster = load_cluster(path).cluster
    for component in KUBERNETES:
        assert render_flags(cluster, component)["tls-min-version"] == "VersionTLS13"
        assert "tls-cipher-suites" not in render_flags(cluster, component)
    assert render_flags(cluster, "etcd")["tls-min-version"] == "TLS1.3"
    assert make_config(cluster, "kubelet", lambda _: "[1]")["tlsMinVersion"] == "VersionTLS13"

    path = write(tmp_path, version, tls={"cipher_suites": [CHACHA, *BOTH]})
    cluster = load_cluster(path).cluster
    suites = ",".join((CHACHA.removesuffix("_SHA256"), *BOTH))
    for component in KUBERNETES:
        assert render_flags(cluster, component)["tls-cipher-suites"] == suites
        assert render_flags(cluster, component)["tls-min-version"] == "VersionTLS12"
    assert render_flags(cluster, "etcd")["cipher-suites"] == suites
    assert "tls-min-version" not in render_flags(cluster, "etcd")


def test_suites_have_names_that_every_version_knows() -> None:
    names = {name_suite(suite) for suite in CIPHER_SUITES}
    assert {name for name in names if "CHACHA20" in name} == {
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305"
    }  # fmt: skip
    assert len(names) == len(CIPHER_SUITES)


def test_suites_without_forward_secrecy_weaken_the_cluster(tmp_path: Path) -> None:
    weak = "TLS_RSA_WITH_AES_128_GCM_SHA256"
    path = write(tmp_path, tls={"cipher_suites": [*BOTH, weak]})
    assert "tls-ciphers" in load_cluster(path).weakenings.values()
    path = write(
        tmp_path, tls={"cipher_suites": [*BOTH, weak]}, security={"accept": ["tls-ciphers"]}
    )
    assert not load_cluster(path).weakenings
    assert not load_cluster(write(tmp_path, tls={"cipher_suites": BOTH})).weakenings
