"""The progress of downloads and of compressing: bars on a terminal, lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

from bundler import log

if TYPE_CHECKING:
    from rich.progress import TaskID

MEBIBYTE = 1 << 20
SHOWN = 64 * MEBIBYTE
"""Bytes from which work on one file has its progress shown."""
LINE_INTERVAL = 10.0  # seconds between two lines of one download


class DownloadProgress:
    """Shows downloads while it is entered; implements download.Progress."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        from rich.progress import (  # noqa: PLC0415 - slow to import
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        self._clock = clock
        self._bars = Progress(
            TextColumn("  {task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=log.console(),
            transient=True,
            disable=log.is_quiet() or not log.is_terminal(),
        )
        self._tasks: dict[str, TaskID] = {}
        self._lines: dict[str, _Lines] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def start(self, name: str, total: int | None, done: int) -> None:
        """Show a new download of `total` bytes, `done` of which an earlier run downloaded."""
        if log.is_terminal():
            self._tasks[name] = self._bars.add_task(
                log.make_printable(name), total=total, completed=done
            )
            return
        size = f", {total / MEBIBYTE:.1f} MiB" if total else ""
        resumed = f", resumed at {done / MEBIBYTE:.1f} MiB" if done else ""
        log.info(f"  {name}{size}{resumed}")
        now = self._clock()
        self._lines[name] = _Lines(total=total, started=now, shown=now, first=done, done=done)

    def advance(self, name: str, count: int) -> None:
        """Add `count` bytes."""
        if name in self._tasks:
            self._bars.advance(self._tasks[name], count)
            return
        lines = self._lines[name]
        lines.done += count
        now = self._clock()
        if now - lines.shown >= LINE_INTERVAL:
            lines.shown = now
            log.info(f"  {name}: {lines.describe(now)}")

    def finish(self, name: str) -> None:
        """End the download, complete or not."""
        if name in self._tasks:
            self._bars.remove_task(self._tasks.pop(name))
            return
        lines = self._lines.pop(name)
        log.info(f"  {name}: {lines.sum_up(self._clock())}")


@contextmanager
def show_progress(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how far the work on `total` bytes is; yields what is called with each number of bytes.

    Work that ends soon shows nothing.
    """
    if total < SHOWN:
        yield lambda _: None
        return
    with DownloadProgress() as progress:
        progress.start(name, total, 0)
        try:
            yield lambda count: progress.advance(name, count)
        finally:
            progress.finish(name)


@dataclass(slots=True)
class _Lines:
    """The progress of one download without a terminal."""

    total: int | None  # bytes
    started: float  # seconds
    shown: float
    first: int  # bytes that an earlier run downloaded
    done: int

    def speed(self, now: float) -> float:
        """Compute bytes per second."""
        return (self.done - self.first) / max(now - self.started, 0.001)

    def describe(self, now: float) -> str:
        """Format `12.0 of 48.0 MiB, 1.2 MiB/s, 30 s left`."""
        speed = self.speed(now)
        text = f"{self.done / MEBIBYTE:.1f}"
        if self.total:
            text += f" of {self.total / MEBIBYTE:.1f}"
        text += f" MiB, {speed / MEBIBYTE:.1f} MiB/s"
        if self.total and speed:
            text += f", {(self.total - self.done) / speed:.0f} s left"
        return text

    def sum_up(self, now: float) -> str:
        """Format `48.0 MiB in 40.0 s, 1.2 MiB/s`, or the byte at which it stopped."""
        got = f"{(self.done - self.first) / MEBIBYTE:.1f} MiB in {now - self.started:.1f} s"
        if self.total and self.done < self.total:
            return f"stopped at byte {self.done}, {got}"
        return f"{got}, {self.speed(now) / MEBIBYTE:.1f} MiB/s"
