"""Scripts that run as root refuse a place where another user could change them: a real second user tries."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from support.fake_host import INSTALL, make_host
from support.second_user import NOBODY, as_nobody, needs_second_user, open_shared_directory
from support.shells import TEMPLATES, Sh
from support.trees import Trees, rewrite_manifest

from bundler.bundle.signing import SIGNATURE, generate_key, load_signing_key, sign
from bundler.formats.volumes import write_pieces
from bundler.paths import RESOURCES

SCRIPTS = {
    "install.sh": ("common", "--version"),
    "uninstall.sh": ("common", "--help"),
    "verify.sh": ("common", "--help"),
    "diagnose.sh": ("common", "--help"),
    "backup.sh": ("etcd", "--help"),
    "restore.sh": ("etcd", "--help"),
}
"""Each script that reads parts of the bundle, and an option that only prints something."""
CHECK = re.compile(
    r"^# Only root may be able .*?^check_place \"\$here\"$", re.MULTILINE | re.DOTALL
)


def read_check(script: str) -> str:
    found = CHECK.search((TEMPLATES / SCRIPTS[script][0] / script).read_text())
    assert found, script
    return found[0]


def test_all_scripts_have_the_same_check() -> None:
    """It is in each script, because a part of the bundle may be what another user changed."""
    assert len({read_check(script) for script in SCRIPTS}) == 1


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_check_comes_before_any_other_file_is_read(script: str) -> None:
    text = (TEMPLATES / SCRIPTS[script][0] / script).read_text()
    before = text[: text.index(read_check(script))].split("set -u\n")[1]
    words = {line.split("=")[0].split()[0] for line in before.splitlines() if line}
    assert words <= {"umask", "LC_ALL", "PATH", "export", "prefix", "script", "case", "here"}


@pytest.fixture
def bundle(trees: Trees) -> Path:
    """master1's bundle; a part of it that is read leaves a mark."""
    directory = trees / "master1"
    for part in directory.glob("lib/**/*.sh"):
        part.write_text(f": >{trees.directory.parent}/read\n{part.read_text()}")
    rewrite_manifest(directory)
    return directory


def set_mode(path: Path, mode: int) -> Path:
    path.chmod(mode)
    return path


def own(path: Path) -> Path:
    os.chown(path, NOBODY, NOBODY)
    return path


FAULTS: dict[str, Callable[[Path], Path]] = {
    "a directory that every user can write": lambda bundle: set_mode(bundle.parent, 0o777),
    "a sticky directory, such as /tmp": lambda bundle: set_mode(bundle.parent, 0o1777),
    "a directory that a group can write": lambda bundle: set_mode(bundle.parents[1], 0o770),
    "files that every user can write": lambda bundle: set_mode(bundle / "node.env", 0o666),
    "directories that a group can write": lambda bundle: set_mode(bundle / "lib/core", 0o775),
}
OWNED: dict[str, Callable[[Path], Path]] = {
    "a directory of another user": lambda bundle: own(bundle.parents[1]),
    "its own directory of another user": own,
    "a file of another user": lambda bundle: own(bundle / "lib/core/common.sh"),
}


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(
    "fault", [*FAULTS, *(pytest.param(name, marks=needs_second_user) for name in OWNED)]
)
def test_a_script_refuses(sh: Sh, bundle: Path, tmp_path: Path, script: str, fault: str) -> None:
    option = SCRIPTS[script][1]
    assert sh(bundle / script, option, DESTDIR=str(tmp_path / "root")).returncode == 0
    (tmp_path / "read").unlink()
    shared = (FAULTS | OWNED)[fault](bundle)
    done = sh(bundle / script, option, DESTDIR=str(tmp_path / "root"))
    assert done.returncode == 3, done.stdout + done.stderr
    assert f"{script}: others than root can change {shared}, and so what this" in done.stderr
    assert "fix: unpack the tarball as root, with umask 022, in a directory" in done.stderr
    assert "Nothing was changed." in done.stderr
    assert not (tmp_path / "read").exists()
    assert not (tmp_path / "root").exists()


def test_links_are_followed_to_the_place_that_they_lead_to(
    sh: Sh, bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(bundle)
    assert sh(tmp_path / "link/install.sh", "--version").returncode == 0
    bundle.parent.chmod(0o1777)
    done = sh(tmp_path / "link/install.sh", "--version")
    assert (done.returncode, f"can change {bundle.parent}" in done.stderr) == (3, True)


def test_a_directory_that_cannot_be_read_is_refused(sh: Sh, bundle: Path, tmp_path: Path) -> None:
    write = tmp_path / "bin/find"
    write.parent.mkdir()
    write.write_text("#!/bin/sh\nexit 1\n")
    write.chmod(0o755)
    done = sh(bundle / "install.sh", "--version", PATH=f"{write.parent}:{os.environ['PATH']}")
    assert (done.returncode, f"can change {bundle}" in done.stderr) == (3, True)


@pytest.mark.slow
@needs_second_user
def test_an_ordinary_user_may_stage_files_from_a_bundle_of_ones_own(trees: Trees) -> None:
    with open_shared_directory("/var/lib") as directory:
        home = directory / "home"
        shutil.copytree(trees / "master1", home / "bundle")
        subprocess.run(["chown", "-R", str(NOBODY), home], check=True)

        def stage() -> None:
            done = subprocess.run(
                ["sh", home / "bundle/install.sh"], capture_output=True, text=True, check=False,
                env={"PATH": os.environ["PATH"], "DESTDIR": str(home / "root")},
            )  # fmt: skip
            assert done.returncode == 0, done.stderr

        assert as_nobody(stage) == ""
        assert (home / "root/opt/k8s/bundle/MANIFEST").is_file()


@contextmanager
def attacking(attack: Callable[[], None]) -> Iterator[None]:
    """A process of nobody that repeats the attack."""
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        while True:
            with suppress(OSError):
                attack()
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.slow
@needs_second_user
def test_a_part_that_another_user_swaps_after_the_signature_was_checked_never_runs(
    sh: Sh, trees: Trees, tmp_path: Path
) -> None:
    """The race that install.sh lost at the third try, below /tmp and with a trusted key."""
    generate_key(tmp_path / "release.key")
    with open_shared_directory() as shared:
        bundle = Path(shutil.copytree(trees / "worker1", shared / "lab-worker1"))
        manifest = (bundle / "MANIFEST").read_bytes()
        key = load_signing_key(tmp_path / "release.key")
        (bundle / SIGNATURE).write_bytes(sign(key, manifest))
        core = bundle / "lib/core"  # tar makes it without the mode of the archive: umask 0
        core.chmod(0o777)
        good = (core / "common.sh").read_bytes()
        own(set_mode(shared, 0o1777))

        def swap() -> None:
            for content in (b": >/tmp/" + shared.name.encode() + b"/owned\n" + good, good):
                (core / ".new").write_bytes(content)
                (core / ".new").replace(core / "common.sh")
                time.sleep(0.004)

        with attacking(swap):
            codes = [
                sh(bundle / "install.sh", "--trust", str(tmp_path / "release.pub"), "--version",
                   DESTDIR=str(tmp_path / "root")).returncode
                for _ in range(30)
            ]  # fmt: skip
        assert not (shared / "owned").exists(), codes
        assert set(codes) == {3}


@pytest.mark.slow
def test_a_key_that_others_can_change_is_not_trusted(sh: Sh, trees: Trees, tmp_path: Path) -> None:
    generate_key(tmp_path / "release.key")
    bundle = trees / "worker1"
    manifest = (bundle / "MANIFEST").read_bytes()
    (bundle / SIGNATURE).write_bytes(sign(load_signing_key(tmp_path / "release.key"), manifest))
    (tmp_path / "usb").mkdir()
    key = shutil.copy(tmp_path / "release.pub", tmp_path / "usb")
    arguments = ("--trust", str(key), "--version")
    assert sh(bundle / "install.sh", *arguments).returncode == 0
    (tmp_path / "usb").chmod(0o777)
    done = sh(bundle / "install.sh", *arguments)
    assert (done.returncode, "usb, and so the key" in done.stderr) == (3, True)


@pytest.mark.slow
def test_a_host_whose_directories_others_can_change_is_refused(
    sh: Sh, trees: Trees, tmp_path: Path
) -> None:
    (tmp_path / "host").mkdir()
    host = make_host(sh, trees / "worker1", tmp_path / "host")
    checked = INSTALL.replace("systemd targets host", "systemd host")
    assert host._run("install.sh", checked, "--dry-run").returncode == 0
    for name in ("opt", "var/lib"):
        (host.root / name).mkdir(parents=True)
        (host.root / name).chmod(0o775)
        done = host._run("install.sh", checked, "--dry-run")
        assert f"  targets: others than root can change {host.root / name}" in done.stderr
        assert f"fix: chown 0 {host.root / name}; chmod go-w" in done.stderr
        (host.root / name).chmod(0o755)


def test_join_writes_only_where_nobody_else_can(sh: Sh, tmp_path: Path) -> None:
    directory = tmp_path / "usb"
    directory.mkdir()
    shutil.copy(RESOURCES / "join.sh", directory)
    write_pieces([bytes(10_000)], directory / "lab-one.tar.gz", limit=3_000)
    for mode in (0o777, 0o1777, 0o775):
        directory.chmod(mode)
        done = sh(directory / "join.sh")
        assert (done.returncode, f"others can change {directory}" in done.stderr) == (1, True)
        assert not list(directory.glob("*.gz")) + list(directory.glob("*.part"))
        assert sh(directory / "join.sh", "--check").returncode == 0
    directory.chmod(0o755)
    assert sh(directory / "join.sh").returncode == 0
