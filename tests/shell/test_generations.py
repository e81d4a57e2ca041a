"""The host keeps each installed bundle, and goes back by itself if a new one is not healthy."""

import re
import shutil
import signal
import time
from pathlib import Path

import pytest
from support.generation_site import (
    CONFIG,
    KEY,
    UNIT,
    WENT_BACK,
    Site,
    make_site,
    plant_failure,
    plant_killer,
)
from support.shells import SHELLS, Sh, write_program
from support.trees import Trees, rewrite_manifest


@pytest.fixture
def site(sh: Sh, trees: Trees, tmp_path: Path) -> Site:
    return make_site(sh, trees, tmp_path)


@pytest.mark.slow
def test_a_healthy_generation_replaces_the_previous_one(site: Site) -> None:
    for number in (1, 2):
        done = site.install(number)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (site.states(), site.current()) == ({"1": "healthy", "2": "healthy"}, "2")
    assert (site.root / CONFIG).read_text() == "number: 2\n"
    assert not (site.store / "switch").exists()
    assert site.install(2).stdout == "worker1: nothing to do\n"


@pytest.mark.slow
def test_the_host_goes_back_from_an_unhealthy_generation(site: Site) -> None:
    site.install(1)
    before = site.installed()
    plant_failure(site.bundles[1])
    done = site.install(2)
    assert done.returncode == WENT_BACK, done.stdout + done.stderr
    assert "generation 2 is not healthy: going back to generation 1" in done.stdout
    assert "Back at generation 1; generation 2 was not healthy" in done.stdout
    assert site.installed() == before
    assert (site.states(), site.current()) == ({"1": "healthy", "2": "failed"}, "1")
    assert not (site.store / "lock").exists()
    assert site.install(1).stdout == "worker1: nothing to do\n"


@pytest.mark.slow
def test_the_generation_that_failed_keeps_its_record_and_its_journal(site: Site) -> None:
    """Before, it was pruned on the way back, and the lines shown were of the former generation."""
    site.host.program(
        "journalctl", 'echo "flag provided but not defined: $*; token: aaaaaa.bbbbbbbbbbbbbbbb"'
    )
    started = int(time.time())
    for number in (1, 2):
        site.install(number)
    plant_failure(site.bundles[2])
    done = site.install(3)
    assert done.returncode == WENT_BACK, done.stdout + done.stderr
    record = site.store / "failures/3"
    assert f"generation 3 was not healthy: see above, and {record}" in done.stdout
    assert (site.states(), site.current()) == (
        {"1": "healthy", "2": "healthy", "3": "failed"}, "2",
    )  # fmt: skip
    text = record.read_text()
    assert text.startswith("generation 3 was not healthy at ")
    since = re.search(r"kubelet.service\nflag provided.*-u kubelet.service --since @(\d+)", text)
    assert since
    assert started <= int(since[1]) <= time.time()
    assert "bbbbbbbbbbbbbbbb" not in text
    assert record.parent.stat().st_mode & 0o077 == 0
    listed = site.install(2, "--list").stdout
    assert f"generation 3 failed: its reasons and its journal are in {record}" in listed
    site.install(4)
    site.run(site.root / "opt/k8s/bundle/install.sh", "--prune", "2")
    assert "3" not in site.states()
    assert not record.exists()


@pytest.mark.slow
def test_no_rollback_keeps_an_unhealthy_generation(site: Site) -> None:
    site.install(1)
    plant_failure(site.bundles[1])
    done = site.install(2, "--no-rollback")
    assert done.returncode == 4
    assert (site.states()["2"], site.current()) == ("failed", "2")
    assert (site.root / CONFIG).read_text() == "number: 2\n"


@pytest.mark.slow
def test_the_first_generation_has_no_previous_one(site: Site) -> None:
    plant_failure(site.bundles[0])
    assert site.install(1).returncode == 4
    assert (site.states(), site.current()) == ({"1": "failed"}, "1")


@pytest.mark.slow
def test_a_first_installation_may_wait_for_other_hosts(site: Site) -> None:
    site.host.mark("outcome", "pending")
    site.host.mark("unready", "kubelet.service")
    done = site.install(1)
    assert (done.returncode, site.states()) == (0, {"1": "unproven"})
    (site.host.directory / "unready").unlink()
    assert site.install(1).stdout == "worker1: nothing to do\n"
    assert site.states() == {"1": "healthy"}


@pytest.mark.slow
def test_waiting_for_other_hosts_is_a_failure_if_all_units_were_ready(site: Site) -> None:
    site.install(1)
    site.host.mark("outcome", "pending")
    done = site.install(2)
    assert "going back to generation 1" in done.stdout
    assert (site.root / CONFIG).read_text() == "number: 1\n"


@pytest.mark.slow
def test_rollback_goes_back_and_forth(site: Site) -> None:
    site.install(1)
    first = site.installed()
    site.install(2)
    own = site.root / "opt/k8s/bundle/install.sh"
    done = site.run(own, "--rollback")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (site.installed(), site.current()) == (first, "1")
    assert site.run(own, "--rollback", "2", "--dry-run").stdout.count(CONFIG) == 1
    assert site.current() == "1"
    assert site.run(own, "--rollback", "2").returncode == 0
    assert site.current() == "2"
    assert site.run(own).stdout == "worker1: nothing to do\n"
    none = site.run(own, "--rollback", "7")
    assert (none.returncode, "there is no generation 7" in none.stderr) == (2, True)
    late = site.run(own, "--no-drain", "--rollback")  # not: gone back, and drained all the same
    assert (late.returncode, "must come first" in late.stderr) == (2, True)
    assert site.current() == "2"


@pytest.mark.slow
def test_a_rollback_to_a_damaged_generation_is_refused(site: Site) -> None:
    site.install(1)
    site.install(2)
    (site.store / "generations/1/rootfs" / CONFIG).write_text("altered\n")
    done = site.run(site.root / "opt/k8s/bundle/install.sh", "--rollback")
    assert (done.returncode, f"rootfs/{CONFIG}: altered" in done.stderr) == (3, True)
    assert (site.root / CONFIG).read_text() == "number: 2\n"


@pytest.mark.slow
@pytest.mark.parametrize("program", ["tar", "cp"])
def test_a_bundle_that_changes_while_it_is_copied_is_not_installed(
    site: Site, program: str
) -> None:
    site.install(1)
    before = site.installed()
    unit = site.bundles[1] / "rootfs" / UNIT
    real = shutil.which(program, path="/usr/bin:/bin")
    write_program(
        site.host.directory / "bin" / program, f'echo "# evil" >>{unit}\nexec {real} "$@"\n'
    )
    done = site.install(2)
    assert (done.returncode, f"{UNIT}" in done.stderr) == (1, True), done.stdout + done.stderr
    assert "these copies differ from MANIFEST" in done.stderr
    assert (site.installed(), site.current()) == (before, "1")


@pytest.mark.slow
def test_a_large_file_that_was_altered_in_place_is_detected(
    site: Site,
) -> None:
    program = "opt/k8s/bin/kubelet"
    for bundle in site.bundles[:2]:
        (bundle / "rootfs" / program).parent.mkdir(parents=True, exist_ok=True)
        (bundle / "rootfs" / program).write_bytes(bytes(1 << 20))
        rewrite_manifest(bundle)
    site.install(1)
    with (site.root / program).open("r+b") as file:
        file.write(b"evil")
    assert "generation 1 is damaged" in site.install(2).stderr  # it shares its blocks
    done = site.install(2, "--no-rollback")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (site.root / program).read_bytes() == bytes(1 << 20)


@pytest.mark.slow
def test_old_generations_are_removed_with_their_secrets(site: Site) -> None:
    for number in (1, 2, 3):
        site.install(number)
    assert site.states() == {"2": "healthy", "3": "healthy"}
    for path in site.root.rglob("*"):
        assert not path.is_file() or b"secret-1" not in path.read_bytes()
    listed = site.install(3, "--list").stdout.splitlines()
    assert [line.split()[:2] for line in listed[1:]] == [["2", "healthy"], ["3*", "healthy"]]
    site.install(3, "--prune", "1")
    assert site.states() == {"2": "healthy", "3": "healthy"}  # one is kept to go back to


@pytest.mark.slow
def test_secrets_are_overwritten_before_they_are_removed(site: Site) -> None:
    site.install(1)
    secret = site.store / "generations/1/rootfs" / KEY
    with secret.open("rb") as file:
        site.install(2)
        site.install(3)
        assert not secret.exists()
        assert b"secret-1" not in file.read()


KILLS = [
    # program, only with this argument, at which call
    ("mv", "generations/2", 1), ("tar", "", 1), ("cp", ".bundler-new", 1), ("cp", ".bundler-new", 3),
    ("mv", "switch", 1), ("ln", ".bundler-old", 1), ("mv", ".bundler-new", 1),
    ("mv", ".bundler-new", 2), ("mv", ".bundler-new", 3), ("systemctl", "daemon-reload", 1),
    ("systemctl", "--no-block", 1), ("mv", "/current", 1), ("rm", "/switch", 1),
]  # fmt: skip


AFTERS = ("boot", "forward", "back")
# Every kill with every way on, and every kill in every shell: a third of all that could be combined.
# `make test` has every third kill, with one of the three ways; test_crash_points.py kills at more.
KILLS_IN_SHELLS = [
    pytest.param(shell, *kill, after, marks=marks, id="-".join(map(str, (shell[0], after, *kill))))
    for number, kill in enumerate(KILLS)
    for turn, after in enumerate(AFTERS)
    for shell in [SHELLS[(number + turn) % len(SHELLS)]]
    for is_short in [number % 3 == 0 and turn == number // len(SHELLS) % len(AFTERS)]
    for marks in [[] if is_short else [pytest.mark.long]]
]


@pytest.mark.parametrize(
    ("sh", "program", "matching", "call", "after"), KILLS_IN_SHELLS, indirect=["sh"]
)
@pytest.mark.slow
def test_a_kill_during_a_change_leaves_the_old_or_the_new_generation(
    site: Site, program: str, matching: str, call: int, after: str
) -> None:
    site.install(1)
    first = site.installed()
    plant_killer(site.host, program, matching, call)
    path = f"{site.host.directory}/killers:{site.host.directory}/bin:/usr/bin:/bin:/usr/sbin:/sbin"
    killed = site.install(2, PATH=path)
    assert killed.returncode in {-signal.SIGKILL, 128 + signal.SIGKILL}, killed.stdout

    if after == "boot":
        done = site.boot()
        assert done is None or done.returncode == 0, done
        if site.current() == "1":
            assert site.installed() == first
        assert not (site.store / "switch").exists()
        assert not list(site.root.rglob("*.bundler-new"))
    goal = 1 if after == "back" else 2
    done = site.install(goal)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (site.current(), site.states()[str(goal)]) == (str(goal), "healthy")
    assert (site.root / CONFIG).read_text() == f"number: {goal}\n"
    assert not (site.store / "modified").exists()
    assert not list(site.root.rglob("*.bundler-new"))
    again = site.install(goal)
    assert again.stdout == "worker1: nothing to do\n"
    if after == "back":
        assert site.installed() == first


@pytest.mark.slow
def test_a_failure_during_a_change_goes_back_too(site: Site) -> None:
    site.install(1)
    before = site.installed()
    failing = (site.host.directory / "bin/systemctl").read_text()
    once = f"{site.host.directory}/failed-once"
    write_program(
        site.host.directory / "bin/systemctl",
        f'case "$*" in --no-block*) [ -e {once} ] || {{ : >{once}; exit 1; }} ;; esac\n{failing}',
    )
    done = site.install(2)
    assert done.returncode == WENT_BACK, done.stdout + done.stderr
    assert site.installed() == before


@pytest.mark.slow
def test_uninstall_removes_all_generations(site: Site) -> None:
    site.install(1)
    site.install(2)
    done = site.host.uninstall()
    assert done.returncode == 0, done.stderr
    assert not site.store.exists()
