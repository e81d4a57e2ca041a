"""Which folders of templates/ make up which node's bundle."""

from collections.abc import Callable

from bundler.config import Role
from bundler.plan import NodePlan, Plan

OVERLAYS: tuple[tuple[str, Callable[[Plan, NodePlan], bool]], ...] = (
    ("common", lambda _plan, _node: True),
    ("network-static", lambda _plan, _node: True),
    ("etcd", lambda _plan, node: node.has(Role.ETCD)),
    ("etcd-client", lambda _plan, node: node.has(Role.ETCD) or node.has(Role.CONTROL_PLANE)),
    ("kubernetes-ca", lambda _plan, node: node.has(Role.CONTROL_PLANE) or node.has(Role.WORKER)),
    ("control-plane", lambda _plan, node: node.has(Role.CONTROL_PLANE)),
    ("load-balancer", lambda _plan, node: node.has(Role.LOAD_BALANCER)),
    ("worker", lambda _plan, node: node.has(Role.WORKER)),
    ("runtime-docker", lambda plan, node: node.has(Role.WORKER) and plan.engine == "docker"),
    (
        "runtime-containerd",
        lambda plan, node: node.has(Role.WORKER) and plan.engine == "containerd",
    ),
    ("cni-bridge", lambda _plan, node: node.has(Role.WORKER)),
)
"""Overlay, and whether a node has it. Two overlays may not own one path."""


def overlays_of(plan: Plan, node: NodePlan) -> tuple[str, ...]:
    """The node's overlays, in order."""
    return tuple(name for name, applies in OVERLAYS if applies(plan, node))
