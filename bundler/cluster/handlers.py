"""Runtime handlers: programs other than runc, in containerd, Docker and RuntimeClasses."""

import re
from collections.abc import Iterator
from typing import Any

from bundler.cluster.components import minor_of, row_for
from bundler.cluster.plan import choose_cgroup_driver, runtime_versions
from bundler.cluster.problem import Problem
from bundler.cluster.schema import Cluster, Docker
from bundler.cluster.schema_runtime import ContainerdHandler, DockerHandler, Handler

SHIM = re.compile(r"/containerd-shim-([a-z0-9-]+)-(v[0-9]+)")
"""containerd's naming: io.containerd.kata.v2 is the program containerd-shim-kata-v2."""
RUNC_SHIM = "io.containerd.runc.v2"
CRI_PLUGINS = {"1.4": "io.containerd.grpc.v1.cri", "2.0": "io.containerd.cri.v1.runtime"}
"""First minor of containerd → the plugin whose configuration has the runtimes."""
OPTION_TYPES = {"io.containerd.runsc.v1": "io.containerd.runsc.v1.options"}
"""Shim → the type of its options, where containerd must be told (gVisor's documentation)."""
UNIT_PATH = frozenset(
    f"{root}/{name}" for root in ("/usr/local", "/usr", "") for name in ("sbin", "bin")
)
"""Where the units of containerd and Docker look for programs (PATH)."""
RUNC, DOCKER = "runc", "docker"
RESERVED = {RUNC: "bundler's own program", DOCKER: "the kubelet's name of Docker's default"}
DOCKER_SHIMS_SINCE = (23, 0)
"""dockerd reads runtimeType from 23.0 on (moby, daemon/config)."""
CRI_DOCKERD_SINCE = (0, 4)
"""cri-dockerd refuses every handler but docker before 0.4.0 (core/sandbox_run.go)."""
SELECTOR_SINCE = (1, 16)
"""RuntimeClass has scheduling from Kubernetes 1.16 on."""


def find_shim(handler: Handler) -> str:
    """The runtime type of a shim, such as io.containerd.kata.v2; empty for a program like runc."""
    match = SHIM.search(handler.program)
    is_whole = match is not None and match.end() == len(handler.program)
    return f"io.containerd.{match[1]}.{match[2]}" if match and is_whole else ""


def list_shim_directories(cluster: Cluster) -> tuple[str, ...]:
    """Where containerd must look for shims, in addition to its PATH."""
    programs = (each.program for each in cluster.runtime.handlers.values() if find_shim(each))
    places = dict.fromkeys(program.rpartition("/")[0] for program in programs)
    return tuple(place for place in places if place not in UNIT_PATH)


def make_handlers(cluster: Cluster, component: str) -> dict[str, Any]:
    """The fields of the handlers in the configuration of containerd or Docker; empty for others."""
    runtime = cluster.runtime
    if component != runtime.engine or not (runtime.handlers or runtime.default_handler):
        return {}
    name = runtime.default_handler or RUNC
    if isinstance(runtime, Docker):
        known = {key: _make_for_docker(each) for key, each in runtime.handlers.items()}
        return {"runtimes": known, **({"default-runtime": name} if name != RUNC else {})}
    is_systemd = choose_cgroup_driver(cluster) == "systemd"
    plugin = row_for(CRI_PLUGINS, minor_of(runtime_versions(cluster)["containerd"]))
    runtimes = {
        key: _make_for_containerd(each, is_systemd=is_systemd)
        for key, each in runtime.handlers.items()
    }
    return {
        "plugins": {plugin: {"containerd": {"default_runtime_name": name, "runtimes": runtimes}}}
    }


def _make_for_docker(handler: DockerHandler) -> dict[str, Any]:
    shim = find_shim(handler)
    if shim:
        return {"runtimeType": shim}
    arguments = {"runtimeArgs": list(handler.arguments)} if handler.arguments else {}
    return {"path": handler.program, **arguments}


def _make_for_containerd(handler: ContainerdHandler, *, is_systemd: bool) -> dict[str, Any]:
    shim = find_shim(handler)
    options: dict[str, Any] = dict(handler.options)
    if not shim:
        options = {"BinaryName": handler.program, "SystemdCgroup": is_systemd, **options}
    elif options and shim in OPTION_TYPES:
        options = {"TypeUrl": OPTION_TYPES[shim], **options}
    annotations = {"pod_annotations": list(handler.pod_annotations)}
    return {
        "runtime_type": shim or RUNC_SHIM,
        **(annotations if handler.pod_annotations else {}),
        **({"options": options} if options else {}),
    }


def list_classes(cluster: Cluster) -> dict[str, dict[str, str]]:
    """Each RuntimeClass of the cluster → the labels of the nodes that have it."""
    found: dict[str, dict[str, str]] = {}
    for host in list_hosts(cluster):
        for name, handler in host.runtime.handlers.items():
            found.setdefault(name, dict(handler.node_selector))
    return dict(sorted(found.items()))


def list_hosts(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, and as each host has it that differs in its runtime."""
    yield cluster
    for node in cluster.nodes:
        if node.runtime:
            yield cluster.on_host(node)


def check_handlers(cluster: Cluster) -> Iterator[Problem]:
    """Handlers that the runtime or the kubelet of a host cannot use."""
    runtime, where = cluster.runtime, ("runtime", "handlers")
    name = runtime.default_handler
    if name and name != RUNC and name not in runtime.handlers:
        known = ", ".join((RUNC, *runtime.handlers))
        text = f"{name} is not in runtime.handlers; handlers of this host: {known}"
        yield Problem(path=("runtime", "default_handler"), text=text)
    for key, handler in runtime.handlers.items():
        if key in RESERVED:
            yield Problem(path=(*where, key), text=f"{key} is {RESERVED[key]}: take another name")
        if handler.node_selector and _parse(cluster.kubernetes.version) < SELECTOR_SINCE:
            text = "RuntimeClass has it from Kubernetes 1.16 on: remove it"
            yield Problem(path=(*where, key, "node_selector"), text=text)
    if isinstance(runtime, Docker):
        yield from _check_docker(runtime)


def _check_docker(runtime: Docker) -> Iterator[Problem]:
    where = ("runtime", "handlers")
    for key, handler in runtime.handlers.items():
        if find_shim(handler) and _parse(runtime.version) < DOCKER_SHIMS_SINCE:
            text = (
                f"Docker {runtime.version} uses no shims: use 23.0 or later, or give a program that"
                " is called as runc is (gVisor: runsc)"
            )
            yield Problem(path=(*where, key, "program"), text=text)
        if find_shim(handler) and handler.arguments:
            text = "a shim gets no arguments: remove it"
            yield Problem(path=(*where, key, "arguments"), text=text)
        if key != runtime.default_handler and not _has_classes(runtime):
            text = (
                "pods cannot choose it: RuntimeClasses of Docker need cri-dockerd 0.4.0 or later;"
                " make it runtime.default_handler, or use containerd"
            )
            yield Problem(path=(*where, key), text=text)


def _has_classes(runtime: Docker) -> bool:
    return runtime.cri_dockerd is not None and _parse(runtime.cri_dockerd) >= CRI_DOCKERD_SINCE


def _parse(version: str) -> tuple[int, int]:
    major, minor, *_ = version.split(".")
    return int(major), int(minor)


def check_classes(cluster: Cluster) -> Iterator[Problem]:
    """Hosts that say different things of one RuntimeClass."""
    classes = list_classes(cluster)
    for index, node in enumerate(cluster.nodes):
        for name, handler in (node.runtime.handlers if node.runtime else {}).items():
            if dict(handler.node_selector) != classes[name]:
                text = (
                    f"must be equal on all hosts with the handler {name}: it has one RuntimeClass"
                )
                path = ("nodes", index, "runtime", "handlers", name, "node_selector")
                yield Problem(path=path, text=text)
