"""Reads cluster.yaml; reports all errors at once as `file:line:col: path: what, and the fix`."""

import difflib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from bundler.catalog.signatures import Scheme
from bundler.cluster.audit_policy import AuditPolicy, check_audit_policy
from bundler.cluster.checks import check_cluster
from bundler.cluster.components import minor_of
from bundler.cluster.extra_checks import check_extra
from bundler.cluster.images import add_needed, check_images
from bundler.cluster.inputs import Pin
from bundler.cluster.keys import models_in
from bundler.cluster.os_packages import check_packages
from bundler.cluster.plan_conflicts import check_plan_conflicts
from bundler.cluster.problem import Problem
from bundler.cluster.schema import Cluster, Containerd
from bundler.cluster.values import DnsLabel
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
from bundler.urls import hide_secrets


@dataclass(frozen=True, slots=True)
class Loaded:
    """A valid cluster.yaml, with its warnings."""

    cluster: Cluster
    warnings: tuple[str, ...]
    weakenings: Mapping[str, str]  # warnings about weakenings that are not accepted, with the name
    sha256: str  # of cluster.yaml
    pins_sha256: str | None


@dataclass(frozen=True, slots=True)
class _Document:
    """One YAML file: its data, and line and column of each key and value."""

    path: Path
    data: dict[str, Any]
    places: dict[YamlPath, tuple[int, int]]
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
            {_line(document, where, text) for where, text in _explain(error, data)},
            key=_line_number,
        )
        raise ConfigError("\n".join(lines)) from error
    cluster = add_needed(_resolve_files(cluster, path.parent))
    problems = [
        *check_cluster(cluster), *check_extra(cluster), *check_images(cluster),
        *check_packages(cluster), *_check_audit(cluster), *check_weakenings(cluster),
        *check_plan_conflicts(cluster),
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
        raise ConfigError(_line(document, ("name",), MESSAGES["missing"](None)))
    try:
        return TypeAdapter(DnsLabel).validate_python(document.data["name"], strict=True)
    except ValidationError as error:
        text = MESSAGES.get(error.errors()[0]["type"], _quote_pydantic)(error.errors()[0])
        raise ConfigError(_line(document, ("name",), text)) from error


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
        for place, text in _explain(error, document.data, model=AuditPolicy):
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
            errors += [
                _line(document, (*place, *where), text)
                for where, text in _explain(error, pin, place)
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
    return _Document(path, document.data, document.places, digest)


def _explain(
    error: ValidationError, data: object, place: YamlPath = (), model: type[BaseModel] = Cluster
) -> Iterator[tuple[YamlPath, str]]:
    """pydantic's errors as (path below data, message); `place` is the path of the data."""
    for found in error.errors():
        where = _path_in_file(found["loc"], data)
        if found["type"] == "extra_forbidden":
            yield where, _explain_unknown_key((*place, *where), model)
        elif found["type"] in {"union_tag_not_found", "union_tag_invalid"}:
            key = "kind" if found["ctx"]["discriminator"] == "'kind'" else "engine"
            yield (*where, key), MESSAGES[found["type"]](found)
        else:
            yield where, MESSAGES.get(found["type"], _quote_pydantic)(found)


def _quote_pydantic(found: Any) -> str:
    text = found["msg"].removeprefix("Value error, ")
    if text.startswith("Input is not "):
        return f"{_short(found['input'])} {text.removeprefix('Input ')}"
    return f"must be {text.removeprefix('Input should be ')}, not {_short(found['input'])}"


def _expected(found: Any) -> str:
    return f"must be {found['ctx']['expected']}, not {_short(found['input'])}"


def _no_mapping(found: Any) -> str:
    return f"must be a mapping (key: value), not {_short(found['input'])}"


MESSAGES: dict[str, Callable[[Any], str]] = {
    "missing": lambda _: "is missing",
    "union_tag_not_found": lambda _: "is missing: give nginx-keepalived, node-local or external",
    "union_tag_invalid": lambda found: f"must be one of {found['ctx']['expected_tags']}",
    "literal_error": _expected,
    "enum": _expected,
    "value_error": lambda found: f"{found['ctx']['error']}{_explain_yaml_type(found['input'])}",
    "string_pattern_mismatch": lambda found: (
        f"must match {found['ctx']['pattern']}, not {_short(found['input'])}"
    ),
    "too_short": lambda _: "must not be empty",
    "model_type": _no_mapping,
    "dict_type": _no_mapping,
    "model_attributes_type": _no_mapping,
    "tuple_type": lambda found: f"must be a list, not {_short(found['input'])}",
}
"""Type of a pydantic error → message; other types get pydantic's own text."""


def _path_in_file(location: tuple[int | str, ...], data: object) -> YamlPath:
    """pydantic's location without the parts that are not keys: tags of unions, `[key]`."""
    path: list[str | int] = []
    here: Any = data
    for index, part in enumerate(location):
        last = index == len(location) - 1
        if isinstance(here, dict) and (part in here or (last and isinstance(part, str))):
            if part == "[key]":
                continue
            path.append(part)
            here = here.get(part)
        elif isinstance(here, list) and isinstance(part, int) and part < len(here):
            path.append(part)
            here = here[part]
    return tuple(path)


def _explain_unknown_key(where: YamlPath, model: type[BaseModel]) -> str:
    allowed = _allowed_keys(where[:-1], model)
    close = difflib.get_close_matches(str(where[-1]), allowed, n=1, cutoff=0.6)
    if close:
        return f"unknown key; did you mean '{close[0]}'?"
    return f"unknown key; allowed: {', '.join(allowed)}"


def _allowed_keys(where: YamlPath, model: type[BaseModel]) -> list[str]:
    """The keys that the schema allows at a path of the file."""
    models: list[Any] = [model]
    for part in where:
        if isinstance(part, int):
            continue
        models = [
            inner
            for model in models
            for name, field in model.model_fields.items()
            if (field.alias or name) == part
            for inner in models_in(field.annotation)
        ] or models
    return sorted({f.alias or name for m in models for name, f in m.model_fields.items()})


def _explain_yaml_type(value: object) -> str:
    if isinstance(value, str | dict | list | tuple) or value is None:
        return ""
    return f" (YAML reads {value!r} here: write it in quotes)"


def _short(value: object) -> str:
    text = hide_secrets(repr(value) if isinstance(value, str) else f"{value}")
    return text if len(text) <= 60 else f"{text[:57]}..."


def _line(document: _Document, path: YamlPath, text: str) -> str:
    shown = f" {show_path(path)}:" if path else ""
    return f"{document.locate(path)}:{shown} {text}"


def _line_number(line: str) -> tuple[int, str]:
    parts = line.split(": ", maxsplit=1)[0].rsplit(":", 2)
    return (int(parts[1]) if len(parts) == 3 and parts[1].isdigit() else 0, line)
