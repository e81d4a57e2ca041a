"""Ctrl-C ends a command soon, with one line and exit code 130."""

import fcntl
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.descriptions import write_description, write_upstream
from support.misbehaving_server import make_artifact

from bundler.cache.store import Cache
from bundler.errors import ArtifactError
from bundler.sources.fetch import FetchOptions, ensure_artifact, ensure_artifacts
from bundler.sources.retries import StoppedError

BUNDLER = Path(sys.executable).parent / "bundler"
SOON = 5  # seconds: much less than any timeout of a connection
LISTENING = ("env", "--default-signal=INT")  # a shell makes background processes ignore SIGINT


@contextmanager
def started(*command: object, **words: object) -> Iterator[subprocess.Popen[str]]:
    process: subprocess.Popen[str] = subprocess.Popen(
        [*LISTENING, *map(str, command)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **words,
    )  # fmt: skip
    killer = threading.Timer(30, process.kill)  # in case it hangs
    killer.start()
    try:
        yield process
    finally:
        killer.cancel()
        process.kill()
        process.communicate()


def interrupt(process: subprocess.Popen[str]) -> str:
    """Interrupt it; its stderr."""
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=SOON)
    assert process.returncode == 130
    assert "Traceback" not in said
    return said


@contextmanager
def held(cache: Cache, name: str) -> Iterator[int]:
    """Hold the lock of another run."""
    with (cache.directory("locks") / name).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


@pytest.fixture
def options(tmp_path: Path) -> FetchOptions:
    return FetchOptions(cache=Cache(tmp_path / "cache"), backoff=0.01)


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A server that accepts connections and sends nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        yield server


@pytest.mark.slow
def test_an_interrupt_ends_a_fetch_that_waits_for_silent_servers_and_a_lock(
    silent: socket.socket, tmp_path: Path
) -> None:
    description = write_description(tmp_path)
    pins = write_upstream(tmp_path, description)
    data = json.loads(pins.read_text())
    started_one, silent_one, locked_one, *_ = data["artifacts"].values()
    started_one["url"] = silent_one["url"] = f"http://127.0.0.1:{silent.getsockname()[1]}/x"
    silent_one["sha256"] = hashlib.sha256(b"another").hexdigest()
    pins.write_text(json.dumps(data))
    cache = Cache(tmp_path / "cache")
    command = ("fetch", "-c", description, "--pins", pins, "--cache", cache.root, "--mirror")
    with (
        held(cache, f"sha256-{locked_one['sha256']}"),
        started(BUNDLER, *command, tmp_path / "mirror", env=without_proxies()) as process,
    ):
        connections = [silent.accept()[0] for _ in range(2)]
        connections[0].recv(1000)
        connections[0].sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf of it")
        assert process.stderr is not None
        assert any("waiting for another run" in line for line in process.stderr)
        said = interrupt(process)
        for connection in connections:
            connection.close()
    assert "the next run resumes" in said


def without_proxies() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}


def test_waiting_for_another_run_is_reported_once(
    options: FetchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = make_artifact("http://127.0.0.1:1/x", b"wanted")
    cache = options.cache
    said: list[str] = []
    with held(cache, f"sha256-{artifact.digest}") as descriptor:
        cache.directory("blobs", "sha256").joinpath(artifact.digest).write_bytes(b"wanted")

        def hear(text: str) -> None:
            said.append(text)
            threading.Timer(0.3, lambda: fcntl.flock(descriptor, fcntl.LOCK_UN)).start()

        monkeypatch.setattr("bundler.cache.store.log.info", hear)
        assert ensure_artifact(artifact, options).read_bytes() == b"wanted"
    assert said == [f"  {artifact.label}: waiting for another run of bundler"]


def test_waiting_for_another_thread_is_not_reported(
    options: FetchOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = threading.Event()

    def hold() -> None:
        with options.cache.lock("name"):
            taken.set()
            time.sleep(0.3)

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()
    with options.cache.lock("name"):
        pass
    thread.join()
    assert capsys.readouterr().err == ""


def test_a_stopped_download_does_not_wait_for_a_lock(options: FetchOptions) -> None:
    artifact = make_artifact("http://127.0.0.1:1/x")
    threading.Timer(0.2, options.stop.set).start()
    with held(options.cache, f"sha256-{artifact.digest}"), pytest.raises(StoppedError):
        ensure_artifact(artifact, options)


def test_a_stopped_run_starts_no_further_download(options: FetchOptions) -> None:
    options.stop.set()
    with pytest.raises(ArtifactError, match="stopped"):
        ensure_artifacts([make_artifact("http://127.0.0.1:1/x")], options)
    assert not options.cache.root.exists()


@pytest.mark.parametrize("command", [[BUNDLER], [sys.executable, "-m", "bundler"]])
def test_an_interrupt_during_the_imports_prints_one_line(
    tmp_path: Path, command: list[object]
) -> None:
    (tmp_path / "typer.py").write_text(
        "import time\nprint('loading', flush=True)\n"
        # short sleeps: Python notices a signal that comes just before a sleep only after it
        "try:\n    for _ in range(600):\n        time.sleep(0.1)\nexcept BaseException:\n    pass\n"
    )
    with started(*command, "--version", env={**os.environ, "PYTHONPATH": str(tmp_path)}) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        said = interrupt(process)
    assert said == "error: interrupted; nothing was done yet\n"


def test_an_ignored_sigint_stays_ignored(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text(
        "import os, signal\nos._exit(signal.getsignal(signal.SIGINT) != signal.SIG_IGN)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    subprocess.run(["env", "--ignore-signal=INT", BUNDLER], env=environment, check=True)
