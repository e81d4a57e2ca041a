"""etcd.service by version of Kubernetes: whether it restarts the API server, and with how many members."""

import os
import subprocess
from pathlib import Path

import pytest
from support.unit_files import read_unit

from bundler.cluster.loader import load_cluster
from bundler.cluster.plan import assign_pod_subnets, make_plan
from bundler.overlays.files import list_files
from bundler.overlays.templating import render_template
from bundler.render.context import make_context

UNIT = "rootfs/etc/systemd/system/etcd.service"
MEMBERS = "/proc/1/root/etc/etcd/members.tsv"
DESCRIPTION = """\
apiVersion: bundler/v1alpha1
name: watches
kubernetes: {{version: {version}}}
images: [{{ref: "registry.k8s.io/pause:1", use: pause}}, {{ref: "web:1", use: verify}}]
runtime: {{engine: containerd, version: 1.6.20}}
dns: {{provider: none}}
control_plane: {{endpoint: "api.example:6443", load_balancer: {{kind: external}}}}
nodes:
{nodes}
"""
ALL = "[etcd, control-plane, worker]"


def list_commands(directory: Path, version: str, roles: list[str]) -> list[list[str]]:
    """The commands that run when etcd of the first node has started, but for the one of every version."""
    nodes = (
        f"  - {{name: n{i}, address: 192.0.2.{i}, roles: {role}}}"
        for i, role in enumerate(roles, 1)
    )
    description = directory / "cluster.yaml"
    description.write_text(DESCRIPTION.format(version=version, nodes="\n".join(nodes)))
    plan = make_plan(load_cluster(description).cluster)
    subnets = {node.name: plan.cluster.network.pod_cidr for node in plan.nodes}
    plan = assign_pod_subnets(plan, subnets)
    node = plan.nodes[0]
    file = next(file for file in list_files(plan, node) if file.path == UNIT)
    text = render_template(file.content, file.origin, make_context(plan, node, None))
    commands = [
        words for words in read_unit(text)["[Service]ExecStartPost"] if "touch" not in words
    ]
    assert ("API server of this host is restarted" in text) == bool(commands)
    return commands  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("version", "roles", "restarts"),
    [("1.19.16", [ALL], False), ("1.20.0", [ALL], True), ("1.20.9", [ALL], True), ("1.20.10", [ALL], False),
     ("1.21.0", [ALL], True), ("1.21.3", [ALL], True), ("1.21.4", [ALL], False), ("1.30.1", [ALL], False),
     ("1.20.2", [ALL, "[control-plane, worker]"], True), ("1.20.2", ["[etcd]", "[control-plane, worker]"], False)],
)  # fmt: skip
def test_an_api_server_whose_watches_of_services_hang_is_restarted_after_etcd(
    tmp_path: Path, version: str, roles: list[str], restarts: bool
) -> None:
    assert bool(list_commands(tmp_path, version, roles)) == restarts


@pytest.mark.parametrize(("members", "restarts"), [(1, True), (2, False), (3, False)])
def test_only_the_only_member_restarts_it(tmp_path: Path, members: int, restarts: bool) -> None:
    (command,) = list_commands(tmp_path, "1.20.2", [ALL])
    assert command[:2] == ["-+/bin/sh", "-c"]
    assert MEMBERS in command[2]
    table, said, stand_in = (tmp_path / name for name in ("members.tsv", "said", "systemctl"))
    table.write_text("".join(f"n{i}\thttps://192.0.2.{i}:2380\n" for i in range(members)))
    stand_in.write_text(f'#!/bin/sh\necho "$*" >>{said}\n')
    stand_in.chmod(0o755)
    script = command[2].replace(MEMBERS, str(table)).replace("$$", "$")
    path = f"{tmp_path}:{os.environ['PATH']}"
    assert subprocess.run(["sh", "-c", script], env={"PATH": path}, check=False).returncode == 0
    done = said.read_text() if said.exists() else ""
    assert done == ("--no-block try-restart kube-apiserver.service\n" if restarts else "")
