"""Labels, annotations and taints of Nodes, which a control plane sets: rows, and their checks.

Reserved names: well_known_labels.go and well_known_taints.go of k8s.io/api/core/v1, the labels that
a kubelet sets (updateDefaultLabels), annotations of the node controllers and of flannel.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from bundler.cluster.problem import Problem
from bundler.cluster.schema import Cluster, Extra, Node, Role
from bundler.cluster.taints import REGISTRATION, Taint, list_registration_taints, parse_taint

NODE_LABELS = "rootfs/etc/kubernetes/node-labels.tsv"
"""The file of a control plane's bundle that has all of them."""

ANNOTATIONS_LIMIT = 32 << 10  # bytes of all keys and values; they are an argument of kubectl
OWN_PREFIX = "bundler/"
BY_KUBELET = frozenset(
    {
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "kubernetes.io/arch",
        "kubernetes.io/hostname",
        "kubernetes.io/os",
        "node.kubernetes.io/windows-build",
    }
)
BY_CONTROLLERS = ("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/")
"""Prefixes of taints that Kubernetes sets and removes by itself."""
BY_PROGRAMS = {
    "csi.volume.kubernetes.io/nodeid": "the kubelet",
    "kubectl.kubernetes.io/last-applied-configuration": "kubectl apply",
    "node.alpha.kubernetes.io/ttl": "the controller manager",
    "volumes.kubernetes.io/controller-managed-attach-detach": "the kubelet",
    **{
        f"flannel.alpha.coreos.com/{name}": "flannel"
        for name in (
            "backend-data",
            "backend-type",
            "backend-v6-data",
            "kube-subnet-manager",
            "public-ip",
            "public-ipv6",
        )
    },
}
"""Annotation → the program that sets it."""

TOLERATED = frozenset({"node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"})
"""Taints without a value and with NoSchedule that CoreDNS tolerates: kubeadm's."""
TOLERATED_ALWAYS = "CriticalAddonsOnly"


class MarkKind(StrEnum):
    """What a mark of a Node is."""

    LABEL = "label"
    ANNOTATION = "annotation"
    TAINT = "taint"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeMark:
    """One label, annotation or taint that a Node must have."""

    kind: MarkKind
    key: str  # of a taint KEY:EFFECT, of which a Node has at most one
    value: str


def list_marks(node: Node) -> tuple[NodeMark, ...]:
    """The marks of a node, sorted; a host without the role worker has no Node."""
    if Role.WORKER not in node.roles:
        return ()
    taints = {taint.identity: taint.value for taint in map(parse_taint, node.taints)}
    values = {
        MarkKind.LABEL: node.labels,
        MarkKind.ANNOTATION: node.annotations,
        MarkKind.TAINT: taints,
    }
    return tuple(
        NodeMark(kind=kind, key=key, value=value)
        for kind, marks in values.items()
        for key, value in sorted(marks.items())
    )


def registers_tainted(marks: tuple[NodeMark, ...]) -> bool:
    """Whether pods must wait for a control plane: annotations decide nothing about pods."""
    return any(mark.kind is not MarkKind.ANNOTATION for mark in marks)


def list_planned_taints(cluster: Cluster, marks: tuple[NodeMark, ...]) -> tuple[str, ...]:
    """Every taint that a Node has by plan, and those of all kubelets, as kubectl prints them."""
    kubelets = [extra for component, extra in cluster.list_extra() if component == "kubelet"]
    taints = [
        taint
        for kubelet in kubelets
        for taint in list_registration_taints(kubelet.flags, kubelet.config)
    ]
    for mark in marks:
        if mark.kind is MarkKind.TAINT:
            key, _, effect = mark.key.rpartition(":")
            taints.append(str(Taint(key=key, value=mark.value, effect=effect)))
    if registers_tainted(marks):
        taints.append(str(REGISTRATION))
    return tuple(dict.fromkeys(taints))


def check_node_labels(cluster: Cluster) -> Iterator[Problem]:
    """Marks that something else owns, that contradict one another, or that stop add-ons."""
    for index, node in enumerate(cluster.nodes):
        where = ("nodes", index)
        yield from _check_labels(node, where)
        yield from _check_annotations(node, where)
        yield from _check_taints(node, where)
    yield from _check_unused(cluster)
    yield from _check_registration(cluster)
    yield from _check_add_ons(cluster)


def _check_labels(node: Node, where: tuple[str | int, ...]) -> Iterator[Problem]:
    for key in node.labels:
        path = (*where, "labels", key)
        if key in BY_KUBELET:
            yield Problem(path=path, text="the kubelet sets this label itself: remove it")
        elif key.startswith(OWN_PREFIX):
            yield _refuse_own(path)


def _check_annotations(node: Node, where: tuple[str | int, ...]) -> Iterator[Problem]:
    for key in node.annotations:
        path = (*where, "annotations", key)
        if key in BY_PROGRAMS:
            text = f"{BY_PROGRAMS[key]} sets this annotation itself: remove it"
            yield Problem(path=path, text=text)
        elif key.startswith(OWN_PREFIX):
            yield _refuse_own(path)
    size = sum(len(key) + len(value.encode()) for key, value in node.annotations.items())
    if size > ANNOTATIONS_LIMIT:
        text = f"{size} bytes together, and at most {ANNOTATIONS_LIMIT >> 10} KiB are possible"
        yield Problem(path=(*where, "annotations"), text=text)


def _check_taints(node: Node, where: tuple[str | int, ...]) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for number, taint in enumerate(map(parse_taint, node.taints)):
        path = (*where, "taints", number)
        if taint.key.startswith(BY_CONTROLLERS):
            text = f"Kubernetes sets and removes {taint.key} itself: choose another key"
            yield Problem(path=path, text=text)
        elif taint.key.startswith(OWN_PREFIX):
            yield _refuse_own(path)
        if taint.identity in seen:
            text = f"{seen[taint.identity]} has the same key and effect: keep one"
            yield Problem(path=path, text=text)
        seen.setdefault(taint.identity, str(taint))


def _refuse_own(path: tuple[str | int, ...]) -> Problem:
    return Problem(path=path, text=f"{OWN_PREFIX} is for bundler's own marks: choose another key")


def _check_unused(cluster: Cluster) -> Iterator[Problem]:
    """Warn of labels and taints that are written for a host without a Node, and for no worker."""
    used = {mark for node in cluster.nodes for mark in list_marks(node)}
    for index, node in enumerate(cluster.nodes):
        if Role.WORKER in node.roles:
            continue
        wanted = list_marks(node.model_copy(update={"roles": (Role.WORKER,)}))
        if unused := [f"{mark.kind} {mark.key}" for mark in wanted if mark not in used]:
            text = (
                f"{', '.join(unused)}: {node.name} has no Node object without the role worker,"
                " so nothing is set: remove it, or add the role"
            )
            yield Problem(path=("nodes", index), text=text, is_error=False)


def _check_registration(cluster: Cluster) -> Iterator[Problem]:
    """The kubelet's own taints would replace the one that keeps pods away until all are set."""
    for index, node in enumerate(cluster.nodes):
        if not registers_tainted(list_marks(node)):
            continue
        kubelet = cluster.on_host(node).extra.get("kubelet", Extra())
        places = {
            ("flags", "register-with-taints"): "register-with-taints" in kubelet.flags,
            ("config", "registerWithTaints"): "registerWithTaints" in kubelet.config,
        }
        above = ("nodes", index) if node.extra is not None else ()
        for place, is_set in places.items():
            if is_set:
                text = "some nodes have labels or taints: move these to the `taints` of the nodes"
                yield Problem(path=(*above, "extra", "kubelet", *place), text=text)


def _check_add_ons(cluster: Cluster) -> Iterator[Problem]:
    """Add-ons that no worker may run."""
    workers = cluster.having(Role.WORKER)
    taints = [[*map(parse_taint, node.taints)] for node in workers]
    add_ons = {
        "CoreDNS": (cluster.dns.provider == "coredns", _is_tolerated_by_coredns),
        "metrics-server": (cluster.metrics_server is not None, lambda _: False),
    }
    for name, (is_chosen, is_tolerated) in add_ons.items():
        hindered = [
            [one for one in several if one.effect != "PreferNoSchedule" and not is_tolerated(one)]
            for several in taints
        ]
        if is_chosen and workers and all(hindered):
            text = (
                f"every worker has a taint that {name} does not tolerate ({hindered[0][0]} on"
                f" {workers[0].name}), so it cannot run: leave one worker without"
            )
            yield Problem(path=("nodes",), text=text)


def _is_tolerated_by_coredns(taint: Taint) -> bool:
    if taint.key == TOLERATED_ALWAYS:
        return True
    return taint.key in TOLERATED and not taint.value and taint.effect == "NoSchedule"
