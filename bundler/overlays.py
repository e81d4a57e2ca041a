"""Which folders of templates/ make up which node's bundle."""

from bundler.components import Row, select
from bundler.config import Role
from bundler.plan import NodePlan, Plan

OVERLAYS: tuple[Row, ...] = (
    ("common", None, None),
    ("network-static", None, None),
    ("etcd", Role.ETCD, None),
    ("etcd-client", Role.ETCD, None),
    ("etcd-client", Role.CONTROL_PLANE, None),
    ("kubernetes-ca", Role.CONTROL_PLANE, None),
    ("kubernetes-ca", Role.WORKER, None),
    ("control-plane", Role.CONTROL_PLANE, None),
    ("load-balancer", Role.LOAD_BALANCER, None),
    ("keepalived", Role.LOAD_BALANCER, "nginx-keepalived"),
    ("worker", Role.WORKER, None),
    ("runtime-docker", Role.WORKER, "docker"),
    ("runtime-containerd", Role.WORKER, "containerd"),
    ("cni-bridge", Role.WORKER, None),
)
"""Overlay, and which nodes have it. Two overlays may not own one path."""


def overlays_of(plan: Plan, node: NodePlan) -> tuple[str, ...]:
    """The node's overlays, in order."""
    return select(OVERLAYS, node.roles, plan.features)
