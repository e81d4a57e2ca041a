"""Snapshots, and restoring after quorum loss: real members of etcd, the real scripts."""

import hashlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.etcd_hosts import Member, Site, wait_ready
from support.networks import own_network

BUNDLE = "opt/k8s/bundle"


def run(
    member: Member, script: str, *arguments: str | Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", member.root / BUNDLE / script, *arguments],
        capture_output=True, text=True, check=False, env={**member.environment, **environment},
        timeout=300,
    )  # fmt: skip


def back_up(member: Member) -> Path:
    done = run(member, "backup.sh")
    assert done.returncode == 0, done.stderr
    return max((member.root / "var/backups/etcd").glob("*.db"))


@pytest.fixture
def three(site: Site) -> list[Member]:
    return start_three(site)


@pytest.fixture
def three_behind_a_proxy(programs: Path, tmp_path: Path) -> Iterator[list[Member]]:
    """The same on addresses for which programs use a proxy."""
    site = Site(tmp_path, programs, "198.18.7")
    with own_network(f"{site.network}.0/24"):
        yield start_three(site)
        for member in site.made.values():
            member.stop()


def start_three(site: Site) -> list[Member]:
    members = site.build("m1", "m2", "m3")
    for member in members:
        member.start()
        member.systemctl("start", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
    wait_ready(members)
    for number in range(50):
        members[0].etcdctl("put", f"/registry/configmaps/default/c{number}", f"value {number}")
    return members


def test_a_snapshot_is_complete_named_and_readable_by_root_only(three: list[Member]) -> None:
    snapshot = back_up(three[1])
    assert re.fullmatch(r"\d{8}T\d{6}Z_life_m2_3\.4\.23_r\d+\.db", snapshot.name)
    assert snapshot.stat().st_mode & 0o777 == 0o600
    assert snapshot.parent.stat().st_mode & 0o777 == 0o700
    digest, name = (snapshot.parent / f"{snapshot.name}.sha256").read_text().split()
    assert (digest, name) == (hashlib.sha256(snapshot.read_bytes()).hexdigest(), snapshot.name)
    assert b"PRIVATE KEY" not in snapshot.read_bytes()
    assert {path.name for path in snapshot.parent.iterdir()} == {
        snapshot.name,
        f"{snapshot.name}.sha256",
    }
    listed = run(three[1], "backup.sh", "--list").stdout
    assert str(snapshot) in listed
    planned = run(three[1], "backup.sh", "--dry-run").stdout
    assert planned.startswith("take     a snapshot from https://")


def test_all_objects_are_restored_after_quorum_loss(three: list[Member]) -> None:
    first, *others = three
    before = first.list_keys()
    snapshot = back_up(first)
    first.etcdctl("put", "after", "the snapshot")
    for member in three:
        member.stop()
        shutil.rmtree(member.data)
    for member in others:
        member.start()  # as at boot: they wait and must not create a cluster

    assert run(first, "restore.sh", snapshot).returncode == 3  # not without --yes
    assert not first.data.exists()
    done = run(first, "restore.sh", "--yes", snapshot)
    assert done.returncode == 0, done.stderr + first.log[-2000:]
    assert "restore.sh --join --yes" in done.stdout
    assert first.list_keys() == before
    for member in others:
        joined = run(member, "restore.sh", "--join", "--yes")
        assert joined.returncode == 0, joined.stderr + member.log[-2000:]
        assert (member.root / "run/calls").read_text().splitlines()[
            -1
        ] == "start kube-scheduler.service"
    wait_ready(three)
    assert set(first.members()) == {"m1", "m2", "m3"}
    assert [member.list_keys() for member in three] == [before] * 3
    assert not (first.root / "var/lib/bundler/restore").exists()


@pytest.mark.long
def test_the_newer_data_of_the_only_intact_member_is_restored(three: list[Member]) -> None:
    """With --from-member; the old data is kept."""
    first, second, third = three
    back_up(first)
    first.etcdctl("put", "after", "the snapshot")
    before = first.list_keys()
    third.lose_disk()
    second.lose_disk()
    done = run(first, "restore.sh", "--from-member", "--yes")
    assert done.returncode == 0, done.stderr + first.log[-2000:]
    assert first.list_keys() == before
    for member in (second, third):
        joined = run(member, "restore.sh", "--join", "--yes")
        assert joined.returncode == 0, joined.stderr
    assert third.list_keys() == before
    assert [path.name for path in first.data.glob("member.before-restore-*/snap/db")] == ["db"]


@pytest.mark.long
def test_old_members_that_still_run_cannot_connect(three: list[Member]) -> None:
    """One of three is restored while an old one runs; the old data is kept when that one joins."""
    first, second, third = three
    snapshot = back_up(first)
    before = first.list_keys()
    first.lose_disk()
    third.lose_disk()
    done = run(first, "restore.sh", "--yes", snapshot)
    assert done.returncode == 0, done.stderr + first.log[-2000:]
    assert set(first.members()) == {"m1"}
    joined = run(second, "restore.sh", "--join", "--yes")
    assert joined.returncode == 0, joined.stderr + second.log[-2000:]
    assert len(list(second.data.glob("member.before-restore-*"))) == 1
    assert second.list_keys() == before
    third.start()
    wait_ready([third])
    assert third.list_keys() == before


@pytest.mark.long
def test_a_member_that_has_just_joined_keeps_its_data(three: list[Member]) -> None:
    """Without it the cluster has no quorum, so that it could not be added again."""
    first, second, third = three
    snapshot = back_up(first)
    before = first.list_keys()
    for member in three:
        member.lose_disk()
    assert run(first, "restore.sh", "--yes", snapshot).returncode == 0
    mv = second.root / "bin/mv"  # the first step is recorded with mv
    mv.write_text(
        f"#!/bin/sh\nrm {mv}\n{second.root}/bin/systemctl start etcd\n"
        f'for i in $(seq 100); do [ "$({second.root}/bin/systemctl is-active etcd)" = active ] || sleep 0.3; done\n'
        f'exec {shutil.which("mv")} "$@"\n'
    )
    mv.chmod(0o755)
    done = run(second, "restore.sh", "--join", "--yes")
    assert done.returncode == 0, done.stderr + second.log[-2000:]
    assert "it has already joined" in done.stdout
    assert not list(second.data.glob("member.before-restore-*"))
    third.start()
    wait_ready(three)
    assert [member.list_keys() for member in three] == [before] * 3


@pytest.mark.long
def test_a_member_that_joins_during_the_check_is_not_a_second_cluster(three: list[Member]) -> None:
    """It starts just after the check whether it runs: the next answer names the same cluster."""
    first, second, third = three
    snapshot = back_up(first)
    before = first.list_keys()
    for member in three:
        member.lose_disk()
    assert run(first, "restore.sh", "--yes", snapshot).returncode == 0
    openssl = second.root / "bin/openssl"  # members are asked with openssl
    openssl.write_text(
        f"#!/bin/sh\ntrap : TERM\n"  # https_get gives it two seconds
        f'case "$*" in *{second.address}*) ;; *) exec {shutil.which("openssl")} "$@" ;; esac\n'
        f'rm {openssl}\n{shutil.which("openssl")} "$@"\nsetsid {second.root}/bin/systemctl start etcd\n'
        f'for i in $(seq 100); do [ "$({second.root}/bin/systemctl is-active etcd)" = active ] || sleep 0.3; done\n'
    )
    openssl.chmod(0o755)
    done = run(second, "restore.sh", "--join", "--yes")
    assert not openssl.exists()
    assert done.returncode == 0, done.stderr + second.log[-2000:]
    assert re.search("is already a member of the cluster of|it has already joined", done.stdout)
    assert not list(second.data.glob("member.before-restore-*"))
    third.start()
    wait_ready(three)
    assert [member.list_keys() for member in three] == [before] * 3


def test_a_healthy_quorum_is_not_replaced_by_mistake(three: list[Member]) -> None:
    first, *others = three
    snapshot = back_up(first)
    before = first.list_keys()
    first.etcdctl("put", "after", "the snapshot")
    refused = run(first, "restore.sh", "--yes", snapshot)
    assert (refused.returncode, "etcd has a quorum" in refused.stderr) == (3, True)
    refused = run(first, "restore.sh", "--yes", "--replace-healthy", snapshot)
    assert (refused.returncode, "a quorum without this member" in refused.stderr) == (3, True)
    assert "kube-apiserver" not in (first.root / "run/calls").read_text().partition("stop")[2]
    again = run(others[0], "restore.sh", "--join")
    assert "is already a member of the cluster of" in again.stdout
    for member in others:
        member.stop()
    done = run(first, "restore.sh", "--yes", "--replace-healthy", snapshot)
    assert done.returncode == 0, done.stderr
    assert first.list_keys() == before


NOWHERE = "http://127.0.0.1:9"


def use_proxies(member: Member) -> None:
    """etcdctl 3.5 and later uses a proxy (tried with 3.5.16: this message); the lab's 3.4.23 does not."""
    etcdctl = member.root / "opt/k8s/bin/etcdctl"
    real = etcdctl.resolve()
    etcdctl.unlink()
    etcdctl.write_text(
        f"""#!/bin/sh
[ -z "${{https_proxy:-}}${{HTTPS_PROXY:-}}" ] || {{ echo "Error: context deadline exceeded" >&2; exit 1; }}
exec {real} "$@"
"""
    )
    etcdctl.chmod(0o755)


ENVIRONMENTS: tuple[dict[str, str], ...] = (
    {"https_proxy": NOWHERE, "HTTPS_PROXY": NOWHERE},
    {"ALL_PROXY": NOWHERE, "all_proxy": NOWHERE, "CDPATH": "/", "GREP_OPTIONS": "-v"},
    # etcdctl 3.4 and later refuses a variable next to the flag (etcd 8380, 20118)
    {"ETCDCTL_ENDPOINTS": "https://192.0.2.1:2379", "ETCDCTL_CACERT": "/nowhere"},
)


@pytest.mark.long
def test_variables_of_roots_shell_do_not_hide_a_healthy_cluster(
    three_behind_a_proxy: list[Member],
) -> None:
    """kubespray 6250, sidero 922, etcd 20118: etcdctl fails, and the quorum is there."""
    first, second, _ = three_behind_a_proxy
    for member in three_behind_a_proxy:
        use_proxies(member)
    snapshot = back_up(first)
    for environment in ENVIRONMENTS:
        refused = run(first, "restore.sh", "--yes", snapshot, **environment)
        assert (refused.returncode, "etcd has a quorum" in refused.stderr) == (3, True), refused
        assert set(first.members()) == {"m1", "m2", "m3"}
        again = run(second, "restore.sh", "--join", **environment)
        assert "is already a member of the cluster of" in again.stdout
        assert run(first, "backup.sh", **environment).returncode == 0


@pytest.mark.parametrize(
    "lost", ["ca.crt", pytest.param("healthcheck-client.key", marks=pytest.mark.long)]
)
def test_members_that_answer_and_cannot_be_read_are_never_taken_for_absent(
    three: list[Member], tmp_path: Path, lost: str
) -> None:
    first = three[0]
    snapshot = back_up(first)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-subj", "/CN=another", "-keyout", tmp_path / "healthcheck-client.key",
         "-out", tmp_path / "ca.crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    kept = (first.root / "etc/etcd/pki" / lost).read_bytes()
    shutil.copy(tmp_path / lost, first.root / "etc/etcd/pki" / lost)
    for options in ([snapshot], [snapshot, "--replace-healthy"], ["--from-member"], ["--join"]):
        refused = run(first, "restore.sh", "--yes", *options, PATIENCE="0")
        assert refused.returncode == 3, refused
        assert "answers and cannot be read" in refused.stderr
        assert f"https://{first.address}:2379" in refused.stderr or options == ["--join"]
    assert "certificate" in refused.stderr or "key" in refused.stderr  # the reason
    (first.root / "etc/etcd/pki" / lost).write_bytes(kept)
    assert set(first.members()) == {"m1", "m2", "m3"}


def test_an_alarm_and_a_broken_etcdctl_do_not_look_like_a_lost_quorum(three: list[Member]) -> None:
    """With an alarm /health says false (k3s 4787), and restoring would lose what was written."""
    first = three[0]
    back_up(first)
    etcdctl = first.root / "opt/k8s/bin/etcdctl"
    etcdctl.unlink()
    etcdctl.write_text("#!/bin/sh\necho context deadline exceeded >&2\nexit 1\n")
    etcdctl.chmod(0o755)
    refused = run(first, "restore.sh", "--yes", "--from-member")
    assert (
        refused.returncode,
        "answers and cannot be read (context deadline exceeded)" in refused.stderr,
    ) == (3, True)


def test_damaged_snapshots_are_refused(three: list[Member], tmp_path: Path) -> None:
    first = three[0]
    snapshot = back_up(first)
    for member in three:
        member.stop()
    altered = tmp_path / snapshot.name
    shutil.copy(f"{snapshot}.sha256", f"{altered}.sha256")
    altered.write_bytes(snapshot.read_bytes()[:-4096] + bytes(4096))
    done = run(first, "restore.sh", "--yes", altered)
    assert (done.returncode, "damaged or altered" in done.stderr) == (3, True)
    Path(f"{altered}.sha256").unlink()
    altered.write_bytes(snapshot.read_bytes()[:5000])
    done = run(first, "restore.sh", "--yes", altered)
    assert (done.returncode, "is not a complete snapshot" in done.stderr) == (3, True)
    done = run(first, "restore.sh", "--yes", first.data / "member/snap/db")
    assert (done.returncode, "--from-member" in done.stderr) == (3, True)
    assert (first.data / "member/wal").is_dir()
    assert not list(first.data.glob("*restor*"))


def put_secret(member: Member, name: str, key: str) -> None:
    member.etcdctl("put", f"/registry/secrets/default/{name}", f"k8s:enc:{key}:\x01\x02 noise")


@pytest.mark.long
def test_a_snapshot_whose_secrets_need_an_unknown_key_is_refused(three: list[Member]) -> None:
    first = three[0]
    for number in range(230):  # more than one page
        put_secret(first, f"s{number}", "aescbc:v1:key1")
    put_secret(first, "rewritten", "aescbc:v1:former")
    put_secret(first, "rewritten", "secretbox:v1:key1")  # its history holds the former key
    known = back_up(first)
    put_secret(first, "other", "aescbc:v1:key-20261229T050607Z")
    snapshot = back_up(first)
    for member in three:
        member.stop()
    data = sorted(path for path in first.data.rglob("*"))
    for words in ((), ("--yes",), ("--dry-run",)):
        done = run(first, "restore.sh", *words, snapshot)
        assert done.returncode == 3
        assert (
            "has Secrets under a key that the control planes do not have"
            " (aescbc:key-20261229T050607Z): on the builder, bundler secrets rotate recall"
            " key-20261229T050607Z;" in done.stderr
        )
    assert sorted(path for path in first.data.rglob("*")) == data
    assert not (first.root / "var/lib/bundler/restore").exists()
    assert run(first, "restore.sh", "--dry-run", known).returncode == 0
    done = run(first, "restore.sh", "--yes", "--any-key", snapshot)
    assert done.returncode == 0, done.stderr


@pytest.mark.long
def test_a_snapshot_that_cannot_be_read_is_not_taken_for_one_without_secrets(
    three: list[Member],
) -> None:
    first = three[0]
    snapshot = back_up(first)
    for member in three:
        member.stop()
    certificate = first.root / "etc/etcd/pki/server.crt"
    certificate.rename(f"{certificate}.away")  # etcd cannot start
    done = run(first, "restore.sh", "--yes", snapshot)
    assert done.returncode == 3
    assert "cannot read which keys the Secrets of" in done.stderr
    assert "--any-key restores it all the same" in done.stderr
    certificate.with_name("server.crt.away").rename(certificate)
    assert run(first, "restore.sh", "--yes", snapshot).returncode == 0


KILLER = """#!/bin/sh
case "{program} $*" in */real-rm' '*/etcd/restoring*) ;; */real-rm' '*) exec {program} "$@" ;; esac
n=$(($(cat {root}/count 2>/dev/null || echo 0) + 1))
echo $n >{root}/count
if [ $n -eq {at} ]; then {first} kill -9 $PPID; exit 1; fi
exec {program} "$@"
"""


def restore_killed(member: Member, snapshot: Path, program: str, at: int, *, done: bool) -> int:
    """Kill restore.sh at the at-th call of a program: before the call, or after it."""
    real = member.root / "bin" / f"real-{program}"
    killer = member.root / "bin" / program
    if killer.exists():
        killer.rename(real)
    else:
        real.symlink_to(str(shutil.which(program)))
    (member.root / "count").unlink(missing_ok=True)
    first = f'{real} "$@";' if done else ""
    killer.write_text(KILLER.format(root=member.root, at=at, program=real, first=first))
    killer.chmod(0o755)
    code = run(member, "restore.sh", "--yes", "--replace-healthy", snapshot).returncode
    killer.unlink()
    if real.is_symlink():
        real.unlink()
    else:
        real.rename(killer)
    return code


@pytest.mark.long
def test_a_restore_killed_at_any_step_is_resumed_by_the_next(site: Site) -> None:
    (member,) = site.build("m1", wal_dir="/var/lib/etcd-wal")
    member.start()
    wait_ready([member])
    for number in range(20):
        member.etcdctl("put", f"key{number}", "value")
    before = member.list_keys()
    snapshot = back_up(member)
    member.etcdctl("put", "old", "data")
    points = [("mv", at, at % 2 == 0) for at in range(1, 8)]
    for program, at, after in [*points, ("systemctl", 1, False), ("rm", 1, False)]:
        kill_and_finish(member, snapshot, program, at, done=after)
        assert member.list_keys() == before, f"{program} {at}"
    assert any((path / "snap/db").exists() for path in member.data.glob("member.before-restore-*"))


def kill_and_finish(member: Member, snapshot: Path, program: str, at: int, *, done: bool) -> None:
    what = f"{program} {at}"
    assert restore_killed(member, snapshot, program, at, done=done) == -9, what
    member.systemctl("stop", "etcd")
    member.systemctl("start", "etcd")  # as at boot
    again = run(member, "restore.sh", "--yes", "--replace-healthy", snapshot)
    assert again.returncode == 0, f"{what}: {again.stderr}{member.log[-1500:]}"
    assert not (member.root / "var/lib/bundler/restore").exists()


def make_two(site: Site) -> tuple[Member, Member, dict[str, str], Path]:
    """Two members with a separate WAL directory, their keys, and a snapshot."""
    first, second = members = site.build("m1", "m2", wal_dir="/var/lib/etcd-wal")
    for member in members:
        member.start()
    wait_ready(members)
    first.etcdctl("put", "key", "value")
    return first, second, first.list_keys(), back_up(first)


def lose_disks(member: Member) -> None:
    member.lose_disk()
    shutil.rmtree(member.root / "var/lib/etcd-wal")


@pytest.mark.long
def test_restored_data_on_a_new_disk_is_not_mistaken_for_old_data(site: Site) -> None:
    """Killed when the log is in its place, and when all is in its place but that is not recorded yet."""
    first, second, before, snapshot = make_two(site)
    second.stop()
    for at in (3, 4):
        lose_disks(first)
        kill_and_finish(first, snapshot, "mv", at, done=True)
        assert first.list_keys() == before, f"mv {at}"
        assert not list(first.data.parent.glob("**/*.before-restore-*"))


@pytest.mark.long
def test_an_abandoned_restore_leaves_no_data_when_the_member_joins(site: Site) -> None:
    first, second, before, snapshot = make_two(site)
    for member in (first, second):
        lose_disks(member)
    assert restore_killed(second, snapshot, "mv", 2, done=True) == -9
    assert run(first, "restore.sh", "--yes", snapshot).returncode == 0
    joined = run(second, "restore.sh", "--join", "--yes")
    assert joined.returncode == 0, joined.stderr + second.log[-1500:]
    assert set(first.members()) == {"m1", "m2"}
    assert second.list_keys() == before
