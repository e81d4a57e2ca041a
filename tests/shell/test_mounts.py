"""uninstall.sh never deletes what is mounted: real mounts, in a namespace of their own."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.fake_host import FakeHost, make_host
from support.shells import Sh
from support.trees import Trees

pytestmark = pytest.mark.slow  # every test runs a whole install.sh
VOLUME = "var/lib/kubelet/pods/u1/volumes/kubernetes.io~nfs"
MOUNTED = """
{setup}
"$@"
code=$?
sed -n 's| {root}| |p' /proc/self/mountinfo | cut -d" " -f5 | sed 's/^/mounted /'
find {kept} ! -type d | sed 's/^/kept /'
exit $code
"""


@pytest.fixture
def host(sh: Sh, trees: Trees, tmp_path: Path) -> FakeHost:
    """An installed worker, whose programs see the real table of mounts."""
    made = make_host(sh, trees / "worker1", tmp_path / "host")
    (made.root / "data/var").mkdir(parents=True)
    (made.root / "var").symlink_to("data/var")  # as on hosts whose /var is on a larger disk
    assert made.install().returncode == 0
    (made.directory / "bin/umount").unlink()
    table = made.live / "proc/self/mountinfo"
    table.unlink()
    table.symlink_to("/proc/self/mountinfo")
    return made


Uninstall = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def uninstall(host: FakeHost, kept: Path) -> Uninstall:
    """Run it in a mount namespace after a setup; its output ends with what is mounted and what is kept."""
    if os.getuid() != 0:
        pytest.skip("mounts cannot be made: only root may")

    def run(setup: str, *options: str) -> subprocess.CompletedProcess[str]:
        text = MOUNTED.format(setup=setup, root=host.root, kept=kept)

        def in_namespace(
            script: Path, *arguments: str, **environment: str
        ) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                ["unshare", "-m", "--propagation", "private", "sh", "-c", text, "sh",
                 "sh", script, *arguments],
                capture_output=True, text=True, check=False, env={**os.environ, **environment},
            )  # fmt: skip

        return replace(host, sh=in_namespace).uninstall(*options)

    return run


@pytest.fixture
def kept() -> Iterator[Path]:
    """What a storage server or another disk has: not in memory, as tmp_path may be."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        (Path(directory) / "kept").mkdir()
        (Path(directory) / "kept/precious").write_text("data")
        yield Path(directory) / "kept"


def mount(source: Path, target: Path) -> str:
    target.mkdir(parents=True, exist_ok=True)
    return f"mount --bind '{source}' '{target}'\n"


@pytest.mark.parametrize("name", ["pv-1", "my volume", "tab\tand\\backslash", "#1"])
def test_a_volume_below_a_link_and_with_any_name_is_unmounted_and_not_emptied(
    host: FakeHost, uninstall: Uninstall, kept: Path, name: str
) -> None:
    """k3s 3264, k0s 4318: on main the data of the volume was deleted."""
    done = uninstall(mount(kept, host.root / VOLUME / name))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"kept {kept}/precious"
    assert not (host.root / "var/lib/kubelet").exists()


def test_nothing_is_deleted_while_something_stays_mounted(
    host: FakeHost, uninstall: Uninstall, kept: Path
) -> None:
    """kubernetes 120376: kubeadm reset goes on after a failed umount."""
    point = host.root / VOLUME / "v"
    host.program("umount", "echo 'umount: target is busy' >&2; exit 32")
    file = host.root / "var/lib/kubelet/config"
    setup = mount(kept, point) + f": >{file}\n"
    refused = uninstall(setup, "--purge-data")
    assert refused.returncode == 1
    assert f"still mounted there: {host.root}/data/{VOLUME}/v" in refused.stderr
    assert f"kept {kept}/precious" in refused.stdout
    assert file.exists()
    assert (host.root / "opt/k8s/bundle/uninstall.sh").exists()  # for the next run
    (host.directory / "bin/umount").unlink()
    assert uninstall(setup).returncode == 0
    assert (kept / "precious").exists()


def test_a_disk_that_somebody_mounted_below_the_data_stops_the_purge(
    host: FakeHost, uninstall: Uninstall, kept: Path
) -> None:
    volumes = host.root / "var/lib/docker/volumes"
    planned = uninstall(mount(kept, volumes), "--purge-data", "--dry-run")
    assert "stop     somebody mounted " in planned.stdout
    refused = uninstall(mount(kept, volumes), "--purge-data")
    assert refused.returncode == 1
    assert "still mounted there" in refused.stderr
    assert "mounted /data/var/lib/docker/volumes" in refused.stdout
    assert f"kept {kept}/precious" in refused.stdout


def test_data_on_a_disk_of_its_own_is_emptied_in_place(
    host: FakeHost, uninstall: Uninstall, kept: Path
) -> None:
    """kubespray 8765, talos 6910: the disk was unmounted lazily, with the data on it."""
    (kept / "member").mkdir()
    (kept / "member/db").write_text("old cluster")
    data = host.root / "var/lib/docker"
    planned = uninstall(mount(kept, data), "--purge-data", "--dry-run")
    assert (
        "empty    /var/lib/docker (a link, or a file system of its own: it stays)" in planned.stdout
    )
    done = uninstall(mount(kept, data), "--purge-data")
    assert done.returncode == 0, done.stderr
    assert f"{data} is a file system of its own: it is empty, and still mounted" in done.stdout
    assert "mounted /data/var/lib/docker" in done.stdout
    assert list(kept.iterdir()) == []


def test_of_a_link_the_target_is_emptied(host: FakeHost, uninstall: Uninstall, kept: Path) -> None:
    data = host.root / "var/lib/docker"
    shutil.rmtree(data, ignore_errors=True)
    data.parent.mkdir(parents=True, exist_ok=True)
    data.symlink_to(kept)
    done = uninstall("", "--purge-data")
    assert done.returncode == 0, done.stderr
    assert f"{data} is a link and is kept, its target {kept} is empty" in done.stdout
    assert list(kept.iterdir()) == []
    assert data.is_symlink()


def test_a_data_directory_that_dockerd_mounted_over_itself_is_removed(
    host: FakeHost, uninstall: Uninstall, kept: Path
) -> None:
    """It hides what was mounted in it before."""
    data = host.root / "var/lib/docker"
    hidden = data / "overlay2/a/merged"
    hidden.mkdir(parents=True)
    setup = f"mount -t tmpfs overlay '{hidden}'\n{mount(data, data)}"
    done = uninstall(setup, "--purge-data")
    assert done.returncode == 0, done.stderr
    assert "\nmounted " not in f"\n{done.stdout}"
    assert not data.exists()


def test_what_the_runtime_mounted_is_unmounted(
    host: FakeHost, uninstall: Uninstall, kept: Path
) -> None:
    """An overlay, and dockerd's directory over itself."""
    store = host.root / "var/lib/docker/overlay2"
    merged = store / "a/merged"
    merged.mkdir(parents=True)
    setup = mount(store, store) + f"mount -t tmpfs shm '{merged}'\n"
    done = uninstall(setup, "--purge-data")
    assert done.returncode == 0, done.stderr
    assert "\nmounted " not in f"\n{done.stdout}"
    assert not (host.root / "var/lib/docker").exists()


def test_a_table_of_mounts_that_cannot_be_read_stops_it(
    host: FakeHost, uninstall: Uninstall, kept: Path
) -> None:
    point = host.root / VOLUME / "v"
    (host.live / "proc/self/mountinfo").unlink()
    refused = uninstall(mount(kept, point))
    assert refused.returncode == 1
    assert "mountinfo cannot be read" in refused.stderr
    assert f"kept {kept}/precious" in refused.stdout
