"""Hosts of a cluster with `profile`, as folders: the files of their bundles, and what would run there."""

import textwrap
from dataclasses import dataclass
from pathlib import Path

from bundler.cluster.loader import load_cluster
from bundler.cluster.plan import ClusterPlan, NodePlan, assign_pod_subnets, make_plan
from bundler.cluster.schema import Role
from bundler.overlays.files import RENDERED, list_files
from bundler.overlays.templating import NeedsStateError, render_template
from bundler.render.context import make_context
from support.unit_files import read_unit

PROGRAMS = {
    "etcd": Role.ETCD,
    "kube-apiserver": Role.CONTROL_PLANE,
    "kube-controller-manager": Role.CONTROL_PLANE,
    "kube-scheduler": Role.CONTROL_PLANE,
    "kubelet": Role.WORKER,
    "kube-proxy": Role.WORKER,
}
STARTERS = ("/opt/k8s/libexec/etcd-start.sh", "/opt/k8s/libexec/kubelet-join.sh")
WRITTEN_ON_HOST = {
    "etc/kubernetes/kubelet.kubeconfig": Role.WORKER,
    "var/lib/kubelet/pki/kubelet-server-current.pem": Role.WORKER,
}
"""Files that programs write with mode 0600 when they have joined the cluster."""

DESCRIPTION = """\
apiVersion: bundler/v1alpha1
name: bench
{profile}
kubernetes: {{version: {minor}.1}}
{runtime}
images: [{{ref: "registry.k8s.io/pause:1", use: pause}}, {{ref: "web:1", use: verify}}]
dns: {{provider: none}}
control_plane: {{endpoint: "api.example:6443", load_balancer: {{kind: external}}}}
nodes:
  - {{name: m1, address: 192.0.2.1, roles: [control-plane]}}
  - {{name: e1, address: 192.0.2.2, roles: [etcd]}}
  - {{name: w1, address: 192.0.2.3, roles: [worker]}}
  - {{name: a1, address: 192.0.2.4, roles: [etcd, control-plane, worker]}}
  - {{name: b1, address: 192.0.2.5, roles: [etcd, control-plane]}}
{more}
"""


@dataclass(frozen=True)
class Host:
    """A folder that stands for the root of a host, and the commands of its programs."""

    root: Path
    processes: dict[str, list[str]]


def load_plan(directory: Path, minor: str, profile: str = "cis", more: str = "") -> ClusterPlan:
    """The plan of a cluster with hosts of all kinds; ConfigError as `bundler check` says it."""
    path = directory / f"cluster-{minor}.yaml"
    runtime = "runtime: {engine: docker, version: 20.10.24}" if _is_before_124(minor) else ""
    text = DESCRIPTION.format(
        minor=minor, runtime=runtime, more=textwrap.dedent(more),
        profile=f"profile: {profile}" if profile else "",
    )  # fmt: skip
    path.write_text(text)
    plan = make_plan(load_cluster(path).cluster)
    subnets = {node.name: plan.cluster.network.pod_cidr for node in plan.having(Role.WORKER)}
    return assign_pod_subnets(plan, subnets)


def _is_before_124(minor: str) -> bool:
    return int(minor.partition(".")[2]) < 24


def stage_host(plan: ClusterPlan, node: NodePlan, root: Path) -> Host:
    """Write the files of a host's bundle; those that need a state directory have no content."""
    context = make_context(plan, node, None)
    for file in list_files(plan, node):
        inside = file.path.removeprefix("rootfs/")
        content = file.content
        if file.suffix == RENDERED:
            try:
                content = render_template(content, file.origin, context).encode()
            except NeedsStateError:
                content = b""
        target = root / (inside if inside != file.path else f"opt/k8s/bundle/{inside}")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        target.chmod(file.mode)
    for path, role in WRITTEN_ON_HOST.items():
        if node.has(role):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).touch(mode=0o600)
    if node.has(Role.WORKER):  # as kube-proxy-start.sh does
        made = root / "run/kube-proxy/config.yaml"
        made.parent.mkdir(parents=True)
        made.write_bytes((root / "etc/kubernetes/kube-proxy-config.yaml").read_bytes())
    if node.has(Role.ETCD):
        (root / plan.cluster.etcd.data_dir.lstrip("/")).mkdir(parents=True, mode=0o700)
    return Host(
        root, {name: _read_command(root, name) for name in PROGRAMS if node.has(PROGRAMS[name])}
    )


def _read_command(root: Path, program: str) -> list[str]:
    """What systemd starts, without the scripts that become the program."""
    unit = read_unit((root / f"etc/systemd/system/{program}.service").read_text())
    (words,) = unit["[Service]ExecStart"]
    flags = [word for word in words if word not in STARTERS and not word.endswith(f"/{program}")]
    return [f"/opt/k8s/bin/{program}", *flags]


def write_processes(host: Host) -> None:
    """A /proc with the host's programs, and one of another name."""
    commands = {101 + index: command for index, command in enumerate(host.processes.values())}
    for number, command in {1: ["/sbin/init"], **commands}.items():
        process = host.root / "proc" / str(number)
        process.mkdir(parents=True)
        (process / "comm").write_text(f"{Path(command[0]).name[:15]}\n")
        (process / "cmdline").write_bytes("".join(f"{word}\0" for word in command).encode())
