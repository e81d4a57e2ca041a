"""Taints: how cluster.yaml writes them, and those with which kubelets register their Nodes.

Source: pkg/util/taints and ValidateNodeTaints of Kubernetes.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator

from bundler.cluster.values import Kind, check_label_value, check_qualified_name

TAINT = re.compile(r"([-A-Za-z0-9_./]+)(?:=([-A-Za-z0-9_.]*))?:([A-Za-z]+)")
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
UNINITIALIZED = "bundler/uninitialized"
"""A node with labels or taints registers with this key, until a control plane has set them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taint:
    """A taint of a Node; Kubernetes accepts one of each key and effect."""

    key: str
    value: str
    effect: str

    def __str__(self) -> str:
        """Return KEY:EFFECT or KEY=VALUE:EFFECT, as kubectl prints it."""
        return f"{self.key}={self.value}:{self.effect}" if self.value else self.identity

    @property
    def identity(self) -> str:
        """KEY:EFFECT."""
        return f"{self.key}:{self.effect}"


REGISTRATION = Taint(key=UNINITIALIZED, value="", effect="NoSchedule")


def parse_taint(text: str) -> Taint:
    """Parse KEY=VALUE:EFFECT or KEY:EFFECT; raises ValueError as Kubernetes would refuse it."""
    whole, colon, effect = text.rpartition(":")
    if not colon:
        raise ValueError("must be KEY=VALUE:EFFECT or KEY:EFFECT, such as gpu:NoSchedule")
    if effect not in EFFECTS:
        raise ValueError(f"must end with an effect: {', '.join(EFFECTS)}; not {effect!r}")
    key, _, value = whole.partition("=")
    return Taint(key=check_qualified_name(key), value=check_label_value(value), effect=effect)


def _check_taint(text: str) -> str:
    parse_taint(text)
    return text


TaintText = Annotated[str, AfterValidator(_check_taint), Kind("taint")]


def list_registration_taints(
    flags: Mapping[str, object], config: Mapping[str, Any]
) -> tuple[str, ...]:
    """KEY:EFFECT or KEY=VALUE:EFFECT of the kubelet's settings; the flag replaces the field.

    What is no taint is left out: the kubelet refuses it.
    """
    flag = flags.get("register-with-taints")
    written = _read_field(config) if flag is None else str(flag).split(",")
    return tuple(
        f"{found[1]}={found[2]}:{found[3]}" if found[2] else f"{found[1]}:{found[3]}"
        for found in map(TAINT.fullmatch, written)
        if found
    )


def _read_field(config: Mapping[str, Any]) -> list[str]:
    taints = config.get("registerWithTaints")
    if not isinstance(taints, list | tuple):
        return []
    return [
        f"{taint.get('key')}={taint.get('value') or ''}:{taint.get('effect')}"
        for taint in taints
        if isinstance(taint, dict)
    ]
