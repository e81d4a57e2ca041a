"""remove-nodes.sh deletes the Nodes of hosts that leave, unless an administrator has marked them."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.shells import SHELLS, TEMPLATES, Sh, link_parts, write_program

SCRIPT = TEMPLATES / "control-plane/rootfs/opt/k8s/libexec/remove-nodes.sh"
TIME = "20261201102030"
BEFORE, AFTER = "2026-12-01T10:20:30.999999Z", "2026-12-01T10:20:31.000001Z"
OWN = "kubernetes.io/hostname bundler/leave "
KUBECTL = """\
cd {directory}
case " $* " in
    *' delete --help '*) echo "{help}"; exit ;;
    *' get nodes '*) [ ! -e down ] || {{ echo 'connection refused' >&2; exit 1; }}; cat nodes ;;
    *' get configmap bundler-node-labels '*) [ ! -e no-record ] || {{ echo 'etcd timed out' >&2; exit 1; }}; cat record ;;
    *' get lease '*) [ ! -e no-leases ] || {{ echo 'etcd timed out' >&2; exit 1; }}; cat lease ;;
    *' delete '*)
        [ ! -e conflict ] || {{ echo 'the object has been modified' >&2; exit 1; }}
        echo "$*" >>deleted; [ "{help}" = '' ] || {{ cat >>bodies; echo >>bodies; }} ;;
    *) echo "unexpected: $*" >&2; exit 9 ;;
esac
"""


class Plane:
    """A control plane and the API that it uses."""

    def __init__(self, sh: Sh, directory: Path) -> None:
        self.sh, self.directory = sh, directory
        bundle = directory / "root/opt/k8s/bundle"
        link_parts(directory / "root")
        (bundle / "node.env").write_text("PLANNED_TAINTS='gpu=yes:NoSchedule pool:NoExecute'\n")
        self.offer("--raw='': Raw URI")
        self.write("nodes", "")
        self.write("lease", BEFORE)
        self.write("record", "")

    def offer(self, help_text: str) -> None:
        """What kubectl's help says; without --raw kubectl is that of 1.15."""
        write_program(
            self.directory / "bin/kubectl",
            KUBECTL.format(directory=self.directory, help=help_text),
        )

    def write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)

    def read(self, name: str) -> str:
        path = self.directory / name
        return path.read_text() if path.exists() else ""

    def ask(self, name: str = "w1", taints: str = "-", labels: str = OWN, at: str = TIME) -> None:
        self.write("nodes", f"{self.read('nodes')}{name}\tu-{name}\t77\t{at}\t{taints}\t{labels}\n")

    @property
    def environment(self) -> dict[str, str]:
        return {
            "DESTDIR": str(self.directory / "root"),
            "PATH": f"{self.directory}/bin:/usr/bin:/bin",
        }

    def look(self) -> str:
        done = self.sh(SCRIPT, "--once", **self.environment)
        assert done.stderr == ""
        return done.stdout


@pytest.fixture
def plane(sh: Sh, tmp_path: Path) -> Plane:
    return Plane(sh, tmp_path)


def test_the_node_of_a_host_that_leaves_is_deleted(plane: Plane) -> None:
    plane.ask()
    assert plane.look() == "deleted the Node w1: its host leaves\n"
    assert plane.read("deleted").rstrip().endswith("delete --raw /api/v1/nodes/w1 -f -")


def test_only_the_node_that_was_looked_at_is_deleted(plane: Plane) -> None:
    plane.ask()
    plane.look()
    assert json.loads(plane.read("bodies")) == {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "preconditions": {"uid": "u-w1", "resourceVersion": "77"},
    }


def test_a_node_that_changed_meanwhile_is_looked_at_again(plane: Plane) -> None:
    plane.ask()
    plane.write("conflict", "")
    assert plane.look() == "could not delete the Node w1: the object has been modified\n"


def test_kubectl_without_raw_deletes_by_name(plane: Plane) -> None:
    plane.offer("")
    plane.ask()
    plane.look()
    assert "delete node w1 --ignore-not-found" in plane.read("deleted")


def test_without_requests_nothing_happens(plane: Plane) -> None:
    assert (plane.look(), plane.read("deleted")) == ("", "")


KEPT = [
    ("quarantine=yes:NoSchedule ", OWN, "the taint quarantine=yes:NoSchedule"),
    ("quarantine:NoExecute ", OWN, "the taint quarantine:NoExecute"),
    ("node.kubernetes.io.evil.example/x:NoExecute ", OWN, "the taint node.kubernetes.io.evil.example/x:NoExecute"),
    ("node.kubernetes.io/out-of-service=nodeshutdown:NoExecute ", OWN, "the taint node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"),
    ("gpu=no:NoSchedule ", OWN, "the taint gpu=no:NoSchedule"),
    ("-", f"node-restriction.kubernetes.io/pci {OWN}", "the label node-restriction.kubernetes.io/pci"),
    ("-", f"a.node-restriction.kubernetes.io/x {OWN}", "the label a.node-restriction.kubernetes.io/x"),
    ("-", f"node-role.kubernetes.io/isolated {OWN}", "the label node-role.kubernetes.io/isolated"),
    ("-", f"k8s.io/x {OWN}", "the label k8s.io/x"),
    ("a:NoExecute b:NoExecute ", f"k8s.io/x {OWN}", "the taint a:NoExecute, the taint b:NoExecute, the label k8s.io/x"),
]  # fmt: skip


@pytest.mark.parametrize(("taints", "labels", "mark"), KEPT)
def test_a_node_that_an_administrator_marked_is_kept(
    plane: Plane, taints: str, labels: str, mark: str
) -> None:
    plane.ask(taints=taints, labels=labels)
    assert plane.look() == (
        f"kept the Node w1: it has {mark}, which an administrator set: remove that,"
        " or run forget-node.sh w1\n"
    )
    assert plane.read("deleted") == ""


DELETED = [
    ("gpu=yes:NoSchedule pool:NoExecute ", OWN),
    ("node.kubernetes.io/unreachable:NoExecute node.kubernetes.io/unschedulable:NoSchedule ", OWN),
    ("node.cloudprovider.kubernetes.io/shutdown:NoSchedule ", OWN),
    ("-", f"kubernetes.io/os kubernetes.io/arch beta.kubernetes.io/instance-type {OWN}"),
    ("-", f"topology.kubernetes.io/zone failure-domain.beta.kubernetes.io/region {OWN}"),
    ("-", f"node.kubernetes.io/x a.node.kubernetes.io/x kubelet.kubernetes.io/x {OWN}"),
    ("-", f"example.com/x plain kubernetes.io.example/x notk8s.io/x {OWN}"),
]


@pytest.mark.parametrize(("taints", "labels"), DELETED)
def test_marks_of_the_host_the_plan_and_kubernetes_keep_no_node(
    plane: Plane, taints: str, labels: str
) -> None:
    plane.ask(taints=taints, labels=labels)
    assert plane.look() == "deleted the Node w1: its host leaves\n"


RECORD = (
    "_plan 0123\n"
    "w1 {uid} label|node-role.kubernetes.io/gpu|- taint|pool:NoSchedule|batch taint|gpu:NoExecute|-\n"
    "w2 u-w2 label|k8s.io/x|1\n"
)


def test_what_a_control_plane_has_set_keeps_no_node(plane: Plane) -> None:
    plane.write("record", RECORD.format(uid="u-w1"))
    plane.ask(
        taints="pool=batch:NoSchedule gpu:NoExecute ", labels=f"node-role.kubernetes.io/gpu {OWN}"
    )
    assert plane.look() == "deleted the Node w1: its host leaves\n"


@pytest.mark.parametrize(
    ("uid", "taints", "labels", "mark"),
    [
        ("u-w1", "pool=other:NoSchedule ", OWN, "the taint pool=other:NoSchedule"),
        ("u-w1", "pool=batch:NoExecute ", OWN, "the taint pool=batch:NoExecute"),
        ("u-w1", "-", f"k8s.io/x {OWN}", "the label k8s.io/x"),  # that is w2's
        ("former", "gpu:NoExecute ", OWN, "the taint gpu:NoExecute"),
    ],
)
def test_only_what_was_set_on_this_very_node_counts(
    plane: Plane, uid: str, taints: str, labels: str, mark: str
) -> None:
    plane.write("record", RECORD.format(uid=uid))
    plane.ask(taints=taints, labels=labels)
    assert plane.look().startswith(f"kept the Node w1: it has {mark}, which an administrator set")


def test_a_record_that_cannot_be_read_is_no_permission(plane: Plane) -> None:
    plane.ask()
    plane.write("no-record", "")
    assert plane.look() == "cannot read the ConfigMap bundler-node-labels: etcd timed out\n"
    assert plane.read("deleted") == ""


def test_the_node_of_a_host_that_was_installed_again_is_kept(plane: Plane) -> None:
    plane.ask()
    plane.write("lease", AFTER)
    assert (
        plane.look() == "kept the Node w1: its kubelet runs again since the host asked to leave\n"
    )
    assert plane.read("deleted") == ""


def test_a_node_whose_kubelet_never_reported_is_deleted(plane: Plane) -> None:
    plane.ask()
    plane.write("lease", "")
    assert plane.look() == "deleted the Node w1: its host leaves\n"


def test_a_lease_that_cannot_be_read_is_no_permission(plane: Plane) -> None:
    plane.ask()
    plane.write("no-leases", "")
    assert plane.look() == "kept the Node w1: its Lease cannot be read: etcd timed out\n"
    assert plane.read("deleted") == ""


@pytest.mark.parametrize("at", ["now", "2026-12-01", "-1"])
def test_a_request_without_a_time_is_refused(plane: Plane, at: str) -> None:
    plane.ask(at=at)
    assert plane.look() == f"kept the Node w1: its label bundler/leave is not a time: {at}\n"


def test_one_request_that_is_refused_does_not_hold_up_others(plane: Plane) -> None:
    plane.ask("w1", taints="q:NoExecute ")
    plane.ask("w2")
    assert plane.look().splitlines()[1] == "deleted the Node w2: its host leaves"
    assert "/nodes/w1" not in plane.read("deleted")


def test_a_list_that_fails_is_reported_and_deletes_nothing(plane: Plane) -> None:
    plane.ask()
    plane.write("down", "")
    assert plane.look() == "cannot list the Nodes: connection refused\n"
    assert plane.read("deleted") == ""


def wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_the_service_prints_each_decision_once_and_ends_at_a_signal(tmp_path: Path) -> None:
    plane = Plane(lambda *_: None, tmp_path)  # type: ignore[arg-type,return-value]
    plane.ask(taints="q:NoExecute ")
    with (tmp_path / "log").open("wb") as log:
        service = subprocess.Popen(
            [*SHELLS[0], str(SCRIPT)], stdout=log, env={**plane.environment, "INTERVAL": "0.1"}
        )
    wait_for(lambda: "kept the Node w1" in plane.read("log"))
    time.sleep(1)
    plane.write("nodes", "")
    plane.ask("w2")
    wait_for(lambda: "deleted the Node w2" in plane.read("log"))
    plane.write("nodes", "")
    service.terminate()
    assert service.wait(timeout=60) == 0
    assert plane.read("log").count("kept the Node w1") == 1
