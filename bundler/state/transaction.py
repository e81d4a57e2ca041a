"""Change several files of a directory in one transaction: all or nothing, even if a run is killed.

The new files are first written to a directory that appears with one rename, which commits the
change. Then every file is moved into place. If a run is killed in between, the next one finishes.
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
from bundler.private_files import make_private_directory

CHANGE = ".change"
INDEX = "index.json"


def write_transaction(
    directory: Path, files: Mapping[str, bytes], removed: Collection[str] = ()
) -> None:
    """Write files (0600, by path below `directory`) and remove others, in one transaction."""
    finish_transaction(directory)
    index = {"files": list(files), "removed": list(removed)}
    contents = {str(number): content for number, content in enumerate(files.values())}
    write_directory_atomically(
        directory / CHANGE, {**contents, INDEX: json.dumps(index, indent=2).encode()}
    )
    finish_transaction(directory)


def finish_transaction(directory: Path) -> None:
    """Finish a committed transaction, if there is one."""
    change = directory / CHANGE
    if not change.is_dir():
        return
    try:
        index = json.loads((change / INDEX).read_bytes())
        moves = {directory / name: change / str(n) for n, name in enumerate(index["files"])}
        removed = [directory / name for name in index["removed"]]
    except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
        raise PkiError(
            f"{change}: its index is damaged",
            hint="restore the state directory from its backup",
        ) from error
    with explain_disk_faults(change):
        for target, source in moves.items():
            _make_parents(directory, target)
            write_atomically(target, source.read_bytes())
        for path in removed:
            path.unlink(missing_ok=True)
        # one rename removes it, so that no run finds a part of it
        done = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=directory))
        change.rename(done)
        sync_directory(directory)
    shutil.rmtree(done, ignore_errors=True)


def _make_parents(directory: Path, target: Path) -> None:
    for parent in reversed(target.relative_to(directory).parents[:-1]):
        make_private_directory(directory / parent)
