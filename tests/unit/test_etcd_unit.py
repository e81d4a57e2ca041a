"""etcd.service by version of Kubernetes and number of members."""

from pathlib import Path

import pytest
from support.unit_files import read_unit

from bundler.cluster.loader import load_cluster
from bundler.cluster.plan import assign_pod_subnets, make_plan
from bundler.cluster.schema import Role
from bundler.overlays.files import list_files
from bundler.overlays.templating import render_template
from bundler.render.context import make_context

UNIT = "rootfs/etc/systemd/system/etcd.service"
RESTART = ["-+/usr/bin/env", "systemctl", "--no-block", "try-restart", "kube-apiserver.service"]
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


@pytest.mark.parametrize(
    ("version", "roles", "restarts"),
    [("1.19.16", [ALL], False), ("1.20.0", [ALL], True), ("1.20.9", [ALL], True), ("1.20.10", [ALL], False),
     ("1.21.0", [ALL], True), ("1.21.3", [ALL], True), ("1.21.4", [ALL], False), ("1.30.1", [ALL], False),
     ("1.20.2", [ALL, "[control-plane, worker]"], True), ("1.20.2", ["[etcd]", "[control-plane, worker]"], False),
     ("1.20.2", [ALL] * 3, False)],
)  # fmt: skip
def test_the_only_member_restarts_an_api_server_whose_watches_of_services_hang(
    tmp_path: Path, version: str, roles: list[str], restarts: bool
) -> None:
    nodes = (
        f"  - {{name: n{i}, address: 192.0.2.{i}, roles: {role}}}"
        for i, role in enumerate(roles, 1)
    )
    description = tmp_path / "cluster.yaml"
    description.write_text(DESCRIPTION.format(version=version, nodes="\n".join(nodes)))
    plan = make_plan(load_cluster(description).cluster)
    plan = assign_pod_subnets(
        plan, {node.name: plan.cluster.network.pod_cidr for node in plan.nodes}
    )
    node = next(node for node in plan.nodes if Role.ETCD in node.roles)
    file = next(file for file in list_files(plan, node) if file.path == UNIT)
    unit = read_unit(render_template(file.content, file.origin, make_context(plan, node, None)))
    assert (RESTART in unit["[Service]ExecStartPost"]) == restarts
    assert ("API server is restarted" in str(unit["[X-Bundler]Interruption"])) == restarts
