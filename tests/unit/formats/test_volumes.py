"""Files in volumes: cut at the exact byte, written completely or not at all, read as one file."""

import hashlib
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from bundler.errors import ConfigError, OutputError
from bundler.formats.volumes import open_joined, parse_size, write_pieces

CONTENT = os.urandom(10_000)
PIECES = [CONTENT[:1], CONTENT[1:4000], b"", CONTENT[4000:4001], CONTENT[4001:]]


def list_names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4.4G", 4_400_000_000),
        ("650M", 650_000_000),
        ("1K", 1000),
        ("1.5KiB", 1536),
        ("4095MiB", 4095 * 2**20),
        ("2GiB", 2**31),
        ("12345", 12345),
    ],
)
def test_sizes_are_decimal_or_binary(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "4,4G", "4.4T", "-1", "0", "0.4", "4.4 G", "4g", "1e9"])
def test_an_invalid_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not a size"):
        parse_size(text)


@pytest.mark.parametrize("limit", [None, 10_000, 10_001])
def test_a_file_that_fits_is_not_split(tmp_path: Path, limit: int | None) -> None:
    (written,) = write_pieces(PIECES, tmp_path / "x.tar.gz", limit=limit)
    assert list_names(tmp_path) == ["x.tar.gz", "x.tar.gz.sha256"]
    assert (tmp_path / "x.tar.gz").read_bytes() == CONTENT
    assert (tmp_path / "x.tar.gz.sha256").read_text() == f"{written.sha256}  x.tar.gz\n"
    assert (written.sha256, written.size) == (hashlib.sha256(CONTENT).hexdigest(), 10_000)
    assert (tmp_path / "x.tar.gz").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("limit", [9_999, 5_000, 3_333, 4_000, 1_000, 102])
def test_volumes_are_full_and_give_the_file_when_joined(tmp_path: Path, limit: int) -> None:
    written = write_pieces(PIECES, tmp_path / "x.tar.gz", limit=limit)
    volumes = written[:-1]
    assert [volume.size for volume in volumes[:-1]] == [limit] * (len(volumes) - 1)
    assert 0 < volumes[-1].size <= limit
    done = subprocess.run(
        ["sh", "-c", "cat x.tar.gz.0*"], cwd=tmp_path, capture_output=True, check=True
    )
    assert done.stdout == CONTENT
    for name in ("x.tar.gz", "x.tar.gz.001"):
        with open_joined(tmp_path / name) as file:
            assert file.read() == CONTENT
    lines = (tmp_path / "x.tar.gz.sha256").read_text().splitlines()
    assert lines[-1] == f"{hashlib.sha256(CONTENT).hexdigest()}  x.tar.gz"
    (tmp_path / "volumes").write_text("\n".join(lines[:-1]) + "\n")
    subprocess.run(["sha256sum", "--quiet", "-c", "volumes"], cwd=tmp_path, check=True)


def test_more_than_99_volumes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="more than 99 volumes of 101 bytes"):
        write_pieces(PIECES, tmp_path / "x", limit=101)
    assert list_names(tmp_path) == []


@pytest.mark.parametrize("limit", [None, 3_000, 6_000])
def test_volumes_of_an_earlier_split_are_removed(tmp_path: Path, limit: int | None) -> None:
    for former in (1_000, None, 2_000):
        write_pieces(PIECES, tmp_path / "x", limit=former)
        write_pieces(PIECES, tmp_path / "x", limit=limit)
        fresh = tmp_path / "fresh"
        fresh.mkdir(exist_ok=True)
        write_pieces(PIECES, fresh / "x", limit=limit)
        assert list_names(tmp_path) == sorted(["fresh", *list_names(fresh)])


def test_a_missing_volume_is_named(tmp_path: Path) -> None:
    write_pieces(PIECES, tmp_path / "x", limit=3_000)
    (tmp_path / "x.002").unlink()
    with pytest.raises(OutputError, match=r"x\.002: missing"):
        open_joined(tmp_path / "x")


KILLED = """
import os, sys
from pathlib import Path
from bundler.formats.volumes import write_pieces
moment, target = int(sys.argv[1]), Path(sys.argv[2])
count = 0
def step():
    global count
    count += 1
    if count == moment:
        os.kill(os.getpid(), 9)
def pieces():
    for start in range(0, 10_000, 1000):
        step()
        yield bytes([start // 1000]) * 1000
for name in ("replace", "unlink"):
    def stop(self, *arguments, original=getattr(Path, name), **named):
        step()
        return original(self, *arguments, **named)
    setattr(Path, name, stop)
write_pieces(pieces(), target, limit=3000)
"""


@pytest.mark.parametrize("moment", range(1, 18))
def test_a_run_killed_at_any_moment_leaves_no_set_that_looks_complete(
    tmp_path: Path, moment: int
) -> None:
    target = tmp_path / "x"
    write_pieces([b"old" * 4000], target, limit=1_500)
    code = subprocess.run(
        [sys.executable, "-c", KILLED, str(moment), str(target)], check=False
    ).returncode
    assert code == -9
    digests = tmp_path / "x.sha256"
    if digests.exists():
        lines = [line.split("  ") for line in digests.read_text().splitlines()]
        for sha256, name in lines[:-1]:
            assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == sha256
    from bundler.files import remove_leftovers

    remove_leftovers(tmp_path)
    write_pieces(PIECES, target, limit=3_000)
    assert list_names(tmp_path) == ["x.001", "x.002", "x.003", "x.004", "x.sha256"]
    with open_joined(target) as file:
        assert file.read() == CONTENT


def test_a_disk_error_in_a_later_volume_does_not_change_the_old_ones(tmp_path: Path) -> None:
    write_pieces(PIECES, tmp_path / "x", limit=3_000)
    before = {name: (tmp_path / name).read_bytes() for name in list_names(tmp_path)}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*x: File too large"):
            write_pieces([bytes(3_000), bytes(3_000), bytes(20_000)], tmp_path / "x", limit=5_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {name: (tmp_path / name).read_bytes() for name in list_names(tmp_path)} == before
