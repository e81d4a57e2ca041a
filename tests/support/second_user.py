"""A second user of the machine, who attacks: nobody, in a process of its own."""

import os
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NOBODY = 65534
needs_second_user = pytest.mark.skipif(
    os.geteuid() != 0,
    reason="another user cannot attack: only root can run a process as another user",
)


def as_nobody(attack: Callable[[], object]) -> str:
    """Run the attack as nobody; return its traceback, or nothing if it succeeded."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        fault = ""
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.umask(0o022)
            attack()
        except BaseException:
            fault = traceback.format_exc()
        os.write(writer, fault.encode()[-60_000:])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        fault = file.read().decode()
    os.waitpid(child, 0)
    return fault


@contextmanager
def open_shared_directory(place: str = "/tmp") -> Iterator[Path]:
    """A directory of root's that nobody can enter and read, below the sticky /tmp or elsewhere."""
    directory = Path(tempfile.mkdtemp(prefix="bundler-shared-", dir=place))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)
