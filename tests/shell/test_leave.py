"""uninstall.sh --leave and forget-node.sh: how hosts leave a cluster."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.drain_api import NODES, Api
from support.shells import TEMPLATES, Sh, write_program

LIBEXEC = TEMPLATES / "control-plane/rootfs/opt/k8s/libexec"
MEMBERS = """\
aaa1, started, m1, https://192.0.2.1:2380, https://192.0.2.1:2379, false
aaa2, started, w1, https://192.0.2.2:2380, https://192.0.2.2:2379, false
aaa3, started, m3, https://192.0.2.3:2380, https://192.0.2.3:2379, false
"""
ETCDCTL = r"""
cd {work}/api
echo "$*" >>etcd-calls
case $* in
    *'member list') [ ! -e etcd-down ] || {{ echo 'context deadline exceeded' >&2; exit 1; }}; cat members ;;
    *'member remove '*) [ ! -e etcd-refuses ] || {{ echo 'etcdserver: unhealthy cluster' >&2; exit 1; }}; sed -i "/^${{*##* }},/d" members ;;
esac
"""
# A control plane deletes the Node as soon as it has the label, or never. *) is the last case of kubectl's stand-in.
LABEL = """\
    'label --overwrite node w1 bundler/leave='*)
        grep -q '^w1' nodes || { echo 'Error from server (NotFound): nodes "w1" not found' >&2; exit 1; }
        echo "${words##*=}" >asked; [ -e nobody-deletes ] || sed -i /^w1/d nodes ;;
    *) echo"""
# What leave.sh needs in addition to the script of drain_api.py.
LEAVE = """
. {lib}/transaction/mounts.sh; . {lib}/coordination/leave.sh
prefix={work}/root PLANNED_TAINTS=gpu=yes:NoSchedule PLANNED_LABELS=node-role.kubernetes.io/gpu ADDRESS=192.0.2.2 ROLES='etcd control-plane worker' ETCD_VERSION=3.4.23
DATA_PATHS={work}/data/etcd
ETCD_ENDPOINTS='https://192.0.2.1:2379 https://192.0.2.2:2379 https://192.0.2.3:2379'
systemctl() {{ echo "$*" >>{work}/api/systemctl; }}
check_leave
leave_cluster
echo GONE
"""


class Site(Api):
    """A host w1 that is also a member of etcd."""

    def __init__(self, sh: Sh, directory: Path) -> None:
        super().__init__(sh, directory)
        for name in ("root/etc/etcd/pki", "data/etcd/member/snap"):
            (directory / name).mkdir(parents=True)
        (directory / "root/etc/etcd/pki/server.crt").touch()
        write_program(directory / "bin/etcdctl", ETCDCTL.format(work=directory))
        kubectl = directory / "bin/kubectl"
        kubectl.write_text(
            kubectl.read_text().replace(
                "    *) echo",
                LABEL,
            )
        )
        self.write("members", MEMBERS)

    def leave(self, more: str = "") -> tuple[int, str]:
        return self.run(
            LEAVE.format(lib=TEMPLATES / "common/lib", work=self.directory).replace(
                "check_leave", f"{more}\ncheck_leave"
            )
        )


@pytest.fixture
def site(sh: Sh, tmp_path: Path) -> Site:
    return Site(sh, tmp_path)


def test_pods_are_evicted_then_the_member_then_the_node_is_removed(site: Site) -> None:
    code, said = site.leave()
    assert code == 0, said
    assert said.index("all pods are evicted") < said.index("removed w1 from etcd")
    assert said.index("removed w1") < said.index("the Node w1 is deleted") < said.index("GONE")
    assert site.read("nodes") == "w2|||True\nw3|||True\n"
    assert "aaa2" not in site.read("members")
    assert "https://192.0.2.2:2379" not in site.read("etcd-calls")
    assert not (site.directory / "data/etcd/member").exists()


def test_the_kubelet_stops_before_the_host_asks(site: Site) -> None:
    """Otherwise it could report after the request, which would then be void, or register again."""
    kubectl = site.directory / "bin/kubectl"
    kubectl.write_text(
        kubectl.read_text().replace('echo "${words##*=}"', "cp systemctl before; echo")
    )
    assert site.leave()[0] == 0
    assert "disable --now kubelet.service" in site.read("before")


def test_the_time_of_the_request_is_in_the_label(site: Site) -> None:
    before = datetime.now(tz=UTC).strftime("%Y%m%d%H%M%S")
    site.leave()
    assert before <= site.read("asked").strip() <= datetime.now(tz=UTC).strftime("%Y%m%d%H%M%S")


def test_it_never_deletes_its_node_itself(site: Site) -> None:
    site.leave()
    assert "delete node" not in site.read("calls")


@pytest.mark.parametrize(
    ("taints", "labels", "mark"),
    [
        ("quarantine:NoExecute ", "kubernetes.io/hostname ", "the taint quarantine:NoExecute"),
        ("-", "node-restriction.kubernetes.io/zone ", "the label node-restriction.kubernetes.io/zone"),
    ],
)  # fmt: skip
def test_nothing_is_changed_if_an_administrator_marked_the_node(
    site: Site, taints: str, labels: str, mark: str
) -> None:
    site.write("marks", f"w1\tuid\t7\t-\t{taints}\t{labels}\n")
    code, said = site.leave()
    assert (code, f"the Node w1 has {mark}, which an administrator set" in said) == (3, True)
    assert "forget-node.sh w1" in said
    assert (site.read("nodes"), site.read("members")) == (NODES, MEMBERS)
    assert not (site.directory / "api/evictions").exists()


def test_a_taint_of_the_plan_does_not_keep_the_node(site: Site) -> None:
    site.write("marks", "w1\tuid\t7\t-\tgpu=yes:NoSchedule \tkubernetes.io/hostname \n")
    assert site.leave()[0] == 0


@pytest.mark.slow
def test_it_goes_on_with_a_warning_if_no_control_plane_deletes_the_node(site: Site) -> None:
    site.write("nobody-deletes", "")
    code, said = site.leave("LEAVE_LIMIT=1")
    assert (code, "GONE" in said) == (0, True)
    assert "warning: after 1 s the Node w1 still exists" in said
    assert "/opt/k8s/libexec/forget-node.sh w1 on a control plane" in said


def test_a_run_after_the_node_was_deleted_does_the_rest(site: Site) -> None:
    site.write("nodes", NODES.replace("w1|||True\n", ""))
    code, said = site.leave()
    assert (code, "GONE" in said, "warning" in said) == (0, True, False), said
    assert "aaa2" not in site.read("members")
    assert not (site.directory / "api/evictions").exists()


def test_a_run_after_one_that_was_killed_while_it_waited_does_the_rest(site: Site) -> None:
    site.write("nobody-deletes", "")
    script = "LEAVE_LIMIT=9; is_node_gone() { trap - EXIT; rm -rf $work $store/lock; kill -9 $$; }"
    assert site.leave(script)[0] == -9
    assert site.read("nodes").startswith("w1|true|")
    (site.directory / "api/nobody-deletes").unlink()
    code, said = site.leave()
    assert (code, "the Node w1 is deleted" in said) == (0, True), said


def test_a_host_that_is_installed_again_takes_its_request_back(site: Site) -> None:
    site.write("nodes", NODES.replace("w1||", "w1|true|"))
    site.write("nobody-deletes", "")
    (site.directory / "store/cordoned").write_text("now\n")
    site.write("cordoned", "now")
    assert site.run("uncordon_node")[0] == 0
    assert '"labels":{"bundler/leave":null}' in site.read("calls")


def test_nothing_is_changed_if_etcd_refuses(site: Site) -> None:
    site.write("etcd-refuses", "")
    code, said = site.leave()
    assert code == 3
    assert "etcd refuses to remove this member: etcdserver: unhealthy cluster" in said
    assert (site.read("nodes"), site.read("members")) == (NODES, MEMBERS)
    assert (site.directory / "data/etcd/member").exists()


def test_nothing_is_changed_if_a_pod_cannot_be_evicted(site: Site) -> None:
    site.write("stubborn", "db-0\n")
    code, said = site.leave("DRAIN_LIMIT=0")
    assert (code, "default/db-0" in said) == (3, True)
    assert (site.read("nodes"), site.read("members")) == (NODES, MEMBERS)


def test_it_refuses_if_no_other_member_answers(site: Site) -> None:
    site.write("etcd-down", "")
    code, said = site.leave()
    assert (code, "do not answer: context deadline exceeded" in said) == (3, True)
    assert site.read("nodes") == NODES


def test_data_of_a_member_stay_if_the_list_of_members_cannot_be_read_any_more(site: Site) -> None:
    """Before, a failed question was taken for: it is no member any more."""
    db = site.directory / "data/etcd/member/snap/db"
    db.write_text("objects")
    code, said = site.leave(f"evict_pods() {{ : >{site.directory}/api/etcd-down; }}")
    assert (code, "do not answer: context deadline exceeded" in said, "GONE" in said) == (
        3,
        True,
        False,
    )
    assert db.exists()


def test_the_only_member_cannot_leave(site: Site) -> None:
    code, said = site.leave("ETCD_ENDPOINTS=https://192.0.2.2:2379")
    assert (code, "this is the only member of etcd" in said) == (3, True)


def test_a_second_run_completes_an_interrupted_one(site: Site) -> None:
    site.write("members", MEMBERS.replace("aaa2, started, w1, https://192.0.2.2:2380", "gone"))
    code, said = site.leave()
    assert code == 0, said
    assert "member remove" not in site.read("etcd-calls")


def test_it_refuses_if_the_api_does_not_answer(site: Site) -> None:
    kubectl = site.directory / "bin/kubectl"
    write_program(kubectl, "echo 'connection refused' >&2; exit 1")
    code, said = site.leave()
    assert (code, "does not answer (connection refused)" in said, "GONE" in said) == (
        3,
        True,
        False,
    )


KUBECTL_OF_ADMIN = r"""
cd {work}/api
case " $* " in
    *' get node '*) cat node ;;
    *' get nodes '*) echo 'm1 w1' ;;
    *' delete node '*) [ ! -e api-down ] || exit 1; : >node; echo "deleted ${{*##* node }}" >>deleted ;;
esac
"""


class Remaining(Site):
    """The control plane m1, whose bundle plans m1 and m4. The Node of w1 is in the file `node`."""

    def __init__(self, sh: Sh, directory: Path) -> None:
        super().__init__(sh, directory)
        write_program(directory / "bin/kubectl", KUBECTL_OF_ADMIN.format(work=directory))
        etcdctl = directory / "bin/etcdctl"
        health = "*'endpoint health') [ -e healthy ] || exit 1 ;;"
        etcdctl.write_text(etcdctl.read_text().replace("case $* in", f"case $* in\n    {health}"))
        (directory / "bundle").mkdir()
        (directory / "bundle/lib").symlink_to(TEMPLATES / "common/lib")
        (directory / "bundle/node.env").write_text(
            "NODE='m1' NODES='m1|192.0.2.1|etcd m4|192.0.2.4|etcd' API_LOCAL='https://192.0.2.1:6443' ETCD_ENDPOINTS='https://192.0.2.1:2379'\n"
        )
        script = (LIBEXEC / "forget-node.sh").read_text()
        (directory / "forget-node.sh").write_text(
            script.replace("bundle=/opt/k8s/bundle", f"bundle={directory}/bundle")
        )
        self.write("node", "w1|Unknown|192.0.2.2")
        self.write("deleted", "")

    def forget(self, name: str) -> tuple[int, str]:
        path = f"{self.directory}/bin:/usr/bin:/bin"
        done = self.sh(self.directory / "forget-node.sh", name, PATH=path)
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def remaining(sh: Sh, tmp_path: Path) -> Remaining:
    return Remaining(sh, tmp_path)


def test_a_dead_host_that_is_not_planned_any_more_is_forgotten(remaining: Remaining) -> None:
    assert remaining.forget("w1")[0] == 0
    assert remaining.read("deleted") == "deleted w1 --ignore-not-found\n"
    assert "aaa2" not in remaining.read("members")


def test_a_run_that_failed_between_its_steps_is_completed(remaining: Remaining) -> None:
    unstarted = f"{MEMBERS}aaa5, unstarted, , https://192.0.2.5:2380, , false\n"
    remaining.write("members", unstarted)
    remaining.write("node", "w5|Unknown|192.0.2.5")
    remaining.write("api-down", "")
    assert remaining.forget("w5")[0] == 1
    assert remaining.read("members") == MEMBERS
    (remaining.directory / "api/api-down").unlink()
    assert remaining.forget("w5") == (0, "etcd has no member w5\n")
    assert remaining.read("deleted") == "deleted w5 --ignore-not-found\n"


def test_a_member_that_never_started_is_found_by_its_planned_address(remaining: Remaining) -> None:
    remaining.write("members", f"{MEMBERS}aaa4, unstarted, , https://192.0.2.4:2380, , false\n")
    remaining.write("node", "")
    assert remaining.forget("m4")[0] == 0
    assert remaining.read("members") == MEMBERS
    assert remaining.forget("m4") == (0, "etcd has no member m4\n")


def test_a_host_that_runs_is_not_forgotten(remaining: Remaining) -> None:
    remaining.write("node", "w1|True|192.0.2.2")
    code, said = remaining.forget("w1")
    assert code == 3
    assert "the Node w1 is Ready: its kubelet runs. Fix: on that host uninstall.sh --leave" in said
    remaining.write("node", "")
    remaining.write("healthy", "")
    code, said = remaining.forget("w1")
    assert code == 3
    assert "the member w1 of etcd at https://192.0.2.2:2379 is healthy" in said
    assert (remaining.read("members"), remaining.read("deleted")) == (MEMBERS, "")


def test_a_name_that_nothing_has_is_refused(remaining: Remaining) -> None:
    remaining.write("node", "")
    remaining.write("members", f"{MEMBERS}aaa5, unstarted, , https://192.0.2.5:2380, , false\n")
    code, said = remaining.forget("w7")
    assert code == 3
    assert (
        "is named w7. Nodes: m1 w1; members of etcd: m1 w1 m3; members that never started" in said
    )
    assert "aaa5 (https://192.0.2.5:2380): etcdctl member remove ID" in said


def test_forget_node_names_its_usage(remaining: Remaining) -> None:
    for wrong in ("", "m1", "--help", "a;b"):
        assert remaining.forget(wrong)[0] == 2
    assert remaining.read("members") == MEMBERS


def test_an_etcd_that_does_not_answer_is_not_taken_for_no_member(remaining: Remaining) -> None:
    remaining.write("etcd-down", "")
    assert remaining.forget("w1")[0] == 1
    assert remaining.read("deleted") == ""
