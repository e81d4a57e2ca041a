"""`-c -`: cluster.yaml from standard input, and --verbose."""

from pathlib import Path

import pytest
from support.command import run_bundler
from support.small_builds import SmallSite, make_site


@pytest.fixture
def site(tmp_path: Path) -> SmallSite:
    return make_site(tmp_path)


def move_to_stdin(site: SmallSite) -> tuple[str, list[str]]:
    """The text of cluster.yaml, which is then away, and the options with `-c -`."""
    path = site.directory / "cluster.yaml"
    text = path.read_text()
    path.unlink()
    return text, ["-c", "-", *site.arguments[2:]]


def test_check_reads_it_and_relative_paths_are_of_the_working_directory(site: SmallSite) -> None:
    text, options = move_to_stdin(site)
    done = run_bundler(["check", "-c", "-"], cwd=site.directory, input=text, text=True)
    assert done.returncode == 0, done.stderr
    assert "-: cluster small, 3 nodes: no problems found" in done.stderr
    wrong = run_bundler(["check", "-c", "-"], cwd=site.directory, input="name: x\n", text=True)
    assert wrong.returncode == 2
    assert "-:1:1: nodes: is missing" in wrong.stderr
    empty = run_bundler(["check", "-c", "-"], cwd=site.directory, text=True)
    assert empty.returncode == 2
    assert "Traceback" not in empty.stderr
    assert options


@pytest.mark.slow
def test_a_build_from_stdin_is_the_build_from_the_file(site: SmallSite) -> None:
    dist = site.build()
    text, options = move_to_stdin(site)
    done = run_bundler(
        ["build", *options, "-o", "again"], cwd=site.directory, input=text, text=True
    )
    assert done.returncode == 0, done.stderr
    sums = [(path / "SHA256SUMS").read_text() for path in (dist, site.directory / "again")]
    assert sums[0] == sums[1]
    lock = run_bundler(["lock", *options], cwd=site.directory, input=text, text=True)
    assert lock.returncode == 0, lock.stderr
    assert (site.directory / "cluster.lock.yaml").is_file()
    for command in (["certs", "list"], ["seal", "renew", "--all"]):
        done = run_bundler([*command, "-c", "-"], cwd=site.directory, input=text, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_verbose_says_where_files_come_from_and_quiet_says_nothing(site: SmallSite) -> None:
    words = ["build", *site.arguments, "-o", str(site.directory / "dist")]
    loud = run_bundler([*words, "-v"], text=True)
    for said in ("from ", "compressed", "small-one: ", "overlays"):
        assert said in loud.stderr, said
    again = run_bundler([*words, "--verbose"], text=True)
    assert "in the cache, sha256:" in again.stderr
    assert again.stdout == loud.stdout
    quiet = run_bundler([*words, "-q"], text=True)
    assert all(line.startswith("warning: ") for line in quiet.stderr.splitlines())
    both = run_bundler([*words, "-q", "-v"], text=True)
    assert (both.returncode, "opposites" in both.stderr) == (2, True)
