"""Of several runs that start at the same moment only one continues, and the others say which."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.pauses import Paused, write_pausing_programs
from support.shells import SHELLS, TEMPLATES, Sh

ALL = os.environ.get("BUNDLER_CRASH_POINTS") == "all"
STARTERS = 6
ROUNDS = 30 if ALL else 3
PROGRAMS = ("ln", "mv", "rm")
MOST = 7  # programs that a starter starts, and one more
MANY = 1000
SCRIPT = """
set -u
. {lib}/core/common.sh
store={store} lock_taken=no
take_lock
echo holds
{then}
"""
HOLD = "kill -STOP 0"
TELL = "echo $$ >>{store}/told; until [ -e {store}/end ]; do sleep 0.05; done"


def write_script(path: Path, store: Path, then: str) -> Path:
    path.write_text(
        SCRIPT.format(lib=TEMPLATES / "common/lib", store=store, then=then.format(store=store))
    )
    return path


def leave_lock(store: Path) -> None:
    (store / "lock").write_text("999999 1\n")
    (store / "lock.999998").write_text("999998 1\n")  # of an earlier version, killed meanwhile
    (store / "lock.clearing").write_text("999997 1\n")


def leave_directory(store: Path) -> None:
    (store / "lock").mkdir()
    (store / "lock/owner").write_text("999999 1\n")


def leave_dead_heirs(store: Path) -> None:
    (store / "lock").write_text("999999 1\n")
    (store / "lock.after.999999.1.1").write_text("999998 1\n")
    (store / "lock.after.999999.1.2").write_text("999997 1\n")
    (store / "lock.999997.1").write_text("999997 1\n")


def leave_zeros(store: Path) -> None:
    (store / "lock").write_text("\0" * 10)
    (store / "lock.after.0.0.1").write_text("")


LEFT: dict[str, Callable[[Path], object]] = {
    "nothing": lambda store: None,
    "a lock": leave_lock,
    "a lock of an earlier version": leave_directory,
    "an empty lock": lambda store: (store / "lock").write_text(""),
    "zeros": leave_zeros,
    "dead heirs": leave_dead_heirs,
}


@pytest.mark.parametrize("left", LEFT)
def test_only_one_of_several_runs_gets_the_lock(sh: Sh, tmp_path: Path, left: str) -> None:
    for number in range(ROUNDS):
        store = tmp_path / f"store{number}"
        store.mkdir()
        LEFT[left](store)
        script = write_script(tmp_path / "starter.sh", store, TELL)
        with ThreadPoolExecutor(STARTERS) as pool:
            running = [pool.submit(sh, script) for _ in range(STARTERS)]
            while sum(one.done() for one in running) < STARTERS - 1:
                time.sleep(0.01)
            (store / "end").touch()
        done = [one.result() for one in running]
        (holder,) = (store / "told").read_text().split()
        assert sorted(one.stdout for one in done) == [""] * (STARTERS - 1) + ["holds\n"]
        for one in done:
            refusal = f"another install.sh or uninstall.sh is running (process {holder})"
            assert one.stdout or (refusal in one.stderr and one.returncode == 3), one.stderr
        assert {path.name for path in store.iterdir()} == {"lock", "told", "end"}


class Starters:
    """Scripts that take the lock of one store, each of which stops at every program that it starts for that."""

    def __init__(self, shell: list[str], directory: Path) -> None:
        self.shell, self.directory, self.store = shell, directory, directory / "store"
        self.store.mkdir()
        self.script = write_script(directory / "starter.sh", self.store, HOLD)
        self.environment = {**os.environ, "PATH": f"{directory}/bin:/usr/bin:/bin"}
        write_pausing_programs(directory / "bin", *PROGRAMS)
        self.made: list[Paused] = []

    def start(self) -> Paused:
        output = self.directory / f"output{len(self.made)}"
        starter = Paused([*self.shell, str(self.script)], output, self.environment)
        self.made.append(starter)
        return starter

    def go_on(self, starter: Paused, pauses: int) -> None:
        """Run to the next pause, so many times, or until it ends or has the lock."""
        while pauses and not starter.ended and "holds" not in starter.said:
            starter.go_on()
            pauses -= 1

    def check(self) -> None:
        """One has the lock, and each other one names a process that lives."""
        alive = [one for one in self.made if one.process.returncode != -signal.SIGKILL]
        (holder,) = (one for one in alive if "holds" in one.said)
        lock = self.store / "lock"
        lock = lock / "owner" if lock.is_dir() else lock
        assert lock.read_text().split()[0] == str(holder.pid)
        for one in alive:
            named = [other.pid for other in alive if f"(process {other.pid})" in one.said]
            assert one is holder or named, one.said


@contextmanager
def make_starters(shell: list[str], directory: Path) -> Iterator[Starters]:
    directory.mkdir()
    starters = Starters(shell, directory)
    try:
        yield starters
    finally:
        for starter in starters.made:
            starter.kill()


def orders() -> Iterator[tuple[str, int, int, int]]:
    """What is left, at which program a first starter is killed, and where two more are stopped."""
    every = [
        (left, killed, first, second)
        for left in LEFT
        for killed in range(MOST)
        for first in range(MOST)
        for second in range(MOST)
    ]
    return iter(every if ALL else every[::37])


@pytest.mark.slow
@pytest.mark.parametrize("shell", SHELLS, ids=[shell[0] for shell in SHELLS])
def test_in_every_order_of_two_starters_only_one_gets_the_lock(
    shell: list[str], tmp_path: Path
) -> None:
    """Each stops before a program and goes on after the other one, also after one that was killed before a program."""
    for number, (left, killed, first, second) in enumerate(orders()):
        with make_starters(shell, tmp_path / str(number)) as starters:
            LEFT[left](starters.store)
            if killed:
                dead = starters.start()
                starters.go_on(dead, killed - 1)
                dead.kill()
            one = starters.start()
            starters.go_on(one, first)
            two = starters.start()
            starters.go_on(two, second)
            starters.go_on(one, MANY)
            starters.go_on(two, MANY)
            starters.check()


def test_a_zombie_process_holds_no_lock(sh: Sh, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    with subprocess.Popen(["sleep", "60"]) as holder:
        stat = Path(f"/proc/{holder.pid}/stat")
        begun = stat.read_text().rsplit(") ", 1)[1].split()[19]
        (tmp_path / "store/lock").write_text(f"{holder.pid} {begun}\n")
        script = write_script(tmp_path / "starter.sh", tmp_path / "store", "")
        assert f"(process {holder.pid})" in sh(script).stderr
        holder.kill()
        while ") Z " not in stat.read_text():
            time.sleep(0.01)
        assert sh(script).stdout == "holds\n"


def test_a_file_system_without_hard_links_is_named(sh: Sh, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    script = write_script(tmp_path / "starter.sh", tmp_path / "store", "")
    script.write_text(script.read_text().replace("\ntake_lock", "\nln() { return 1; }\ntake_lock"))
    done = sh(script)
    assert done.returncode == 1
    assert f"to {tmp_path}/store/lock" in done.stderr
