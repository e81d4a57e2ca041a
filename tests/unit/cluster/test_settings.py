"""Flags and fields: the catalog's rows, with `extra` merged over them."""

from pathlib import Path

import pytest

from bundler.catalog import KUBERNETES_PROGRAMS, default_version, find_artifact
from bundler.cluster.accepted import accepted_flags, is_within
from bundler.cluster.components import API_SERVER_STOP, EXTRA_COMPONENTS, MINORS, row_for
from bundler.cluster.loader import load_cluster
from bundler.cluster.schema import Cluster
from bundler.cluster.settings import list_flags, make_config, make_flags


def load(description: Path, extra: str) -> Cluster:
    before = description.read_text().partition("extra:\n")[0]
    description.write_text(f"{before}extra:\n{extra}")
    return load_cluster(description).cluster


def plain(text: str) -> str:
    return "7" if "{{" in text else text


def test_a_flag_of_extra_replaces_bundlers_value(description: Path) -> None:
    cluster = load(
        description,
        "  kube-apiserver: {flags: {event-ttl: 24h, profiling: true, feature-gates: APIPriorityAndFairness=true}}\n",
    )
    flags = make_flags(cluster, "kube-apiserver", plain)
    assert "--event-ttl=24h" in flags
    assert "--profiling=true" in flags
    assert "--feature-gates=APIPriorityAndFairness=true" in flags
    assert [f for f in flags if f.startswith("--event-ttl")] == ["--event-ttl=24h"]
    assert list(flags) == sorted(flags)


def test_fields_of_extra_are_merged_over_bundlers(description: Path) -> None:
    cluster = load(
        description, "  kubelet: {config: {maxPods: 50, evictionHard: {memory.available: 1Gi}}}\n"
    )
    config = make_config(cluster, "kubelet", plain)
    assert config["maxPods"] == 50
    assert config["evictionHard"]["memory.available"] == "1Gi"
    assert config["evictionHard"]["nodefs.available"] == "10%"


def test_dockers_log_options_stay_text(description: Path) -> None:
    cluster = load_cluster(description).cluster
    config = make_config(cluster, "docker", lambda text: '"5"' if "max_file" in text else "[]")
    assert config["log-opts"]["max-file"] == "5"
    assert config["registry-mirrors"] == []


@pytest.mark.parametrize("minor", MINORS)
@pytest.mark.parametrize(
    "component",
    [name for name in EXTRA_COMPONENTS if name in KUBERNETES_PROGRAMS],
)
def test_the_real_program_accepts_every_flag_that_bundler_sets(component: str, minor: str) -> None:
    known = accepted_flags(component, minor)
    assert len(known) > 20
    used = {row.flag for row in list_flags(component) if row.holds_for(minor)}
    assert used <= known


def test_every_flag_has_a_reason() -> None:
    for component in EXTRA_COMPONENTS:
        for row in list_flags(component):
            assert len(row.why) > 5


@pytest.mark.parametrize(
    ("version", "api"),
    [
        ("1.14.2", "v1alpha1"), ("1.17.17", "v1alpha1"), ("1.18.20", "v1alpha2"), ("1.19.16", "v1beta1"),
        ("1.21.14", "v1beta1"), ("1.22.17", "v1beta2"), ("1.23.17", "v1beta3"), ("1.24.17", "v1beta3"), ("1.25.16", "v1"), ("1.36.2", "v1"),
    ],
)  # fmt: skip
def test_the_schedulers_file_has_the_api_version_of_its_minor(
    description: Path, version: str, api: str
) -> None:
    text = description.read_text().replace("1.20.2", version)
    description.write_text(text.replace("engine: docker, version: 20.10.24", "engine: containerd"))
    config = make_config(load_cluster(description).cluster, "kube-scheduler", plain)
    assert config["apiVersion"] == f"kubescheduler.config.k8s.io/{api}"
    assert ("healthzBindAddress" in config) == (api not in {"v1beta3", "v1"})


def test_etcds_flags_follow_etcds_own_version(description: Path) -> None:
    flags = {}
    for version in ("3.3.13", "3.4.23"):
        text = description.read_text()
        description.write_text(text.replace("{version: 3.4.23}", f"{{version: {version}}}"))
        flags[version] = make_flags(load_cluster(description).cluster, "etcd", plain)
        description.write_text(text)
    assert "--logger=zap" in flags["3.4.23"]
    assert "--logger=zap" not in flags["3.3.13"]


@pytest.mark.parametrize("minor", MINORS)
def test_the_default_components_of_every_minor_are_pinned(description: Path, minor: str) -> None:
    for component in ("etcd", "cni-plugins", "containerd", "runc"):
        version = default_version(component, minor)
        assert find_artifact(component, version, "amd64"), f"{component} {version}"
        assert find_artifact(component, version, "arm64"), f"{component} {version}"


@pytest.mark.parametrize("minor", MINORS)
def test_an_api_server_that_can_end_watches_does_so_before_it_is_killed(minor: str) -> None:
    flag = "shutdown-watch-termination-grace-period"
    rows = [row for row in list_flags("kube-apiserver") if row.flag == flag]
    is_set = any(is_within(row.since, row.until, minor) for row in rows)
    assert is_set == (flag in accepted_flags("kube-apiserver", minor))
    # without it watches make every stop run into the limit
    assert row_for(API_SERVER_STOP, minor) > 3 if is_set else row_for(API_SERVER_STOP, minor) < 5
