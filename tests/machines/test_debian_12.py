"""Every role on one Debian 12 machine: Docker under AppArmor, kube-proxy in IPVS mode, reboots.

The host was hardened: it is no router (sysctl.conf). It had swap on a partition and on zram.
"""

import pytest
from support.lab import FIGURES, wait_for
from support.machine_clusters import Site, list_swaps
from support.machine_disks import Installed
from support.patience import patience


@pytest.fixture(scope="module")
def site(installed: Installed) -> Site:
    return installed.new_site()


def check_boot(site: Site, what: str) -> None:
    """Check the cluster after a boot, with nothing done by hand."""
    site.verify(what)
    assert list_swaps(site.machine) == []
    assert site.machine.output("cat /proc/sys/net/ipv4/ip_forward").strip() == "1"
    wait_for(
        "the deployment runs",
        lambda: "1/1" in site.kubectl("get deployment stayer", check=False),
        seconds=patience("a pod"), pause=5,
    )  # fmt: skip


def test_a_hardened_host_is_refused_with_a_fix_that_works(installed: Installed) -> None:
    wrong = "/etc/sysctl.conf sets net.ipv4.ip_forward = 0 at the next boot, and the node needs 1"
    assert wrong in installed.seen["refusal"]
    assert "set it to 1 there, or remove the line" in installed.seen["refusal"]
    assert (
        "sets vm.panic_on_oom = 1 at the next boot, and the node needs 0"
        in installed.seen["refusal"]
    )
    assert installed.disk.exists()  # install.sh, then verify.sh, with that line removed


def test_swap_of_a_partition_and_of_zram_stays_off(installed: Installed, site: Site) -> None:
    assert sorted(line.split()[0] for line in installed.seen["swaps"].splitlines()) == [
        "/dev/vdb1",
        "/dev/zram0",
    ]
    assert list_swaps(site.machine) == []  # this is the second boot


def test_kube_proxy_uses_ipvs_and_docker_apparmor(site: Site) -> None:
    site.kubectl("create deployment stayer --image=nginx:1.22")
    check_boot(site, "after the machine was off")
    assert "10.254.0.1:443" in site.machine.output("ipvsadm -Ln")
    profiles = site.machine.output(
        "cat /proc/[0-9]*/attr/current | tr '\\0' '\\n' | sort | uniq -c"
    )
    assert "docker-default (enforce)" in profiles


def test_a_reboot_needs_no_manual_step(site: Site) -> None:
    FIGURES.append(f"debian-12: systemctl reboot: {site.machine.reboot():.0f} s")
    check_boot(site, "after systemctl reboot")


def test_a_power_cut_needs_no_manual_step(site: Site) -> None:
    site.machine.cut_power()
    FIGURES.append(f"debian-12: boot after a power cut: {site.machine.start():.0f} s")
    check_boot(site, "after a power cut")
