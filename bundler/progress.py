"""Running downloads on the terminal: bars where there is one, lines where there is none."""

from types import TracebackType
from typing import Self

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from bundler import log

MEBIBYTE = 1 << 20


class DownloadProgress:
    """Shows downloads while it is entered; satisfies fetch.Progress."""

    def __init__(self) -> None:
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
        """A download of `total` bytes, `done` of them already here."""
        self._tasks[name] = self._bars.add_task(name, total=total, completed=done)
        if not log.is_terminal():
            size = f", {total / MEBIBYTE:.1f} MiB" if total else ""
            resumed = f", resumed at {done / MEBIBYTE:.1f} MiB" if done else ""
            log.info(f"  {name}{size}{resumed}")

    def advance(self, name: str, count: int) -> None:
        """`count` more bytes."""
        self._bars.advance(self._tasks[name], count)

    def finish(self, name: str) -> None:
        """It ended, well or not."""
        self._bars.remove_task(self._tasks.pop(name))
