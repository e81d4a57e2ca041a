"""The names that templates may use: the plan, one node, its secrets, and values made of them."""

import json
import re
from functools import partial
from typing import Any
from urllib.parse import quote_plus

from bundler import __version__
from bundler.cluster.components import (
    API_PORT,
    API_SERVER_STOP,
    APPLY_FLAGS,
    CLOSED_PORTS,
    COMMANDS,
    COMMANDS_WANTED,
    CSR_API,
    DIFF_FLAGS,
    ETCD_FLANNEL_PORT,
    ETCD_STEPS,
    EVICTION_API,
    FLANNEL_HEALTH_PORT,
    LOOPBACK_DAYS,
    LOOPBACK_MARGIN,
    PORTS,
    RESTORE_FLAGS,
    RUNTIME_CLASS_API,
    RUNTIME_PATHS,
    SECCOMP,
    SERVICE_WATCHES_HANG,
    SNAPSHOT_TOOLS,
    UNITS,
    Row,
    minor_of,
    row_for,
    select,
)
from bundler.cluster.handlers import list_classes, list_shim_directories
from bundler.cluster.host_needs import addon_ports, open_ports, sysctls
from bundler.cluster.images import find_use
from bundler.cluster.lifecycle import list_lines_in_use
from bundler.cluster.node_labels import MarkKind, list_planned_taints
from bundler.cluster.os_packages import QUIET_UNITS, manager_of
from bundler.cluster.plan import (
    ClusterPlan,
    NodePlan,
    choose_cgroup_driver,
    choose_flannel,
    choose_kube_router,
    choose_proxy_mode,
    data_paths,
    kernel_modules,
    max_pods,
    runtime_versions,
    virtual_router_id,
)
from bundler.cluster.requirements import list_host_rows
from bundler.cluster.schema import Cluster, Role
from bundler.cluster.service_users import list_unit_files, list_users_of, make_unit_lines, user_of
from bundler.cluster.settings import make_config, make_flags
from bundler.formats.image_references import full_name
from bundler.formats.secret_shapes import load_patterns
from bundler.overlays.templating import compile_template, json_line, make_unknown
from bundler.pki.endpoints import list_serving
from bundler.pki.hot_reload import list_files_read_at_start
from bundler.render.cis import make_cis_values
from bundler.render.flannel_requests import list_requests
from bundler.render.kubelet_settings import list_kubelet_differences, list_kubelet_settings
from bundler.render.policy import make_policy_values
from bundler.render.registry import list_ports, make_registry_values
from bundler.render.state_values import STATE_NAMES, Secrets, make_state_values

BUNDLE_FORMAT = 1
RUNTIME_UNITS = {
    "docker": ("docker.service",),
    "cri-dockerd": ("docker.service", "cri-dockerd.service"),
    "containerd": ("containerd.service",),
}
CRI_SOCKETS = {
    "containerd": "unix:///run/containerd/containerd.sock",
    "docker": "unix:///run/cri-dockerd.sock",
}
HIGHEST_PRIORITY = 200
"""VRRP priority of the first load balancer; each further one has one less."""


def make_context(plan: ClusterPlan, node: NodePlan, secrets: Secrets | None) -> dict[str, Any]:
    """Make every name that the templates of a node may use; those in STATE_NAMES need secrets."""
    whole, plan = plan, plan.on_host(node)
    cluster = plan.cluster
    minor = minor_of(cluster.kubernetes.version)
    cgroup_driver = choose_cgroup_driver(cluster)
    context: dict[str, Any] = {
        "tool_version": __version__,
        "bundle_format": BUNDLE_FORMAT,
        "plan": plan,
        "cluster": cluster,
        "network": cluster.network,
        "runtime": cluster.runtime,
        "runtime_units": RUNTIME_UNITS[
            "cri-dockerd" if "cri-dockerd" in plan.features else plan.engine
        ],
        "runtime_version": next(iter(runtime_versions(cluster).values())),
        "node": node,
        "workers": plan.having(Role.WORKER),
        "control_planes": plan.having(Role.CONTROL_PLANE),
        "balancers": plan.having(Role.LOAD_BALANCER),
        "load_balancer": cluster.control_plane.load_balancer,
        "api_port": API_PORT,
        "nginx_listen": f"127.0.0.1:{plan.endpoint_port}"
        if plan.is_node_local
        else plan.endpoint_port,
        "api_local": f"https://{node.address}:{API_PORT}",
        "etcd_endpoints": ",".join(f"https://{n.address}:2379" for n in plan.having(Role.ETCD)),
        "etcd_members": plan.having(Role.ETCD),
        "etcd_flannel_port": ETCD_FLANNEL_PORT,
        "flannel_proxies": tuple(
            f"{n.address}:{ETCD_FLANNEL_PORT}" for n in plan.having(Role.ETCD)
        ),
        "flannel_requests": list_requests(cluster.network),
        "snapshot_tool": row_for(SNAPSHOT_TOOLS, minor_of(plan.etcd_version)),
        "etcd_step_from": row_for(ETCD_STEPS, minor_of(plan.etcd_version)),
        "service_watches_hang": row_for(SERVICE_WATCHES_HANG, cluster.kubernetes.version),
        "restore_flags": row_for(RESTORE_FLAGS, plan.etcd_version),
        "max_pods": max_pods(plan),
        "json_line": json_line,
        "secret_patterns": load_patterns(),
        "features": plan.features,
        "proxy_mode": choose_proxy_mode(cluster),
        "cgroup_driver": cgroup_driver,
        "is_systemd_cgroup": cgroup_driver == "systemd",
        "cri_socket": CRI_SOCKETS[plan.engine],
        "flannel_version": choose_flannel(cluster),
        "kube_router_version": choose_kube_router(cluster),
        "eviction_api": row_for(EVICTION_API, minor),
        "apply_flags": row_for(APPLY_FLAGS, minor),
        "diff_flags": row_for(DIFF_FLAGS, minor),
        "csr_api": row_for(CSR_API, minor),
        "seccomp": row_for(SECCOMP, minor),
        "runtime_class_api": row_for(RUNTIME_CLASS_API, minor),
        "runtime_classes": list_classes(cluster),
        "shim_path": "".join(f":{place}" for place in list_shim_directories(cluster)),
        "handlers": tuple(
            f"{name}:{handler.program}" for name, handler in cluster.runtime.handlers.items()
        ),
        "flannel_health_port": FLANNEL_HEALTH_PORT,
        "image": lambda use: _image_of(plan, use),
        "pause_image": _image_of(plan, "pause", node.arch),
        "modules": kernel_modules(plan, node),
        "planned_taints": list_planned_taints(cluster, node.marks),
        "planned_labels": tuple(m.key for m in node.marks if m.kind is MarkKind.LABEL),
        "json_text": json.dumps,
        "encode": encode_mark,
        **make_policy_values(cluster),
        **make_cis_values(plan, node),
        **make_registry_values(plan, node),
        "vip_interface": node.interface or "",
        "service": partial(make_unit_lines, cluster),
    }

    def render(text: str) -> str:
        return compile_template(text).render(context)

    own = node.features
    context["flags"] = lambda component: make_flags(plan.cluster, component, render, own)
    context["read_once"] = lambda component: list_files_read_at_start(cluster, component)
    context["config"] = lambda component: make_config(plan.cluster, component, render, own)
    context["sysctls"] = sysctls(
        node, is_kubelet_strict=bool(context["config"]("kubelet").get("protectKernelDefaults"))
    )
    context["kubelet_settings"] = lambda: list_kubelet_settings(context["config"]("kubelet"))
    context["kubelet_differences"] = lambda: list_kubelet_differences(
        whole,
        context["config"]("kubelet"),
        lambda other: make_context(whole, other, None)["config"]("kubelet"),
    )
    unknown = {name: make_unknown(name) for name in STATE_NAMES}
    from_state = make_state_values(plan, node, secrets) if secrets else unknown
    return context | _make_role_values(plan, node) | _make_host_values(plan, node) | from_state


def _make_role_values(plan: ClusterPlan, node: NodePlan) -> dict[str, Any]:
    """Make the values that only nodes with a certain role have."""
    values: dict[str, Any] = {}
    if node.has(Role.ETCD):
        values["etcd_position"] = plan.having(Role.ETCD).index(node)
    if node.has(Role.LOAD_BALANCER) and "nginx-keepalived" in plan.features:
        balancers = plan.having(Role.LOAD_BALANCER)
        values["virtual_router_id"] = virtual_router_id(plan)
        values["balancer_priority"] = max(HIGHEST_PRIORITY - balancers.index(node), 61)
    return values


def _image_of(plan: ClusterPlan, use: str, arch: str | None = None) -> str:
    """Return the full reference of the image for a use; empty if the cluster has none."""
    found = find_use(plan.cluster, use, arch)
    return full_name(found[0].ref) if found else ""


def _make_host_values(plan: ClusterPlan, node: NodePlan) -> dict[str, Any]:
    """Make the values that install.sh and verify.sh read from node.env."""
    units = select(UNITS, node.roles, plan.features)
    ports = {
        port: unit for role in node.roles for port, unit in PORTS[role].items() if unit in units
    }
    if node.has(Role.REGISTRY):
        ports |= dict.fromkeys(list_ports(plan, node), "kube-registry-nginx.service")
    if node.has(Role.LOAD_BALANCER):
        ports[plan.endpoint_port] = "kube-nginx.service"
    if node.has(Role.WORKER) and "flannel" in plan.features:
        ports[FLANNEL_HEALTH_PORT] = "flannel.service"

    def has(rows: tuple[Row, ...]) -> tuple[str, ...]:
        return select(rows, node.roles, plan.features)

    minor = minor_of(plan.cluster.kubernetes.version)
    names = tuple(dict.fromkeys(unit.rpartition(".")[0] for unit in units))  # of timers, too
    return {
        "service_users": tuple(
            f"{user.name}:{user.id}" for user in list_users_of(plan.cluster, units)
        ),
        "unit_files": tuple(
            (row, user)
            for name in names
            if (user := user_of(plan.cluster, name))
            for row in list_unit_files(plan.cluster, name)
        ),
        "unit_users": tuple(
            f"{name}:{user.name}" for name in names if (user := user_of(plan.cluster, name))
        ),
        "serving": list_serving(plan, node),
        "requirements": list_host_rows(plan.cluster, node.roles),
        "api_server_stop": row_for(API_SERVER_STOP, minor),
        "api_server_days": row_for(LOOPBACK_DAYS, minor) - LOOPBACK_MARGIN,
        "units": units,
        "ports": tuple(f"{port}:{unit}" for port, unit in ports.items()),
        "planned_nodes": tuple(f"{n.name}|{n.address}|{','.join(n.roles)}" for n in plan.nodes),
        "open_ports": open_ports(plan, node, ports),
        "addon_ports": addon_ports(plan, node),
        "closed_ports": tuple(
            port for port in CLOSED_PORTS if not _is_in_extra(plan.cluster, port)
        ),
        "commands": has(COMMANDS),
        "commands_wanted": has(COMMANDS_WANTED),
        "packages_os": plan.cluster.packages.os if plan.cluster.packages else "",
        "packages_manager": manager_of(plan.cluster.packages.os) if plan.cluster.packages else "",
        "quiet_units": tuple(dict.fromkeys(QUIET_UNITS.values())) if plan.cluster.packages else (),
        "verify_image": _image_of(plan, "verify"),
        "line_ends": tuple(
            f"{one.row.name}:{one.row.ends}"
            for one in list_lines_in_use(plan.cluster)
            if one.row.ends
        ),
        "data_paths": tuple(
            path for role, paths in data_paths(plan).items() if node.has(role) for path in paths
        ),
        "runtime_paths": tuple(
            path.format(kubelet_root=plan.cluster.kubernetes.kubelet_root)
            for path in has(RUNTIME_PATHS)
        ),
    }


def _is_in_extra(cluster: Cluster, port: int) -> bool:
    """Whether `extra` in cluster.yaml names the port."""
    values = [extra.model_dump_json() for extra in cluster.extra.values()]
    return any(re.search(rf"\b{port}\b", value) for value in values)


def encode_mark(value: str) -> str:
    """Percent-encode the value of a label or annotation; `-` alone stands for an empty one."""
    return "%2D" if value == "-" else quote_plus(value)
