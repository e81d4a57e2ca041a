"""`network.plugin: addon`: what is refused, what is applied first, what hosts have and do not have."""

from typing import Any

import pytest
from support.join_cluster import describe

from bundler.cluster.checks import check_cluster
from bundler.cluster.network_addon import put_network_first
from bundler.cluster.schema import Cluster

ADDONS = ("definitions", "calico", "shop", "web")
NETWORK = {"plugin": "addon", "addon": "calico"}


def make_cluster(
    network: dict[str, Any], needs: dict[str, list[str]] | None = None, **keys: Any
) -> Cluster:
    addons = [
        {"name": name, "manifests": f"{name}.yaml", "needs": (needs or {}).get(name, [])}
        for name in ADDONS
    ]
    return Cluster.model_validate(
        describe("192.0.2", ("w1",)) | {"network": network, "addons": addons} | keys
    )


def list_problems(network: dict[str, Any], **keys: Any) -> list[str]:
    return [
        f"{'.'.join(map(str, one.path))}: {one.text}"
        for one in check_cluster(make_cluster(network, **keys))
        if one.is_error
    ]


@pytest.mark.parametrize(
    ("network", "problem"),
    [
        ({"plugin": "addon"}, "network.plugin: add the name of the add-on"),
        ({"plugin": "addon", "addon": "calic"}, "network.addon: there is no add-on calic; did you mean 'calico'?: add it"),
        ({"addon": "calico"}, "network.addon: network.plugin is static: set `plugin: addon`"),
        ({"proxy_mode": "none"}, "network.proxy_mode: network.plugin is static: set `plugin: addon` and its add-on, or choose iptables"),
        ({"plugin": "flannel", "proxy_mode": "none"}, "network.proxy_mode: network.plugin is flannel"),
        ({**NETWORK, "policy": {"engine": "kube-router"}}, "network.policy.engine: kube-router works with the bridges that bundler makes: use `engine: addon`"),
        ({**NETWORK, "policy": {"engine": "addon", "version": "1.6.1"}}, "network.policy.version: network.policy.engine is addon"),
        ({**NETWORK, "flannel": {"backend": "vxlan"}}, "network.flannel: network.plugin is addon"),
    ],
)  # fmt: skip
def test_what_no_program_would_do_is_refused_with_what_to_write(
    network: dict[str, Any], problem: str
) -> None:
    (found,) = list_problems(network)
    assert found.startswith(problem)


@pytest.mark.parametrize(
    ("ports", "proxy_mode", "taken"),
    [
        ("10250/tcp", None, "10250, the port of kubelet.service"),
        ("10240-10248/tcp", None, "10248, the port of kubelet.service"),
        ("10256/tcp", None, "10256, the port of kube-proxy.service"),
        ("10256/tcp", "none", None),
        ("10250/udp", None, None),
        ("10251/tcp", None, None),
    ],
)  # fmt: skip
def test_ports_of_a_workers_units_are_not_for_add_ons(
    ports: str, proxy_mode: str | None, taken: str | None
) -> None:
    addons = [{"name": "calico", "manifests": "calico.yaml", "ports": ["4789/udp", ports]}]
    found = list_problems(NETWORK | {"proxy_mode": proxy_mode}, addons=addons)
    text = f"addons.0.ports.1: contains {taken}: pods of the add-on cannot have it"
    assert found == ([text] if taken else [])


def test_an_addon_may_enforce_the_policies_of_other_networks() -> None:
    policy = {"policy": {"engine": "addon", "default_deny": ["a"]}}
    for plugin in ("static", "flannel"):
        assert list_problems({"plugin": plugin, **policy}) == []
        assert list_problems({"plugin": plugin, **policy}, addons=[]) == [
            (
                "network.policy.engine: there is no add-on: add the one that enforces NetworkPolicies"
                " to `addons`"
            )
        ]


def test_an_addon_may_make_the_network_forward_services_and_enforce_policies() -> None:
    whole = {**NETWORK, "proxy_mode": "none", "policy": {"engine": "addon", "default_deny": ["a"]}}
    assert list_problems(whole) == []


def test_settings_of_kube_proxy_are_refused_where_there_is_none() -> None:
    settings = {"extra": {"kube-proxy": {"flags": {"v": "3"}}}}
    assert list_problems({**NETWORK, "proxy_mode": "none"}, **settings) == [
        "extra.kube-proxy: the cluster does not use kube-proxy: remove this key"
    ]
    assert list_problems({**NETWORK, "proxy_mode": "iptables"}, **settings) == []


def test_every_addon_waits_for_the_network_but_those_that_the_network_needs() -> None:
    cluster = make_cluster(
        NETWORK, {"calico": ["definitions"], "web": ["shop"], "shop": ["calico"]}
    )
    assert {addon.name: addon.needs for addon in put_network_first(cluster).addons} == {
        "definitions": (),
        "calico": ("definitions",),
        "shop": ("calico",),
        "web": ("calico", "shop"),
    }


def test_other_networks_change_no_needs() -> None:
    cluster = make_cluster({})
    assert put_network_first(cluster) is cluster
