"""Keep what a change of the state directory replaces: archive/<time>/<path> (in UTC)."""

from datetime import datetime
from pathlib import Path

from bundler.state.directory import State

ARCHIVE = "archive"


def get_archive_path(directory: Path, now: datetime) -> Path:
    """The directory in which a change at that time keeps what it replaces."""
    return directory / ARCHIVE / f"{now:%Y%m%dT%H%M%SZ}"


def keep_replaced(path: Path, state: State, now: datetime) -> None:
    """Copy a file of the state, or a directory with its files, to the archive, atomically."""
    target = get_archive_path(state.directory, now) / path.relative_to(state.directory)
    files = [path] if path.is_file() else sorted(file for file in path.glob("*") if file.is_file())
    if not files or target.exists():
        return
    parent = state.directory
    for part in target.parent.relative_to(state.directory).parts:
        parent /= part
        state.make_directory(parent)
    if path.is_file():
        state.write_file(target, state.read_file(path))
    else:
        state.write_directory(target, {file.name: state.read_file(file) for file in files})
