"""A first cluster.yaml: from a few choices, or a copy of an example.

`bundler init` asks for the choices. What is written is checked first, as `bundler check` does it.
"""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from bundler.cache.store import Cache
from bundler.catalog import default_kubernetes, list_available
from bundler.cluster.components import RUNTIMES, key_of, minor_of
from bundler.cluster.os_packages import RELEASES
from bundler.cluster.requirements import check_requirements
from bundler.cluster.schema import Cluster, Role
from bundler.cluster.values import Address, DnsLabel, HostPort, Version
from bundler.errors import BundlerError, ConfigError, OutputError
from bundler.files import TEMPORARY, explain_disk_faults, sync_directory
from bundler.formats.yaml_output import dump_yaml
from bundler.log import make_printable
from bundler.overlays.templating import compile_template
from bundler.paths import RESOURCES, default_cache, examples_directory
from bundler.project import Inputs, check
from bundler.sources.lock import lock_path

MODELINE = "# yaml-language-server: $schema="
"""The comment by which editors find the schema of a YAML file."""
SCHEMA_NAME = "bundler.schema.json"
"""The file next to cluster.yaml that the modeline names."""

POD_RANGES = ("10.200.0.0/16", "10.100.0.0/16", "172.24.0.0/16", "192.168.0.0/16")
SERVICE_RANGES = ("10.254.0.0/16", "10.96.0.0/16", "172.28.0.0/16", "192.168.0.0/18")
"""Ranges to choose from: the first that holds no address of the cluster."""


class Engine(StrEnum):
    """The container runtimes, as in components.RUNTIMES."""

    CONTAINERD = "containerd"
    DOCKER = "docker"


class LoadBalancer(StrEnum):
    """The kinds of `control_plane.load_balancer`."""

    LOCAL = "node-local"
    VIRTUAL = "nginx-keepalived"
    EXTERNAL = "external"


LOAD_BALANCERS = {
    LoadBalancer.LOCAL: "nginx on every host forwards to the control planes",
    LoadBalancer.VIRTUAL: "keepalived moves one more address between the control planes",
    LoadBalancer.EXTERNAL: "a load balancer that you run",
}
"""What distributes the connections over the control planes, and when to take it."""
TYPES: dict[str, TypeAdapter[Any]] = {
    "name": TypeAdapter(DnsLabel),
    "address": TypeAdapter(Address),
    "endpoint": TypeAdapter(HostPort),
    "version": TypeAdapter(Version),
}
"""What an answer is → its type in cluster.yaml."""
MIRRORS = {
    "dpkg": "http://deb.example/{name} {codename} {codename}-updates",
    "rpm": "https://rpm.example/{name}/{codename}/BaseOS/$basearch/os",
}
"""The package manager → what a repository of its hosts looks like."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One host: its name in the cluster, and its address."""

    name: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What `bundler init` asks for."""

    name: str
    control_planes: tuple[Host, ...]
    workers: tuple[Host, ...] = ()  # none: the control planes run the pods too
    os: str | None = None  # a key of RELEASES; None: the hosts have their packages already
    engine: Engine = Engine.CONTAINERD
    kubernetes: str | None = None  # None: the newest that the hosts' system can run
    endpoint: str | None = None  # HOST:PORT
    load_balancer: LoadBalancer | None = None
    arch: str = "amd64"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Versions:
    """Versions that the hosts' system can run."""

    kubernetes: str
    runtime: dict[str, str]  # the section `runtime`
    proxy_mode: str | None
    is_default: bool  # whether they are what hosts with any system would get


def check_answer(kind: str, text: str) -> str:
    """Return the text if it is a value of that kind (a key of TYPES), else raise ConfigError."""
    try:
        TYPES[kind].validate_python(text)
    except ValidationError as error:
        found = error.errors()[0]
        why = str(found.get("ctx", {}).get("error") or found["msg"])
        raise ConfigError(f"{make_printable(text)!s}: {why}") from error
    return text


def parse_host(text: str, default_name: str) -> Host:
    """Parse `NAME=ADDRESS` or `ADDRESS`; raises ConfigError."""
    name, _, address = text.strip().rpartition("=")
    return Host(
        name=check_answer("name", name.strip() or default_name),
        address=check_answer("address", address.strip()),
    )


def make_description(choices: Choices, file: str) -> str:
    """Make the text of a cluster.yaml named `file`; ConfigError if `check` would refuse it."""
    data = _make_data(choices)
    versions = _choose_versions(choices, data)
    endpoint, kind = data["control_plane"].get("endpoint"), _load_balancer_of(choices)
    text = compile_template((RESOURCES / "cluster.yaml.j2").read_text(encoding="utf-8")).render(
        schema=SCHEMA_NAME,
        file=make_printable(file),
        summary=_summarize(choices),
        name=_quote(choices.name),
        kubernetes=versions.kubernetes,
        runtime=versions.runtime,
        why_runtime=""
        if versions.is_default
        else f" With these versions {choices.os} needs no changes.",
        proxy_mode=versions.proxy_mode,
        os=choices.os,
        mirror=_show_mirror(choices.os) if choices.os else "",
        endpoint=endpoint,
        load_balancer=kind,
        why_load_balancer=f"  # {LOAD_BALANCERS[kind]}" if kind else "",
        arch=choices.arch,
        nodes=[{**node, "name": _quote(node["name"])} for node in data["nodes"]],
        **data["network"],
    )
    check_description(text, Path(file))
    return text


def list_examples() -> dict[str, str]:
    """List the names of the examples, each with the first sentence of its first comment."""
    found = {}
    for path in sorted(examples_directory().glob("*.yaml")):
        lines = path.read_text(encoding="utf-8").splitlines()
        comment = []
        for line in lines:
            if not line.startswith("#"):
                break
            comment.append(line.removeprefix("#").strip())
        found[path.stem] = " ".join(comment).partition(". ")[0].rstrip(".")
    return found


def read_example(name: str) -> str:
    """Return the text of an example, with the modeline; ConfigError for an unknown name."""
    known = list_examples()
    if name not in known:
        raise ConfigError(
            f"--example {name}: there is no such example", hint=f"take one of: {', '.join(known)}"
        )
    text = (examples_directory() / f"{name}.yaml").read_text(encoding="utf-8")
    return f"{MODELINE}{SCHEMA_NAME}\n{text}"


def read_companions(name: str) -> dict[str, str]:
    """Return the files that an example names, such as its list of nodes: file name → text."""
    paths = examples_directory().glob(f"{name}.*")
    return {path.name: path.read_text(encoding="utf-8") for path in paths if path.suffix != ".yaml"}


def check_description(text: str, target: Path) -> None:
    """Check the text as `bundler check` checks the file, with the lock that is there.

    Raises the error of the check, with the name of the target.
    """
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, target.name)
        path.write_text(text, encoding="utf-8")
        lock = lock_path(target)
        if lock.is_file():
            lock_path(path).write_bytes(lock.read_bytes())
        try:
            check(Inputs(description=path, cache=Cache(default_cache()), offline=True), quiet=True)
        except BundlerError as error:
            error.message = error.message.replace(str(path), str(target))
            error.message = error.message.replace(str(lock_path(path)), str(lock))
            raise


def check_absent(path: Path) -> None:
    """Raise OutputError if the path exists, whatever it is, or its directory does not."""
    if os.path.lexists(path):
        raise _exists(path)
    if not path.absolute().parent.is_dir():
        raise OutputError(
            f"{path}: there is no directory {path.parent}",
            hint=f"create it: mkdir -p {path.parent}",
        )


def write_new(path: Path, text: str) -> None:
    """Write a file that must not exist: complete, or not at all; OutputError if it exists."""
    with explain_disk_faults(path):
        directory = path.absolute().parent
        descriptor, temporary = tempfile.mkstemp(prefix=TEMPORARY, dir=directory)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(temporary, path)  # a rename would replace a file that appeared since then
            except FileExistsError as error:
                raise _exists(path) from error
        finally:
            Path(temporary).unlink(missing_ok=True)
        sync_directory(directory)


def _exists(path: Path) -> OutputError:
    return OutputError(
        f"{path}: exists; bundler init does not overwrite it",
        hint="choose another file with -o, or move that one away",
    )


def _make_data(choices: Choices) -> dict[str, Any]:
    """Make the parts of cluster.yaml that do not depend on versions."""
    kind = _load_balancer_of(choices)
    roles = [Role.ETCD, Role.CONTROL_PLANE]
    roles += [Role.LOAD_BALANCER] if kind is LoadBalancer.VIRTUAL else []
    roles += [] if choices.workers else [Role.WORKER]
    nodes = [
        *({"name": h.name, "address": h.address, "roles": roles} for h in choices.control_planes),
        *({"name": h.name, "address": h.address, "roles": [Role.WORKER]} for h in choices.workers),
    ]
    if choices.arch != "amd64":
        nodes = [{**node, "arch": choices.arch} for node in nodes]
    plane = {"endpoint": choices.endpoint, "load_balancer": {"kind": kind.value} if kind else None}
    return {
        "apiVersion": "bundler/v1alpha1",
        "name": choices.name,
        "network": _choose_ranges(choices),
        "control_plane": {key: value for key, value in plane.items() if value},
        "nodes": nodes,
        **({"packages": {"os": choices.os}} if choices.os else {}),
    }


def _load_balancer_of(choices: Choices) -> LoadBalancer | None:
    """Return the chosen kind, or the one that the control planes and the endpoint suggest."""
    if choices.load_balancer or len(choices.control_planes) < 2:
        return choices.load_balancer
    return LoadBalancer.VIRTUAL if choices.endpoint else LoadBalancer.LOCAL


def _choose_ranges(choices: Choices) -> dict[str, str]:
    """Choose ranges for pods and Services that hold no address of the cluster."""
    hosts = [host.address for host in (*choices.control_planes, *choices.workers)]
    hosts.append((choices.endpoint or "").partition(":")[0])
    taken = [IPv4Network(host) for host in hosts if _is_address(host)]
    chosen: list[IPv4Network] = []
    for ranges in (POD_RANGES, SERVICE_RANGES):
        free = (
            network
            for network in map(IPv4Network, ranges)
            if not any(network.overlaps(other) for other in (*taken, *chosen))
        )
        chosen.append(next(free, IPv4Network(ranges[0])))
    return {"pod_cidr": str(chosen[0]), "service_cidr": str(chosen[1])}


def _is_address(text: str) -> bool:
    try:
        IPv4Address(text)
    except ValueError:
        return False
    return True


def _choose_versions(choices: Choices, data: dict[str, Any]) -> _Versions:
    """Choose the newest versions that the hosts' system can run, or the default ones.

    The first of the candidates is the default; where none fits, `check` says why.
    """
    candidates = list(_list_candidates(choices))
    for versions in candidates if choices.os in RELEASES else ():
        trial = {
            **data,
            "kubernetes": {"version": versions.kubernetes},
            "runtime": versions.runtime,
            "network": {**data["network"], "proxy_mode": versions.proxy_mode},
        }
        try:
            cluster = Cluster.model_validate(trial)
        except ValueError:  # a wrong answer, of which `check` reports everything
            break
        if not any(True for _ in check_requirements(cluster)):
            return versions
    return candidates[0]


def _list_candidates(choices: Choices) -> Iterator[_Versions]:
    """List combinations of versions, from the default one to ever older ones."""
    is_default = True
    for kubernetes in _list_kubernetes(choices):
        for runtime in _list_runtimes(choices, kubernetes):
            for proxy_mode in (None, "iptables"):
                yield _Versions(
                    kubernetes=kubernetes,
                    runtime=runtime,
                    proxy_mode=proxy_mode,
                    is_default=is_default,
                )
            is_default = False


def _list_kubernetes(choices: Choices) -> list[str]:
    """List the chosen version, or the default one and then the newest patch of each older minor."""
    if choices.kubernetes:
        return [choices.kubernetes]
    default = default_kubernetes()
    newest = {minor_of(v): v for v in list_available("kubernetes-server", choices.arch)}
    older = [v for v in newest.values() if key_of(minor_of(v)) < key_of(minor_of(default))]
    return [default, *sorted(older, key=key_of, reverse=True)]


def _list_runtimes(choices: Choices, kubernetes: str) -> Iterator[dict[str, str]]:
    """List the sections `runtime` to try for a version of Kubernetes, the default first."""
    engine = {"engine": choices.engine.value}
    if choices.engine is not Engine.DOCKER:
        yield engine
        newest = {minor_of(v): v for v in list_available(choices.engine, choices.arch)}
        for version in sorted(newest.values(), key=key_of, reverse=True):
            yield {**engine, "version": version}
        return
    versions = list_available("docker", choices.arch)
    if _has_dockershim(kubernetes):
        old = [v for v in versions if minor_of(v) == "20.10"]
        yield {**engine, "version": old[-1]} if old else engine
        return
    shim = {"cri_dockerd": list_available("cri-dockerd", choices.arch)[-1]}
    newest = {minor_of(v): v for v in versions}
    for version in sorted(newest.values(), key=key_of, reverse=True):
        yield {**engine, "version": version, **shim}


def _has_dockershim(kubernetes: str) -> bool:
    """Whether its kubelet talks to Docker without cri-dockerd; False for what is no version."""
    parts = kubernetes.removeprefix("v").split(".")
    return (
        len(parts) == 3
        and all(part.isdecimal() for part in parts)
        and (RUNTIMES["docker"].holds_for(".".join(parts[:2])))
    )


def _show_mirror(release: str) -> str:
    """Show what the repository of a release looks like."""
    found = RELEASES.get(release)
    if not found:
        return ""
    pattern = MIRRORS[found.family.manager]
    return pattern.format(name=release.partition("-")[0], codename=found.codename)


def _quote(text: str) -> str:
    """Quote a value where YAML would read it as something else than text."""
    return dump_yaml([text]).removeprefix("- ")


def _summarize(choices: Choices) -> str:
    planes, workers = len(choices.control_planes), len(choices.workers)
    hosts = f"{planes} control plane{'s' * (planes != 1)}"
    runs = f", which run{'s' * (planes == 1)} the pods too"
    hosts += f" and {workers} worker{'s' * (workers != 1)}" if workers else runs
    return f"Kubernetes cluster: {hosts}."
