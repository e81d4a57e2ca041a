"""label-nodes.sh: what it prints and when it waits; its awk programs under every awk; labels in a dry run."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from support.shells import TEMPLATES, Sh, link_parts, write_program

LIBEXEC = TEMPLATES / "control-plane/rootfs/opt/k8s/libexec"
COMPARE = TEMPLATES / "common/lib/transaction/compare-node-labels.awk"
AWKS = [["busybox", "awk"], *([name] for name in ("mawk", "gawk") if shutil.which(name))]
PLAN = """\
# comment
w1\tnode\t-\t-\t-
w1\tlabel\track\t4\t"4"
w1\tannotation\towner\tteam+%22a%22\t"team \\"a\\""
w1\ttaint\tgpu:NoSchedule\t-\t""
w10\tnode\t-\t-\t-
"""
SET = "uid-1 label|rack|4 annotation|owner|team+%22a%22 taint|gpu:NoSchedule|-"
NODES = """\
w1\tnode\tuid-1\t77
w1\tlabel\tkubernetes.io/hostname\tw1
w1\ttaint\tbundler/uninitialized:NoSchedule\t-\tbundler/uninitialized\tNoSchedule\t-
w1\ttaint\tlost:NoExecute\tx\tlost\tNoExecute\t2026-12-01T00:00:00Z
foreign\tnode\tuid-2\t78
foreign\ttaint\tbundler/uninitialized:NoSchedule\t-\tbundler/uninitialized\tNoSchedule\t-
"""
KUBECTL = """\
cd {directory}
case " $* " in
    *' get configmap '*) [ ! -e no-record ] || {{ echo 'etcd timed out' >&2; exit 1; }}; cat record ;;
    *' get nodes '*) [ ! -e down ] || {{ echo 'connection refused' >&2; exit 1; }}; cat nodes ;;
    *' patch configmap '*) [ ! -e conflict ] || {{ echo 'the object has been modified' >&2; exit 1; }}
        echo "$*" >>writes; echo 6 ;;
    *' patch node '*) [ ! -e refused ] || {{ echo 'Error from server (Forbidden): no' >&2; exit 1; }}
        echo "$*" >>patches; echo patched ;;
    *) echo "unexpected: $*" >&2; exit 9 ;;
esac
"""


class Plane:
    """A control plane and the API that it uses."""

    def __init__(self, sh: Sh, directory: Path) -> None:
        self.sh, self.directory = sh, directory
        link_parts(directory / "root")
        write_program(directory / "bin/kubectl", KUBECTL.format(directory=directory))
        self.write("root/etc/kubernetes/node-labels.tsv", PLAN)
        self.write("record", "// 5\n")
        self.write("nodes", NODES)

    def write(self, name: str, text: str) -> None:
        (self.directory / name).parent.mkdir(parents=True, exist_ok=True)
        (self.directory / name).write_text(text)

    def read(self, name: str) -> str:
        path = self.directory / name
        return path.read_text() if path.exists() else ""

    def look(self, *arguments: str) -> tuple[int, str]:
        done = self.sh(
            LIBEXEC / "label-nodes.sh", *(arguments or ("--once",)),
            DESTDIR=str(self.directory / "root"), PATH=f"{self.directory}/bin:/usr/bin:/bin",
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def plane(sh: Sh, tmp_path: Path) -> Plane:
    return Plane(sh, tmp_path)


def patch_of(calls: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(calls.split(" -p ")[1].split(" -o ", maxsplit=1)[0])
    return found


def test_a_new_node_gets_everything_in_one_patch(plane: Plane) -> None:
    assert plane.look() == (0, (
        "this host's plan of labels, annotations and taints counts from now on\n"
        "changed the Node w1: the label rack=4 is missing\n"
        "changed the Node w1: the annotation owner is missing\n"
        "changed the Node w1: the taint gpu:NoSchedule is missing\n"
        "changed the Node w1: it has the taint bundler/uninitialized, with which it registered\n"
    ))  # fmt: skip
    assert patch_of(plane.read("patches")) == {
        "metadata": {
            "resourceVersion": "77",
            "labels": {"rack": "4"},
            "annotations": {"owner": 'team "a"'},
        },
        "spec": {
            "taints": [
                {"key": "lost", "value": "x", "effect": "NoExecute", "timeAdded": "2026-12-01T00:00:00Z"},
                {"key": "gpu", "effect": "NoSchedule"},
            ]
        },
    }  # fmt: skip
    claim, record = plane.read("writes").splitlines()
    assert patch_of(claim)["metadata"] == {"resourceVersion": "5"}
    assert patch_of(record) == {
        "metadata": {"resourceVersion": "6"},
        "data": {"w1": SET},
    }


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("no-record", "cannot read the ConfigMap bundler-node-labels: etcd timed out\n"),
        (
            "conflict",
            "cannot write the ConfigMap bundler-node-labels: the object has been modified\n",
        ),
    ],
)
def test_without_a_record_no_node_is_changed(plane: Plane, fault: str, said: str) -> None:
    plane.write(fault, "")
    assert plane.look() == (1, said)
    assert plane.read("patches") == ""


def test_a_request_that_is_refused_is_named(plane: Plane) -> None:
    plane.write("refused", "")
    code, said = plane.look()
    assert (code, said.splitlines()[1]) == (
        1,
        "cannot change the Node w1: Error from server (Forbidden): no",
    )
    (plane.directory / "refused").unlink()
    plane.write("down", "")
    assert plane.look()[1].endswith("cannot list the Nodes: connection refused\n")


def test_a_plan_without_a_file_changes_nothing(plane: Plane) -> None:
    (plane.directory / "root/etc/kubernetes/node-labels.tsv").unlink()
    code, _ = plane.look()
    assert (code, plane.read("writes"), plane.read("patches")) == (1, "", "")


def test_other_arguments_are_refused(plane: Plane) -> None:
    assert plane.look("--all") == (2, "usage: label-nodes.sh [--once]\n")


@pytest.mark.parametrize("awk", AWKS, ids=lambda awk: awk[0])
def test_every_awk_finds_the_same_steps(awk: list[str], tmp_path: Path) -> None:
    record = "_plan x\nw1 uid-1 label|disk|ssd label|rack|3 taint|lost:NoExecute|x\nw9 uid-9 label|a|b\nw10 old label|a|b\n"
    extra = "w1\tlabel\tdisk\tssd\nw1\tlabel\track\t3\nw10\tnode\tuid-10\t80\nw10\tlabel\ta\tb\n"
    for name, text in (("plan", PLAN), ("record", record), ("nodes", NODES + extra)):
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        [*awk, "-f", LIBEXEC / "node-labels.awk", "plan", "record", "nodes"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert done.stderr == ""
    assert [row[1:] for row in rows if row[0] == "differs"] == [
        ["w1", "the label rack=4 has another value"],
        ["w1", "the annotation owner is missing"],
        ["w1", "the taint gpu:NoSchedule is missing"],
        ["w1", "the label disk=ssd is no longer planned"],
        ["w1", "the taint lost=x:NoExecute is no longer planned"],
        ["w1", "it has the taint bundler/uninitialized, with which it registered"],
    ]
    assert sorted(row[1:] for row in rows if row[0] == "record") == [
        ["w1", f'"{SET} label|disk|ssd label|rack|3 taint|lost:NoExecute|x"'],
        ["w10", "null"],  # that Node was deleted since
        ["w9", "null"],
    ]  # fmt: skip
    (patch,) = (json.loads(row[2]) for row in rows if row[0] == "patch")
    assert patch["metadata"]["labels"] == {"rack": "4", "disk": None}
    assert patch["spec"]["taints"] == [{"key": "gpu", "effect": "NoSchedule"}]
    assert sorted(row[1:] for row in rows if row[0] == "count") == [
        ["annotation", "1"], ["label", "1"], ["taint", "1"],
    ]  # fmt: skip


@pytest.mark.parametrize("awk", AWKS, ids=lambda awk: awk[0])
def test_a_dry_run_names_each_mark_that_is_planned_differently(
    awk: list[str], tmp_path: Path
) -> None:
    (tmp_path / "before").write_text(PLAN)
    after = PLAN.replace('rack\t4\t"4"', 'rack\t5\t"5"').replace(
        'gpu:NoSchedule\t-\t""', 'pool:NoExecute\ta\t"a"'
    )
    (tmp_path / "after").write_text(after)

    def compare(*files: str) -> list[str]:
        done = subprocess.run(
            [*awk, "-f", COMPARE, *files], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return done.stdout.splitlines()

    assert compare("before", "after") == [
        "label|w1: rack=5 is set",
        "taint|w1: pool=a:NoExecute is set",
        "taint|w1: gpu:NoSchedule is removed",
    ]
    assert compare("/dev/null", "before") == [
        "label|w1: rack=4 is set",
        "annotation|w1: owner is set",
        "taint|w1: gpu:NoSchedule is set",
    ]
    (tmp_path / "same").write_text(PLAN)
    assert compare("before", "same") == []
