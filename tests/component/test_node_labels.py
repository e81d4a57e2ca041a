"""Labels, annotations and taints that kube-node-labeler.service sets: with a real API server, and kubelets' requests."""

import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.external_ca_cluster import find_programs
from support.join_cluster import Build, Builder, Client, describe, run_control_plane
from support.networks import take_network
from support.shells import write_program

NODES = "/api/v1/nodes"
RECORD = "/api/v1/namespaces/kube-system/configmaps/bundler-node-labels"
WORKERS = ("w1", "w2", "w3")
UNINITIALIZED = {"key": "bundler/uninitialized", "effect": "NoSchedule"}
GPU = {"key": "nvidia.com/gpu", "effect": "NoSchedule"}
BATCH = {"key": "pool", "value": "batch", "effect": "NoExecute"}
HARD_TEXT = '50 % "of" a\\b + \' | é漢 = {x: [1]}'
PLAN: dict[str, Any] = {
    "labels": {
        "rack": "4",
        "node-role.kubernetes.io/gpu": "",
        "node-restriction.kubernetes.io/zone": "a.b_c-D",
    },
    "annotations": {"example.com/owner": HARD_TEXT, "Example.com/Empty": ""},
    "taints": ["nvidia.com/gpu=:NoSchedule", "pool=batch:NoExecute"],
}


class Site:
    """A control plane, and builds of one cluster that differ in the marks of w1."""

    def __init__(self, directory: Path, programs: Path) -> None:
        self.builder = Builder(directory, take_network(), programs, WORKERS)
        self.first = self.build(**PLAN)

    def build(self, **marks: Any) -> Build:
        nodes = describe(self.builder.network, WORKERS)["nodes"]
        nodes[1] |= marks
        self.builder.more = {"nodes": nodes}
        return self.builder.build()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("labels")
    site = Site(directory, find_programs(directory / "bin"))
    with run_control_plane(site.first):
        for name in WORKERS:
            site.first.join(name)
        yield site


@pytest.fixture(scope="module")
def admin(site: Site) -> Client:
    return Client.read(site.first.root("cp1") / "etc/kubernetes/admin.kubeconfig")


@pytest.fixture(autouse=True)
def fresh(site: Site, admin: Client) -> None:
    """Only w1, as its kubelet registers it, and no plan that any host has announced."""
    for name in WORKERS:
        admin.send("DELETE", f"{NODES}/{name}")
    change(admin, RECORD, data=None)
    for place in site.builder.directory.glob("build*/*/rootfs/var/lib/kube-node-labeler"):
        shutil.rmtree(place)
    register(site, "w1")


def register(site: Site, name: str) -> None:
    """As a kubelet does: with the labels that NodeRestriction allows, and the taint of its bundle."""
    body = {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {"taints": [UNINITIALIZED]},
    }
    assert site.first.kubelet(name).send("POST", NODES, body).status == 201


def change(client: Client, path: str, **fields: Any) -> dict[str, Any]:
    answer = client.send("PATCH", path, fields, "merge-patch+json")
    assert answer.status == 200, answer
    return answer.body


def label(build: Build, *, code: int = 0, path: str = "") -> list[str]:
    """One look of kube-node-labeler.service; returns its journal."""
    environment = build.environment("cp1")
    environment["PATH"] = path + environment["PATH"]
    done = subprocess.run(
        ["sh", build.root("cp1") / "opt/k8s/libexec/label-nodes.sh", "--once"],
        env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (code, ""), done.stdout + done.stderr
    return done.stdout.splitlines()


def read(client: Client, name: str = "w1") -> tuple[dict[str, str], dict[str, str], list[Any]]:
    """Labels, annotations and taints of a Node, without those of Kubernetes itself."""
    node = client.send("GET", f"{NODES}/{name}").body
    metadata = node["metadata"]
    taints = [
        taint
        for taint in node["spec"].get("taints", [])
        if not taint["key"].startswith("node.kubernetes.io/")
    ]
    annotations = {
        key: value
        for key, value in metadata.get("annotations", {}).items()
        if not key.startswith("node.alpha.kubernetes.io/")
    }
    return metadata.get("labels", {}), annotations, taints


def record(admin: Client) -> dict[str, str]:
    found: dict[str, str] = admin.send("GET", RECORD).body.get("data", {})
    return {name: value for name, value in found.items() if name != "_plan"}


def test_a_new_node_gets_all_its_marks_at_once_and_loses_the_taint_of_its_registration(
    site: Site, admin: Client
) -> None:
    said = label(site.first)
    labels, annotations, taints = read(admin)
    assert labels == {"kubernetes.io/hostname": "w1", **PLAN["labels"]}
    assert annotations == PLAN["annotations"]
    assert sorted(taints, key=str) == sorted([GPU, BATCH], key=str)
    assert "changed the Node w1: the label rack=4 is missing" in said
    assert label(site.first) == []
    versions = {admin.send("GET", f"{NODES}/w1").body["metadata"]["resourceVersion"] for _ in "12"}
    assert label(site.first) == []
    assert admin.send("GET", f"{NODES}/w1").body["metadata"]["resourceVersion"] in versions


def test_a_kubelet_cannot_remove_the_taint_itself_nor_what_the_control_plane_sets(
    site: Site,
) -> None:
    kubelet = site.first.kubelet("w1")
    merge = "merge-patch+json"
    assert kubelet.send("PATCH", f"{NODES}/w1", {"spec": {"taints": []}}, merge).status == 403
    label(site.first)
    for fields in (
        {"spec": {"taints": []}},
        {"metadata": {"labels": {"node-restriction.kubernetes.io/zone": None}}},
        {"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}},
    ):
        assert kubelet.send("PATCH", f"{NODES}/w1", fields, merge).status == 403
    for method, body in (("GET", None), ("PATCH", {"data": {"w1": None}}), ("DELETE", None)):
        assert kubelet.send(method, RECORD, body, merge).status == 403


def test_later_edits_are_followed_and_what_others_set_stays(site: Site, admin: Client) -> None:
    label(site.first)
    theirs = {"key": "maintenance", "value": "2027", "effect": "NoSchedule"}
    change(
        admin, f"{NODES}/w1", spec={"taints": [theirs, BATCH, GPU]},
        metadata={"labels": {"team": "x"}, "annotations": {"note": "y"}},
    )  # fmt: skip
    later = site.build(labels={"rack": "5", "disk": "ssd"}, taints=["pool=online:NoExecute"])
    label(later)
    labels, annotations, taints = read(admin)
    assert labels == {
        "kubernetes.io/hostname": "w1", "rack": "5", "disk": "ssd", "team": "x",
    }  # fmt: skip
    assert annotations == {"note": "y"}
    assert sorted(taints, key=str) == sorted([theirs, {**BATCH, "value": "online"}], key=str)
    label(later)
    uid = admin.send("GET", f"{NODES}/w1").body["metadata"]["uid"]
    assert record(admin) == {"w1": f"{uid} label|disk|ssd label|rack|5 taint|pool:NoExecute|online"}

    label(site.build())
    label(site.build())
    assert read(admin) == (
        {"kubernetes.io/hostname": "w1", "team": "x"}, {"note": "y"}, [theirs],
    )  # fmt: skip
    assert record(admin) == {}


def test_a_value_that_somebody_changed_since_is_theirs_when_it_is_no_longer_planned(
    site: Site, admin: Client
) -> None:
    label(site.first)
    none = site.build()
    change(admin, f"{NODES}/w1", metadata={"labels": {"rack": "7"}})
    label(none)
    assert read(admin)[0] == {"kubernetes.io/hostname": "w1", "rack": "7"}


def test_what_is_planned_is_set_again_if_somebody_removes_it(site: Site, admin: Client) -> None:
    label(site.first)
    change(admin, f"{NODES}/w1", spec={"taints": []}, metadata={"labels": {"rack": None}})
    label(site.first)
    labels, _, taints = read(admin)
    assert labels["rack"] == "4"
    assert sorted(taints, key=str) == sorted([GPU, BATCH], key=str)


def test_a_node_that_registers_again_gets_its_marks_again(site: Site, admin: Client) -> None:
    label(site.first)
    assert admin.send("DELETE", f"{NODES}/w1").status == 200
    register(site, "w1")
    assert read(admin)[2] == [UNINITIALIZED]
    label(site.first)
    assert read(admin)[0].keys() >= PLAN["labels"].keys()
    assert UNINITIALIZED not in read(admin)[2]


def test_nodes_join_later_and_one_without_marks_loses_only_the_taint(
    site: Site, admin: Client
) -> None:
    label(site.first)
    register(site, "w2")
    change(admin, f"{NODES}/w2", metadata={"labels": {"rack": "9"}})
    assert label(site.first) == [
        "changed the Node w2: it has the taint bundler/uninitialized, with which it registered"
    ]
    assert read(admin, "w2") == ({"kubernetes.io/hostname": "w2", "rack": "9"}, {}, [])
    assert record(admin).keys() == {"w1"}


def test_a_node_that_is_not_in_cluster_yaml_is_left_alone(site: Site, admin: Client) -> None:
    body = {"metadata": {"name": "foreign"}, "spec": {"taints": [UNINITIALIZED]}}
    assert admin.send("POST", NODES, body).status == 201
    label(site.first)
    assert read(admin, "foreign")[2] == [UNINITIALIZED]
    admin.send("DELETE", f"{NODES}/foreign")


def test_during_a_rollout_the_plan_that_was_installed_last_counts(
    site: Site, admin: Client
) -> None:
    """Two hosts: one with the first build, one with a later one."""
    waits = "another control plane has a later plan: nothing to do here until this host is installed too"
    label(site.first)
    later = site.build(labels={"rack": "5"})
    label(later)
    for _ in range(2):  # also after a boot
        assert label(site.first, code=1) == [waits]
        assert read(admin)[0]["rack"] == "5"
    # a rollback of all hosts: its files are installed again
    shutil.copy(
        site.first.root("cp1") / "etc/kubernetes/node-labels.tsv",
        later.root("cp1") / "etc/kubernetes/node-labels.tsv",
    )
    label(later)
    assert read(admin)[0]["rack"] == "4"
    label(site.first)
    assert read(admin)[0]["rack"] == "4"


def test_a_kill_between_record_and_change_leaves_nothing_behind(
    site: Site, admin: Client, tmp_path: Path
) -> None:
    real = site.builder.programs / "kubectl"
    write_program(
        tmp_path / "kubectl",
        f'case " $* " in *" patch node "*) {real} "$@"; kill -9 0 ;; esac\nexec {real} "$@"\n',
    )
    environment = site.first.environment("cp1")
    script = site.first.root("cp1") / "opt/k8s/libexec/label-nodes.sh"
    killed = subprocess.run(
        ["sh", script, "--once"], capture_output=True, check=False, timeout=60, start_new_session=True,
        env={**environment, "PATH": f"{tmp_path}:{environment['PATH']}"},
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
    assert read(admin)[0]["rack"] == "4"
    none = site.build()
    label(none)
    assert read(admin) == ({"kubernetes.io/hostname": "w1"}, {}, [])


def change_before_patches(site: Site, directory: Path, command: str) -> Path:
    """A kubectl that runs a command of an administrator before each patch of a Node; returns the list of patches."""
    patches = directory / "patches"
    config = site.first.root("cp1") / "etc/kubernetes/admin.kubeconfig"
    write_program(
        directory / "kubectl",
        f"real={site.builder.programs / 'kubectl'}\n"
        'case " $* " in *" patch node "*)\n'
        f'    echo "$4" >>{patches}\n'
        f"    n=$(wc -l <{patches}) && $real --kubeconfig {config} {command} >/dev/null 2>&1\n"
        'esac\nexec $real "$@"\n',
    )
    return patches


def test_a_taint_that_is_set_while_the_script_works_is_not_lost(
    site: Site, admin: Client, tmp_path: Path
) -> None:
    patches = change_before_patches(site, tmp_path, "taint node w1 quarantine=:NoExecute")
    label(site.first, path=f"{tmp_path}:")
    assert len(patches.read_text().splitlines()) > 1  # the first was refused
    quarantine = {"key": "quarantine", "effect": "NoExecute"}
    taints = [{k: v for k, v in taint.items() if k != "timeAdded"} for taint in read(admin)[2]]
    assert sorted(taints, key=str) == sorted([quarantine, GPU, BATCH], key=str)


def test_a_node_that_always_changes_is_named(site: Site, admin: Client, tmp_path: Path) -> None:
    patches = change_before_patches(site, tmp_path, 'annotate node w1 "n=$n" --overwrite')
    said = label(site.first, code=1, path=f"{tmp_path}:")
    assert said[-1] == "the Node w1 changed during each of 5 attempts to change it"
    assert len(patches.read_text().splitlines()) == 5
    assert read(admin)[2] == [UNINITIALIZED]


RIGHTS = (
    (200, "GET", NODES, None),
    (200, "GET", f"{NODES}/w1", None),
    (200, "PATCH", f"{NODES}/w1", {"metadata": {"labels": {"a": "b"}}}),
    (200, "GET", RECORD, None),
    (200, "PATCH", RECORD, {"data": {}}),
    (403, "DELETE", f"{NODES}/w1", None),
    (403, "DELETE", NODES, None),
    (403, "POST", NODES, {"metadata": {"name": "new"}}),
    (403, "PATCH", f"{NODES}/w1/status", {"metadata": {"labels": {"a": "b"}}}),
    (403, "GET", f"{NODES}/w1/proxy/metrics", None),
    (403, "DELETE", RECORD, None),
    (403, "PATCH", RECORD.replace("node-labels", "spent-tokens"), {"data": {}}),
    (403, "GET", RECORD.replace("node-labels", "spent-tokens"), None),
    (403, "GET", "/api/v1/namespaces/kube-system/configmaps", None),
    (403, "POST", "/api/v1/namespaces/kube-system/configmaps", {"metadata": {"name": "new"}}),
    (403, "GET", "/api/v1/secrets", None),
    (403, "GET", "/api/v1/pods", None),
    (403, "POST", "/apis/certificates.k8s.io/v1/certificatesigningrequests", {"metadata": {"name": "x"}}),
    (403, "GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles", None),
)  # fmt: skip


def test_its_identity_has_the_rights_that_it_needs_and_no_others(site: Site) -> None:
    client = Client.read(site.first.root("cp1") / "etc/kubernetes/node-labeler.kubeconfig")
    answers = [
        (
            client.send(
                method, f"{path}?dryRun=All" if method != "GET" else path, body,
                "merge-patch+json" if method == "PATCH" else "json",
            ).status,
            method, path, body,
        )
        for _, method, path, body in RIGHTS
    ]  # fmt: skip
    assert answers == list(RIGHTS)


def leave(site: Site) -> str:
    """What kube-node-remover.service says after the host of w1 asked to leave."""
    kubelet = site.first.kubelet("w1")
    change(kubelet, f"{NODES}/w1", metadata={"labels": {"bundler/leave": "20991231000000"}})
    for _ in range(10):
        done = subprocess.run(
            ["sh", site.first.root("cp1") / "opt/k8s/libexec/remove-nodes.sh", "--once"],
            env=site.first.environment("cp1"), capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        # The node lifecycle controller changed the Node between the look and the deletion, which
        # names what it saw: the service looks again.
        if "the ResourceVersion in the precondition" not in done.stdout:
            break
    return done.stdout


def test_planned_marks_do_not_keep_the_node_of_a_host_that_leaves(
    site: Site, admin: Client
) -> None:
    label(site.first)
    assert leave(site) == "deleted the Node w1: its host leaves\n"


def test_a_mark_of_an_administrator_keeps_it_next_to_planned_ones(
    site: Site, admin: Client
) -> None:
    label(site.first)
    quarantine = {"key": "pool", "value": "quarantine", "effect": "NoSchedule"}
    change(admin, f"{NODES}/w1", spec={"taints": [quarantine, GPU, BATCH]})
    assert "kept the Node w1: it has the taint pool=quarantine:NoSchedule, which an" in leave(site)


def test_verify_shows_what_is_set_and_names_what_is_not(site: Site, admin: Client) -> None:
    for name in ("w2", "w3"):
        register(site, name)
    label(site.first)
    assert verify(site) == "ok 3 labels, 2 taints, 2 annotations on 3 workers"
    change(
        admin, f"{NODES}/w1", spec={"taints": [GPU, UNINITIALIZED]},
        metadata={"labels": {"rack": "5"}},
    )  # fmt: skip
    admin.send("DELETE", f"{NODES}/w3")
    found = verify(site)
    assert found.startswith("FAILED ")
    for problem in (
        "w1: the label rack=4 has another value",
        "w1: the taint pool=batch:NoExecute is missing",
        "w1: it has the taint bundler/uninitialized, with which it registered",
        "w3 is not registered",
    ):
        assert problem in found


def verify(site: Site) -> str:
    """The verdict of verify.sh's check, and what it saw."""
    tree = site.first.directory / "cp1"
    environment = site.first.environment("cp1")
    kubectl = site.first.root("cp1") / "opt/k8s/bin/kubectl"
    if not kubectl.exists():
        kubectl.parent.mkdir(parents=True, exist_ok=True)
        kubectl.symlink_to(site.builder.programs / "kubectl")
    done = subprocess.run(
        ["sh", tree / "verify.sh", "--only", "node-labels", "--timeout", "1"],
        env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    line = next((line for line in done.stderr.splitlines() if " node-labels " in line), done.stderr)
    verdict, _, _, _, seen = line.split(maxsplit=4)
    return f"{verdict} {seen}"
