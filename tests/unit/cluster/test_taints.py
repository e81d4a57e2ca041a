"""The taints with which kubelets register: those of the flag or of the configuration file."""

from typing import Any

import pytest

from bundler.cluster.node_labels import list_marks, list_planned_taints
from bundler.cluster.schema import Cluster

FIELD = [{"key": "pool", "value": "gpu", "effect": "NoSchedule"}, {"key": "a.b/c", "effect": "NoExecute"}]  # fmt: skip


def plan(**extra: Any) -> tuple[str, ...]:
    node = {"name": "a", "address": "192.0.2.1", "roles": ["etcd", "control-plane", "worker"]}
    cluster = Cluster.model_validate(
        {
            "apiVersion": "bundler/v1alpha1",
            "name": "lab",
            "nodes": [node],
            "extra": {"kubelet": extra},
        }
    )
    return list_planned_taints(cluster, list_marks(cluster.nodes[0]))


@pytest.mark.parametrize(
    ("extra", "taints"),
    [
        ({}, ()),
        (
            {"flags": {"register-with-taints": "x=y:NoSchedule,z=:NoExecute,w:NoExecute"}},
            ("x=y:NoSchedule", "z:NoExecute", "w:NoExecute"),
        ),
        ({"config": {"registerWithTaints": FIELD}}, ("pool=gpu:NoSchedule", "a.b/c:NoExecute")),
        (
            {
                "flags": {"register-with-taints": "x:NoExecute"},
                "config": {"registerWithTaints": FIELD},
            },
            ("x:NoExecute",),
        ),
        ({"config": {"registerWithTaints": "none"}}, ()),
        ({"flags": {"register-with-taints": "'; touch /tmp/x; '"}}, ()),
    ],
)
def test_taints_of_extra_are_planned(extra: dict[str, Any], taints: tuple[str, ...]) -> None:
    assert plan(**extra) == taints
