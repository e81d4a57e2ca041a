"""uninstall.sh --leave against a real API server, with kube-node-remover; and rights that clusters lose."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.external_ca_cluster import find_programs
from support.planned_cluster import Client, PlannedCluster, describe_planned, start_cluster
from support.shells import TEMPLATES, write_program

NODES = "/api/v1/nodes"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
SCRIPT = """
set -u
prefix='' live='' dry_run=no drain=yes lock_taken=no switching=no store={work}/store work={work}/work here={tree}
for part in core/common coordination/drain coordination/leave; do . {work}/lib/$part.sh; done
prefix={work}/none store={work}/store live=''
load_node
KUBELET_ROOT={work}/kubelet LEAVE_LIMIT={limit}
check_leave
leave_cluster
echo GONE
"""


class Worker:
    """A worker's host: its bundle, its kubelet's certificate, and the part of uninstall.sh that leaves."""

    def __init__(self, cluster: PlannedCluster, name: str, directory: Path) -> None:
        self.cluster, self.name, self.work = cluster, name, directory
        kubeconfig = cluster.join(name)
        self.api = Client.read(kubeconfig, directory)
        (directory / "kubelet/pki").mkdir(parents=True)
        pem = cluster.directory / f"kubelet-{name}.pem"
        (directory / "kubelet/pki/kubelet-client-current.pem").symlink_to(pem)
        for folder in ("store", "work"):
            (directory / folder).mkdir()
        self.write_lib()
        write_program(directory / "bin/systemctl", f'echo "$*" >>{directory}/systemctl\n')
        (directory / "bin/kubectl").symlink_to(cluster.host.programs / "kubectl")

    def write_lib(self) -> None:
        """The parts of the scripts, with the place of this host's /etc."""
        for path in (TEMPLATES / "common/lib").rglob("*.sh"):
            copy = self.work / "lib" / path.relative_to(TEMPLATES / "common/lib")
            copy.parent.mkdir(parents=True, exist_ok=True)
            root = self.cluster.worker(self.name)
            copy.write_text(path.read_text().replace("/etc/kubernetes", f"{root}/etc/kubernetes"))

    def register(self) -> None:
        """What a kubelet does when it starts."""
        labels = {"kubernetes.io/hostname": self.name}
        body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": self.name, "labels": labels}}  # fmt: skip
        self.api.request("POST", NODES, json.dumps(body))
        self.report()

    def report(self) -> None:
        """What a kubelet does every ten seconds."""
        now = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())
        lease = {"metadata": {"name": self.name}, "spec": {"renewTime": now}}
        if self.api.request("POST", LEASES, json.dumps(lease))[0] == 409:
            body = json.dumps({"spec": {"renewTime": now}})
            status, answer = self.api.request("PATCH", f"{LEASES}/{self.name}", body)
            assert status == 200, answer

    def leave(self, limit: int = 30) -> subprocess.CompletedProcess[str]:
        script = self.work / "leave.sh"
        tree = self.cluster.worker(self.name).parent
        script.write_text(SCRIPT.format(work=self.work, tree=tree, limit=limit))
        return subprocess.run(
            ["sh", script],
            capture_output=True, text=True, check=False, timeout=180,
            env={**os.environ, "PATH": f"{self.work}/bin:{os.environ['PATH']}"},
        )  # fmt: skip

    def read(self) -> dict[str, Any] | None:
        """The worker's Node, if it exists."""
        status, node = self.api.request("GET", f"{NODES}/{self.name}")
        assert status in {200, 404}, node
        return node if status == 200 else None


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlannedCluster]:
    directory = tmp_path_factory.mktemp("leaving")
    programs = find_programs(directory / "bin")
    with start_cluster(directory, programs, describe_planned("127.31.10.1")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def admin(cluster: PlannedCluster) -> Client:
    return Client.read(cluster.host.root / "etc/kubernetes/admin.kubeconfig", cluster.directory)


@pytest.fixture(scope="module")
def joined(cluster: PlannedCluster, tmp_path_factory: pytest.TempPathFactory) -> Worker:
    return Worker(cluster, "w1", tmp_path_factory.mktemp("w1"))


@pytest.fixture
def worker(joined: Worker, admin: Client) -> Worker:
    admin.request("DELETE", f"{NODES}/w1")
    (joined.work / "work").mkdir(exist_ok=True)
    joined.register()
    return joined


@contextmanager
def removing(cluster: PlannedCluster) -> Iterator[Path]:
    """kube-node-remover.service runs; yields its journal."""
    log = cluster.directory / "remover.log"
    with log.open("wb") as file:
        service = subprocess.Popen(
            ["sh", cluster.host.root / "opt/k8s/libexec/remove-nodes.sh"], stdout=file, stderr=file,
            env={
                **os.environ, "DESTDIR": str(cluster.host.root), "INTERVAL": "1",
                "PATH": f"{cluster.host.programs}:{os.environ['PATH']}",
            },
        )  # fmt: skip
        try:
            yield log
        finally:
            service.terminate()
            service.wait(timeout=30)


def mark(admin: Client, **change: Any) -> None:
    status, answer = admin.request("PATCH", f"{NODES}/w1", json.dumps(change))
    assert status == 200, answer


QUARANTINE = {"taints": [{"key": "quarantine", "effect": "NoSchedule"}]}


def test_a_host_leaves_and_a_control_plane_deletes_its_node(
    cluster: PlannedCluster, worker: Worker
) -> None:
    with removing(cluster) as log:
        left = worker.leave()
        assert left.returncode == 0, left.stdout + left.stderr
        assert left.stdout.endswith("the Node w1 is deleted\nGONE\n"), left.stdout + left.stderr
        assert "deleted the Node w1: its host leaves" in log.read_text()
    assert worker.read() is None
    assert "disable --now kubelet.service" in (worker.work / "systemctl").read_text()
    again = worker.leave()
    assert (again.returncode, again.stdout) == (0, "GONE\n"), again.stderr


def test_a_compromised_worker_cannot_shed_the_quarantine_of_an_administrator(
    cluster: PlannedCluster, worker: Worker, admin: Client
) -> None:
    """The attack: delete the own Node, or have it deleted, and register again without the taint."""
    mark(admin, spec=QUARANTINE)
    assert worker.api.request("DELETE", f"{NODES}/w1")[0] == 403
    with removing(cluster) as log:
        label = {"metadata": {"labels": {"bundler/leave": "20991231000000"}}}
        assert worker.api.request("PATCH", f"{NODES}/w1", json.dumps(label))[0] == 200
        deadline = time.monotonic() + 60
        while "kept the Node w1: it has the taint quarantine:NoSchedule" not in log.read_text():
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.3)
        worker.register()
    node = worker.read()
    assert node
    assert QUARANTINE["taints"][0] in node["spec"]["taints"]


def test_a_host_refuses_to_leave_while_its_node_is_marked(worker: Worker, admin: Client) -> None:
    mark(admin, metadata={"labels": {"node-restriction.kubernetes.io/zone": "a"}})
    left = worker.leave()
    assert left.returncode == 3
    assert (
        "has the label node-restriction.kubernetes.io/zone, which an administrator" in left.stderr
    )
    node = worker.read()
    assert node
    assert "unschedulable" not in node["spec"]


def test_without_a_control_plane_the_request_stays_until_the_host_is_installed_again(
    cluster: PlannedCluster, worker: Worker
) -> None:
    left = worker.leave(limit=2)
    assert left.returncode == 0, left.stderr
    assert "after 2 s the Node w1 still exists" in left.stderr
    time.sleep(1.1)
    worker.report()
    said = cluster.run("remove-nodes.sh", "--once")
    assert said == "kept the Node w1: its kubelet runs again since the host asked to leave\n"
    assert worker.read()


def test_a_late_control_plane_deletes_the_node_of_a_host_that_is_gone(
    cluster: PlannedCluster, worker: Worker
) -> None:
    assert worker.leave(limit=2).returncode == 0
    assert cluster.run("remove-nodes.sh", "--once") == "deleted the Node w1: its host leaves\n"
    assert worker.read() is None


def test_a_node_that_changes_after_it_was_looked_at_is_not_deleted(
    cluster: PlannedCluster, worker: Worker, admin: Client
) -> None:
    """Otherwise a taint could be set and lost in between."""
    remover = Client.read(
        cluster.host.root / "etc/kubernetes/node-remover.kubeconfig", cluster.directory
    )
    node = worker.read()
    assert node
    mark(admin, spec=QUARANTINE)
    options = {
        "apiVersion": "v1", "kind": "DeleteOptions",
        "preconditions": {key: node["metadata"][key] for key in ("uid", "resourceVersion")},
    }  # fmt: skip
    assert remover.request("DELETE", f"{NODES}/w1", json.dumps(options))[0] == 409
    assert worker.read()


def make_role(name: str, *verbs: str) -> dict[str, Any]:
    rule = {"apiGroups": [""], "resources": ["nodes"], "verbs": list(verbs)}
    return {"metadata": {"name": name}, "rules": [rule]}


def make_binding(name: str, subject: dict[str, str]) -> dict[str, Any]:
    group = "rbac.authorization.k8s.io"
    role = {"apiGroup": group, "kind": "ClusterRole", "name": name}
    return {
        "metadata": {"name": name},
        "roleRef": role,
        "subjects": [{"apiGroup": group, **subject}],
    }


def test_an_existing_cluster_loses_the_rights_of_earlier_bundles(
    cluster: PlannedCluster, worker: Worker, admin: Client
) -> None:
    former = {
        "bundler:node-turns": (("list", "delete"), {"kind": "Group", "name": "system:nodes"}),
        "bundler:flannel": (("get", "list", "watch", "patch"), {"kind": "User", "name": "bundler:flannel"}),
        "bundler:node-turns-of-others": (("list",), {"kind": "Group", "name": "others"}),
    }  # fmt: skip
    for name, (verbs, subject) in former.items():
        admin.request("POST", f"{RBAC}/clusterroles", json.dumps(make_role(name, *verbs)))
        body = json.dumps(make_binding(name, subject))
        status, answer = admin.request("POST", f"{RBAC}/clusterrolebindings", body)
        assert status == 201, answer
    assert worker.api.request("DELETE", f"{NODES}/w1?dryRun=All")[0] == 200
    cluster.apply_addons()
    assert worker.api.request("DELETE", f"{NODES}/w1?dryRun=All")[0] == 403
    for kind in ("clusterroles", "clusterrolebindings"):
        items = admin.request("GET", f"{RBAC}/{kind}")[1]["items"]
        names = {one["metadata"]["name"] for one in items}
        assert former.keys() & names == {"bundler:node-turns-of-others"}
        assert "bundler:planned-nodes" in names
