"""Which folders of templates/ make up which node's bundle."""

from collections.abc import Callable

from bundler.config import Role
from bundler.plan import NodePlan

OVERLAYS: tuple[tuple[str, Callable[[NodePlan], bool]], ...] = (
    ("common", lambda _node: True),
    ("network-static", lambda _node: True),
    ("etcd", lambda node: node.has(Role.ETCD)),
    ("etcd-client", lambda node: node.has(Role.ETCD) or node.has(Role.CONTROL_PLANE)),
    ("kubernetes-ca", lambda node: node.has(Role.CONTROL_PLANE) or node.has(Role.WORKER)),
    ("control-plane", lambda node: node.has(Role.CONTROL_PLANE)),
    ("load-balancer", lambda node: node.has(Role.LOAD_BALANCER)),
    ("worker", lambda node: node.has(Role.WORKER)),
    ("runtime-docker", lambda node: node.has(Role.WORKER)),
    ("cni-bridge", lambda node: node.has(Role.WORKER)),
)
"""Overlay, and whether a node has it. Two overlays may not own one path."""


def overlays_of(node: NodePlan) -> tuple[str, ...]:
    """The node's overlays, in order."""
    return tuple(name for name, applies in OVERLAYS if applies(node))
