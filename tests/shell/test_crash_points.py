"""Each script is killed before each program that it starts: one more run ends as if nothing had happened.

BUNDLER_CRASH_POINTS=all tries every program (make test-long), otherwise a few of each script.
"""

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
from support.crash_points import Killer
from support.debian_host import make_debian_host
from support.generation_site import Done, Site, make_site
from support.restore_site import make_restore_site
from support.shells import SHELLS, Sh
from support.trees import Trees, list_tree

pytestmark = pytest.mark.slow

ALL = os.environ.get("BUNDLER_CRASH_POINTS") == "all"
PARTS = 12 if ALL else 1
SAMPLE = 3  # points of a script, if not all
# The time, and what each run adds to.
CHANGING = ("bundler/journal", "bundler/packages.log", "/state")


@dataclass(frozen=True)
class Subject:
    """A host as it is before the run that is killed, that run, and what must be the same in the end."""

    directory: Path
    run: Callable[..., Done]
    read: Callable[[], dict[str, str]]
    is_repeatable: bool = True  # otherwise a run after one that was complete may be refused


def read_host(directory: Path, *more: str) -> dict[str, str]:
    """Files, modes, digests, records and units."""
    return {
        f"{kind}/{path}": facts
        for kind in ("root", "active", "enabled", "masked", "live", *more)
        for path, facts in list_tree(directory / kind).items()
        if not path.endswith(CHANGING)
    }


def _make_subject(site: Site, installed: int, run: Callable[..., Done]) -> Subject:
    for number in range(1, installed + 1):
        assert site.install(number).returncode == 0
    directory = site.host.directory
    return Subject(directory, run, lambda: read_host(directory) | site.states())


def make_first(sh: Sh, trees: Trees, directory: Path) -> Subject:
    site = make_site(sh, trees, directory)
    return _make_subject(site, 0, partial(site.install, 1))


def make_change(sh: Sh, trees: Trees, directory: Path) -> Subject:
    site = make_site(sh, trees, directory)
    return _make_subject(site, 1, partial(site.install, 2))


def make_rollback(sh: Sh, trees: Trees, directory: Path) -> Subject:
    site = make_site(sh, trees, directory)
    script = site.bundles[1] / "install.sh"
    return _make_subject(site, 2, partial(site.run, script, "--rollback", "1"))


def make_uninstall(sh: Sh, trees: Trees, directory: Path) -> Subject:
    site = make_site(sh, trees, directory)
    return _make_subject(site, 2, site.host.uninstall)


def make_packages(sh: Sh, trees: Trees, directory: Path) -> Subject:
    """With a dpkg that starts programs too: it is killed amid a package."""
    host = make_debian_host(sh, trees, directory / "host")

    def read() -> dict[str, str]:
        database = sorted((host.directory / "dpkg").read_text().splitlines())
        return read_host(host.directory, "known") | {"dpkg": "\n".join(database)}

    return Subject(host.directory, partial(host.install, "--packages-only"), read)


def make_restore(sh: Sh, trees: Trees, directory: Path) -> Subject:
    return _make_restore(sh, trees, directory, str(directory / "host/snapshot.db"), "--any-key")


def make_restore_member(sh: Sh, trees: Trees, directory: Path) -> Subject:
    return _make_restore(sh, trees, directory, "--from-member")


def make_restore_join(sh: Sh, trees: Trees, directory: Path) -> Subject:
    subject = _make_restore(sh, trees, directory, "--join")
    (subject.directory / "others").touch()
    return replace(subject, is_repeatable=True)


def _make_restore(sh: Sh, trees: Trees, directory: Path, *words: str) -> Subject:
    """Another restore of the same snapshot would lose what was written since, and is refused."""
    site = make_restore_site(sh, trees, directory / "host")
    run = partial(site.run, *words)
    return Subject(site.host.directory, run, site.read, is_repeatable=False)


CASES: dict[str, Callable[[Sh, Trees, Path], Subject]] = {
    "install": make_first,
    "change": make_change,
    "rollback": make_rollback,
    "uninstall": make_uninstall,
    "packages": make_packages,
    "restore": make_restore,
    "restore_member": make_restore_member,
    "restore_join": make_restore_join,
}


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
    subject = CASES[name](sh, trees, tmp_path)
    directory = subject.directory
    killer = Killer(tmp_path / "killer", directory / "bin")
    path = f"{killer.programs}:{directory}/bin:/usr/bin:/bin:/usr/sbin:/sbin"
    before = tmp_path / "before"
    shutil.copytree(directory, before, symlinks=True)

    killer.arm()
    done = subject.run(PATH=path)
    assert done.returncode == 0, done.stdout + done.stderr
    undisturbed, programs = subject.read(), len(killer.started())
    numbers = (
        range(1 + part, programs + 1, PARTS) if ALL else range(2, programs, programs // SAMPLE)
    )
    for number in numbers:
        shutil.rmtree(directory)
        shutil.copytree(before, directory, symlinks=True)
        killer.arm(number)
        done = subject.run(PATH=path)
        where = f"{name}, before program {number} of {programs}: {killer.killed()}"
        assert done.returncode == -signal.SIGKILL, f"{where}\n{done.stdout}{done.stderr}"
        is_complete = subject.read() == undisturbed
        done = subject.run()
        is_refused = done.returncode == 3 and is_complete and not subject.is_repeatable
        assert done.returncode == 0 or is_refused, f"{where}\n{done.stdout}{done.stderr}"
        assert subject.read() == undisturbed, where
