"""Several files of a directory that change as one: all of them, or none, whenever a run is killed.

What is to change is laid down in a directory that appears by one rename (from then on the change
holds); then every file is put in its place. A run that is killed amid that is finished by the next.
"""

import json
import shutil
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path

from bundler.errors import PkiError
from bundler.files import (
    TEMPORARY,
    explain_disk_faults,
    sync_directory,
    write_atomically,
    write_directory_atomically,
)

CHANGE = ".change"
INDEX = "index.json"


def write_together(
    directory: Path, files: Mapping[str, bytes], removed: Collection[str] = ()
) -> None:
    """Write files (0600, by their paths below `directory`) and remove others, as one change."""
    finish_change(directory)
    index = {"files": list(files), "removed": list(removed)}
    contents = {str(number): content for number, content in enumerate(files.values())}
    write_directory_atomically(
        directory / CHANGE, {**contents, INDEX: json.dumps(index, indent=2).encode()}
    )
    finish_change(directory)


def finish_change(directory: Path) -> None:
    """Carry out what `write_together` laid down; nothing where there is nothing."""
    change = directory / CHANGE
    if not change.is_dir():
        return
    try:
        index = json.loads((change / INDEX).read_bytes())
        moves = {directory / name: change / str(n) for n, name in enumerate(index["files"])}
        removed = [directory / name for name in index["removed"]]
    except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
        raise PkiError(
            f"{change}: not what bundler wrote there",
            hint="restore the state directory from its backup",
        ) from error
    with explain_disk_faults(change):
        for target, source in moves.items():
            _make_parents(directory, target)
            write_atomically(target, source.read_bytes())
        for path in removed:
            path.unlink(missing_ok=True)
        # out of the way by one rename, so that nobody ever finds half of it
        done = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=directory))
        change.rename(done)
        sync_directory(directory)
    shutil.rmtree(done, ignore_errors=True)


def _make_parents(directory: Path, target: Path) -> None:
    for parent in reversed(target.relative_to(directory).parents[:-1]):
        (directory / parent).mkdir(mode=0o700, exist_ok=True)
