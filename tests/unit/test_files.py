"""Files are written completely or not at all, and only regular files are replaced."""

import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bundler.bundle.signing import generate_key
from bundler.cache.archive import export_blobs
from bundler.cache.store import Cache
from bundler.errors import OutputError
from bundler.files import remove_leftovers, write_atomically
from bundler.formats.volumes import write_pieces
from bundler.private_files import check_private_directories, remove_unless_private


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(path.parent)  # names of sockets must be short
        try:
            server.bind(path.name)
        finally:
            os.chdir(here)


SPECIAL: dict[str, Callable[[Path], None]] = {
    "a pipe": os.mkfifo,
    "a socket": bind,
    "a directory": os.mkdir,
    "a symbolic link": lambda path: path.symlink_to("elsewhere"),
}
WRITERS: dict[str, Callable[[Path], object]] = {
    "write_atomically": lambda path: write_atomically(path, b"content"),
    "cache export": lambda path: export_blobs(Cache(path.parent / "cache"), path, None),
    "keygen": generate_key,
    "the public key of keygen": lambda path: generate_key(path.with_name("signer")),
    "build": lambda path: write_pieces([b"content"], path),
    "the first volume of a build": lambda path: write_pieces(
        [b"content"], path.with_suffix(""), limit=1
    ),
}
NAMES = {"the public key of keygen": "signer.pub", "the first volume of a build": "target.001"}


def identify(path: Path) -> tuple[int, ...]:
    """What changes when a file is written or replaced; another program may read it at any time."""
    known = path.lstat()
    return known.st_ino, known.st_mode, known.st_size, known.st_mtime_ns, known.st_ctime_ns


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("writer", WRITERS)
def test_a_special_file_is_not_replaced(tmp_path: Path, writer: str, kind: str) -> None:
    target = tmp_path / NAMES.get(writer, "target")
    SPECIAL[kind](target)
    before = identify(target)
    with pytest.raises(OutputError) as caught:
        WRITERS[writer](target)
    assert kind in caught.value.message or "does not overwrite" in caught.value.message
    assert str(target) in caught.value.message
    assert identify(target) == before
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_regular_file_is_replaced_and_gets_the_given_mode(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", b"old")
    write_atomically(tmp_path / "file", b"new", mode=0o644)
    assert (tmp_path / "file").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


@pytest.mark.parametrize(
    "look",
    [
        remove_leftovers,
        remove_unless_private,
        lambda top: check_private_directories(top, option="--state"),
    ],
    ids=["remove_leftovers", "remove_unless_private", "check_private_directories"],
)
def test_a_directory_that_another_run_finishes_meanwhile_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look: Callable[[Path], None]
) -> None:
    """As two builds do that start at once: one lists .tmp-…, the other renames it."""
    walk = os.walk
    (tmp_path / ".tmp-other").mkdir()

    def walk_late(top: Path) -> Iterator[tuple[str, list[str], list[str]]]:
        for here, folders, files in walk(top):
            if ".tmp-other" in folders:
                (tmp_path / ".tmp-other").rename(tmp_path / "finished")
            yield here, folders, files

    monkeypatch.setattr(os, "walk", walk_late)
    look(tmp_path)
    assert (tmp_path / "finished").is_dir()
