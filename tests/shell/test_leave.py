"""uninstall.sh --leave, forget-node.sh, and revoked tokens: how hosts leave a cluster."""

import shutil
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
# What leave.sh needs in addition to the script of drain_api.py.
LEAVE = """
. {lib}/coordination/leave.sh
prefix={work}/root ADDRESS=192.0.2.2 ROLES='etcd control-plane worker' ETCD_VERSION=3.4.23
DATA_PATHS={work}/data/etcd
ETCD_ENDPOINTS='https://192.0.2.1:2379 https://192.0.2.2:2379 https://192.0.2.3:2379'
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
                "    'delete node w1 --ignore-not-found') sed -i /^w1/d nodes ;;\n    *) echo",
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
    assert said.index("removed w1") < said.index("deleted the node w1") < said.index("GONE")
    assert site.read("nodes") == "w2|||True\nw3|||True\n"
    assert "aaa2" not in site.read("members")
    assert "https://192.0.2.2:2379" not in site.read("etcd-calls")
    assert not (site.directory / "data/etcd/member").exists()


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


def test_a_dead_host_is_removed_by_forget_node(sh: Sh, tmp_path: Path) -> None:
    site = Site(sh, tmp_path)
    write_program(tmp_path / "bin/kubectl", f'echo "$*" >>{tmp_path}/api/calls')
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/node.env").write_text(
        "NODE='m1' NODES='m1|192.0.2.1|etcd m4|192.0.2.4|etcd' API_LOCAL='https://192.0.2.1:6443' ETCD_ENDPOINTS='https://192.0.2.1:2379'\n"
    )
    script = tmp_path / "forget-node.sh"
    shutil.copy(LIBEXEC / "forget-node.sh", script)
    script.write_text(
        script.read_text().replace("bundle=/opt/k8s/bundle", f"bundle={tmp_path}/bundle")
    )
    path = f"{tmp_path}/bin:/usr/bin:/bin"
    assert sh(script, "w1", PATH=path).returncode == 0
    assert "delete node w1" in site.read("calls")
    assert "aaa2" not in site.read("members")
    again = sh(script, "w1", PATH=path)
    assert (again.returncode, again.stdout) == (0, "etcd has no member w1\n")
    site.write("members", f"{MEMBERS}aaa4, unstarted, , https://192.0.2.4:2380, , false\n")
    assert sh(script, "m4", PATH=path).returncode == 0
    assert site.read("members") == MEMBERS
    for wrong in ("", "m1", "--help", "a;b"):
        assert sh(script, wrong, PATH=path).returncode == 2
    assert "m1, https" in site.read("members")
