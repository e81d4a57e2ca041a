"""Builds that are killed, stopped, out of disk space or concurrent leave a usable PKI."""

import contextlib
import multiprocessing
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.paths import TESTS
from support.pki_plans import ensure_state, make_plan, read_files

from bundler.errors import OutputError

KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from bundler.pki.cluster_pki import ensure_pki
from bundler.state.directory import open_state
from support.pki_plans import NOW, make_plan
print("ready", flush=True)
with open_state(Path({state!r}), create=True) as state:
    ensure_pki(state, make_plan(), NOW)
"""


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    state = tmp_path / "state"
    ensure_state(state)
    before = read_files(state)

    def fail(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bundler.state.directory.os.fsync", fail)
    with pytest.raises(OutputError, match="No space left on device") as caught:
        ensure_state(state, make_plan(masters=3))
    assert caught.value.hint.startswith("free some space")
    monkeypatch.undo()
    assert read_files(state) == before


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.0, 0.004, 0.01, 0.02, 0.04])
def test_the_next_build_completes_one_that_was_killed_at_any_moment(tmp_path, delay):
    path = tmp_path / "state"
    code = KILLED.format(here=str(TESTS), state=str(path))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
    survived = read_files(path) if path.exists() else {}
    ensure_state(path)
    after = read_files(path)
    assert not [name for name in after if ".tmp-" in name]
    assert {
        name for name, data in survived.items() if ".tmp-" not in name and after[name] != data
    } == set()
    assert ensure_state(path).notes == ()


@pytest.mark.parametrize("number", range(0, 100, 7))
def test_the_next_build_completes_one_that_stopped_at_any_rename(tmp_path, monkeypatch, number):
    path = tmp_path / "state"
    renames = []

    def stop_at(name):
        original = getattr(Path, name)

        def stop(self, target):
            renames.append(target)
            if len(renames) > number:
                raise KeyboardInterrupt
            return original(self, target)

        monkeypatch.setattr(Path, name, stop)

    plan = make_plan(masters=4)
    stop_at("rename")
    stop_at("replace")
    with contextlib.suppress(KeyboardInterrupt):
        ensure_state(path, plan)
    assert len(renames) > number
    monkeypatch.undo()
    survived = read_files(path)
    ensure_state(path, plan)
    after = read_files(path)
    assert survived.items() <= after.items()
    assert ensure_state(path, plan).notes == ()


def run_ensure_state(path, results):
    results.put(dict(ensure_state(Path(path)).cluster))


@pytest.mark.slow
def test_concurrent_builds_return_the_same_pki(tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    path = str(tmp_path / "state")
    processes = [context.Process(target=run_ensure_state, args=(path, results)) for _ in range(4)]
    for process in processes:
        process.start()
    made = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert all(each == made[0] for each in made)
