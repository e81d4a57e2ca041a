"""join.sh: every bad volume is named before anything is joined."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest
from support.shells import Sh

from bundler.formats.volumes import write_pieces
from bundler.paths import RESOURCES

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    """A directory with join.sh and the volumes of two files."""
    directory = tmp_path / "usb disk"
    directory.mkdir()
    shutil.copy(RESOURCES / "join.sh", directory)
    for name in ("lab-one.tar.gz", "lab-two.tar.gz"):
        write_pieces([name.encode(), CONTENT], directory / name, limit=3_000)
    return directory


def test_all_files_are_joined_for_their_owner_only(sh: Sh, volumes: Path) -> None:
    done = sh(volumes / "join.sh")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(
        f"{name}: joined from 4 volumes\n" for name in ("lab-one.tar.gz", "lab-two.tar.gz")
    )
    assert (volumes / "lab-one.tar.gz").read_bytes() == b"lab-one.tar.gz" + CONTENT
    assert (volumes / "lab-one.tar.gz").stat().st_mode & 0o777 == 0o600
    assert not list(volumes.glob("*.part"))


@pytest.mark.parametrize("name", ["lab-one.tar.gz", "lab-one.tar.gz.003", "lab-one.tar.gz.sha256"])
def test_one_file_is_joined_in_its_directory(sh: Sh, volumes: Path, name: str) -> None:
    assert sh(volumes / "join.sh", str(volumes / name)).returncode == 0
    assert (volumes / "lab-one.tar.gz").is_file()
    assert not (volumes / "lab-two.tar.gz").exists()


def test_every_bad_volume_is_named_and_nothing_is_joined(sh: Sh, volumes: Path) -> None:
    (volumes / "lab-one.tar.gz.001").unlink()
    (volumes / "lab-one.tar.gz.003").write_bytes(b"x")
    done = sh(volumes / "join.sh")
    assert done.returncode == 1
    assert "lab-one.tar.gz.001: missing\n" in done.stderr
    assert "lab-one.tar.gz.003: damaged: copy it again" in done.stderr
    assert "lab-one.tar.gz.002" not in done.stderr
    assert not (volumes / "lab-one.tar.gz").exists()
    assert (volumes / "lab-two.tar.gz").is_file()


def test_a_check_joins_nothing_and_writes_nothing(sh: Sh, volumes: Path) -> None:
    before = sorted(volumes.iterdir())
    done = sh(volumes / "join.sh", "--check")
    assert (done.returncode, "lab-two.tar.gz: all 4 volumes are intact" in done.stdout) == (0, True)
    assert sorted(volumes.iterdir()) == before


def test_a_volume_of_another_split_is_reported_and_not_used(sh: Sh, volumes: Path) -> None:
    shutil.copy(volumes / "lab-one.tar.gz.001", volumes / "lab-one.tar.gz.005")
    done = sh(volumes / "join.sh", str(volumes / "lab-one.tar.gz"))
    assert done.returncode == 0
    assert "lab-one.tar.gz.005 is of another split" in done.stderr
    digest = hashlib.sha256((volumes / "lab-one.tar.gz").read_bytes()).hexdigest()
    assert digest == hashlib.sha256(b"lab-one.tar.gz" + CONTENT).hexdigest()


@pytest.mark.parametrize(
    ("text", "expected"), [(None, "missing"), ("", "damaged"), ("x  lab-one.tar.gz\n", "damaged")],
    ids=["missing", "empty", "no-volumes"],
)  # fmt: skip
def test_without_the_digests_nothing_is_joined(
    sh: Sh, volumes: Path, text: str | None, expected: str
) -> None:
    digests = volumes / "lab-one.tar.gz.sha256"
    digests.unlink()
    if text is not None:
        digests.write_text(text)
    done = sh(volumes / "join.sh", str(volumes / "lab-one.tar.gz"))
    assert done.returncode == 1
    assert f"lab-one.tar.gz.sha256: {expected}" in done.stderr
    assert not (volumes / "lab-one.tar.gz").exists()


def test_a_full_disk_leaves_no_partial_file(
    sh: Sh, volumes: Path, request: pytest.FixtureRequest
) -> None:
    shell = request.node.callspec.params["sh"]
    limited = f'trap "" XFSZ; ulimit -f 8; exec {" ".join(shell)} "{volumes}/join.sh" "{volumes}/lab-one.tar.gz"'
    done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "check the free space" in done.stderr
    assert not list(volumes.glob("lab-one.tar.gz.part"))
    assert not (volumes / "lab-one.tar.gz").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [(["--help"], 0, "Usage: join.sh"), (["--bogus"], 2, "unknown option --bogus")],
)
def test_options_are_explained_and_checked(
    sh: Sh, volumes: Path, arguments: list[str], code: int, expected: str
) -> None:
    done = sh(volumes / "join.sh", *arguments)
    assert (done.returncode, expected in done.stdout + done.stderr) == (code, True)


def test_missing_volumes_are_reported(sh: Sh, tmp_path: Path) -> None:
    shutil.copy(RESOURCES / "join.sh", tmp_path)
    done = sh(tmp_path / "join.sh")
    assert (done.returncode, "no volumes (NAME.sha256) next to join.sh" in done.stderr) == (2, True)


def test_a_file_that_was_not_split_is_checked_next_to_volumes(sh: Sh, volumes: Path) -> None:
    whole = volumes / "lab-three.tar.gz"
    write_pieces([CONTENT], whole)
    done = sh(volumes / "join.sh", "--check")
    assert done.returncode == 0, done.stderr
    assert "lab-three.tar.gz: complete, not in volumes\n" in done.stdout
    whole.write_bytes(CONTENT[1:])
    done = sh(volumes / "join.sh")
    assert (done.returncode, "lab-three.tar.gz: damaged" in done.stderr) == (1, True)
    assert (volumes / "lab-one.tar.gz").is_file()
    whole.unlink()
    assert "lab-three.tar.gz: missing" in sh(volumes / "join.sh").stderr
