"""Each preflight check refuses an unfit host, and a refused install.sh changes nothing."""

import pytest
from support.lab import Cluster, Host

DATE_BEFORE = "2020-01-01"


def set_clock(host: Host, date: str) -> str:
    """Put a `date` before the script's that tells this time: scripts drop faketime's LD_PRELOAD."""
    if not date:
        return ""
    host.run(
        "mkdir -p /tmp/clock && cd /tmp/clock &&"
        f" printf '#!/bin/sh\nPATH=/usr/bin:/bin exec faketime {date} /usr/bin/date \"$@\"\n' >date && chmod 755 date"
    )
    return "PATH=/tmp/clock:$PATH"


def install_fails(
    cluster: Cluster,
    node: str,
    name: str,
    prepare: str,
    repair: str,
    clock: str = "",
    options: str = "",
) -> str:
    """Make a host unfit, run install.sh, repair the host; return the output."""
    host = cluster.hosts[node]
    if prepare:
        host.run(prepare)
    before = host.list_files()
    done = host.run(f"{set_clock(host, clock)} /root/lab-{node}/install.sh {options}", check=False)
    after = host.list_files()
    if repair:
        host.run(repair)
    assert done.returncode == 3, done.stdout
    assert f"{name}: " in done.stdout
    assert "fix: " in done.stdout
    assert "Nothing was changed." in done.stdout
    assert after == before
    return done.stdout


BUNDLE = "/root/lab-worker1"  # /root is not in the listings that are compared
LISTENER = "perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(LocalPort => 6443, Listen => 1) or die; sleep'"
NO_STREAM = "echo 'exit 1' >/usr/sbin/nginx; chmod 755 /usr/sbin/nginx"
NO_PACKAGES = "--skip-preflight packages"
CASES = [
    # node, check, what makes the host unfit, what repairs it, options of install.sh
    ("worker1", "commands", "", "", NO_PACKAGES),
    ("master1", "ports", f"{LISTENER} >/dev/null 2>&1 & echo $! >/tmp/listener; sleep 1", "kill $(cat /tmp/listener)", ""),
    ("worker1", "manifest", f"cp -a {BUNDLE}/rootfs/etc/docker/daemon.json /root/saved; echo >>{BUNDLE}/rootfs/etc/docker/daemon.json", f"mv /root/saved {BUNDLE}/rootfs/etc/docker/daemon.json", ""),
    ("worker1", "manifest", f"cd {BUNDLE}/rootfs/opt/k8s/images; tar -cf /root/saved */index.json; rm */index.json", f"tar -xf /root/saved -C {BUNDLE}/rootfs/opt/k8s/images; rm /root/saved", ""),
    ("worker1", "manifest", f"echo >{BUNDLE}/rootfs/etc/unknown", f"rm {BUNDLE}/rootfs/etc/unknown", ""),
    ("worker1", "manifest", f"mkdir /root/saved; mv {BUNDLE}/packages/conntrack_* /root/saved", f"mv /root/saved/* {BUNDLE}/packages/; rmdir /root/saved", ""),
    ("master1", "space", "mount -t tmpfs -o size=20m tmpfs /opt", "umount /opt", ""),
    ("master1", "nginx-stream", NO_STREAM, "rm /usr/sbin/nginx", NO_PACKAGES),
]  # fmt: skip


@pytest.mark.parametrize(
    ("node", "name", "prepare", "repair", "options"),
    CASES,
    ids=[f"{c[1]}-{i}" for i, c in enumerate(CASES)],
)
def test_an_unfit_host_is_refused_and_not_changed(
    empty_cluster: Cluster, node: str, name: str, prepare: str, repair: str, options: str
) -> None:
    install_fails(empty_cluster, node, name, prepare, repair, options=options)


def test_a_clock_before_the_certificates_is_refused(empty_cluster: Cluster) -> None:
    install_fails(empty_cluster, "worker1", "clock", "", "", clock=DATE_BEFORE)


def test_a_clock_after_the_certificates_is_refused(empty_cluster: Cluster) -> None:
    install_fails(empty_cluster, "worker1", "clock", "", "", clock="2060-01-01")


def test_another_hosts_bundle_is_refused(empty_cluster: Cluster) -> None:
    host = empty_cluster.hosts["worker2"]
    directory = host.unpack(empty_cluster.bundle(empty_cluster.hosts["worker1"]))
    before = host.list_files()
    done = host.run(f"{directory}/install.sh", check=False)
    assert done.returncode == 3
    assert "host: this host is worker2, the bundle is for worker1" in done.stdout
    assert host.list_files() == before
    host.run(f"rm -rf {directory} {directory}.tar.gz")


def test_all_failures_are_reported_at_once(empty_cluster: Cluster) -> None:
    said = install_fails(
        empty_cluster, "worker1", "commands",
        "mount -t tmpfs -o size=20m tmpfs /opt", "umount /opt",
        clock=DATE_BEFORE, options=NO_PACKAGES,
    )  # fmt: skip
    for name in ("commands", "space", "clock"):
        assert f"  {name}: " in said


def test_a_check_can_be_skipped_by_name(empty_cluster: Cluster) -> None:
    host = empty_cluster.hosts["worker1"]
    clock = set_clock(host, "2020-01-01")
    done = host.run(f"{clock} /root/lab-worker1/install.sh --skip-preflight clock --dry-run")
    assert "(skipped)" in done.stdout
    assert (
        host.run("/root/lab-worker1/install.sh --skip-preflight manifest", check=False).returncode
        == 2
    )


def test_a_dry_run_says_what_would_change_and_changes_nothing(empty_cluster: Cluster) -> None:
    host = empty_cluster.hosts["worker1"]
    before = host.list_files()
    said = host.output("/root/lab-worker1/install.sh --dry-run")
    assert "/opt/k8s/bin/kubelet" in said
    assert "restart  kubelet.service" in said
    assert "load     registry.k8s.io/pause:3.2" in said
    assert host.list_files() == before
