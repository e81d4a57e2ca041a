"""Every place of cluster.yaml that takes text, found in the schema, with a text that it accepts."""

import enum
import re
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from bundler.cluster.accepted import accepted_fields, accepted_flags
from bundler.cluster.components import EXTRA_COMPONENTS, minor_of
from bundler.cluster.fleet import list_shared
from bundler.cluster.schema import Cluster
from bundler.cluster.values import SameAs, find_mark

Make = Callable[[str], Any]
"""Makes a part of cluster.yaml with a text in it."""

TEXTS = (str, Path, IPv4Address, IPv4Network, object)
REQUIRED: dict[str, dict[str, Any]] = {
    "Addon": {"name": "web", "chart": {"path": "web"}},
    "AuditPolicy": {},
    "AuditSyslog": {"host": "logs.example", "protocol": "tcp"},
    "AuditWebhook": {"url": "https://audit.example/events"},
    "AuthorizationWebhook": {"name": "site", "url": "https://policy.example/review"},
    "Chart": {"repo": "https://charts.example", "name": "web", "version": "1.2.3"},
    "Claim": {"claim": "email"},
    "ClaimRule": {"expression": "true"},
    "ImagePolicyWebhook": {"url": "https://images.example/review"},
    "Kms": {"name": "site"},
    "KmsPlugin": {"program": "/usr/local/bin/kms-plugin"},
    "MatchCondition": {"expression": "true"},
    "Oidc": {"issuer": "https://login.example", "audiences": ["kubernetes"]},
    "TokenWebhook": {"url": "https://tokens.example/review"},
    "Containerd": {"engine": "containerd"},
    "ControlPlane": {"endpoint": "192.0.2.100:8443"},
    "ContainerdHandler": {"program": "/usr/bin/nvidia-container-runtime"},
    "DockerHandler": {"program": "/usr/bin/nvidia-container-runtime"},
    "Docker": {"engine": "docker", "cri_dockerd": "0.4.0"},
    "Encryption": {"provider": "kms"},
    "ExternalLoadBalancer": {"kind": "external"},
    "Image": {"ref": "registry.example/web:1"},
    "Network": {"plugin": "flannel"},
    "NginxKeepalived": {"kind": "nginx-keepalived", "interface": "eth0"},
    "Node": {"name": "one", "address": "192.0.2.1", "roles": ["etcd", "control-plane", "worker"]},
    "NodeLocal": {"kind": "node-local"},
    "Packages": {"os": "debian-12"},
    "Pin": {},
    "PushUser": {"name": "web", "password": "web.hash"},
    "Registry": {"host": "registry.example"},
    "Expected": {"kind": "ConfigMap", "name": "site"},
    "NetworkPolicy": {"engine": "kube-router"},
    "RegistryPush": {"users": [{"name": "web", "password": "web.hash"}]},
    "RegistryService": {"nodes": ["one"]},
    "SiteFile": {"content": "text"},
    "UpstreamKey": {"openpgp": "key.asc"},
}
"""What a part of each model needs besides the text."""

MORE = {
    "lifecycle.accept.debian-12": {"packages": {"os": "debian-12"}},
    "control_plane.load_balancer.interface": {
        "nodes": [
            {
                "name": "one",
                "address": "192.0.2.1",
                "roles": ["etcd", "control-plane", "load-balancer"],
            }
        ]
    },
    "nodes[].runtime.handlers.nvidia.arguments[]": {"runtime": REQUIRED["Docker"]},
    "nodes[].runtime.log_max_size": {"runtime": REQUIRED["Docker"]},
    "nodes[].runtime.registry_mirrors[]": {"runtime": REQUIRED["Docker"]},
    "nodes[].interface": {
        "control_plane": {
            "endpoint": "192.0.2.100:8443",
            "load_balancer": {"kind": "nginx-keepalived"},
        },
        "nodes": [{"roles": ["etcd", "control-plane", "load-balancer", "worker"]}],
    },
}
"""What the rest of the file needs for one place; of the same node it wins."""

KEYS = {
    "accept": "debian-12",
    "artifacts": "etcd",
    "extra": "kubelet",
    "files": "/etc/site.d/agent.conf",
    "flags": "event-ttl",
    "handlers": "nvidia",
    "sysctls": "vm.max_map_count",
    "upstream_keys": "etcd",
}
"""Mapping → a key that its checks accept."""


@dataclass(frozen=True)
class Slot:
    """One place for a text."""

    name: str  # runtime.registries[].host
    make: Make  # the complete cluster.yaml


def list_slots(base: Mapping[str, Any]) -> Iterator[Slot]:
    """Every place in the schema, then every flag and field of `extra`, each in a copy of `base`."""
    for name, make in _walk_model(Cluster, ""):
        more = MORE.get(name, {})
        yield Slot(name, lambda text, make=make, more=more: _merge(base, more, make(text)))
    for component, target in EXTRA_COMPONENTS.items():
        yield from _list_extra(base, component, has_flags=target.has_flags)


def _merge(
    base: Mapping[str, Any], more: Mapping[str, Any], made: dict[str, Any]
) -> dict[str, Any]:
    merged = {**base, **more, **made}
    if "nodes" in more and "nodes" in made:
        merged["nodes"] = [{**made["nodes"][0], **more["nodes"][0]}, *made["nodes"][1:]]
    return merged


def _list_extra(base: Mapping[str, Any], component: str, *, has_flags: bool) -> Iterator[Slot]:
    minor = minor_of(base["kubernetes"]["version"])
    runtime = {"runtime": REQUIRED["Docker"]} if "docker" in component else {}
    if component == "flanneld":
        runtime = {"network": {"plugin": "flannel"}}

    def make(extra: Make) -> Make:
        return lambda text: {**base, **runtime, "extra": {component: extra(text)}}

    flags = sorted(accepted_flags(component, minor)) or ["v"]
    for flag in flags if has_flags else ():
        yield Slot(
            f"extra.{component}.flags.{flag}", make(lambda text, flag=flag: {"flags": {flag: text}})
        )
    api = "v1" if component == "kube-scheduler" else ""
    for field in sorted(accepted_fields(component, minor, api)) or ["some.field", "other.*"]:
        *above, last = field.split(".")
        name = f"extra.{component}.config.{field}"
        if last == "*":
            yield Slot(name, make(lambda text, above=above: {"config": _nest(above, {text: "x"})}))
            yield Slot(
                f"{name}[]", make(lambda text, above=above: {"config": _nest(above, {"x": [text]})})
            )
        else:
            yield Slot(
                name,
                make(lambda text, above=above, last=last: {"config": _nest(above, {last: text})}),
            )


def _nest(names: list[str], value: Any) -> Any:
    for name in reversed(names):
        value = {name: value}
    return value


def _walk_model(model: type[BaseModel], path: str) -> Iterator[tuple[str, Make]]:
    needed = REQUIRED.get(model.__name__, {})
    for name, field in model.model_fields.items():
        key = field.alias or name
        below = f"{path}.{key}" if path else key
        for inner, make in _walk(field.annotation, below):
            differing = list_shared()[key] if find_mark(field, SameAs) else None
            if differing is None:
                yield inner, lambda text, key=key, make=make: {**needed, key: make(text)}
            elif re.split(r"[.\[]", inner.removeprefix(f"{below}."))[0] in differing:
                keep = _keep(differing, make)
                yield inner, lambda text, key=key, make=keep: {**needed, key: make(text)}


def _keep(keys: frozenset[str], make: Make) -> Make:
    """Makes only what a node may have of a key of the cluster."""
    return lambda text: {key: value for key, value in make(text).items() if key in keys}


def _walk(annotation: Any, path: str) -> Iterator[tuple[str, Make]]:
    """Each place below a type, with what makes its part."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation in TEXTS:
        yield path, lambda text: text
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from _walk_model(annotation, path)
    elif origin is Annotated:
        yield from _walk(inner[0], path)
    elif origin in {Union, types.UnionType}:
        for part in inner:
            yield from _walk(part, path)
    elif origin is tuple:
        for name, make in _walk(inner[0], f"{path}[]"):
            yield name, lambda text, make=make: [make(text)]
    elif origin is dict:
        key = KEYS.get(path.rpartition(".")[2], "other")
        for name, make in _walk(inner[1], f"{path}.{key}"):
            yield name, lambda text, make=make: {key: make(text)}
        value = next((make for _, make in _walk(inner[1], path)), lambda _: 2640)
        yield f"{path} (key)", lambda text: {text: value("other")}
    elif origin is not Literal and not (
        isinstance(annotation, type)
        and issubclass(annotation, enum.Enum | int | float | bool | types.NoneType)
    ):
        raise AssertionError(f"{path}: no rule for the type {annotation}: add one here")
