"""unit-files.sh: copies for the users of units, and directories that belong to them."""

import os
import shutil
import stat
from pathlib import Path

import pytest
from support.paths import PROJECT
from support.shells import Sh, write_program

SCRIPT = PROJECT / "templates/service-users/rootfs/opt/k8s/libexec/unit-files.sh"
ID = 641
TABLE = f"""\
# a heading
server\t{ID}\tcopy\t/etc/kubernetes/pki/sa.*
server\t{ID}\tcopy\t/etc/kubernetes/policy/*/manifests.yaml
server\t{ID}\tcopy\t/var/lib/bundler/restore
server\t{ID}\town\t/var/log/kubernetes
server\t{ID}\town\t/data/etcd/wal
other\t642\tcopy\t/etc/kubernetes/pki/ca.key
"""
KEY, PUBLIC = "etc/kubernetes/pki/sa.key", "etc/kubernetes/pki/sa.pub"
PROGRAMS = ("mkdir", "find", "sed", "sort", "cp", "chown", "chmod", "mv", "rm", "awk")

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="files cannot get other owners: the tests do not run as root"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host with keys of root, and a directory that root has written to."""
    root = tmp_path / "root"
    for path, text, mode in (
        ("opt/k8s/bundle/lib/unit-files.tsv", TABLE, 0o644),
        (KEY, "first", 0o600),
        (PUBLIC, "public", 0o644),
        ("etc/kubernetes/pki/ca.key", "of others", 0o600),
        ("etc/kubernetes/policy/A/manifests.yaml", "a", 0o644),
        ("var/log/kubernetes/audit.log", "events", 0o600),
    ):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
        (root / path).chmod(mode)
    return root


def give(sh: Sh, root: Path, **environment: str) -> None:
    done = sh(SCRIPT, "server", DESTDIR=str(root), **environment)
    assert done.returncode == 0, done.stderr


def list_copies(root: Path, unit: str = "server") -> dict[str, str]:
    top = root / "run/bundler" / unit
    found = {}
    for path in sorted(top.rglob("*")):
        facts = path.lstat()
        assert (facts.st_uid, facts.st_gid) == (0, ID), path
        assert stat.S_IMODE(facts.st_mode) == (0o750 if path.is_dir() else 0o440), path
        if path.is_file():
            found[path.relative_to(top).as_posix()] = path.read_text()
    return found


def owners(root: Path, path: str) -> set[int]:
    top = root / path
    return {each.lstat().st_uid for each in (top, *top.rglob("*"))}


def test_a_unit_gets_copies_of_its_files_and_no_others(sh: Sh, root: Path) -> None:
    give(sh, root)
    assert list_copies(root) == {
        KEY: "first", PUBLIC: "public", "etc/kubernetes/policy/A/manifests.yaml": "a",
    }  # fmt: skip
    assert (root / "run/bundler/server/var/lib/bundler").is_dir()
    facts = (root / KEY).stat()
    assert (facts.st_uid, stat.S_IMODE(facts.st_mode)) == (0, 0o600)
    assert not (root / "run/bundler/other").exists()


def test_copies_follow_their_files(sh: Sh, root: Path) -> None:
    give(sh, root)
    watched = (root / "run/bundler/server/etc/kubernetes/pki").stat().st_ino
    (root / KEY).write_text("second")
    (root / PUBLIC).unlink()
    give(sh, root)
    assert list_copies(root)[KEY] == "second"
    assert PUBLIC not in list_copies(root)
    # a running unit sees the directory, not its name
    assert (root / "run/bundler/server/etc/kubernetes/pki").stat().st_ino == watched


def test_directories_belong_to_the_user(sh: Sh, root: Path) -> None:
    give(sh, root)
    assert owners(root, "var/log/kubernetes") == {ID}
    made = (root / "data/etcd/wal").stat()
    assert (made.st_uid, made.st_gid, stat.S_IMODE(made.st_mode)) == (ID, ID, 0o700)
    above = (root / "data/etcd").stat()
    assert (above.st_uid, stat.S_IMODE(above.st_mode)) == (0, 0o755)


def test_files_that_root_has_written_since_get_their_owner(sh: Sh, root: Path) -> None:
    give(sh, root)
    rotated = root / "var/log/kubernetes/audit-1.log"
    rotated.write_text("of a generation that ran as root")
    assert owners(root, "var/log/kubernetes") == {0, ID}
    give(sh, root)
    assert owners(root, "var/log/kubernetes") == {ID}


def test_the_record_of_whose_data_they_are_stays_root_s(sh: Sh, root: Path) -> None:
    give(sh, root)
    for place in ("data/etcd/wal", "data/etcd/wal/sub"):
        (root / place).mkdir(exist_ok=True)
        (root / place / ".bundler-state").write_text("id lab master1\n")
    give(sh, root)
    assert (root / "data/etcd/wal/.bundler-state").stat().st_uid == 0
    assert (root / "data/etcd/wal/sub/.bundler-state").stat().st_uid == ID


def test_no_file_outside_of_a_directory_is_given(sh: Sh, root: Path) -> None:
    """A user could have made a link to a file of root in its own directory."""
    target = root / "etc/kubernetes/pki/ca.key"
    os.link(target, root / "var/log/kubernetes/second-name")
    (root / "var/log/kubernetes/link").symlink_to(target)
    give(sh, root)
    assert target.stat().st_uid == 0


def test_a_second_run_changes_nothing(sh: Sh, root: Path) -> None:
    give(sh, root)
    before = list_copies(root)
    give(sh, root)
    assert list_copies(root) == before


def test_a_unit_without_rows_is_refused(sh: Sh, root: Path) -> None:
    done = sh(SCRIPT, "unknown", DESTDIR=str(root))
    assert done.returncode == 1
    assert "has no rows for it" in done.stderr
    assert sh(SCRIPT, DESTDIR=str(root)).returncode == 2


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_the_next_run_completes_one_that_was_killed(
    sh: Sh, root: Path, tmp_path: Path, program: str
) -> None:
    give(sh, root)
    (root / KEY).write_text("second")
    shutil.rmtree(root / "etc/kubernetes/policy")
    (root / "var/log/kubernetes/audit-1.log").write_text("of root")
    real = shutil.which(program)
    for call in range(1, 9):
        count = tmp_path / "count"
        count.unlink(missing_ok=True)
        write_program(
            tmp_path / "killers" / program,
            f"n=$(($(cat {count} 2>/dev/null || echo 0) + 1)); echo $n >{count}\n"
            f'[ $n -ne {call} ] || {{ kill -KILL $PPID; exit 1; }}\nexec {real} "$@"\n',
        )
        sh(
            SCRIPT, "server", DESTDIR=str(root),
            PATH=f"{tmp_path}/killers:{os.environ['PATH']}",
        )  # fmt: skip
        copies = root / "run/bundler/server"
        for path in copies.rglob("*"):
            assert not path.is_file() or "new" in path.relative_to(copies).parts or (
                path.stat().st_gid == ID and path.read_text() in {"first", "second", "public", "a"}
            )  # fmt: skip
    give(sh, root)
    assert list_copies(root) == {KEY: "second", PUBLIC: "public"}
    assert owners(root, "var/log/kubernetes") == {ID}
