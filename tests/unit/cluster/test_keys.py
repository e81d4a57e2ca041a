"""Keys of cluster.yaml: each has a description, and is found by its path."""

import re

import pytest

from bundler.cluster.keys import Key, find_keys, list_children, walk_keys
from bundler.errors import ConfigError

KEYS = tuple(walk_keys())


@pytest.mark.parametrize("key", KEYS, ids=[f"{key.path} {key.variant}" for key in KEYS])
def test_every_key_has_a_short_description(key: Key) -> None:
    text = re.sub(r"`[^`]*`", "VALUE", key.description.partition(" Example")[0])
    assert key.description.endswith(".")
    assert 1 <= len(re.findall(r"\.(?= |$)", text)) <= 3
    assert len(key.description) < 400
    assert key.description.count("`") % 2 == 0


def test_a_key_is_found_once_for_each_variant() -> None:
    assert [key.variant for key in find_keys("runtime.version")] == [
        "engine: docker",
        "engine: containerd",
    ]
    assert [key.variant for key in find_keys("runtime.registries.mirrors")] == [
        "engine: containerd"
    ]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("nodes[0].roles", "nodes.roles"),
        ("nodes[].roles", "nodes.roles"),
        ("extra.kubelet.flags", "extra.COMPONENT.flags"),
        ("extra.kubelet", "extra"),
        ("apiVersion", "apiVersion"),
    ],
)
def test_a_path_may_have_indexes_and_component_names(path: str, found: str) -> None:
    assert {key.path for key in find_keys(path)} == {found}


@pytest.mark.parametrize(
    ("path", "close"),
    [
        ("nodes.rolls", "nodes.roles"),
        ("runtime.registries.mirror", "runtime.registries.mirrors"),
        ("mirrors", "runtime.registries.mirrors"),
        ("kublet", "kubelet"),
        ("pod_cidr", "network.pod_cidr"),
    ],
)
def test_an_unknown_key_is_an_error_with_the_nearest_one(path: str, close: str) -> None:
    with pytest.raises(ConfigError, match="neither a key of cluster.yaml") as caught:
        find_keys(path)
    assert caught.value.hint == f"did you mean '{close}'?"


def test_a_key_that_resembles_none_is_an_error_with_the_top_keys() -> None:
    with pytest.raises(ConfigError) as caught:
        find_keys("zzzzzz")
    assert "apiVersion, name, kubernetes" in (caught.value.hint or "")


def test_type_default_and_allowed_values_come_from_the_schema() -> None:
    keys = {(key.path, key.variant): key for key in KEYS}
    assert keys["nodes.roles", ""].allowed == (
        "etcd",
        "control-plane",
        "load-balancer",
        "registry",
        "worker",
    )
    assert keys["nodes.roles", ""].default is None
    assert keys["etcd.backup.keep", ""].kind == "number from 1 to 1000"
    assert keys["etcd.backup.keep", ""].default == "8"
    assert keys["runtime.crictl", "engine: docker"].kind == "version or `none`"
    assert keys["dns.upstream", ""].kind == "`host` or list of IPv4 addresses"
    assert keys["packages.components", ""].default == "[main]"
    assert keys["network.proxy_mode", ""].has_described_default


def test_children_of_an_object_are_its_keys() -> None:
    (nodes,) = find_keys("nodes")
    assert [key.name for key in list_children(nodes)] == [
        "name",
        "address",
        "roles",
        "arch",
        "interface",
        "labels",
        "annotations",
        "taints",
        "files",
        "groups",
        "sans",
        "sysctls",
        "runtime",
        "packages",
        "extra",
        "etcd",
        "kubernetes",
        "monitoring",
    ]
    (roles,) = find_keys("nodes.roles")
    assert list_children(roles) == ()
