"""A Debian 13 machine with containerd, cgroup v2 and iptables on nftables: install, reboot, power cut."""

from pathlib import Path

import pytest
from support.lab import FIGURES
from support.machine_clusters import CONTAINERD, Site, make_bundle
from support.machine_disks import install_simply, keep_disk
from support.machines import ensure_image


@pytest.fixture(scope="module")
def site(project: Path) -> Site:
    image = ensure_image("debian-13")
    bundle = make_bundle(project, image, CONTAINERD.replace("debian-12", "debian-13"))
    return keep_disk("debian-13", image, bundle, install_simply).new_site()


def test_the_host_has_cgroup_v2_and_rules_in_nftables(site: Site) -> None:
    assert site.machine.output("stat -fc %T /sys/fs/cgroup").strip() == "cgroup2fs"
    assert "nf_tables" in site.machine.output("iptables --version")
    assert "KUBE-SERVICES" in site.machine.output("iptables-save -t nat")


def test_a_reboot_needs_no_manual_step(site: Site) -> None:
    FIGURES.append(f"debian-13: systemctl reboot: {site.machine.reboot():.0f} s")
    site.verify("after systemctl reboot")


def test_a_power_cut_needs_no_manual_step(site: Site) -> None:
    site.machine.cut_power()
    FIGURES.append(f"debian-13: boot after a power cut: {site.machine.start():.0f} s")
    site.verify("after a power cut")
