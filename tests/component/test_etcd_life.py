"""Members of etcd that create a cluster, join, are replaced and return: real processes and certificates."""

import shutil

import pytest
from support.etcd_hosts import Site, wait_for, wait_ready


@pytest.mark.parametrize("order", [pytest.param((0, 1, 2), marks=pytest.mark.long), (2, 0, 1)])
def test_three_members_create_a_cluster_in_any_order(site: Site, order: tuple[int, ...]) -> None:
    members = site.build("m1", "m2", "m3")
    for index in order[:2]:
        members[index].start()
    wait_ready(members[index] for index in order[:2])
    last = members[order[2]]
    last.start()  # the others are a cluster that lists it, although it never started
    wait_ready([last])
    assert set(last.members()) == {"m1", "m2", "m3"}
    assert any("creating a new one" in line for line in members[order[0]].said)
    assert any(line.startswith("joining the cluster ") for line in last.said)


def test_three_members_create_a_cluster_at_once(site: Site) -> None:
    members = site.build("m1", "m2", "m3")
    for member in members:
        member.start()
    wait_ready(members)
    assert set(members[0].members()) == {"m1", "m2", "m3"}
    members[0].etcdctl("put", "a", "b")
    assert all(member.list_keys() == members[0].list_keys() for member in members)


def test_a_cluster_grows_from_one_to_three_without_a_restart(site: Site) -> None:
    (first,) = site.build("m1")
    first.start()
    wait_ready([first])
    first.etcdctl("put", "before", "growth")
    unit = (first.root / "etc/systemd/system/etcd.service").read_text()
    process = (first.root / "run/pid").read_text()

    members = site.build("m1", "m2", "m3")
    assert (first.root / "etc/systemd/system/etcd.service").read_text() == unit
    for member in members[1:]:
        member.start()  # both at once: etcd adds one after the other
    wait_ready(members)
    assert set(first.members()) == {"m1", "m2", "m3"}
    assert members[2].list_keys() == first.list_keys() != {}
    assert (first.root / "run/pid").read_text() == process
    for member in members:
        member.stop()
    for member in members:
        member.start()
    wait_ready(members)
    assert members[1].list_keys() == members[2].list_keys() != {}


@pytest.mark.long
def test_an_added_member_never_creates_a_cluster(site: Site) -> None:
    """The member with the data is down while the others are installed."""
    (first,) = site.build("m1")
    first.start()
    wait_ready([first])
    first.etcdctl("put", "the", "data")
    first.stop()
    members = site.build("m1", "m2", "m3")
    for member in members[1:]:
        member.start()
        wait_for("it waits", lambda said=member: said.said)  # type: ignore[misc]
        assert member.said == [
            "waiting: this member was added to a cluster, and no member of it answers"
        ]
        assert not (member.data / "member").exists()
    first.start()
    wait_ready(members)
    assert members[2].list_keys() == first.list_keys() != {}


@pytest.mark.long
def test_a_host_that_lost_its_disk_joins_as_a_new_member(site: Site) -> None:
    members = site.build("m1", "m2", "m3")
    for member in members:
        member.start()
    wait_ready(members)
    members[0].etcdctl("put", "kept", "by two")
    lost = members[1]
    before = members[0].etcdctl("member", "list")
    lost.lose_disk()
    members[0].etcdctl("put", "written", "in between")
    lost.start()
    wait_ready([lost])
    after = members[0].etcdctl("member", "list")
    assert set(members[0].members()) == {"m1", "m2", "m3"}
    assert len(set(after.splitlines()) - set(before.splitlines())) == 1
    assert lost.list_keys() == members[0].list_keys() != {}
    assert any("its data is lost: removing it" in line for line in lost.said)


def test_without_a_quorum_no_member_creates_a_new_cluster(site: Site) -> None:
    """Two of three lost their disks: two empty members must not outvote the data of the third."""
    members = site.build("m1", "m2", "m3")
    for member in members:
        member.start()
    wait_ready(members)
    members[0].etcdctl("put", "only", "here")
    for member in members[1:]:
        member.lose_disk()
    for member in members[1:]:
        member.start()
    for member in members[1:]:
        wait_for("it says so", lambda said=member: said.said)  # type: ignore[misc]
        wait_for("it waits", lambda said=member: "has no quorum" in said.said[-1])  # type: ignore[misc]
        assert not (member.data / "member").exists()


@pytest.mark.long
def test_members_that_answer_and_cannot_be_read_are_not_taken_for_absent(site: Site) -> None:
    """Their certificates are of a CA that this host does not know: it must not create a second cluster."""
    members = site.build("m1", "m2", "m3")
    for member in members[1:]:
        member.start()
    wait_ready(members[1:])
    ca = members[0].root / "etc/etcd/pki/ca.crt"
    kept = ca.read_bytes()
    ca.write_bytes((members[0].root / "etc/kubernetes/pki/ca.crt").read_bytes())
    members[0].start()
    wait_for("it says so", lambda: members[0].said)
    assert "answers and cannot be read (certificate: " in members[0].said[0]
    assert "it is unknown whether there is a cluster already" in members[0].said[0]
    assert not (members[0].data / "member").exists()
    ca.write_bytes(kept)
    wait_ready(members)
    assert set(members[1].members()) == {"m1", "m2", "m3"}


@pytest.mark.long
def test_a_host_that_was_a_member_does_not_create_a_new_cluster(site: Site) -> None:
    """All data directories are lost, and the hosts have a record that they were members."""
    members = site.build("m1", "m2", "m3")
    for member in members:
        member.start()
    wait_ready(members)
    for member in members:
        member.stop()
        shutil.rmtree(member.data)
    for member in members:
        member.start()
    for member in members:
        wait_for("it waits", lambda said=member: "restore.sh" in said.said[-1])  # type: ignore[misc]
        assert not (member.data / "member").exists()


@pytest.mark.long
def test_joining_completes_after_a_kill_at_any_step(site: Site) -> None:
    """Killed before the list, after the removal, after the addition, and right after the start of etcd."""
    members = site.build("m1", "m2", "m3")
    for member in members:
        member.start()
    wait_ready(members)
    members[0].etcdctl("put", "still", "there")
    lost = members[2]
    lost.lose_disk()
    real = lost.root / "opt/k8s/bin/etcdctl"
    target = real.readlink()
    real.unlink()
    real.write_text(
        "#!/bin/sh\n"
        # after each kind of change, once, the caller (the parent of timeout: etcd-start.sh) is killed
        f'{target} "$@"; code=$?\n'
        f'case " $* " in *" member remove "*) kind=remove ;; *" member add "*) kind=add ;; *" get "*) kind=get ;; *) exit $code ;; esac\n'
        f'[ ! -e {lost.root}/killed-$kind ] || exit $code\n'
        f": >{lost.root}/killed-$kind\n"
        f"kill -9 $(cat {lost.root}/run/pid)\n"
        "exit $code\n"
    )  # fmt: skip
    real.chmod(0o755)
    lost.start()
    wait_ready([lost])
    assert {path.name for path in lost.root.glob("killed-*")} == {
        "killed-get",
        "killed-remove",
        "killed-add",
    }
    real.unlink()
    real.symlink_to(target)
    assert set(members[0].members()) == {"m1", "m2", "m3"}
    assert lost.list_keys() == members[0].list_keys() != {}
    lost.kill()
    wait_for("it is back", lambda: lost.etcdctl("get", "still", check=False))
    assert set(lost.members()) == {"m1", "m2", "m3"}


@pytest.mark.long
def test_a_database_without_its_log_is_backed_up(site: Site) -> None:
    members = site.build("m1", "m2", "m3", wal_dir="/var/lib/etcd-wal")
    for member in members:
        member.start()
    wait_ready(members)
    for number in range(40):
        members[0].etcdctl("put", f"key{number}", "x" * 4000)
    lost = members[1]
    wait_for(
        "its database is written", lambda: (lost.data / "member/snap/db").stat().st_size > 100_000
    )
    lost.stop()
    shutil.rmtree(lost.root / "var/lib/etcd-wal")
    lost.start()
    wait_ready([lost])
    assert (lost.data / "member.without-log/snap/db").exists()
    assert lost.list_keys() == members[0].list_keys()
