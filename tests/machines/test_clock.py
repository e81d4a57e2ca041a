"""The clock of a machine is wrong by two days when it boots, and is set later."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.lab import FIGURES, wait_for
from support.machine_clusters import ALL_ROLES, Site, make_bundle
from support.machine_disks import Installed
from support.machines import ensure_image, new_machine
from support.patience import patience

TWO_DAYS = timedelta(days=2)
WRONG = {
    "behind": lambda installed: installed.made - TWO_DAYS,  # its keys are that old
    "ahead": lambda installed: datetime.now(UTC) + TWO_DAYS,
}


def tell(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}"


def set_clock(site: Site) -> None:
    site.machine.run(f"date -u -s '{tell(datetime.now(UTC))}'")


def test_a_clock_that_is_two_days_behind_is_refused_with_a_fix(tmp_path: Path) -> None:
    image = ensure_image("debian-12")
    bundle = make_bundle(tmp_path, image, ALL_ROLES)  # keys of today
    machine = new_machine(image)
    machine.start(clock=tell(datetime.now(UTC) - TWO_DAYS))
    site = Site(machine, machine.unpack(bundle))
    refused = machine.run(f"{site.bundle}/install.sh", check=False)
    assert refused.returncode == 3, refused.stdout
    assert "minutes before the certificates become valid" in refused.stdout
    assert "fix: set the clock (chronyc makestep, or date -s)" in refused.stdout
    set_clock(site)
    accepted = machine.run(f"{site.bundle}/install.sh --dry-run", check=False)
    assert accepted.returncode == 0, accepted.stdout


@pytest.mark.parametrize("wrong", WRONG)
def test_a_cluster_works_again_when_the_clock_is_set(installed: Installed, wrong: str) -> None:
    site = installed.new_site(clock=tell(WRONG[wrong](installed)))
    wait_for(
        "etcd runs",
        lambda: site.machine.run("systemctl is-active etcd", check=False).returncode == 0,
        seconds=patience("a unit"), pause=5,
    )  # fmt: skip
    node = site.machine.run("/opt/k8s/bundle/verify.sh --node --jobs 2 --timeout 60", check=False)
    FIGURES.append(
        f"debian-12: clock two days {wrong}: verify.sh --node ended with {node.returncode}"
    )
    assert (node.returncode != 0) is (wrong == "behind"), node.stdout
    set_clock(site)
    site.verify(f"after the clock was two days {wrong} and set")
