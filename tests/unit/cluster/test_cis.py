"""`profile`: every check of the benchmark is met, or the table says why not; contradictions are refused."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.cis_hosts import Host, load_plan, stage_host

from bundler.catalog import read_table
from bundler.cluster.cis import (
    BENCHMARKS,
    OLDEST,
    ORDER,
    RULES,
    STRONG_SUITES,
    WORDS,
    CisCheck,
    choose_benchmark,
    list_all_checks,
    list_checks,
    list_closed_paths,
    meets,
)
from bundler.cluster.components import MINORS, key_of
from bundler.cluster.effective import list_settings
from bundler.cluster.loader import load_cluster
from bundler.cluster.schema import Role
from bundler.errors import ConfigError
from bundler.files import CLOSED_MODE
from bundler.overlays.files import list_files
from bundler.render.cis import TARGETS, make_kube_bench_arguments

BENCHED = tuple(minor for minor in MINORS if key_of(minor) >= key_of(OLDEST))
UNMET = frozenset({"no"})
"""Values of `met_by` of checks that a cluster with the profile does not meet."""


def find_values(check: CisCheck, host: Host) -> Iterator[str | None]:
    """What lib/verify/cis.sh finds on a host, one item for each flag or file."""
    flags = dict(
        word.removeprefix("--").split("=", 1)
        for word in host.processes.get(check.subject, [""])[1:]
    )
    if check.kind == "argument":
        yield from (flags.get(flag.removeprefix("--")) for flag in check.argument.split())
    elif check.kind == "setting":
        config = yaml.safe_load((host.root / flags["config"].lstrip("/")).read_text())
        flag, _, path = check.argument.rpartition(" ")
        yield flags.get(flag.removeprefix("--"), find_field(config, path.split(".")))
    elif check.kind == "mode":
        for path in host.root.glob(check.subject.format(etcd_data="/var/lib/etcd").lstrip("/")):
            yield f"{path.stat().st_mode & 0o777:o}"


def find_field(config: Any, path: list[str]) -> str | None:
    for name in path:
        config = config.get(name) if isinstance(config, dict) else None
    if isinstance(config, list):
        return ",".join(config)
    return (
        None if config is None else str(config).lower() if isinstance(config, bool) else str(config)
    )


@cache
def names_of(minor: str) -> dict[str, CisCheck]:
    return {check.name: check for check in list_checks(minor, "stig")}


@pytest.mark.parametrize("minor", BENCHED)
def test_every_check_is_met_or_the_table_says_why_not(minor: str, tmp_path: Path) -> None:
    plan = load_plan(tmp_path, minor, "stig")
    failing, looked_at = set(), set()
    for node in plan.nodes:
        host = stage_host(plan, node, tmp_path / node.name)
        for check in list_checks(minor, "stig"):
            found = list(find_values(check, host)) if node.has(Role(check.role)) else []
            looked_at |= {check.name} if found else set()
            if not all(meets(check.rule, check.value, each) for each in found):
                failing.add(check.name)
    rules = {
        name for name, check in names_of(minor).items() if check.kind in {"argument", "setting"}
    }
    assert rules <= looked_at
    assert {name for name in failing if names_of(minor)[name].is_automated} <= {
        name for name, check in names_of(minor).items() if check.met_by in UNMET
    }
    unmet = {name for name, check in names_of(minor).items() if check.met_by == "no" and check.rule}
    assert unmet <= failing, "the table has a reason for what holds"


def test_a_check_has_one_number_in_a_benchmark() -> None:
    for benchmark in ORDER:
        numbers = [check.find_id(benchmark) for check in list_all_checks()]
        given = [number for number in numbers if number]
        assert len(given) == len(set(given)) > 90
        assert all(re.fullmatch(r"[1-5](\.\d+){1,2}", number) for number in given)
    names = [check.name for check in list_all_checks()]
    assert len(names) == len(set(names))


def test_each_row_is_complete() -> None:
    for check in list_all_checks():
        assert check.type in {"automated", "manual"}
        assert check.target in TARGETS
        assert Role(check.role)
        assert check.rule.removesuffix("-if-set") in {*RULES, ""}
        assert check.met_by in {"default", "profile", "stig", "site", "no"}
        assert check.note or check.met_by not in {"no", "site"}, f"{check.name} has no reason"
        assert all(re.fullmatch(r"V-2\d{5}", one) for one in check.stig.split())
        assert check.ids or check.stig
        assert not check.is_automated or check.kind
    assert RULES.keys() == WORDS.keys()
    names = {check.name for check in list_all_checks()}
    for row in read_table("profile-keys.tsv"):
        assert set(row["checks"].split()) <= names


def test_the_benchmark_of_a_minor_is_that_of_kube_bench() -> None:
    assert {minor: choose_benchmark(minor) for minor in ("1.19", "1.21", "1.22", "1.31", "1.37")} == {
        "1.19": None, "1.21": "1.20", "1.22": "1.23", "1.31": "1.11", "1.37": "1.12",
    }  # fmt: skip
    assert list(BENCHMARKS) == sorted(BENCHMARKS, key=key_of)


@pytest.mark.parametrize(
    ("rule", "value", "good", "bad"),
    [
        ("set", "", ["x"], [None, ""]),
        ("unset", "", [None], ["", "x"]),
        ("is", "true", ["true"], [None, "false", "truee"]),
        ("is-if-set", "true", [None, "true"], ["false"]),
        ("not", "0", ["60s", "1"], [None, "0", "0s"]),
        ("not-if-set", "0", [None, "4h0m0s"], ["0"]),
        ("has", "Node", ["Node,RBAC"], [None, "RBAC"]),
        ("without", "AlwaysAllow", ["RBAC"], [None, "RBAC,AlwaysAllow"]),
        ("without-if-set", "Webhook", [None, "x"], ["Webhook"]),
        ("at-least", "30", ["30", "365"], [None, "29", "-1", "x"]),
        ("at-most", "0600", ["600", "400", "0"], ["644", "640", "601", None]),
        ("one-of", "a,b", ["a", "b"], [None, "c", "a,b"]),
        ("only", "a,b", ["a", "b,a"], [None, "", "a,c"]),
    ],
)
def test_a_rule_accepts_and_refuses(
    rule: str, value: str, good: list[str | None], bad: list[str | None]
) -> None:
    assert [each for each in good if not meets(rule, value, each)] == []
    assert [each for each in bad if meets(rule, value, each)] == []


@pytest.mark.parametrize(
    ("minor", "more", "expected"),
    [
        ("1.36", "audit: {log: {max_age_days: 7}}", "audit.log.max_age_days: '7' contradicts the profile (CIS 1.2.17"),
        ("1.20", "audit: {log: {max_age_days: 7}}", "CIS 1.2.22, STIG V-242464"),
        ("1.36", "audit: {log: {max_files: 3}}", "CIS 1.2.18"),
        ("1.36", "audit: {log: {max_megabytes: 10}}", "CIS 1.2.19"),
        ("1.36", "tls: {cipher_suites: [TLS_RSA_WITH_AES_128_GCM_SHA256]}", "CIS 1.2.29, STIG V-242418; CIS 4.2.12"),
        ("1.36", "admission: {pod_security: {enforce: privileged}}", "CIS 5.2.1"),
        ("1.20", "admission: {pod_security: {enforce: privileged}}", "CIS 1.2.15, STIG V-242437"),
        ("1.36", "admission: {plugins: [AlwaysPullImages]}", "it must be with DenyServiceExternalIPs"),
        ("1.24", "admission: {plugins: [DenyServiceExternalIPs]}", "CIS 1.2.3"),
        ("1.36", "authorization: {webhooks: [{name: a, url: 'https://a.example'}]}", "CIS 1.2.6; CIS 1.2.7"),
        ("1.36", "extra: {kube-apiserver: {flags: {profiling: true}}}", "extra.kube-apiserver.flags.profiling: 'true'"),
        ("1.36", "extra: {kube-apiserver: {flags: {token-auth-file: /a}}}", "CIS 1.2.2, STIG V-245543"),
        ("1.36", "extra: {kube-scheduler: {flags: {bind-address: 0.0.0.0}}}", "CIS 1.4.2, STIG V-242384"),
        ("1.36", "extra: {kubelet: {config: {makeIPTablesUtilChains: false}}}", "CIS 4.2.6"),
        ("1.36", "extra: {kube-proxy: {config: {metricsBindAddress: '0.0.0.0:10249'}}}", "CIS 4.3.1"),
        ("1.36", "extra: {etcd: {flags: {auto-tls: true}}}", "CIS 2.3, STIG V-242379"),
    ],
)  # fmt: skip
def test_what_contradicts_the_profile_is_refused_with_its_number(
    tmp_path: Path, minor: str, more: str, expected: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        load_plan(tmp_path, minor, "cis", more)
    assert expected in refused.value.message
    load_plan(
        tmp_path,
        minor,
        "",
        more.replace("TLS_RSA_WITH", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH"),
    )


def test_a_host_may_not_contradict_the_profile_either(tmp_path: Path) -> None:
    path = tmp_path / "cluster-1.36.yaml"
    load_plan(tmp_path, "1.36")
    own = "roles: [worker], extra: {kubelet: {config: {readOnlyPort: 10255}}}"
    path.write_text(path.read_text().replace("roles: [worker]", own))
    with pytest.raises(
        ConfigError, match=r"readOnlyPort: '10255' contradicts the profile \(CIS 4\.2\.4"
    ):
        load_cluster(path)


def test_the_benchmarks_begin_with_a_minor(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"profile: the benchmarks begin with Kubernetes 1\.20"):
        load_plan(tmp_path, "1.19")


def test_the_profile_sets_keys_that_the_file_does_not_have(tmp_path: Path) -> None:
    cluster = load_plan(tmp_path, "1.36").cluster
    assert cluster.tls.cipher_suites == STRONG_SUITES
    assert cluster.admission is not None
    assert cluster.admission.plugins == ("DenyServiceExternalIPs",)
    assert cluster.admission.pod_security is not None
    assert cluster.admission.pod_security.enforce == "baseline"
    own = load_plan(
        tmp_path, "1.36", "cis", "admission: {pod_security: {enforce: restricted}}"
    ).cluster
    assert own.admission is not None
    assert own.admission.pod_security is not None
    assert (own.admission.pod_security.enforce, own.admission.pod_security.warn) == (
        "restricted",
    ) * 2
    assert (
        load_plan(tmp_path, "1.36", "cis", "tls: {min_version: TLS1.3}").cluster.tls.cipher_suites
        is None
    )
    old = load_plan(tmp_path, "1.20").cluster.admission
    assert old is not None
    assert old.pod_security is not None
    assert (old.plugins, old.pod_security.enforce, old.pod_security.warn) == (
        (),
        "baseline",
        "privileged",
    )


def test_show_names_the_profile_as_the_place_of_what_it_sets(tmp_path: Path) -> None:
    load_plan(tmp_path, "1.36")
    loaded = load_cluster(tmp_path / "cluster-1.36.yaml")
    suites = loaded.root.get("tls")
    assert suites is not None
    assert suites.place.path == ("profile",)
    assert suites.place.line == 3
    assert list_settings(loaded, "w1")


def test_units_are_closed_with_the_profile_and_stay_no_secrets(tmp_path: Path) -> None:
    closed = list_closed_paths("1.36", "cis")
    assert "/etc/systemd/system/etcd.service" in closed
    assert "/etc/kubernetes/kubelet-config.yaml" in closed
    modes = {}
    for profile in ("", "cis"):
        plan = load_plan(tmp_path, "1.36", profile)
        node = next(node for node in plan.nodes if node.name == "a1")
        files = {file.path: file.mode for file in list_files(plan, node)}
        modes[profile] = {f"/{path.removeprefix('rootfs/')}": mode for path, mode in files.items()}
    assert {modes["cis"][path] for path in closed} == {CLOSED_MODE}
    assert {modes[""][path] for path in closed} == {0o644}


def test_kube_bench_runs_the_checks_of_a_host_alone(tmp_path: Path) -> None:
    plan = load_plan(tmp_path, "1.36")
    assert {node.name: make_kube_bench_arguments(plan, node) for node in plan.nodes} == {
        "m1": "run --benchmark cis-1.12 --targets master,controlplane,policies --skip 1.1.7,1.1.8,1.1.11,1.1.12",
        "e1": "run --benchmark cis-1.12 --targets etcd",
        "w1": "run --benchmark cis-1.12 --targets node",
        "a1": "run --benchmark cis-1.12 --targets master,controlplane,etcd,node,policies",
        "b1": "run --benchmark cis-1.12 --targets master,controlplane,etcd,policies",
    }
