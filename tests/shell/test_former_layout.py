"""Generations of the former layout, with all shell parts directly in lib/, still work.

Their bundle is made of today's: the parts move to lib/ under the names that they had, and the
scripts load them from there.
"""

import re
from pathlib import Path

import pytest
from support.generation_site import (
    CONFIG,
    WENT_BACK,
    Site,
    make_site,
    plant_failure,
    plant_killer,
)
from support.shells import Sh
from support.trees import Trees, rewrite_manifest

# Parts whose names changed too, not only their directory.
FORMER_NAMES = {
    "coordination/rollout-order": "turn",
    "core/redact": "mask",
    "preflight/checks": "preflight",
    "preflight/users": "check-users",  # the former layout had neither this one nor transaction/users
    "transaction/dry-run": "report",
    "transaction/host-diff": "plan",
    "transaction/payload": "absent",
    "transaction/report": "outcome",  # the former layout had none
}
INSTALLED = "opt/k8s/bundle/install.sh"


def flatten(bundle: Path) -> None:
    """Give a bundle the former layout of lib/."""
    lib = bundle / "lib"
    parts = [path for path in sorted(lib.glob("*/*")) if path.is_file()]
    names = {}
    for path in parts:
        part = path.relative_to(lib).with_suffix("").as_posix()
        flat = part.replace("/", "-") if part.startswith("verify/") else path.stem
        names[part] = FORMER_NAMES.get(part, flat)
    scripts = [*bundle.rglob("*.sh"), *bundle.glob("rootfs/opt/k8s/libexec/*")]
    for script in {path for path in scripts if path.is_file()}:
        text = script.read_text()
        for part, name in names.items():
            text = text.replace(f"/lib/{part}.", f"/lib/{name}.")
        text = re.sub(
            r"^for part in ([^;]*);",
            lambda loop, names=names: f"for part in {flatten_names(loop[1], names)};",
            text,
            flags=re.MULTILINE,
        )
        script.write_text(text)
    for path in parts:
        flat = lib / f"{names[path.relative_to(lib).with_suffix('').as_posix()]}{path.suffix}"
        assert not flat.exists(), flat
        path.rename(flat)
    for directory in sorted(lib.rglob("*/"), reverse=True):
        directory.rmdir()
    rewrite_manifest(bundle)


def flatten_names(parts: str, names: dict[str, str]) -> str:
    """Replace the parts of a loop, which may continue on more lines."""
    return " ".join(names.get(part, part) for part in parts.replace("\\\n", " ").split())


@pytest.fixture
def site(sh: Sh, trees: Trees, tmp_path: Path) -> Site:
    """A worker whose bundle 1 has the former layout, and is installed."""
    made = make_site(sh, trees, tmp_path)
    flatten(made.bundles[0])
    done = made.install(1)
    assert done.returncode == 0, done.stdout + done.stderr
    return made


@pytest.mark.slow
def test_the_former_layout_has_no_directory_below_lib(site: Site) -> None:
    lib = site.root / "opt/k8s/bundle/lib"
    assert (lib / "turn.sh").is_file()
    assert [path for path in lib.iterdir() if path.is_dir()] == []
    assert site.run(site.root / INSTALLED).stdout == "worker1: nothing to do\n"


@pytest.mark.slow
def test_a_host_rolls_back_to_the_former_layout_by_itself(site: Site) -> None:
    before = site.installed()
    plant_failure(site.bundles[1])
    done = site.install(2)
    assert done.returncode == WENT_BACK, done.stdout + done.stderr
    assert (site.installed(), site.current()) == (before, "1")
    assert site.states() == {"1": "healthy", "2": "failed"}
    assert site.run(site.root / INSTALLED).stdout == "worker1: nothing to do\n"


@pytest.mark.long
@pytest.mark.slow
def test_the_installed_scripts_switch_between_the_layouts(site: Site) -> None:
    former = site.installed()
    assert site.install(2).returncode == 0
    newer = site.installed()
    for number, files in (("1", former), ("2", newer)):
        done = site.run(site.root / INSTALLED, "--rollback", number)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (site.installed(), site.current()) == (files, number)


@pytest.mark.long
@pytest.mark.slow
def test_skipped_checks_stay_skipped_in_a_rollback_to_the_former_layout(site: Site) -> None:
    site.host.forbid("net.ipv4.ip_forward")
    site.host.swap_on()
    plant_failure(site.bundles[1])
    done = site.install(2, "--skip-preflight", "sysctls", "--skip-preflight", "swap")
    assert done.returncode == WENT_BACK, done.stdout + done.stderr
    assert (site.current(), "/dev/sda2" in site.host.read("/proc/swaps")) == ("1", True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "after", ["boot", *(pytest.param(way, marks=pytest.mark.long) for way in ("forward", "back"))]
)
def test_a_killed_change_of_the_layout_leaves_one_generation_or_the_other(
    site: Site, after: str
) -> None:
    plant_killer(site.host, "mv", ".bundler-new", 2)
    path = f"{site.host.directory}/killers:{site.host.directory}/bin:/usr/bin:/bin:/usr/sbin:/sbin"
    assert site.install(2, PATH=path).returncode in {-9, 137}
    if after == "boot":
        done = site.boot()
        assert done is None or done.returncode == 0, done
        assert not (site.store / "switch").exists()
    goal = 1 if after == "back" else 2
    done = site.install(goal)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (site.current(), site.states()[str(goal)]) == (str(goal), "healthy")
    assert (site.root / CONFIG).read_text() == f"number: {goal}\n"
    assert site.install(goal).stdout == "worker1: nothing to do\n"


@pytest.mark.slow
def test_a_host_of_the_former_layout_can_be_uninstalled(site: Site) -> None:
    assert site.host.bundle.joinpath("lib/core").is_dir()
    done = site.host.uninstall()
    assert done.returncode == 0, done.stderr
    assert not site.store.exists()
