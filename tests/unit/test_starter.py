"""bundler init's cluster.yaml: check accepts what it writes, for every system and choice."""

from pathlib import Path

import pytest
import yaml

from bundler.cache.store import Cache
from bundler.catalog import default_kubernetes
from bundler.cluster.components import RUNTIMES, minor_of
from bundler.cluster.loader import load_cluster
from bundler.cluster.os_packages import RELEASES
from bundler.cluster.schema_network import LoadBalancer as SchemaLoadBalancer
from bundler.errors import ConfigError, OutputError
from bundler.project import Inputs, check
from bundler.starter import (
    MODELINE,
    SCHEMA_NAME,
    Choices,
    Engine,
    Host,
    LoadBalancer,
    list_examples,
    make_description,
    parse_host,
    read_companions,
    read_example,
    write_new,
)

ONE = (Host(name="cp1", address="192.0.2.11"),)
THREE = tuple(Host(name=f"cp{n}", address=f"192.0.2.1{n}") for n in (1, 2, 3))
WORKERS = tuple(Host(name=f"w{n}", address=f"192.0.2.2{n}") for n in (1, 2))
ERA = 2


def make(directory: Path, **choices: object) -> str:
    """The text of a description, after `check` accepted it as a file."""
    values = {"name": "site", "control_planes": ONE, **choices}
    text = make_description(Choices(**values), "cluster.yaml")  # type: ignore[arg-type]
    path = directory / "cluster.yaml"
    path.write_text(text)
    check(Inputs(description=path, cache=Cache(directory / "cache"), offline=True))
    assert text.startswith(f"{MODELINE}{SCHEMA_NAME}\n")
    return text


def test_the_choices_have_the_values_of_the_schema() -> None:
    assert set(Engine) == set(RUNTIMES)
    kinds = {
        model.model_fields["kind"].annotation.__args__[0]
        for model in SchemaLoadBalancer.__origin__.__args__
    }
    assert set(LoadBalancer) == kinds


@pytest.mark.parametrize("engine", Engine)
@pytest.mark.parametrize("release", [None, *RELEASES])
def test_check_accepts_it_for_every_system_without_a_word_about_the_system(
    tmp_path: Path, release: str | None, engine: Engine
) -> None:
    text = make(tmp_path, os=release, engine=engine, control_planes=THREE, workers=WORKERS)
    warnings = load_cluster(tmp_path / "cluster.yaml").warnings
    assert not [line for line in warnings if "packages.os" in line], text
    data = yaml.safe_load(text)
    assert data["runtime"]["engine"] == engine
    assert (data.get("packages") or {}).get("os") == release


def test_an_old_system_gets_older_versions_and_a_new_one_the_newest(tmp_path: Path) -> None:
    old = yaml.safe_load(make(tmp_path, os="rocky-8"))
    new = yaml.safe_load(make(tmp_path, os="debian-13"))
    assert new["kubernetes"]["version"] == default_kubernetes()
    assert new["runtime"] == {"engine": "containerd"}
    assert int(minor_of(old["kubernetes"]["version"]).partition(".")[2]) < 35  # cgroup v1
    chosen = make(tmp_path, os="debian-11")
    assert yaml.safe_load(chosen)["network"]["proxy_mode"] == "iptables"  # Linux 5.10


@pytest.mark.parametrize(
    ("choices", "plane"),
    [
        ({}, None),
        ({"control_planes": THREE}, {"load_balancer": {"kind": "node-local"}}),
        (
            {"control_planes": THREE, "endpoint": "192.0.2.100:8443"},
            {"endpoint": "192.0.2.100:8443", "load_balancer": {"kind": "nginx-keepalived"}},
        ),
        (
            {"control_planes": THREE, "endpoint": "api.example:443", "load_balancer": LoadBalancer.EXTERNAL},
            {"endpoint": "api.example:443", "load_balancer": {"kind": "external"}},
        ),
        ({"endpoint": "api.example:6443"}, {"endpoint": "api.example:6443"}),
    ],
)  # fmt: skip
def test_the_endpoint_and_the_number_of_control_planes_decide_the_load_balancer(
    tmp_path: Path, choices: dict[str, object], plane: object
) -> None:
    assert yaml.safe_load(make(tmp_path, **choices)).get("control_plane") == plane


@pytest.mark.parametrize("address", ["10.200.0.5", "10.254.3.1", "172.17.0.9", "192.168.1.1"])
def test_ranges_inside_the_cluster_hold_no_host(tmp_path: Path, address: str) -> None:
    make(tmp_path, control_planes=(Host(name="one", address=address),))


@pytest.mark.parametrize("name", ["on", "1", "null", "1e3", "0x1f"])
def test_a_name_that_yaml_would_read_as_something_else_stays_text(
    tmp_path: Path, name: str
) -> None:
    text = make(tmp_path, name=name, control_planes=(Host(name=name, address="192.0.2.1"),))
    data = yaml.safe_load(text)
    assert (data["name"], data["nodes"][0]["name"]) == (name, name)


def test_arm64_is_in_every_node(tmp_path: Path) -> None:
    nodes = yaml.safe_load(make(tmp_path, arch="arm64", workers=WORKERS))["nodes"]
    assert {node["arch"] for node in nodes} == {"arm64"}


def test_wrong_choices_are_all_named_with_the_file_that_would_have_been(tmp_path: Path) -> None:
    twice = (*ONE, Host(name="cp2", address="192.0.2.11"), Host(name="cp1", address="192.0.2.13"))
    with pytest.raises(ConfigError) as caught:
        make_description(Choices(name="site", control_planes=twice), "site/c.yaml")
    lines = caught.value.message.splitlines()
    assert len(lines) == ERA
    assert all(line.startswith("site/c.yaml:") for line in lines)


def test_a_version_without_pins_is_refused_as_check_refuses_it() -> None:
    with pytest.raises(Exception, match=r"kubernetes.* 1\.30\.99 .*no built-in pin"):
        make_description(
            Choices(name="site", control_planes=ONE, kubernetes="1.30.99"), "cluster.yaml"
        )


@pytest.mark.parametrize("text", ["", "cp1=", "=192.0.2.1=", "Cp=192.0.2.1", "a=b=192.0.2.1", "192.0.2", "::1", "192.0.2.1, roles: [x]"])  # fmt: skip
def test_a_host_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_host(text, "cp1")


@pytest.mark.parametrize("name", list_examples())
def test_check_accepts_every_example_as_it_is(tmp_path: Path, name: str) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(read_example(name))
    for file, text in read_companions(name).items():
        (tmp_path / file).write_text(text)
    check(Inputs(description=path, cache=Cache(tmp_path / "cache"), offline=True))


def test_an_unknown_example_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError) as caught:
        read_example("../production")
    assert "production" in (caught.value.hint or "")


@pytest.mark.parametrize("kind", ["file", "link", "dangling"])
def test_what_is_there_is_never_overwritten(tmp_path: Path, kind: str) -> None:
    path, other = tmp_path / "cluster.yaml", tmp_path / "other"
    if kind == "file":
        path.write_text("mine")
    else:
        path.symlink_to(other)
        if kind == "link":
            other.write_text("mine")
    with pytest.raises(OutputError, match="does not overwrite"):
        write_new(path, "text")
    assert kind == "dangling" or path.read_text() == "mine"
    assert not other.exists() or other.read_text() == "mine"
    assert not list(tmp_path.glob(".tmp-*"))
