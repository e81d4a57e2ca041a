"""The audit policy of a site, in place of bundler's."""

from collections.abc import Iterator

from bundler.cluster.plan import ClusterPlan, NodePlan
from bundler.cluster.schema import Role
from bundler.render.tree import File

AUDIT_POLICY = "rootfs/etc/kubernetes/audit-policy.yaml"


def make_audit_files(plan: ClusterPlan, node: NodePlan) -> Iterator[File]:
    """Yield the policy, for a control plane."""
    policy = plan.cluster.audit.policy
    if policy and node.has(Role.CONTROL_PLANE):
        content = policy.read_bytes()
        yield File(path=AUDIT_POLICY, mode=0o644, content=content, origin="audit.policy")
