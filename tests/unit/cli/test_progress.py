"""The progress of downloads: lines with speed and time left, or bars on a terminal."""

import io
import time

import pytest
from rich.console import Console

from bundler import log
from bundler.progress import LINE_INTERVAL, DownloadProgress

MIB = 1 << 20


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    out = io.StringIO()
    monkeypatch.setattr(log, "_console", Console(file=out, highlight=False, soft_wrap=True))
    monkeypatch.setattr(log, "_quiet", False)
    return out


def test_without_a_terminal_lines_show_bytes_speed_and_time_left(console: io.StringIO) -> None:
    now = [100.0]
    with DownloadProgress(lambda: now[0]) as progress:
        progress.start("etcd", 50 * MIB, 10 * MIB)
        for _ in range(4):
            now[0] += LINE_INTERVAL / 2
            progress.advance("etcd", 10 * MIB)
        progress.finish("etcd")
    assert console.getvalue().splitlines() == [
        "  etcd, 50.0 MiB, resumed at 10.0 MiB",
        "  etcd: 30.0 of 50.0 MiB, 2.0 MiB/s, 10 s left",
        "  etcd: 50.0 of 50.0 MiB, 2.0 MiB/s, 0 s left",
        "  etcd: 40.0 MiB in 20.0 s, 2.0 MiB/s",
    ]


def test_a_download_that_ends_early_shows_at_which_byte(console: io.StringIO) -> None:
    now = [0.0]
    progress = DownloadProgress(lambda: now[0])
    progress.start("etcd", 2 * MIB, 0)
    now[0] = 1.0
    progress.advance("etcd", MIB)
    progress.finish("etcd")
    assert (
        console.getvalue().splitlines()[-1] == "  etcd: stopped at byte 1048576, 1.0 MiB in 1.0 s"
    )


def test_many_small_steps_print_few_lines(console: io.StringIO) -> None:
    now = [0.0]
    progress = DownloadProgress(lambda: now[0])
    progress.start("etcd", None, 0)
    for _ in range(10_000):
        now[0] += 0.01
        progress.advance("etcd", 1000)
    progress.finish("etcd")
    assert len(console.getvalue().splitlines()) <= 2 + 100 / LINE_INTERVAL


def test_on_a_terminal_bars_show_speed_and_time_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = io.StringIO()
    monkeypatch.setattr(log, "_console", Console(file=out, force_terminal=True, width=100))
    monkeypatch.setattr(log, "_quiet", False)
    with DownloadProgress() as progress:
        progress.start("etcd", 50 * MIB, 0)
        for _ in range(4):
            progress.advance("etcd", 5 * MIB)
            time.sleep(0.02)  # the speed is measured over time
        progress._bars.refresh()
        shown = out.getvalue()
        progress.finish("etcd")
    assert "etcd" in shown
    assert "21.0/52.4 MB" in shown
    assert "MB/s" in shown
    assert "0:00:0" in shown


def test_quiet_shows_nothing(console: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_quiet", True)
    with DownloadProgress() as progress:
        progress.start("etcd", MIB, 0)
        progress.advance("etcd", MIB)
        progress.finish("etcd")
    assert console.getvalue() == ""
