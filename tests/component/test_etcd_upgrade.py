"""etcd 3.4 is upgraded to 3.5 while clients write: three members with Debian's programs of both."""

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from support.etcd_hosts import Member, Site, find_etcd_of, wait_for, wait_ready
from support.lab import FIGURES
from support.load import Load, under_load

pytestmark = pytest.mark.long

NEW = "3.5.16"
STEP = "coordination/rollout-order"
OBJECTS = 2_000
OUTAGE = 30  # seconds without a write: a program that starts on a busy machine takes some of them
KEY = "/registry/configmaps/default/load-{}"


def find_version(member: Member) -> str:
    """The version that a running member reports."""
    listed = member.etcdctl("endpoint", "status", "-w", "json")
    return listed.partition('"version":"')[2].partition('"')[0]


def check_step(member: Member) -> str:
    """What preflight says about the etcd of a host's newest bundle, after the one that runs."""
    lib = member.root / "opt/k8s/bundle/lib"
    script = (
        f"here={lib.parent}; dry_run=no prefix={member.root} slot_wait=0 work={member.root}/work\n"
        "mkdir -p $work; : >$work/failures; . $here/node.env; skipped=' '\n"
        f". {lib}/core/common.sh; . {lib}/preflight/checks.sh; . {lib}/{STEP}.sh\n"
        'add_failure() { echo "$1: $2"; }\n'
        'check_version_step etcd-upgrade etcd "$running" "$ETCD_VERSION"; check_etcd_patch "$running"\n'
    )
    done = subprocess.run(
        ["/bin/sh", "-c", script], capture_output=True, text=True, check=False,
        env={**member.environment, "running": find_version(member)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def upgrade(member: Member, site: Site) -> float:
    """Restart a member with the programs of its new bundle; return how long it was away."""
    start = time.monotonic()
    member.stop()
    for program in ("etcd", "etcdctl"):
        target = member.root / "opt/k8s/bin" / program
        target.unlink()
        target.symlink_to(site.programs / program)
    member.start()
    wait_ready([member])
    return time.monotonic() - start


def test_members_are_upgraded_one_after_another_while_clients_write(site: Site) -> None:
    members = site.build("m1", "m2", "m3", flags={})
    for member in members:
        member.start()
    wait_ready(members)
    fill(members[0])
    old = find_version(members[0])
    assert old.startswith("3.4."), old
    everyone = f"--endpoints={','.join(f'https://{member.address}:2379' for member in members)}"

    def write_and_read(number: int) -> None:
        done = members[0].run_etcdctl(everyone, "put", KEY.format(number), f"value {number}")
        assert done.stdout.strip() == "OK", done.stderr
        done = members[-1].run_etcdctl(everyone, "get", KEY.format(number), "--print-value-only")
        assert done.stdout.strip() == f"value {number}", done.stderr

    site.programs = find_etcd_of("debian-13")
    members = site.build("m1", "m2", "m3", version=NEW, flags={})
    assert [check_step(member) for member in members] == ["", "", ""]
    load = Load(write_and_read)
    away = []
    with under_load(load):
        wait_for("clients write", lambda: load.done > 2)
        for member in members:
            away.append(upgrade(member, site))
            written = load.done
            wait_for("clients write with this member", lambda at=written: load.done > at + 2)  # type: ignore[misc]
    assert {find_version(member) for member in members} == {NEW}
    wait_for("the cluster has the new version", lambda: has_version(members, "3.5"))
    FIGURES.append(
        f"etcd {old} to {NEW} with {OBJECTS} objects: {len(load.failures)} of"
        f" {load.done + len(load.failures)} writes failed, members away for"
        f" {', '.join(f'{seconds:.1f}' for seconds in away)} s"
    )
    # a client of several members tries the next: only a write that was under way can fail
    assert all(length < OUTAGE for _, length in load.outages), load.failures
    keys = [member.list_keys() for member in members]
    assert all(first == second for first, second in pairwise(keys))
    assert len(keys[0]) >= OBJECTS + load.done
    check_the_way_back(members, site, old)
    check_snapshot(members[1])


def fill(member: Member) -> None:
    """Write objects, so that there are data to take over."""
    with ThreadPoolExecutor(4) as pool:
        done = pool.map(lambda first: fill_part(member, first), range(0, OBJECTS, 100))
        assert all(code == 0 for code in done)


def fill_part(member: Member, first: int) -> int:
    """Write 100 objects in one transaction."""
    puts = "\n".join(f"put /registry/secrets/s{n} value" for n in range(first, first + 100))
    pki = member.root / "etc/etcd/pki"
    return subprocess.run(
        [
            member.root / "opt/k8s/bin/etcdctl", f"--endpoints=https://{member.address}:2379",
            f"--cacert={pki}/ca.crt", f"--cert={pki}/healthcheck-client.crt",
            f"--key={pki}/healthcheck-client.key", "txn",
        ],
        input=f"\n{puts}\n\n\n", text=True, capture_output=True, check=False,
        env={**member.environment, "ETCDCTL_API": "3"},
    ).returncode  # fmt: skip


def has_version(members: list[Member], version: str) -> bool:
    """Whether a member logged that the whole cluster has it; members that follow log it as they please."""
    return any(
        "updated cluster version" in line and f'"to":"{version}"' in line
        for member in members
        for line in member.log.splitlines()
    )


def check_the_way_back(members: list[Member], site: Site, old: str) -> None:
    """Bundles with the former minor are refused while the new one runs."""
    for member in site.build("m1", "m2", "m3", version=old, flags={}):
        assert f"this host has etcd {NEW}, and this bundle has {old}: " in check_step(member)
    assert {find_version(member) for member in members} == {NEW}
    site.build("m1", "m2", "m3", version=NEW, flags={})


def check_snapshot(member: Member) -> None:
    """Check that the scripts of the bundle take a snapshot with the new programs and defragment."""
    for script in ("opt/k8s/bundle/backup.sh", "opt/k8s/libexec/etcd-maintain.sh"):
        arguments = ["health"] if script.endswith("maintain.sh") else []
        done = subprocess.run(
            ["sh", member.root / script, *arguments], capture_output=True, text=True, check=False,
            env=member.environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    (snapshot,) = (member.root / "var/backups/etcd").glob("*.db")
    status = member.run_etcdctl("snapshot", "status", str(snapshot), "-w", "json")
    assert '"totalKey":' in status.stdout, status.stderr
