"""A Debian 13 machine with containerd, cgroup v2 and iptables on nftables: install, reboot, power cut."""

from pathlib import Path

import pytest
from support.lab import FIGURES
from support.machine_clusters import ALL_ROLES, Site, make_bundle
from support.machines import ensure_image, new_machine

CONTAINERD = (
    ALL_ROLES.replace(
        "runtime: {engine: docker, version: 20.10.24}",
        "runtime: {engine: containerd, version: 1.6.20, runc: 1.1.5, crictl: none}",
    )
    .replace("proxy_mode: ipvs", "proxy_mode: iptables")
    .replace("os: debian-12", "os: debian-13")
)


@pytest.fixture(scope="module")
def site(project: Path) -> Site:
    machine = new_machine(ensure_image("debian-13"))
    FIGURES.append(f"debian-13: first boot: {machine.start():.0f} s")
    site = Site(machine, machine.unpack(make_bundle(project, machine, CONTAINERD)))
    site.install()
    site.verify("after the installation")
    return site


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
