"""The power of a Debian 12 machine is cut amid an installation and an upgrade.

What the machine had not written to its disk is lost, which no kill of a container shows.
"""

from pathlib import Path

import pytest
from support.lab import FIGURES
from support.machine_clusters import (
    ALL_ROLES,
    INSTALL,
    Site,
    await_line,
    ensure_mirror,
    make_bundle,
)
from support.machine_disks import Installed, keep_disk
from support.machines import Machine, ensure_image, new_machine
from support.stamped import OLD, stamp

PATCH = "1.20.9"
STORE = "/var/lib/bundler"
INSTALL_MOMENTS = {
    "while packages are unpacked": "test -e /usr/sbin/conntrack",
    "while a generation is kept": f"test -e {STORE}/generations/1.part",
    "while files are copied": "test -e /opt/k8s/bin/.bundler-new/kubelet",
    "when files are installed": "test -e /etc/systemd/system/kubelet.service",
    "while units start": "systemctl -q is-active etcd.service kube-apiserver.service",
}
UPGRADE_MOMENTS = {
    "while a generation is kept": f"test -e {STORE}/generations/2.part",
    "before files are replaced": f"test -e {STORE}/switch",
    "when files are replaced": f"test -e {STORE}/restart-pending && ! test -e /opt/k8s/bin/.bundler-new",
    "while units restart": f"test -e {STORE}/switch && ! test -e {STORE}/unfinished",
    "after the end": f"! test -e {STORE}/switch",
}
RUN = "systemd-run --quiet --collect --unit=install {directory}/install.sh " + INSTALL


@pytest.fixture(scope="module")
def site(project: Path) -> Site:
    """The machine with its bundle unpacked and nothing installed."""
    image = ensure_image("debian-12")
    bundle = make_bundle(project, image, ALL_ROLES)
    machine = new_machine(image)
    machine.start()
    return Site(machine, machine.unpack(bundle))


def cut_power_amid(site: Site, directory: str, what: str, moment: str) -> None:
    """Start install.sh, cut the power at the moment, and boot again."""
    site.machine.run(f"sync; {RUN.format(directory=directory)}")
    await_line(site.machine, f"{{ {moment}; }}")
    site.machine.cut_power()
    FIGURES.append(f"debian-12: boot after a power cut {what}: {site.machine.start():.0f} s")


def test_the_next_run_completes_an_installation_amid_power_cuts(site: Site) -> None:
    for what, moment in INSTALL_MOMENTS.items():
        cut_power_amid(site, site.bundle, what, moment)
    site.install(what="install.sh after five power cuts")
    site.verify("after five power cuts during the installation")
    assert site.machine.output(f"{site.bundle}/install.sh").strip() == "machine: nothing to do"


@pytest.fixture(scope="module")
def upgrade(
    installed: Installed, project: Path, tmp_path_factory: pytest.TempPathFactory
) -> Installed:
    """The installed machine with the next patch's bundle unpacked."""
    mirror = stamp(tmp_path_factory.mktemp("stamped"), PATCH, ensure_mirror() / "pins.yaml")
    description = ALL_ROLES.replace(OLD, PATCH)
    bundle = make_bundle(project, installed.image, description, "upgrade", mirror)
    return keep_disk("debian-12-upgrade", installed.image, bundle, bring_upgrade, base=installed)


def bring_upgrade(machine: Machine, bundle: Path) -> tuple[str, dict[str, str]]:
    machine.start()
    return machine.unpack(bundle, "/root/upgrade"), {}


@pytest.mark.parametrize("what", UPGRADE_MOMENTS)
def test_the_next_run_completes_an_upgrade_after_a_power_cut(upgrade: Installed, what: str) -> None:
    site = upgrade.new_site()
    site.verify("before the upgrade")
    cut_power_amid(site, site.bundle, what, UPGRADE_MOMENTS[what])
    site.install(what=f"install.sh of an upgrade after a power cut {what}")
    site.verify(f"after a power cut {what} and one more run")
    assert PATCH in site.kubectl("get node machine")
