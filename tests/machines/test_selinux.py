"""A Debian 12 machine whose SELinux is enforcing from its first boot on, with Debian's policy.

What the bundle's programs are denied is read from the audit log.
"""

import re
from pathlib import Path

import pytest
from support.lab import FIGURES
from support.machine_clusters import ALL_ROLES, Site, make_bundle
from support.machine_disks import Installed, keep_disk
from support.machines import Machine, ensure_image

KERNEL = "security=selinux"
CONFIG = "sed -i 's/^SELINUX=.*/SELINUX={}/' /etc/selinux/config"
LOG = "/var/log/audit/audit.log"


@pytest.fixture(scope="module")
def enforced(project: Path) -> Installed:
    """A cluster that was installed while SELinux was enforcing, after install.sh's advice."""
    image = ensure_image("debian-12-site")
    bundle = make_bundle(project, image, ALL_ROLES)
    return keep_disk("debian-12-selinux", image, bundle, install_enforcing)


def install_enforcing(machine: Machine, bundle: Path) -> tuple[str, dict[str, str]]:
    """Label the host, boot it enforcing, do what install.sh advises, and install."""
    machine.start()
    machine.run(f"{CONFIG.format('permissive')}; systemctl -q enable auditd")
    machine.power_off()
    machine.start(words=KERNEL)
    machine.run("fixfiles -f -F relabel", check=False)
    machine.run(CONFIG.format("enforcing"))
    machine.power_off()
    machine.start(words=KERNEL)
    assert machine.output("getenforce").strip() == "Enforcing"
    site = Site(machine, machine.unpack(bundle))
    said = machine.run(f"{site.bundle}/install.sh --dry-run", check=False).stdout
    for command in read_advice(said):
        machine.run(command)
    machine.run(f"truncate -s 0 {LOG}")
    site.install()
    site.verify("after the installation with SELinux enforcing")
    labels = machine.output("stat -c '%C %n' /opt/k8s/bin/* /opt/k8s/libexec/* /opt/cni/bin/*")
    return site.bundle, {"denials": read_denials(machine), "labels": labels}


def read_advice(said: str) -> list[str]:
    """The commands of the advice about SELinux, as install.sh printed them; none if the policy has labels for all."""
    found = re.search(r"^warning: selinux: .*\n((?:    .*\n)+)", said, re.MULTILINE)
    return [line.strip().removeprefix("fix: ") for line in found[1].splitlines()] if found else []


def read_denials(machine: Machine) -> str:
    return machine.run(f"grep 'avc:  denied' {LOG}", check=False).stdout


def test_nothing_is_denied_during_an_installation(enforced: Installed) -> None:
    assert enforced.seen["denials"] == ""


def test_every_program_has_the_label_of_programs(enforced: Installed) -> None:
    labels = enforced.seen["labels"].splitlines()
    assert any(line.endswith("/opt/k8s/bin/kubelet") for line in labels)
    assert [line for line in labels if ":bin_t:" not in line] == []


def test_a_reboot_needs_no_manual_step(enforced: Installed) -> None:
    site: Site = enforced.new_site(words=KERNEL)
    FIGURES.append(f"debian-12-selinux: {site.machine.output('getenforce').strip()}")
    site.machine.run(f"truncate -s 0 {LOG}")
    site.verify("after a boot with SELinux enforcing")
    assert site.machine.output("getenforce").strip() == "Enforcing"
    assert read_denials(site.machine) == ""
