"""install.sh and uninstall.sh with DESTDIR: files only, under every shell."""

import os
import shutil
from pathlib import Path

import pytest
from support.shells import TEMPLATES, Sh
from support.trees import Trees, list_tree, rewrite_manifest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root" / "etc").mkdir(parents=True)
    return tmp_path / "root"


@pytest.mark.slow
def test_every_file_is_installed_with_its_mode(sh: Sh, trees: Trees, root: Path) -> None:
    bundle = trees / "master1"
    done = sh(bundle / "install.sh", DESTDIR=str(root))
    assert done.returncode == 0, done.stderr
    wanted = list_tree(bundle / "rootfs")
    placed = list_tree(root)
    assert {path: placed.get(path) for path in wanted} == wanted
    assert {path for path in placed if path not in wanted} == {
        f"opt/k8s/bundle/{path}" for path in list_tree(bundle) if not path.startswith("rootfs/")
    } | {
        "var/lib/bundler/files",
        "var/lib/bundler/dirs",
        "var/lib/bundler/journal",
        "var/lib/bundler/existed",
    }


def test_the_destdir_need_not_exist(sh: Sh, trees: Trees, tmp_path: Path) -> None:
    done = sh(trees / "worker1" / "install.sh", "--dry-run", DESTDIR=str(tmp_path / "none/yet"))
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_a_second_run_does_nothing(sh: Sh, trees: Trees, root: Path) -> None:
    sh(trees / "master1" / "install.sh", DESTDIR=str(root))
    before = list_tree(root)
    done = sh(trees / "master1" / "install.sh", DESTDIR=str(root))
    assert (done.returncode, done.stdout) == (0, "master1: nothing to do\n")
    assert list_tree(root) == before


@pytest.mark.slow
def test_uninstall_restores_the_files_of_before(sh: Sh, trees: Trees, root: Path) -> None:
    (root / "etc/docker").mkdir()
    (root / "etc/docker/daemon.json").write_text("{}\n")
    (root / "etc/docker/other").write_text("mine\n")
    before = list_tree(root)
    sh(trees / "worker1" / "install.sh", DESTDIR=str(root))
    assert "data-root" in (root / "etc/docker/daemon.json").read_text()
    done = sh(root / "opt/k8s/bundle/uninstall.sh", "--yes", DESTDIR=str(root))
    assert done.returncode == 0, done.stderr
    assert list_tree(root) == before
    assert not (root / "opt").exists()
    assert not (root / "var/lib/bundler").exists()


@pytest.mark.slow
def test_uninstall_keeps_data_without_purge_data(sh: Sh, trees: Trees, root: Path) -> None:
    sh(trees / "worker1" / "install.sh", DESTDIR=str(root))
    (root / "var/lib/docker").mkdir()
    (root / "var/lib/docker/layer").write_text("data")
    (root / "var/lib/kubelet").mkdir()
    said = sh(root / "opt/k8s/bundle/uninstall.sh", "--dry-run", DESTDIR=str(root)).stdout
    assert "keep     /var/lib/docker" in said
    assert "remove   /var/lib/kubelet" in said
    sh(root / "opt/k8s/bundle/uninstall.sh", "--yes", DESTDIR=str(root))
    assert (root / "var/lib/docker/layer").exists()
    assert not (root / "var/lib/kubelet").exists()
    sh(trees / "worker1" / "install.sh", DESTDIR=str(root))
    sh(root / "opt/k8s/bundle/uninstall.sh", "--yes", "--purge-data", DESTDIR=str(root))
    assert not (root / "var/lib/docker").exists()


@pytest.mark.slow
def test_a_file_changed_by_hand_is_backed_up_and_restored(sh: Sh, trees: Trees, root: Path) -> None:
    sh(trees / "worker1" / "install.sh", DESTDIR=str(root))
    (root / "etc/docker/daemon.json").write_text("changed by hand\n")
    done = sh(trees / "worker1" / "install.sh", DESTDIR=str(root))
    assert "/etc/docker/daemon.json was changed by hand" in done.stdout
    kept = list((root / "var/lib/bundler/modified/etc/docker").iterdir())
    assert [path.read_text() for path in kept] == ["changed by hand\n"]
    assert "data-root" in (root / "etc/docker/daemon.json").read_text()


@pytest.mark.slow
def test_a_mode_changed_by_hand_is_restored(sh: Sh, trees: Trees, root: Path) -> None:
    sh(trees / "master1" / "install.sh", DESTDIR=str(root))
    key = root / "etc/kubernetes/pki/ca.key"
    key.chmod(0o644)
    sh(trees / "master1" / "install.sh", DESTDIR=str(root))
    assert key.stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
def test_a_file_that_the_new_bundle_does_not_have_is_removed(
    sh: Sh, trees: Trees, root: Path
) -> None:
    sh(trees / "worker1" / "install.sh", DESTDIR=str(root))
    newer = trees / "newer"
    shutil.copytree(trees / "worker1", newer)
    (newer / "rootfs/etc/cni/net.d/10-bridge.conflist").unlink()
    rewrite_manifest(newer)
    said = sh(newer / "install.sh", "--dry-run", DESTDIR=str(root)).stdout
    assert "remove   /etc/cni/net.d/10-bridge.conflist" in said
    assert sh(newer / "install.sh", DESTDIR=str(root)).returncode == 0
    assert not (root / "etc/cni/net.d/10-bridge.conflist").exists()


@pytest.mark.parametrize("fault", ["altered", "missing", "not in the manifest"])
def test_a_bundle_that_is_not_as_it_was_built_is_refused(
    sh: Sh, trees: Trees, root: Path, fault: str
) -> None:
    target = trees / "worker1/rootfs/etc/docker/daemon.json"
    if fault == "altered":
        target.write_text("{}")
    elif fault == "missing":
        target.unlink()
    else:
        target.with_name("unknown").write_text("")
    done = sh(trees / "worker1" / "install.sh", DESTDIR=str(root))
    assert done.returncode == 3
    assert fault in done.stderr
    assert "Nothing was changed." in done.stderr
    assert list_tree(root) == {}


def test_unknown_and_irregular_files_are_refused_without_a_key_too(
    sh: Sh, trees: Trees, root: Path
) -> None:
    bundle = trees / "worker1"
    (bundle / "more").write_text("")
    (bundle / "folder").mkdir()
    done = sh(bundle / "install.sh", DESTDIR=str(root))
    assert done.returncode == 3
    assert "    more: not in the manifest\n    folder/: not in the manifest\n" in done.stderr
    os.mkfifo(bundle / "rootfs/etc/pipe")
    (bundle / "MANIFEST").rename(bundle / "more")
    (bundle / "MANIFEST").symlink_to("more")
    done = sh(bundle / "install.sh", DESTDIR=str(root))
    assert done.returncode == 3
    for path in ("MANIFEST", "rootfs/etc/pipe"):
        assert f"    {path}: not a regular file\n" in done.stderr
    assert list_tree(root) == {}


def test_a_dry_run_names_every_file_and_changes_nothing(sh: Sh, trees: Trees, root: Path) -> None:
    done = sh(trees / "worker1" / "install.sh", "--dry-run", DESTDIR=str(root))
    assert done.returncode == 0
    for path in list_tree(trees / "worker1" / "rootfs"):
        assert f" /{path}\n" in done.stdout
    assert list_tree(root) == {}


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["--help"], 0, "Usage: install.sh"),
        (["--version"], 0, "lab/worker1, Kubernetes 1.20.2"),
        (["--list-preflight"], 0, "nginx-stream"),
        (["--bogus"], 2, "unknown option --bogus"),
        (["--wait", "soon"], 2, "--wait needs a time"),
        (["--wait"], 2, "--wait needs a time"),
        (["--ready-within", "soon"], 2, "--ready-within needs a number"),
        (["--skip-preflight", "manifest"], 2, "not a check that may be skipped"),
        (["--skip-preflight"], 2, "not a check that may be skipped"),
    ],
)
def test_options_are_explained_and_checked(
    sh: Sh, trees: Trees, root: Path, arguments: list[str], code: int, expected: str
) -> None:
    done = sh(trees / "worker1" / "install.sh", *arguments, DESTDIR=str(root))
    assert done.returncode == code
    assert expected in done.stdout + done.stderr
    assert list_tree(root) == {}


@pytest.mark.slow
def test_a_stale_lock_of_a_killed_run_is_removed(sh: Sh, trees: Trees, root: Path) -> None:
    lock = root / "var/lib/bundler/lock"
    lock.mkdir(parents=True)
    (lock / "owner").write_text("999999 1\n")
    assert sh(trees / "worker1" / "install.sh", DESTDIR=str(root)).returncode == 0
    assert not lock.exists()


def test_uninstall_where_nothing_is_installed_has_nothing_to_do(
    sh: Sh, trees: Trees, root: Path
) -> None:
    done = sh(trees / "worker1" / "uninstall.sh", DESTDIR=str(root))
    assert done.returncode == 0
    assert "nothing to do" in done.stdout


def test_a_directory_at_the_root_of_the_file_system_is_created(sh: Sh, tmp_path: Path) -> None:
    (tmp_path / "groups").write_text("1 copy /bundler-is-not-here/k8s rootfs/x y\n")
    script = tmp_path / "make.sh"
    script.write_text(
        f"set -u; prefix=; store={tmp_path} work={tmp_path} DATA_PATHS= RUNTIME_PATHS=\n"
        f". {TEMPLATES}/common/lib/transaction/files.sh\n"
        'replace_record() { mv "$1.new" "$1"; }\n'
        'xargs() { echo "from $(pwd): $*"; cat; }\nensure_directories\n'
    )
    done = sh(script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "from /: mkdir -m 0755", "./bundler-is-not-here", "./bundler-is-not-here/k8s",
    ]  # fmt: skip
    assert (tmp_path / "dirs").read_text() == "/bundler-is-not-here\n/bundler-is-not-here/k8s\n"
