"""uninstall.sh --leave against a real API server, with kube-node-remover; and rights that clusters lose."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.external_ca_cluster import find_programs
from support.join_cluster import Build, Builder, Client, run_control_plane, wait_until
from support.networks import take_network
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
KUBELET_ROOT={root}/var/lib/kubelet LEAVE_LIMIT={limit}
check_leave
leave_cluster
echo GONE
"""


class Worker:
    """A worker's host: its bundle, its kubelet's certificate, and the part of uninstall.sh that leaves."""

    def __init__(self, build: Build, name: str, directory: Path) -> None:
        self.build, self.name, self.work = build, name, directory
        self.api = build.join(name)
        for folder in ("store", "work"):
            (directory / folder).mkdir()
        self.write_lib()
        write_program(directory / "bin/systemctl", f'echo "$*" >>{directory}/systemctl\n')

    def write_lib(self) -> None:
        """The parts of the scripts, with the place of this host's /etc."""
        for path in (TEMPLATES / "common/lib").rglob("*.sh"):
            copy = self.work / "lib" / path.relative_to(TEMPLATES / "common/lib")
            copy.parent.mkdir(parents=True, exist_ok=True)
            root = self.build.root(self.name)
            copy.write_text(path.read_text().replace("/etc/kubernetes", f"{root}/etc/kubernetes"))

    def register(self) -> None:
        """What a kubelet does when it starts."""
        self.build.register(self.name)
        self.report()

    def report(self) -> None:
        """What a kubelet does every ten seconds."""
        now = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())
        lease = {"metadata": {"name": self.name}, "spec": {"renewTime": now}}
        if self.api.send("POST", LEASES, lease).status == 409:
            change(self.api, f"{LEASES}/{self.name}", spec={"renewTime": now})

    def leave(self, limit: int = 30) -> subprocess.CompletedProcess[str]:
        script, root = self.work / "leave.sh", self.build.root(self.name)
        script.write_text(SCRIPT.format(work=self.work, tree=root.parent, root=root, limit=limit))
        path = f"{self.work}/bin:{self.build.environment(self.name)['PATH']}"
        return subprocess.run(
            ["sh", script], env={**os.environ, "PATH": path},
            capture_output=True, text=True, check=False, timeout=180,
        )  # fmt: skip

    def read(self) -> dict[str, Any] | None:
        """The worker's Node, if it exists."""
        node = self.api.send("GET", f"{NODES}/{self.name}")
        assert node.status in {200, 404}, node
        return node.body if node.status == 200 else None


def change(client: Client, path: str, **fields: Any) -> None:
    answer = client.send("PATCH", path, fields, "merge-patch+json")
    assert answer.status == 200, answer


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Build]:
    """The bundles of a cluster whose control plane runs."""
    network = take_network()
    directory = tmp_path_factory.mktemp("leaving")
    programs = find_programs(directory / "bin")
    build = Builder(directory, network, programs, ("w1", "w2")).build()
    with run_control_plane(build):
        yield build


@pytest.fixture(scope="module")
def admin(build: Build) -> Client:
    return Client.read(build.root("cp1") / "etc/kubernetes/admin.kubeconfig")


@pytest.fixture(scope="module")
def joined(build: Build, tmp_path_factory: pytest.TempPathFactory) -> Worker:
    return Worker(build, "w1", tmp_path_factory.mktemp("w1"))


@pytest.fixture
def worker(joined: Worker, admin: Client) -> Worker:
    admin.send("DELETE", f"{NODES}/w1")
    (joined.work / "work").mkdir(exist_ok=True)
    joined.register()
    return joined


def remove_once(build: Build) -> str:
    """One check of kube-node-remover.service; returns its journal."""
    script = build.root("cp1") / "opt/k8s/libexec/remove-nodes.sh"
    done = subprocess.run(
        ["sh", script, "--once"], env=build.environment("cp1"), capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@contextmanager
def removing(build: Build) -> Iterator[Path]:
    """kube-node-remover.service runs; yields its journal."""
    log = build.directory / "remover.log"
    with log.open("wb") as file:
        script = build.root("cp1") / "opt/k8s/libexec/remove-nodes.sh"
        service = subprocess.Popen(
            ["sh", script], env=build.environment("cp1"), stdout=file, stderr=file
        )
        try:
            yield log
        finally:
            service.terminate()
            service.wait(timeout=30)


QUARANTINE = {"taints": [{"key": "quarantine", "effect": "NoSchedule"}]}


def test_a_host_leaves_and_a_control_plane_deletes_its_node(build: Build, worker: Worker) -> None:
    with removing(build) as log:
        left = worker.leave()
        assert left.returncode == 0, left.stdout + left.stderr
        assert left.stdout.endswith("the Node w1 is deleted\nGONE\n"), left.stdout + left.stderr
        assert "deleted the Node w1: its host leaves" in log.read_text()
    assert worker.read() is None
    assert "disable --now kubelet.service" in (worker.work / "systemctl").read_text()
    again = worker.leave()
    assert (again.returncode, again.stdout) == (0, "GONE\n"), again.stderr


def test_a_compromised_worker_cannot_shed_the_quarantine_of_an_administrator(
    build: Build, worker: Worker, admin: Client
) -> None:
    """The attack: delete the own Node, or have it deleted, and register again without the taint."""
    change(admin, f"{NODES}/w1", spec=QUARANTINE)
    assert worker.api.send("DELETE", f"{NODES}/w1").status == 403
    with removing(build) as log:
        labels = {"bundler/leave": "20991231000000"}
        change(worker.api, f"{NODES}/w1", metadata={"labels": labels})
        kept = "kept the Node w1: it has the taint quarantine:NoSchedule"
        wait_until("the Node is looked at", lambda: kept in log.read_text())
        worker.register()
    node = worker.read()
    assert node
    assert QUARANTINE["taints"][0] in node["spec"]["taints"]


def test_a_host_refuses_to_leave_while_its_node_is_marked(worker: Worker, admin: Client) -> None:
    labels = {"node-restriction.kubernetes.io/zone": "a"}
    change(admin, f"{NODES}/w1", metadata={"labels": labels})
    left = worker.leave()
    assert left.returncode == 3
    assert (
        "has the label node-restriction.kubernetes.io/zone, which an administrator" in left.stderr
    )
    node = worker.read()
    assert node
    assert "unschedulable" not in node["spec"]


@pytest.mark.long
def test_without_a_control_plane_the_request_stays_until_the_host_is_installed_again(
    build: Build, worker: Worker
) -> None:
    left = worker.leave(limit=2)
    assert left.returncode == 0, left.stderr
    assert "after 2 s the Node w1 still exists" in left.stderr
    time.sleep(1.1)
    worker.report()
    assert (
        remove_once(build)
        == "kept the Node w1: its kubelet runs again since the host asked to leave\n"
    )
    assert worker.read()


@pytest.mark.long
def test_a_late_control_plane_deletes_the_node_of_a_host_that_is_gone(
    build: Build, worker: Worker
) -> None:
    assert worker.leave(limit=2).returncode == 0
    assert remove_once(build) == "deleted the Node w1: its host leaves\n"
    assert worker.read() is None


def test_a_node_that_changes_after_it_was_looked_at_is_not_deleted(
    build: Build, worker: Worker, admin: Client
) -> None:
    """Otherwise a taint could be set and lost in between."""
    remover = Client.read(build.root("cp1") / "etc/kubernetes/node-remover.kubeconfig")
    node = worker.read()
    assert node
    change(admin, f"{NODES}/w1", spec=QUARANTINE)
    options = {
        "apiVersion": "v1", "kind": "DeleteOptions",
        "preconditions": {key: node["metadata"][key] for key in ("uid", "resourceVersion")},
    }  # fmt: skip
    assert remover.send("DELETE", f"{NODES}/w1", options).status == 409
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
    build: Build, worker: Worker, admin: Client
) -> None:
    former = {
        "bundler:node-turns": (("list", "delete"), {"kind": "Group", "name": "system:nodes"}),
        "bundler:flannel": (("get", "list", "watch", "patch"), {"kind": "User", "name": "bundler:flannel"}),
        "bundler:node-turns-of-others": (("list",), {"kind": "Group", "name": "others"}),
    }  # fmt: skip
    for name, (verbs, subject) in former.items():
        admin.send("POST", f"{RBAC}/clusterroles", make_role(name, *verbs))
        answer = admin.send("POST", f"{RBAC}/clusterrolebindings", make_binding(name, subject))
        assert answer.status == 201, answer
    assert worker.api.send("DELETE", f"{NODES}/w1?dryRun=All").status == 200
    build.apply()
    assert worker.api.send("DELETE", f"{NODES}/w1?dryRun=All").status == 403
    for kind in ("clusterroles", "clusterrolebindings"):
        names = {one["metadata"]["name"] for one in admin.send("GET", f"{RBAC}/{kind}").items}
        assert former.keys() & names == {"bundler:node-turns-of-others"}
        assert "bundler:planned-nodes" in names


def forget(build: Build, name: str) -> subprocess.CompletedProcess[str]:
    """forget-node.sh on the control plane."""
    root = build.root("cp1")
    text = (root / "opt/k8s/libexec/forget-node.sh").read_text()
    for place in ("/opt/k8s/bundle", "/etc/kubernetes"):
        text = text.replace(f"={place}", f"={root}{place}").replace(f" {place}", f" {root}{place}")
    script = build.directory / "forget-node.sh"
    script.write_text(text)
    return subprocess.run(
        ["sh", script, name], env=build.environment("cp1"), capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip


def test_a_dead_host_that_no_plan_has_is_forgotten_and_a_ready_one_is_not(
    build: Build, admin: Client
) -> None:
    for name, ready in (("w8", "True"), ("w9", "Unknown")):
        admin.send("POST", NODES, {"metadata": {"name": name}})
        status = {"conditions": [{"type": "Ready", "status": ready}]}
        change(admin, f"{NODES}/{name}/status", status=status)
    done = forget(build, "w8")
    assert (done.returncode, "the Node w8 is Ready" in done.stderr) == (3, True), done.stderr
    done = forget(build, "w9")
    assert done.returncode == 0, done.stderr
    done = forget(build, "w9")
    assert done.returncode == 3
    assert "planned node is named w9. Nodes: " in done.stderr
    assert "w8" in done.stderr
    done = forget(build, "cp1")
    assert done.returncode == 2
    names = {node["metadata"]["name"] for node in admin.send("GET", NODES).items}
    assert names & {"w8", "w9"} == {"w8"}
    admin.send("DELETE", f"{NODES}/w8")
