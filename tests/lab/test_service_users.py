"""Units of a host run as users of their own: processes, files, sandboxes; an upgrade from root, and back.

The host has all roles, containerd and a node-local nginx.
"""

import io
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.lab import PROJECT, SOLO, Host, build, hosts_sh
from support.paths import LAB_CACHE

from bundler.catalog import read_table
from bundler.cluster.service_users import list_default_users

NAME, ADDRESS = "users", "172.30.20.37"
WENT_BACK = 5
QUICK = "--settle 3 --ready-within 300"
DESCRIPTION = SOLO.replace("solo", NAME).replace("172.30.20.31", ADDRESS)
TABLE = "bundler/catalog/service-users.tsv"
OWNED = ("/var/lib/etcd", "/var/log/kubernetes", "/var/lib/kube-addons")


@pytest.fixture(scope="module")
def description(lab_directory: Path) -> Path:
    path = lab_directory / "examples" / f"{NAME}.yaml"
    path.write_text(DESCRIPTION)
    return path


@pytest.fixture(scope="module")
def bundle(description: Path, lab_directory: Path, product_cache: Path) -> Path:
    build(description, lab_directory / NAME, cache=product_cache)
    return lab_directory / NAME / f"{NAME}-{NAME}.tar.gz"


@pytest.fixture
def host(network: None) -> Iterator[Host]:
    """The host as after its first boot."""
    made = Host(NAME, ADDRESS)
    hosts_sh("up", f"{made.name}={made.address}")
    return made


def install(host: Host, bundle: Path) -> None:
    done = host.run(f"{host.unpack(bundle)}/install.sh {QUICK}", check=False, timeout=1200)
    assert done.returncode == 0, done.stdout
    check_green(host)


def check_green(host: Host) -> None:
    verified = host.run("/opt/k8s/bundle/verify.sh", check=False, timeout=400)
    assert verified.returncode == 0, verified.stdout


def list_processes(host: Host) -> dict[str, set[str]]:
    """Unit → the UIDs of all of its processes."""
    listing = host.output(
        ". /opt/k8s/bundle/node.env; for unit in $UNITS; do case $unit in *.service) ;; *) continue ;; esac;"
        ' path=$(systemctl show -p ControlGroup --value $unit); [ -n "$path" ] || continue;'
        " for file in /sys/fs/cgroup$path/cgroup.procs /sys/fs/cgroup/systemd$path/cgroup.procs; do"
        " [ -f $file ] || continue; while read -r pid; do"
        " echo ${unit%.service} $(awk '$1 == \"Uid:\" { print $2 }' /proc/$pid/status); done <$file; done; done"
    )
    found: dict[str, set[str]] = {}
    for line in listing.splitlines():
        unit, _, uid = line.partition(" ")
        if uid:
            found.setdefault(unit, set()).add(uid)
    return found


def list_owners(host: Host, *paths: str) -> set[str]:
    """The owners of everything in these directories but install.sh's record."""
    found = f"find {' '.join(paths)} ! -name .bundler-state -printf '%U:%G\\n' | sort -u"
    return set(host.output(found).split())


def count_objects(host: Host) -> int:
    kubectl = "/opt/k8s/bin/kubectl --kubeconfig /etc/kubernetes/admin.kubeconfig"
    return len(host.output(f"{kubectl} get configmaps -A -o name").splitlines())


def test_processes_and_files_have_their_users(host: Host, bundle: Path) -> None:
    install(host, bundle)
    processes = list_processes(host)
    for user in list_default_users():
        for unit in user.units:
            if unit in processes:
                assert processes[unit] == {str(user.id)}, unit
    assert {"etcd", "kube-apiserver", "kube-controller-manager", "kube-nginx"} <= processes.keys()
    assert processes["kubelet"] == {"0"}

    assert list_owners(host, "/etc/kubernetes", "/etc/etcd") == {"0:0"}
    closed = host.output("find /etc/kubernetes /etc/etcd -name '*.key' ! -perm 0600")
    assert closed == ""
    assert list_owners(host, "/var/lib/etcd") <= {"640:640"}
    assert list_owners(host, "/var/log/kubernetes") == {"641:641"}
    assert list_owners(host, "/run/bundler/kube-apiserver") == {"0:641"}
    copied = host.output("cd /run/bundler && find . -name ca.key -o -name admin.kubeconfig").split()
    assert sorted(path.split("/")[1] for path in copied) == [
        "kube-addons", "kube-apply", "kube-controller-manager",
    ]  # fmt: skip
    users = host.run("/opt/k8s/bundle/verify.sh --node --only host-users", check=False)
    assert users.returncode == 0, users.stdout

    # what a unit sees
    seen = host.output(
        "nsenter -t $(systemctl show -p MainPID --value kube-scheduler) -m ls /etc/kubernetes /etc/kubernetes/pki"
    )
    assert "scheduler.kubeconfig" in seen
    assert "admin.kubeconfig" not in seen
    assert "sa.key" not in seen

    # the units' sandboxes, as systemd has loaded them
    levels = {row["unit"]: row for row in read_table("sandbox-levels.tsv")}
    for unit in processes.keys() & levels.keys():
        said = host.output(f"systemd-analyze security --no-pager {unit}.service | tail -n 1")
        found = re.search(r": ([\d.]+) ", said)
        assert found, said
        assert float(found[1]) <= float(levels[unit]["after"]), said

    # a unit whose copies and files are wrong has them right after a restart; so that kube-proxy sees the Services of
    # verify.sh, etcd.service of Kubernetes 1.20.2 restarts the API server
    before = host.output("systemctl show -p MainPID --value kube-apiserver")
    host.run("rm -r /run/bundler/etcd; chown -R 0:0 /var/lib/etcd; systemctl restart etcd")
    check_green(host)
    assert host.output("systemctl show -p MainPID --value kube-apiserver") != before
    assert list_owners(host, "/var/lib/etcd") == {"640:640"}


def build_former(description: Path, output: Path, directory: Path) -> Path:
    """The bundle of the last commit without users of units."""

    def git(*words: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(["git", "-C", str(PROJECT), *words], capture_output=True, check=False)

    added = git("log", "--diff-filter=A", "--format=%H", "--", TABLE).stdout.decode().split()
    archive = git("archive", f"{added[-1]}^", "bundler", "templates") if added else None
    if archive is None or archive.returncode:
        pytest.skip(
            "a bundle of the version before users cannot be built:"
            " the tests do not run in a clone with its history"
        )
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(directory, filter="data")
    done = subprocess.run(
        [
            sys.executable, "-m", "bundler", "build", "-c", str(description), "-o", str(output),
            "--cache", str(directory / "cache"), "--mirror", str(LAB_CACHE / "mirror"),
            "--pins", str(LAB_CACHE / "pins.yaml"), "--offline",
        ],
        capture_output=True, text=True, check=False, cwd=directory,
        env={**os.environ, "PYTHONPATH": str(directory)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return output / f"{NAME}-{NAME}.tar.gz"


@pytest.mark.long
def test_a_cluster_of_root_is_upgraded_and_goes_back(
    host: Host, bundle: Path, description: Path, tmp_path: Path
) -> None:
    former = build_former(description, tmp_path / "former", tmp_path / "sources")
    install(host, former)
    assert list_owners(host, *OWNED) == {"0:0"}
    objects = count_objects(host)

    # a new generation that is not healthy: the host goes back by itself, and root reads everything
    directory = host.unpack(bundle)
    host.run(
        f"cp -r {directory} /root/broken && cd /root/broken &&"
        " sed 's/--secure-port=/--no-such-flag=/' rootfs/etc/systemd/system/kube-scheduler.service >unit &&"
        " cat unit >rootfs/etc/systemd/system/kube-scheduler.service && rm unit &&"
        " awk '{ print $4 }' MANIFEST | xargs -r stat -c '%a %s %n' | while read -r mode size path; do"
        ' printf "%s %04d %s %s\\n" "$(sha256sum <"$path" | cut -d" " -f1)" "$mode" "$size" "$path"; done >MANIFEST.new &&'
        " mv MANIFEST.new MANIFEST"
    )
    broken = host.run("/root/broken/install.sh --settle 3", check=False, timeout=1200)
    assert broken.returncode == WENT_BACK, broken.stdout
    check_green(host)
    root = {unit: ids for unit, ids in list_processes(host).items() if unit != "kube-nginx"}
    assert set().union(*root.values()) == {"0"}  # nginx's own workers were nobody's
    assert count_objects(host) >= objects

    # forward: what root has written since gets its owners
    install(host, bundle)
    assert list_processes(host)["etcd"] == {"640"}
    assert list_owners(host, "/var/lib/etcd") == {"640:640"}
    assert list_owners(host, "/var/log/kubernetes") == {"641:641"}

    # back by hand, and forward again
    done = host.run(f"/opt/k8s/bundle/install.sh --rollback {QUICK}", check=False, timeout=1200)
    assert done.returncode == 0, done.stdout
    check_green(host)
    assert list_processes(host)["etcd"] == {"0"}
    install(host, bundle)
    assert list_processes(host)["kube-apiserver"] == {"641"}
    assert count_objects(host) >= objects

    # users go with the data
    host.run("/opt/k8s/bundle/uninstall.sh --yes --purge-data --remove-packages")
    assert host.run("getent passwd etcd kube-apiserver", check=False).stdout == ""
