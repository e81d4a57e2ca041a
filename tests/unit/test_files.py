"""Files are written completely or not at all, and only regular files are replaced."""

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from bundler.bundle.signing import generate_key
from bundler.cache.archive import export_blobs
from bundler.cache.store import Cache
from bundler.errors import OutputError
from bundler.files import write_atomically
from bundler.formats.volumes import write_pieces


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


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("writer", WRITERS)
def test_a_special_file_is_not_replaced(tmp_path: Path, writer: str, kind: str) -> None:
    target = tmp_path / NAMES.get(writer, "target")
    SPECIAL[kind](target)
    before = target.lstat()
    with pytest.raises(OutputError) as caught:
        WRITERS[writer](target)
    assert kind in caught.value.message or "does not overwrite" in caught.value.message
    assert str(target) in caught.value.message
    assert target.lstat() == before
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_regular_file_is_replaced_and_gets_the_given_mode(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", b"old")
    write_atomically(tmp_path / "file", b"new", mode=0o644)
    assert (tmp_path / "file").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644
