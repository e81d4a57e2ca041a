"""Another Python in another directory builds the same bytes from the same inputs."""

import glob
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.small_builds import make_site

PROJECT = Path(__file__).parents[2]
SAME = ("--quiet", "--offline")


def find_other_python() -> Path:
    """A Python of another minor version that bundler runs on."""
    own = sys.version_info[:2]
    places = [
        *filter(None, (shutil.which(f"python3.{minor}") for minor in (14, 13, 12, 11))),
        *sorted(glob.glob(str(Path.home() / ".pyenv/versions/3.1[1-9].*/bin/python"))),
        *sorted(glob.glob("/root/.pyenv/versions/3.1[1-9].*/bin/python")),
    ]
    ask = "import sys, ensurepip; print(sys.version_info.major, sys.version_info.minor)"
    for place in places:
        done = subprocess.run([place, "-c", ask], capture_output=True, text=True, check=False)
        if done.returncode == 0 and tuple(map(int, done.stdout.split())) != own:
            return Path(place)
    pytest.skip(
        "a rebuild under another Python cannot run: there is no other Python 3.11 or newer on this machine"
    )


def run(program: Path, *arguments: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, check=False, cwd=cwd,
        env={**os.environ, "TZ": "Asia/Kathmandu"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.long
def test_another_python_elsewhere_builds_the_same_bytes(tmp_path: Path) -> None:
    python = find_other_python()
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns(
        ".git", ".venv", ".lab", "dist", "build", ".*_cache", "__pycache__"
    )
    shutil.copytree(PROJECT, source, ignore=ignored)
    run(python, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    run(
        tmp_path / "venv/bin/pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        source,
        cwd=tmp_path,
    )
    ours, theirs = Path(sys.executable).with_name("bundler"), tmp_path / "venv/bin/bundler"

    first = make_site(tmp_path / "first")
    run(ours, "build", *first.arguments, "-o", first.directory / "dist", *SAME, cwd=tmp_path)
    second = tmp_path / "elsewhere" / "second"
    shutil.copytree(first.directory, second, ignore=shutil.ignore_patterns("dist", "cache"))
    again = [str(a).replace(str(first.directory), str(second)) for a in first.arguments]
    run(theirs, "build", *again, "-o", second / "dist", *SAME, cwd=second)
    sums = (first.directory / "dist/SHA256SUMS").read_text()
    assert (second / "dist/SHA256SUMS").read_text() == sums
    for line in sums.splitlines():
        name = line.partition("  ")[2]
        assert (second / "dist" / name).read_bytes() == (
            first.directory / "dist" / name
        ).read_bytes()

    # without the keys, all files without secrets can still be compared
    shutil.rmtree(second / "small.state")
    run(theirs, "build", *again, "-o", second / "mine", "--public-only", *SAME, cwd=second)
    said = run(ours, "verify", first.directory / "dist", "--public", second / "mine", cwd=tmp_path)
    assert said.count("same  ") == 3
