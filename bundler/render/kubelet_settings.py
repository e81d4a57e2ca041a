"""What verify.sh compares with /configz of the kubelets, and how single workers differ."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bundler.cluster.plan import ClusterPlan, NodePlan
from bundler.cluster.schema import Role
from bundler.overlays.templating import json_line

NOT_COMPARED = frozenset({
    "address", "apiVersion", "authentication", "authorization", "containerRuntimeEndpoint", "kind",
    "maxPods", "registerWithTaints",
})  # fmt: skip
"""Fields that differ per node, or that the kubelet shows in another form."""
TEXTS = frozenset({
    "evictionHard", "evictionMinimumReclaim", "evictionSoft", "evictionSoftGracePeriod",
    "kubeReserved", "qosReserved", "systemReserved",
})  # fmt: skip
"""Fields that map names to text: the kubelet shows their values as they are written."""
ABSENT = "-"


def list_kubelet_settings(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Field and JSON of each setting; of a mapping, each of its fields that is no mapping."""
    for field, value in config.items():
        if field in NOT_COMPARED:
            continue
        if not isinstance(value, Mapping):
            yield field, json_line(value)
            continue
        for name, inner in value.items():
            if field in TEXTS:  # 500m is half a CPU there, not 500 minutes
                yield name, json.dumps(inner)
            elif not isinstance(inner, Mapping):
                yield name, json_line(inner)


def list_kubelet_differences(
    plan: ClusterPlan,
    ours: Mapping[str, Any],
    config_of: Callable[[NodePlan], Mapping[str, Any]],
) -> Iterator[tuple[str, str, str]]:
    """Worker, field and JSON where a worker's kubelet is configured otherwise than `ours`.

    `config_of` is asked once for all workers that have the same settings.
    """
    common = dict(list_kubelet_settings(ours))
    known: dict[str, dict[str, str]] = {}
    for node in plan.having(Role.WORKER):
        key = f"{_describe(node)} {sorted(node.features)}"
        if key not in known:
            settings = dict(list_kubelet_settings(config_of(node)))
            known[key] = {
                field: settings.get(field, ABSENT)
                for field in (*common, *(name for name in settings if name not in common))
                if settings.get(field) != common.get(field)
            }
        yield from ((node.name, field, value) for field, value in known[key].items())


def _describe(node: NodePlan) -> str:
    own = node.own
    return repr((own.runtime, own.extra, own.kubernetes)) if own else ""
