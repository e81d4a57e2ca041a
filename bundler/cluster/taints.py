"""The taints with which kubelets register their Nodes, from `extra.kubelet`."""

import re

from bundler.cluster.schema import Cluster, Extra

TAINT = re.compile(r"([-A-Za-z0-9_./]+)(?:=([-A-Za-z0-9_.]*))?:([A-Za-z]+)")


def list_planned_taints(cluster: Cluster) -> tuple[str, ...]:
    """KEY:EFFECT or KEY=VALUE:EFFECT, as kubectl prints taints; the flag replaces the field.

    What is no taint is left out: the kubelet refuses it.
    """
    kubelet = cluster.extra.get("kubelet", Extra())
    flag = kubelet.flags.get("register-with-taints")
    written = _read_field(kubelet) if flag is None else str(flag).split(",")
    return tuple(
        f"{found[1]}={found[2]}:{found[3]}" if found[2] else f"{found[1]}:{found[3]}"
        for found in map(TAINT.fullmatch, written)
        if found
    )


def _read_field(kubelet: Extra) -> list[str]:
    taints = kubelet.config.get("registerWithTaints")
    if not isinstance(taints, list | tuple):
        return []
    return [
        f"{taint.get('key')}={taint.get('value') or ''}:{taint.get('effect')}"
        for taint in taints
        if isinstance(taint, dict)
    ]
