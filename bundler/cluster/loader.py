"""Reads cluster.yaml; reports all errors at once as `file:line:col: path: what, and the fix`."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bundler.catalog.signatures import Scheme
from bundler.cluster.audit_policy import AuditPolicy, check_audit_policy
from bundler.cluster.checks import check_cluster
from bundler.cluster.components import minor_of
from bundler.cluster.extra_checks import check_extra
from bundler.cluster.images import add_needed, check_images
from bundler.cluster.inputs import Pin
from bundler.cluster.os_packages import check_packages
from bundler.cluster.plan_conflicts import check_plan_conflicts
from bundler.cluster.problem import Problem
from bundler.cluster.requirements import check_requirements
from bundler.cluster.schema import Cluster, Containerd
from bundler.cluster.validation_messages import explain
from bundler.cluster.values import DnsLabel, Model
from bundler.cluster.weakenings import check_weakenings
from bundler.errors import ConfigError
from bundler.formats.bounded_yaml import (
    YamlError,
    YamlPath,
    decode,
    read_bytes,
    read_document,
    show_path,
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A valid cluster.yaml, with its warnings."""

    cluster: Cluster
    warnings: tuple[str, ...]
    weakenings: Mapping[str, str]  # warnings about weakenings that are not accepted, with the name
    sha256: str  # of cluster.yaml
    pins_sha256: str | None


class _Named(Model):
    """Only the name of a cluster."""

    name: DnsLabel


@dataclass(frozen=True, slots=True)
class _Document:
    """One YAML file: its data, and line and column of each key and value."""

    path: Path
    data: dict[str, Any]
    places: dict[YamlPath, tuple[int, int]]
    raw: dict[YamlPath, str]  # the texts of values that are not text
    sha256: str

    def locate(self, path: YamlPath) -> str:
        """`file:line:col` of the value, or of the nearest enclosing one that is in the file."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.places:
                line, column = self.places[path[:length]]
                return f"{self.path}:{line}:{column}"
        return f"{self.path}:1:1"


def load_cluster(path: Path, pins: Path | None = None) -> Loaded:
    """Read cluster.yaml, with pins in place of its `artifacts`; ConfigError lists every error."""
    document = _read(path)
    data = dict(document.data)
    pins_document = _read_pins(pins) if pins else None
    if pins_document:
        added = pins_document.data["artifacts"]
        data["artifacts"] = {**(data.get("artifacts") or {}), **added}
    try:
        cluster = Cluster.model_validate(data)
    except ValidationError as error:
        lines = sorted(
            {
                _line(document, where, text)
                for where, text in explain(error, data, document.raw, Cluster)
            },
            key=_line_number,
        )
        raise ConfigError("\n".join(lines)) from error
    cluster = add_needed(_resolve_files(cluster, path.parent))
    problems = [
        *check_cluster(cluster), *check_extra(cluster), *check_images(cluster),
        *check_packages(cluster), *check_requirements(cluster), *_check_audit(cluster),
        *check_weakenings(cluster), *check_plan_conflicts(cluster),
    ]  # fmt: skip
    errors = [_line(document, p.path, p.text) for p in problems if p.is_error]
    if errors:
        raise ConfigError("\n".join(sorted(errors, key=_line_number)))
    return Loaded(
        cluster,
        tuple(_line(document, p.path, p.text) for p in problems if not p.is_error),
        {_line(document, p.path, p.text): p.weakening for p in problems if p.weakening},
        sha256=document.sha256,
        pins_sha256=pins_document.sha256 if pins_document else None,
    )


def read_cluster_name(path: Path) -> str:
    """Read only the name in cluster.yaml, for what needs nothing else; raises ConfigError."""
    document = _read(path)
    if "name" not in document.data:
        raise ConfigError(_line(document, ("name",), "is missing"))
    name = {"name": document.data["name"]}
    try:
        return _Named.model_validate(name).name
    except ValidationError as error:
        lines = (_line(document, *at) for at in explain(error, name, document.raw, _Named))
        raise ConfigError("\n".join(lines)) from error


def _resolve_files(cluster: Cluster, base: Path) -> Cluster:
    images = tuple(
        image.model_copy(update={"file": (base / image.file).absolute()}) if image.file else image
        for image in cluster.images
    )
    runtime = cluster.runtime
    if isinstance(runtime, Containerd):
        registries = tuple(
            registry.model_copy(update={"ca": (base / registry.ca).absolute()})
            if registry.ca
            else registry
            for registry in runtime.registries
        )
        runtime = runtime.model_copy(update={"registries": registries})
    packages = cluster.packages
    if packages is not None:
        paths = {"dir": packages.dir, "keyring": packages.keyring}
        packages = packages.model_copy(
            update={key: (base / path).absolute() for key, path in paths.items() if path}
        )
    keys = {
        name: key.model_copy(
            update={
                scheme.value: (base / path).absolute()
                for scheme in Scheme
                if (path := getattr(key, scheme))
            }
        )
        for name, key in cluster.upstream_keys.items()
    }
    audit = cluster.audit
    if audit.policy:
        audit = audit.model_copy(update={"policy": (base / audit.policy).absolute()})
    changes = {
        "images": images, "runtime": runtime, "packages": packages, "upstream_keys": keys,
        "audit": audit,
    }  # fmt: skip
    return cluster.model_copy(update=changes)


def _check_audit(cluster: Cluster) -> Iterator[Problem]:
    """Every problem of the site's audit policy, with its place in that file."""
    path, where = cluster.audit.policy, ("audit", "policy")
    if path is None:
        return
    try:
        document = _read(path, "apiVersion, kind and rules")
        policy = AuditPolicy.model_validate(document.data)
    except ConfigError as error:
        yield from (Problem(path=where, text=line) for line in error.message.splitlines())
    except ValidationError as error:
        for place, text in explain(error, document.data, document.raw, AuditPolicy):
            yield Problem(path=where, text=_line(document, place, text))
    else:
        yield from check_audit_policy(policy, path.name, minor_of(cluster.kubernetes.version))


def _read_pins(path: Path) -> _Document:
    document = _read(path)
    if set(document.data) != {"artifacts"} or not isinstance(document.data["artifacts"], dict):
        raise ConfigError(f"{path}:1:1: a pins file must have one key, artifacts, and no other")
    artifacts: dict[str, Any] = document.data["artifacts"]
    errors = []
    for name, pin in artifacts.items():
        try:
            Pin.model_validate(pin)
        except ValidationError as error:
            place = ("artifacts", name)
            raw = {path[2:]: text for path, text in document.raw.items() if path[:2] == place}
            errors += [
                _line(document, (*place, *where), text)
                for where, text in explain(error, pin, raw, Pin)
            ]
    if errors:
        raise ConfigError("\n".join(errors))
    return document


def _read(path: Path, wanted: str = "apiVersion, name and nodes") -> _Document:
    try:
        content = read_bytes(path)
        document = read_document(decode(content))
    except OSError as error:
        hint = "create it, for example from examples/lab.yaml" if not path.exists() else None
        raise ConfigError(f"{path}: {error.strerror or error}", hint=hint) from error
    except YamlError as error:
        raise ConfigError("\n".join(f"{path}:{fault}" for fault in error.faults)) from error
    if not isinstance(document.data, dict):
        raise ConfigError(f"{path}:1:1: must be a mapping with {wanted}")
    digest = hashlib.sha256(content).hexdigest()
    return _Document(path, document.data, document.places, document.raw, digest)


def _line(document: _Document, path: YamlPath, text: str) -> str:
    shown = f" {show_path(path)}:" if path else ""
    return f"{document.locate(path)}:{shown} {text}"


def _line_number(line: str) -> tuple[int, str]:
    parts = line.split(": ", maxsplit=1)[0].rsplit(":", 2)
    return (int(parts[1]) if len(parts) == 3 and parts[1].isdigit() else 0, line)
