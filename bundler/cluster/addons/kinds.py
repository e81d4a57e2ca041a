"""Tables about kinds of the Kubernetes API: which exist, their scope, where their pods are."""

from collections.abc import Mapping
from functools import cache

from bundler.catalog import read_table
from bundler.cluster.accepted import is_within

CLUSTER_SCOPED = frozenset((
    "APIService", "CSIDriver", "CSINode", "CertificateSigningRequest", "ClusterRole",
    "ClusterRoleBinding", "ClusterTrustBundle", "CustomResourceDefinition", "DeviceClass",
    "FlowSchema", "IPAddress", "IngressClass", "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding", "MutatingWebhookConfiguration", "Namespace", "Node",
    "PersistentVolume", "PodSecurityPolicy", "PriorityClass", "PriorityLevelConfiguration",
    "ResourceSlice", "RuntimeClass", "ServiceCIDR", "StorageClass", "StorageVersionMigration",
    "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding",
    "ValidatingWebhookConfiguration", "VolumeAttachment", "VolumeAttributesClass",
))  # fmt: skip
"""Built-in kinds that have no namespace."""

POD_SPECS: Mapping[str, tuple[str, ...]] = {
    "Pod": ("spec",),
    "PodTemplate": ("template", "spec"),
    "ReplicationController": ("spec", "template", "spec"),
    "ReplicaSet": ("spec", "template", "spec"),
    "Deployment": ("spec", "template", "spec"),
    "StatefulSet": ("spec", "template", "spec"),
    "DaemonSet": ("spec", "template", "spec"),
    "Job": ("spec", "template", "spec"),
    "CronJob": ("spec", "jobTemplate", "spec", "template", "spec"),
}
"""Kind → where the spec of its pods is."""

WAITED_FOR = ("Deployment", "StatefulSet", "DaemonSet", "Job")
"""Kinds whose readiness makes an add-on ready."""

PARTS: Mapping[str, tuple[str, ...]] = {
    "namespaces": ("Namespace",),
    "crds": ("CustomResourceDefinition",),
    "first": (
        "PriorityClass", "RuntimeClass", "StorageClass", "ServiceAccount", "Secret", "ConfigMap",
        "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding",
    ),
}  # fmt: skip
"""Part of an add-on → the kinds in it; parts are applied in this order, then all other kinds."""

LAST = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration", "APIService")
"""Kinds that refuse requests while their pods do not run."""

NOT_STORED = frozenset((
    "Binding", "ComponentStatus", "Eviction", "LocalSubjectAccessReview", "Scale",
    "SelfSubjectAccessReview", "SelfSubjectReview", "SelfSubjectRulesReview", "Status",
    "SubjectAccessReview", "TokenRequest", "TokenReview",
))  # fmt: skip
"""Kinds that are requests: nothing of them stays in the cluster."""

OF_HOSTS = {
    "Node": "the kubelets register Nodes: use `labels`, `annotations` and `taints` of `nodes`",
    "CertificateSigningRequest": "requests are made and answered by programs, not by manifests",
    "Event": "programs write events",
    "Lease": "programs write leases",
}
"""Kinds that no manifest makes → why."""

OWN_OBJECTS: Mapping[str, tuple[str, ...]] = {
    "dns": (
        "ServiceAccount/kube-system/coredns", "ClusterRole/system:coredns",
        "ClusterRoleBinding/system:coredns", "ConfigMap/kube-system/coredns",
        "Deployment/kube-system/coredns", "Service/kube-system/kube-dns",
    ),
    "metrics_server": (
        "ServiceAccount/kube-system/metrics-server", "ClusterRole/system:aggregated-metrics-reader",
        "ClusterRole/system:metrics-server", "ClusterRoleBinding/system:metrics-server",
        "ClusterRoleBinding/metrics-server:system:auth-delegator",
        "RoleBinding/kube-system/metrics-server-auth-reader",
        "Secret/kube-system/metrics-server-serving",
        "ConfigMap/kube-system/metrics-server-kubelet-ca", "Deployment/kube-system/metrics-server",
        "Service/kube-system/metrics-server", "APIService/v1beta1.metrics.k8s.io",
    ),
}  # fmt: skip
"""Key of cluster.yaml → the objects that kube-apply.service makes for it.

Its other objects have names that begin with `bundler:`, which no add-on may use, except the
RuntimeClasses of `runtime.handlers`, whose names the key has.
"""

OF_TOOLS = {
    "kustomize.config.k8s.io": "it configures kustomize: the folder needs the name"
    " kustomization.yaml for it",
    "kubelet.config.k8s.io": "it is a file of the kubelet: use `extra`",
    "kubeproxy.config.k8s.io": "it is a file of kube-proxy: use `extra`",
    "kubescheduler.config.k8s.io": "it is a file of kube-scheduler: use `extra`",
    "apiserver.config.k8s.io": "it is a file of kube-apiserver: use the policy keys",
}
"""API groups of files, not of the API → what to do."""


def group_of(api: str) -> str:
    """`apps` of `apps/v1`; empty for `v1`."""
    return api.rpartition("/")[0]


@cache
def list_builtin_groups() -> frozenset[str]:
    """The API groups of Kubernetes itself, of all minors."""
    return frozenset(group_of(row["api"]) for row in read_table("apis.tsv"))


@cache
def list_apis(minor: str) -> Mapping[str, tuple[str, ...]]:
    """Kind → the group/versions in which a minor has it."""
    found: dict[str, tuple[str, ...]] = {}
    for row in read_table("apis.tsv"):
        if is_within(row["since"], row["until"], minor):
            found[row["kind"]] = (*found.get(row["kind"], ()), row["api"])
    return found


@cache
def list_spans() -> Mapping[tuple[str, str], tuple[str, str]]:
    """Group/version and kind → the first minor that has it, and the first that does not."""
    return {
        (row["api"], row["kind"]): (row["since"] or "", row["until"] or "")
        for row in read_table("apis.tsv")
    }
