"""Each check before the installation fails when it should, and then nothing on the host changes."""

import pytest
from support.lab import Cluster

DATE_BEFORE = "2020-01-01"


def install_fails(
    cluster: Cluster,
    node: str,
    name: str,
    prepare: str,
    mend: str,
    prefix: str = "",
    options: str = "",
) -> str:
    """Run install.sh on a host that is made unfit; its output."""
    host = cluster.hosts[node]
    if prepare:
        host.run(prepare)
    before = host.list_files()
    done = host.run(f"{prefix} /root/lab-{node}/install.sh {options}", check=False)
    after = host.list_files()
    if mend:
        host.run(mend)
    assert done.returncode == 3, done.stdout
    assert f"{name}: " in done.stdout
    assert "fix: " in done.stdout
    assert "Nothing was changed." in done.stdout
    assert after == before
    return done.stdout


LISTENER = "perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(LocalPort => 6443, Listen => 1) or die; sleep'"
NO_STREAM = "echo 'exit 1' >/usr/sbin/nginx; chmod 755 /usr/sbin/nginx"
NO_PACKAGES = "--skip-preflight packages"
CASES = [
    # node, check, what makes the host unfit, what mends it, options of install.sh
    ("worker1", "commands", "", "", NO_PACKAGES),
    ("master1", "ports", f"{LISTENER} >/dev/null 2>&1 & echo $! >/tmp/listener; sleep 1", "kill $(cat /tmp/listener)", ""),
    ("worker1", "manifest", "echo >>/root/lab-worker1/rootfs/etc/docker/daemon.json", "tar -xzf /root/lab-worker1.tar.gz -C /root", ""),
    ("worker1", "manifest", "rm /root/lab-worker1/rootfs/opt/k8s/images/*/index.json", "tar -xzf /root/lab-worker1.tar.gz -C /root", ""),
    ("worker1", "manifest", "echo >/root/lab-worker1/rootfs/etc/stranger", "rm /root/lab-worker1/rootfs/etc/stranger", ""),
    ("worker1", "manifest", "rm /root/lab-worker1/packages/conntrack_*", "tar -xzf /root/lab-worker1.tar.gz -C /root", ""),
    ("master1", "space", "mount -t tmpfs -o size=20m tmpfs /opt", "umount /opt", ""),
    ("master1", "nginx-stream", NO_STREAM, "rm /usr/sbin/nginx", NO_PACKAGES),
]  # fmt: skip


@pytest.mark.parametrize(
    ("node", "name", "prepare", "mend", "options"),
    CASES,
    ids=[f"{c[1]}-{i}" for i, c in enumerate(CASES)],
)
def test_an_unfit_host_is_refused_and_left_as_it_is(
    cluster: Cluster, node: str, name: str, prepare: str, mend: str, options: str
) -> None:
    install_fails(cluster, node, name, prepare, mend, options=options)


def test_a_clock_before_the_certificates_is_refused(cluster: Cluster) -> None:
    install_fails(cluster, "worker1", "clock", "", "", prefix=f"faketime {DATE_BEFORE}")


def test_a_clock_after_the_certificates_is_refused(cluster: Cluster) -> None:
    install_fails(cluster, "worker1", "clock", "", "", prefix="faketime 2060-01-01")


def test_another_hosts_bundle_is_refused(cluster: Cluster) -> None:
    host = cluster.hosts["worker2"]
    directory = host.unpack(cluster.bundle(cluster.hosts["worker1"]))
    before = host.list_files()
    done = host.run(f"{directory}/install.sh", check=False)
    assert done.returncode == 3
    assert "host: this host is worker2, the bundle is for worker1" in done.stdout
    assert host.list_files() == before
    host.run(f"rm -rf {directory} {directory}.tar.gz")


def test_all_failures_are_told_at_once(cluster: Cluster) -> None:
    said = install_fails(
        cluster, "worker1", "commands",
        "mount -t tmpfs -o size=20m tmpfs /opt", "umount /opt",
        prefix=f"faketime {DATE_BEFORE}", options=NO_PACKAGES,
    )  # fmt: skip
    for name in ("commands", "space", "clock"):
        assert f"  {name}: " in said


def test_a_check_may_be_overruled_by_name(cluster: Cluster) -> None:
    host = cluster.hosts["worker1"]
    done = host.run(
        "faketime 2020-01-01 /root/lab-worker1/install.sh --skip-preflight clock --dry-run"
    )
    assert "(overruled)" in done.stdout
    assert (
        host.run("/root/lab-worker1/install.sh --skip-preflight manifest", check=False).returncode
        == 2
    )


def test_a_dry_run_says_what_would_change_and_changes_nothing(cluster: Cluster) -> None:
    host = cluster.hosts["worker1"]
    before = host.list_files()
    said = host.output("/root/lab-worker1/install.sh --dry-run")
    assert "/opt/k8s/bin/kubelet" in said
    assert "restart  kubelet.service" in said
    assert "load     registry.k8s.io/pause:3.2" in said
    assert host.list_files() == before
