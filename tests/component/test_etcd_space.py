"""The alarm NOSPACE: real etcd members with a small quota."""

import json
import os
import re
import subprocess
import tarfile
from pathlib import Path

import pytest
from support.etcd_hosts import FAST, Member, Site, wait_ready
from support.shells import write_program

SMALL = 2_000_000
LARGE = 64_000_000
VALUE = "x" * 100_000


def build(site: Site, *names: str, quota: int = SMALL) -> list[Member]:
    return site.build(*names, flags={**FAST, "quota-backend-bytes": quota})


def fill(member: Member) -> None:
    """Write until etcd refuses for lack of space: many revisions of one key."""
    for _ in range(400):
        answer = ask_to_put(member, "key")
        # on a busy machine a write can fail for other reasons, such as a change of leader, and then the alarm can fail too
        if "database space exceeded" in answer.stderr and "NOSPACE" in member.etcdctl(
            "alarm", "list", check=False
        ):
            return
    pytest.fail("the quota was not reached")


def start_again(members: list[Member]) -> None:
    for member in members:
        member.stop()
    for member in members:
        member.start()
    wait_ready(members)


def ask_to_put(member: Member, key: str) -> subprocess.CompletedProcess[str]:
    return member.run_etcdctl("put", key, VALUE)


def is_full(member: Member) -> bool:
    """Whether its database has 95 % of the small quota: at the end of `fill` the others' may be smaller."""
    status = json.loads(member.etcdctl("endpoint", "status", "-w", "json"))
    return int(status[0]["Status"]["dbSize"]) >= SMALL * 95 // 100


def put(member: Member, key: str = "probe") -> bool:
    return ask_to_put(member, key).stdout.strip() == "OK"


def maintain(member: Member, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", member.root / "opt/k8s/libexec/etcd-maintain.sh", command],
        capture_output=True, text=True, check=False, env=member.environment, timeout=120,
    )  # fmt: skip


def run_parts(member: Member, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command with install.sh's parts on this host, with its real etcd."""
    lib = member.root / "opt/k8s/bundle/lib"
    script = (
        f"here={lib.parent}; dry_run=no slot_wait=0 work={member.root}/work; mkdir -p $work\n"
        f"live={member.root}\n. $here/node.env\n"
        + "".join(
            f". {lib}/{part}.sh\n"
            for part in (
                "core/common", "core/https", "core/etcd-alarms", "transaction/units",
                "transaction/ready", "preflight/checks", "coordination/rollout-order",
            )
        )
        + f"skipped=' '; : >$work/advice; {command}\n"
    ).replace("/etc/etcd/pki", f"{member.root}/etc/etcd/pki")  # fmt: skip
    for part in ("transaction/ready", "coordination/rollout-order"):
        path = lib / f"{part}.sh"
        text = path.read_text().replace(" /etc/", f" {member.root}/etc/")
        path.write_text(text.replace(" /opt/k8s/libexec", f" {member.root}/opt/k8s/libexec"))
    return subprocess.run(
        ["/bin/sh", "-c", script], capture_output=True, text=True, check=False, timeout=120,
        env={**member.environment, "PATH": member.environment["PATH"], "PWD": os.getcwd()},
    )  # fmt: skip


def verify(member: Member, check: str) -> tuple[int, str]:
    """Run one check of verify.sh on this host; return its exit code and what it saw."""
    bundle = member.root / "opt/k8s/bundle"
    parts = (
        "core/https",
        "core/etcd-alarms",
        "verify/report",
        "verify/run",
        "verify/etcd",
        "verify/node",
    )
    script = f"here={bundle} prefix={member.root} check={check} results={member.root}/results\n"
    script += "mkdir -p $results\n. $here/node.env\n"
    script += "".join(f". $here/lib/{part}.sh\n" for part in parts)
    script += f"check_{check.replace('-', '_')}; code=$?; cat $results/$check.seen; exit $code\n"
    done = subprocess.run(
        ["/bin/sh", "-c", script], capture_output=True, text=True, check=False, env=member.environment
    )  # fmt: skip
    return done.returncode, done.stdout.strip()


def diagnose(member: Member) -> str:
    """The file etcd.txt of diagnose.sh."""
    tarball = member.root / "diagnose.tar.gz"
    subprocess.run(
        ["/bin/sh", member.root / "opt/k8s/bundle/diagnose.sh", "-o", tarball],
        check=True, capture_output=True, env=member.environment, timeout=300,
    )  # fmt: skip
    with tarfile.open(tarball) as archive:
        name = next(name for name in archive.getnames() if name.endswith("/etcd.txt"))
        return archive.extractfile(name).read().decode()  # type: ignore[union-attr]


def test_health_names_the_alarm_and_defragmenting_ends_it(site: Site) -> None:
    (member,) = build(site, "m1")
    member.start()
    wait_ready([member])
    assert maintain(member, "health").returncode == 0
    fill(member)
    health = maintain(member, "health")
    assert health.returncode == 1
    assert "the alarm NOSPACE is on, and etcd accepts no write: the database of " in health.stderr
    assert f"its quota is {SMALL}" in health.stderr
    assert verify(member, "etcd-alarms") == (1, "the alarm NOSPACE is on")
    code, seen = verify(member, "host-etcd")
    assert (code, seen.split(": ", 1)[1]) == (1, "alarms are on: NOSPACE")
    assert "alarm:NOSPACE" in diagnose(member)
    done = maintain(member, "defrag")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the alarm NOSPACE is off" in done.stdout
    assert verify(member, "etcd-alarms") == (0, "no alarm")
    assert put(member)
    assert maintain(member, "health").returncode == 0


def test_a_warning_of_etcdctl_is_not_part_of_the_size(site: Site) -> None:
    (member,) = build(site, "m1")
    member.start()
    wait_ready([member])
    etcdctl = member.root / "opt/k8s/bin/etcdctl"
    real = etcdctl.rename(etcdctl.with_name("etcdctl.real"))
    write_program(etcdctl, f'echo "a, b, c, a warning" >&2\nexec {real} "$@"\n')
    done = maintain(member, "defrag")
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("size of")]
    assert re.fullmatch(r"size of the database: \d+ \w?B before, \d+ \w?B after", line)
    assert "warning" not in done.stdout


def test_a_database_that_stays_at_its_quota_keeps_the_alarm(site: Site) -> None:
    (member,) = build(site, "m1", quota=LARGE)
    start_again([member])
    # keys that stay: how much of a full database is in use differs with when etcd commits
    for number in range(2 * SMALL // len(VALUE)):
        assert put(member, f"key{number}")
    (member,) = build(site, "m1")
    start_again([member])
    assert not put(member)
    done = maintain(member, "defrag")
    assert done.returncode == 1, done.stdout
    assert "size of the database: " in done.stdout
    assert "the alarm NOSPACE is on, and etcd accepts no write: the database of " in done.stderr
    assert not put(member)


def test_the_last_of_three_members_turns_the_alarm_off(site: Site) -> None:
    members = build(site, "m1", "m2", "m3", quota=LARGE)
    start_again(members)
    # far over the small quota on every member: how full each is when one refuses differs
    for _ in range(2 * SMALL // len(VALUE)):
        assert put(members[0], "key")
    start_again(build(site, "m1", "m2", "m3"))
    fill(members[0])
    first, second, third = (maintain(member, "defrag") for member in members)
    for early in (first, second):
        assert early.returncode == 1, early.stdout
        assert "size of the database: " in early.stdout
        assert "the alarm NOSPACE is on" in early.stderr
    assert third.returncode == 0, third.stderr
    assert put(members[1])


def test_another_alarm_stops_defragmenting(site: Site, tmp_path: Path) -> None:
    """No etcd here can be made to raise CORRUPT: etcdctl's answer is replaced, etcd is real."""
    (member,) = build(site, "m1")
    member.start()
    wait_ready([member])
    program = member.root / "opt/k8s/bin/etcdctl"
    real = program.readlink()
    program.unlink()
    program.write_text(
        f'#!/bin/sh\ncase "$*" in *"alarm list"*) echo memberID:1 alarm:CORRUPT ;; *) exec {real} "$@" ;; esac\n'
    )
    program.chmod(0o755)
    done = maintain(member, "defrag")
    assert (done.returncode, done.stdout) == (1, "")
    assert "alarms are on that defragmenting does not end: CORRUPT" in done.stderr
    assert "alarms are on: CORRUPT" in maintain(member, "health").stderr


def test_members_before_3_4_16_serve_too_although_they_know_no_exclude(site: Site) -> None:
    """The answer of an older member: 503 for every path of /health; etcdctl's answers are real."""
    (member,) = build(site, "m1")
    member.start()
    wait_ready([member])
    asked = (
        "https_status() { echo 503; }; is_etcd_serving https://$ADDRESS:2379 a b c; echo serving=$?"
    )
    assert "serving=1\n" in run_parts(member, asked).stdout  # 503 without an alarm
    fill(member)
    assert "serving=0\n" in run_parts(member, asked).stdout


@pytest.mark.long
def test_a_larger_quota_goes_in_although_the_alarm_is_on(site: Site) -> None:
    members = build(site, "m1", "m2", "m3")
    for member in members:
        member.start()
    wait_ready(members)
    fill(members[0])
    members = build(site, "m1", "m2", "m3", quota=LARGE)
    for number, member in enumerate(members):
        alarms = member.etcdctl("alarm", "list")
        if number and not any(map(is_full, members[number:])):
            assert alarms == ""  # the member before has ended it
            break
        assert "NOSPACE" in alarms
        asked = run_parts(
            member, "find_etcd_obstacle; echo obstacle=$?; check_etcd_alarm; cat $work/advice"
        )
        assert "obstacle=1\n" in asked.stdout, asked.stdout + asked.stderr
        assert "etcd has alarms: NOSPACE" in asked.stdout
        slot = run_parts(member, "is_restart_due() { true; }; take_rollout_slot; echo taken=$?")
        assert "taken=0\n" in slot.stdout, slot.stderr
        assert "accepts no lock: install on one host after another" in slot.stderr
        assert not put(members[0])
        member.stop()
        member.start()
        wait_ready([member])
        ready = run_parts(member, "ready_etcd etcd.service; echo ready=$?")
        assert "ready=0\n" in ready.stdout, ready.stdout + ready.stderr
    assert put(members[2])
    assert members[0].etcdctl("alarm", "list") == ""
