"""The JSON Schema accepts what check accepts, and refuses unknown keys."""

import copy
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from support.paths import EXAMPLES, PROJECT

from bundler.cluster.accepted import accepted_flags, known_gates
from bundler.cluster.components import EXTRA_COMPONENTS, MINORS
from bundler.cluster.extra_checks import GATES_OF_ALL
from bundler.cluster.json_schema import format_schema, make_schema
from bundler.cluster.keys import list_children, walk_keys
from bundler.cluster.loader import load_cluster
from bundler.errors import ConfigError
from bundler.starter import Choices, Engine, Host, LoadBalancer, make_description

if TYPE_CHECKING:
    from jsonschema import Draft7Validator

ONE = {
    "apiVersion": "bundler/v1alpha1",
    "name": "one",
    "nodes": [{"name": "n", "address": "192.0.2.1", "roles": ["etcd", "control-plane", "worker"]}],
}


@cache
def make_validator() -> "Draft7Validator":
    from jsonschema import Draft7Validator  # it takes 3 s, in every process that collects

    return Draft7Validator(json.loads(format_schema()))


def faults_of(data: object) -> list[str]:
    return [error.message for error in make_validator().iter_errors(data)]


def with_value(path: str, value: object, **more: Any) -> dict[str, Any]:
    """ONE with a value at a dotted path."""
    data: dict[str, Any] = copy.deepcopy({**ONE, **more})
    *above, last = path.split("/")
    here = data
    for part in above:
        here = here.setdefault(part, {})
    here[last] = value
    return data


def check_accepts(data: object, directory: Path) -> bool:
    path = directory / "cluster.yaml"
    path.write_text(yaml.safe_dump(data))
    try:
        load_cluster(path)
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize("path", [*EXAMPLES.glob("*.yaml"), PROJECT / "scripts" / "lab.yaml"], ids=lambda path: path.stem)  # fmt: skip
def test_every_example_is_valid(path: Path) -> None:
    assert not faults_of(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize("engine", Engine)
@pytest.mark.parametrize("kind", LoadBalancer)
def test_what_init_writes_is_valid(engine: Engine, kind: LoadBalancer) -> None:
    hosts = tuple(Host(name=f"n{n}", address=f"192.0.2.{n}") for n in (1, 2, 3))
    choices = Choices(
        name="site", control_planes=hosts, engine=engine, os="debian-12", load_balancer=kind,
        endpoint=None if kind == "node-local" else "192.0.2.100:8443",
    )  # fmt: skip
    assert not faults_of(yaml.safe_load(make_description(choices, "cluster.yaml")))


ACCEPTED = [
    ("etcd/backup/keep", "8", {}),
    ("etcd/backup/keep", 8.0, {}),
    ("etcd/backup/enabled", "Yes", {}),
    ("etcd/backup/enabled", 0, {}),
    ("etcd/version", None, {}),
    ("kubernetes/version", "v1.36.2", {}),
    ("runtime", {"crictl": "none"}, {}),
    ("runtime", {"engine": "docker"}, {"kubernetes": {"version": "1.20.2"}}),
    ("dns/upstream", [], {}),
    ("metrics_server", None, {}),
    ("artifacts", {"etcd/arm64": {"url": "https://a.example/x"}}, {}),
    ("extra/kubelet/config/featureGates", None, {}),
    ("extra/kubelet/config/featureGates", {"AllAlpha": True}, {}),
    ("extra/kubelet/config/evictionHard", {"nodefs.available": "1Gi"}, {}),
    ("extra/etcd/flags", {"snapshot-count": 5}, {}),
    ("extra/containerd/config", {"anything": {"goes": 1}}, {}),
    ("network/proxy_mode", "nftables", {}),
    ("extra/kubelet/flags", {"docker-tls": True}, {"kubernetes": {"version": "1.20.2"}}),
    ("network/proxy_mode", "nftables", {"kubernetes": {"version": "1.31.0"}}),
    ("network/proxy_mode", None, {"kubernetes": {"version": "1.20.2"}}),
    ("x-anchors", {"anything": [1]}, {}),
    ("defaults", {"arch": "amd64", "roles": None, "runtime": {"data_root": "/data/c"}}, {}),
    ("defaults", None, {}),
    ("groups", {"a": {"runtime": {"registries": [None, {"host": "a.example"}]}}, "b": None}, {}),
    ("groups", {"a": {"etcd": {"backup": {"keep": None}}, "extra": {"kubelet": None}}}, {}),
    ("nodes_from", [], {}),
    ("include", None, {}),
    ("nodes", [{"name": "n", "address": "192.0.2.1", "arch": None}],
     {"defaults": {"roles": ["etcd", "control-plane"]}}),
]  # fmt: skip
REFUSED = [
    ("defaults", {"name": "a"}, {}),
    ("defaults", {"network": {}}, {}),
    ("defaults/runtime", {"engine": "containerd"}, {}),
    ("groups", {"a": {"rols": []}}, {}),
    ("groups", {"A": {}}, {}),
    ("groups", {"a": {"extra": {"kube-apiserver": {}}}}, {}),
    ("defaults", {"extra": {"kubelet": {"config": {"maxPod": 1}}}}, {}),
    ("nodes", [{"name": "n", "roles": ["etcd", "control-plane"]}], {}),
    ("include", 5, {}),
    ("node", [], {}),
    ("etcd/bakup", {}, {}),
    ("etcd/backup/keep", "many", {}),
    ("etcd/backup/keep", 0, {}),
    ("etcd/backup/enabled", 2, {}),
    ("runtime", {"engine": "docker", "registries": []}, {}),
    ("runtime", {"engine": "podman"}, {}),
    ("control_plane/load_balancer", {"kind": "node-local", "interface": "eth0"}, {}),
    ("packages", {"os": "plan-9"}, {}),
    ("artifacts", {"kublet": {"url": "https://a.example/x"}}, {}),
    ("upstream_keys", {"kublet": {"openpgp": "x"}}, {}),
    ("extra/kublet", {}, {}),
    ("extra/kubelet/flag", {}, {}),
    ("extra/kube-apiserver/flags", {"no-such-flag": 1}, {}),
    ("extra/kube-apiserver/config", {"a": 1}, {}),
    ("extra/kubelet/config", {"maxPod": 1}, {}),
    ("extra/kubelet/config/featureGates", {"NoSuchGate": True}, {}),
    ("network/proxy_mode", "nftables", {"kubernetes": {"version": "1.20.2"}}),
    ("extra/kubelet/flags", {"docker-tls": True}, {}),
    ("extra/kubelet/flags", {"docker-tls": True}, {"kubernetes": {"version": "1.36.2"}}),
    ("extra/kube-proxy/config/featureGates", {"EphemeralContainers": True}, {}),
]


@pytest.mark.parametrize(("path", "value", "more"), ACCEPTED)
def test_it_accepts_what_check_accepts(
    tmp_path: Path, path: str, value: object, more: dict[str, Any]
) -> None:
    data = with_value(path, value, **more)
    assert check_accepts(data, tmp_path)
    assert not faults_of(data)


@pytest.mark.parametrize(("path", "value", "more"), REFUSED)
def test_it_refuses_what_check_refuses(
    tmp_path: Path, path: str, value: object, more: dict[str, Any]
) -> None:
    data = with_value(path, value, **more)
    assert not check_accepts(data, tmp_path)
    assert faults_of(data)


@pytest.mark.parametrize("minor", MINORS)
def test_flags_and_gates_of_a_minor_are_those_of_check(minor: str) -> None:
    schema = make_schema()
    data = {**ONE, "kubernetes": {"version": f"{minor}.1"}}
    refused: dict[str, set[str]] = {"flags": set(), "featureGates": set()}
    for rule in schema["allOf"]:
        if make_validator().evolve(schema=rule["if"]).is_valid(data):
            kubelet = rule["then"]["properties"].get("extra", {"properties": {}})["properties"].get("kubelet", {"properties": {}})["properties"]  # fmt: skip
            gates = kubelet.get("config", {"properties": {}})["properties"].get("featureGates", {"properties": {}})  # fmt: skip
            refused["flags"] |= set(kubelet.get("flags", {"properties": {}})["properties"])
            refused["featureGates"] |= set(gates["properties"])
    kubelet = schema["properties"]["extra"]["properties"]["kubelet"]["properties"]
    flags = set(kubelet["flags"]["properties"])
    gates = set(kubelet["config"]["properties"]["featureGates"]["properties"]) - GATES_OF_ALL
    assert flags - refused["flags"] == accepted_flags("kubelet", minor)
    assert gates - refused["featureGates"] == set(known_gates(minor)) - GATES_OF_ALL


def test_every_key_has_its_description() -> None:
    text = json.dumps(make_schema())
    for key in walk_keys():
        assert json.dumps(key.description)[1:-1] in text, key.path


def test_every_object_of_the_models_refuses_unknown_keys() -> None:
    definitions = make_schema()["$defs"]
    objects = [d for d in definitions.values() if d.get("type") == "object"]
    assert len(objects) > 20
    assert all(d["additionalProperties"] is False for d in objects)
    assert set(make_schema()["properties"]["extra"]["properties"]) == set(EXTRA_COMPONENTS)
    assert {key.name for key in list_children(None)} == set(make_schema()["properties"])
