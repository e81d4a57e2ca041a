"""Flags and fields: the catalogue's rows, and the user's on top."""

from pathlib import Path

import pytest

from bundler.components import EXTRA_COMPONENTS, MINORS
from bundler.config import Cluster
from bundler.loader import load_cluster
from bundler.settings import accepted_flags, list_flags, make_config, make_flags


def load(description: Path, extra: str) -> Cluster:
    description.write_text(description.read_text().replace("extra:\n", f"extra:\n{extra}"))
    return load_cluster(description).cluster


def plain(text: str) -> str:
    return "7" if "{{" in text else text


def test_the_users_flag_replaces_bundlers(description: Path) -> None:
    cluster = load(
        description,
        "  kube-apiserver: {flags: {event-ttl: 24h, profiling: true, feature-gates: X=true}}\n",
    )
    flags = make_flags(cluster, "kube-apiserver", plain)
    assert "--event-ttl=24h" in flags
    assert "--profiling=true" in flags
    assert "--feature-gates=X=true" in flags
    assert [f for f in flags if f.startswith("--event-ttl")] == ["--event-ttl=24h"]
    assert list(flags) == sorted(flags)


def test_the_users_fields_are_merged_into_bundlers(description: Path) -> None:
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
    [name for name, target in EXTRA_COMPONENTS.items() if target.has_flags and name != "etcd"],
)
def test_the_real_program_takes_every_flag_that_is_set(component: str, minor: str) -> None:
    known = accepted_flags(component, minor)
    assert len(known) > 20
    used = {row.flag for row in list_flags(component) if row.holds_for(minor)}
    assert used <= known


def test_every_flag_says_why() -> None:
    for component in EXTRA_COMPONENTS:
        for row in list_flags(component):
            assert len(row.why) > 5
