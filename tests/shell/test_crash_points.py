"""Each script is killed before each program that it starts: one more run ends as if nothing had happened.

BUNDLER_CRASH_POINTS=all tries every program (make test-long), otherwise a few of each script.
"""

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.crash_points import Killer
from support.generation_site import Done, Site, make_site
from support.shells import SHELLS, Sh
from support.trees import Trees, list_tree

pytestmark = pytest.mark.slow

ALL = os.environ.get("BUNDLER_CRASH_POINTS") == "all"
PARTS = 12 if ALL else 1
SAMPLE = 5  # points of a script, if not all


@dataclass(frozen=True)
class Case:
    """What is installed before, and the run that is killed."""

    prepare: Callable[[Site], None]
    run: Callable[..., Done]


def _install_nothing(_site: Site) -> None:
    pass


def _install_one(site: Site) -> None:
    assert site.install(1).returncode == 0


def _install_two(site: Site) -> None:
    _install_one(site)
    assert site.install(2).returncode == 0


def _roll_back(site: Site, **environment: str) -> Done:
    return site.run(site.bundles[1] / "install.sh", "--rollback", "1", **environment)


CASES = {
    "install": Case(_install_nothing, lambda site, **env: site.install(1, **env)),
    "change": Case(_install_one, lambda site, **env: site.install(2, **env)),
    "rollback": Case(_install_two, _roll_back),
    "uninstall": Case(_install_two, lambda site, **env: site.host.uninstall(**env)),
}


def read_host(site: Site) -> dict[str, str]:
    """Files, modes, digests, records and units; of the journal and states only what is no time."""
    directory = site.host.directory
    found = {
        f"{kind}/{path}": facts
        for kind in ("root", "active", "enabled", "masked", "live")
        for path, facts in list_tree(directory / kind).items()
    }
    timed = [path for path in found if path.endswith(("bundler/journal", "/state"))]
    return {path: facts for path, facts in found.items() if path not in timed} | site.states()


@pytest.mark.parametrize(
    ("sh", "name", "part"),
    [
        pytest.param(shell, name, part, id=f"{shell[0]}-{name}-{part}")
        for number, name in enumerate(CASES)
        for part in range(PARTS)
        for shell in [SHELLS[(number + part) % len(SHELLS)]]
    ],
    indirect=["sh"],
)
def test_one_more_run_ends_as_if_nothing_had_happened(
    sh: Sh, trees: Trees, tmp_path: Path, name: str, part: int
) -> None:
    case, site = CASES[name], make_site(sh, trees, tmp_path)
    directory = site.host.directory
    killer = Killer(tmp_path / "killer", directory / "bin")
    path = f"{killer.programs}:{directory}/bin:/usr/bin:/bin:/usr/sbin:/sbin"
    case.prepare(site)
    before = tmp_path / "before"
    shutil.copytree(directory, before, symlinks=True)

    killer.arm()
    done = case.run(site, PATH=path)
    assert done.returncode == 0, done.stdout + done.stderr
    undisturbed, programs = read_host(site), killer.count()
    numbers = (
        range(1 + part, programs + 1, PARTS) if ALL else range(2, programs, programs // SAMPLE)
    )
    for number in numbers:
        shutil.rmtree(directory)
        shutil.copytree(before, directory, symlinks=True)
        killer.arm(number)
        done = case.run(site, PATH=path)
        where = f"{name}, before program {number} of {programs}: {killer.killed()}"
        assert done.returncode == -signal.SIGKILL, f"{where}\n{done.stdout}{done.stderr}"
        done = case.run(site)
        assert done.returncode == 0, f"{where}\n{done.stdout}{done.stderr}"
        assert read_host(site) == undisturbed, where
