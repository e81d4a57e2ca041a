"""Which folders of templates/ a node's bundle is made from."""

from bundler.cluster.components import Row, select
from bundler.cluster.plan import ClusterPlan, NodePlan
from bundler.cluster.schema import Role

OVERLAYS: tuple[Row, ...] = (
    ("common", None, None),
    ("network-static", None, "static"),
    ("etcd", Role.ETCD, None),
    ("etcd-backup", Role.ETCD, "etcd-backup"),
    ("etcdutl", Role.ETCD, "etcdutl"),
    ("etcd-flannel-proxy", Role.ETCD, "flannel-etcd"),
    ("etcd-client", Role.ETCD, None),
    ("etcd-client", Role.CONTROL_PLANE, None),
    ("service-users", Role.ETCD, None),
    ("service-users", Role.CONTROL_PLANE, None),
    ("service-users", Role.LOAD_BALANCER, None),
    ("service-users", Role.REGISTRY, None),
    ("certificates", Role.ETCD, None),
    ("certificates", Role.CONTROL_PLANE, None),
    ("certificates", Role.WORKER, None),
    ("certificates", Role.REGISTRY, None),
    ("kubernetes-ca", Role.CONTROL_PLANE, None),
    ("kubernetes-ca", Role.WORKER, None),
    ("control-plane", Role.CONTROL_PLANE, None),
    ("audit-policy", Role.CONTROL_PLANE, "audit-default"),
    ("kms-plugin", Role.CONTROL_PLANE, "kms-plugin"),
    ("kubectl", Role.CONTROL_PLANE, None),
    ("kubectl", Role.WORKER, None),
    ("load-balancer", Role.LOAD_BALANCER, None),
    ("keepalived", Role.LOAD_BALANCER, "nginx-keepalived"),
    ("registry", Role.REGISTRY, None),
    ("registry-copies", Role.REGISTRY, "registry-copies"),
    ("registry-client", Role.REGISTRY, "registry-copies"),
    ("registry-client", Role.CONTROL_PLANE, "registry"),
    ("worker", Role.WORKER, None),
    ("kube-proxy", Role.WORKER, "kube-proxy"),
    ("runtime-docker", Role.WORKER, "docker"),
    ("registry-docker", Role.WORKER, "docker+registry"),
    ("docker-shim-v1", Role.WORKER, "docker-shim-v1"),
    ("docker-shim-v2", Role.WORKER, "docker-shim-v2"),
    ("runtime-containerd", Role.WORKER, "containerd"),
    ("cri-dockerd", Role.WORKER, "cri-dockerd"),
    ("crictl", Role.WORKER, "crictl"),
    ("cni-plugins", Role.WORKER, "cni"),
    ("cni-bridge", Role.WORKER, "static"),
    ("flannel", Role.WORKER, "flannel"),
    ("flannel-kubernetes", Role.WORKER, "flannel-kubernetes"),
    ("flannel-etcd", Role.WORKER, "flannel-etcd"),
    ("kube-router", Role.WORKER, "kube-router"),
    ("kube-router-rbac", Role.CONTROL_PLANE, "kube-router"),
    ("default-deny", Role.CONTROL_PLANE, "default-deny"),
    ("coredns", Role.CONTROL_PLANE, "coredns"),
    ("kubelet-settings", Role.CONTROL_PLANE, "own-settings"),
    ("pod-security-policies", Role.CONTROL_PLANE, "pod-security-policies"),
    ("runtime-classes", Role.CONTROL_PLANE, "handlers"),
    ("flannel-rbac", Role.CONTROL_PLANE, "flannel-kubernetes"),
    ("metrics-server", Role.CONTROL_PLANE, "metrics-server"),
    ("network-manager", Role.WORKER, None),
    ("profile", None, "cis"),
    ("profile-control-plane", Role.CONTROL_PLANE, "cis"),
)
"""Overlay, role and feature. Two overlays of one node must not own the same path."""


def overlays_of(plan: ClusterPlan, node: NodePlan) -> tuple[str, ...]:
    """The node's overlays, in order."""
    return select(OVERLAYS, node.roles, plan.on_host(node).features)
