"""`network.policy`: what is refused, and what it adds to bundles."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.join_cluster import describe

from bundler.cluster.checks import check_cluster
from bundler.cluster.plan import choose_kube_router
from bundler.cluster.schema import Cluster

Trees = Callable[..., Path]


def make_cluster(network: dict[str, Any], version: str = "1.20.2") -> Cluster:
    description = describe("192.0.2", ("w1",)) | {"network": network}
    return Cluster.model_validate(description | {"kubernetes": {"version": version}})


def list_problems(network: dict[str, Any], version: str = "1.20.2") -> list[str]:
    cluster = make_cluster(network, version)
    return [
        f"{'.'.join(map(str, one.path))}: {one.text}"
        for one in check_cluster(cluster)
        if one.is_error and one.path[:2] == ("network", "policy")
    ]


@pytest.mark.parametrize(
    ("policy", "problem"),
    [
        ({"default_deny": ["payments"]}, "network.policy.default_deny: network.policy.engine is none: set `engine: kube-router`"),
        ({"version": "1.6.1"}, "network.policy.version: network.policy.engine is none"),
        ({"engine": "kube-router", "version": "2.5.0"}, "network.policy.version: kube-router 2.5.0 needs Kubernetes 1.21 or newer: use 1.6.1"),
        ({"engine": "kube-router", "default_deny": ["kube-system"]}, "network.policy.default_deny: kube-system has cluster DNS"),
    ],
)  # fmt: skip
def test_a_policy_that_cannot_work_is_refused_with_what_to_do(
    policy: dict[str, Any], problem: str
) -> None:
    (found,) = list_problems({"policy": policy})
    assert found.startswith(problem)


def test_flannel_in_etcd_has_no_bridge_that_the_guard_knows() -> None:
    network = {
        "plugin": "flannel",
        "flannel": {"store": "etcd"},
        "policy": {"engine": "kube-router"},
    }
    (found,) = list_problems(network)
    assert "use `store: kubernetes` or `engine: none`" in found


@pytest.mark.parametrize(("minor", "version"), [("1.14.0", "1.6.1"), ("1.20.2", "1.6.1"), ("1.21.0", "2.11.1"), ("1.36.2", "2.11.1")])  # fmt: skip
def test_the_default_version_is_one_that_the_minor_has_the_apis_for(
    minor: str, version: str
) -> None:
    network = {"policy": {"engine": "kube-router"}}
    assert choose_kube_router(make_cluster(network, minor)) == version
    assert list_problems({"policy": {"engine": "kube-router", "version": version}}, minor) == []


def test_other_engines_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'kube-router', 'addon' or 'none'"):
        make_cluster({"policy": {"engine": "kube-network-policies"}})
