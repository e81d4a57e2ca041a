"""NetworkManager manages the interface of a Debian 12 machine, and leaves those of pods and Services alone."""

import shlex

import pytest
from support.lab import wait_for
from support.machine_clusters import Site
from support.machine_disks import Installed
from support.patience import patience

CONNECTION = """\
[connection]
id=machine
type=ethernet
interface-name=eth0

[ipv4]
method=manual
address1=10.0.2.15/24,10.0.2.2

[ipv6]
method=disabled
"""
PATH = "/etc/NetworkManager/system-connections/machine.nmconnection"
OURS = "/etc/NetworkManager/conf.d/90-bundler-kubernetes.conf"


@pytest.fixture(scope="module")
def site(open_host: Installed) -> Site:
    """The machine after a boot with NetworkManager in place of systemd-networkd."""
    site = open_host.new_site()
    site.machine.run(
        f"umask 077; printf '%s' {shlex.quote(CONNECTION)} >{PATH};"
        " rm /etc/systemd/network/10-machine.network;"
        " systemctl disable systemd-networkd.service systemd-networkd.socket;"
        " systemctl enable NetworkManager"
    )
    site.machine.reboot()
    return site


def list_states(site: Site) -> dict[str, str]:
    """Map each interface except lo to its state in NetworkManager."""
    lines = site.machine.output("nmcli -t -f DEVICE,STATE device").splitlines()
    states = dict(line.split(":", 1) for line in lines)
    states.pop("lo", None)
    return states


def list_taken(states: dict[str, str]) -> set[str]:
    """Interfaces of pods and Services that NetworkManager manages; it leaves one that is down without being told."""
    return {name for name, state in states.items() if state != "unmanaged"} - {"eth0"}


def list_addresses(site: Site) -> list[str]:
    """Interfaces of the host and their addresses, without those of pods."""
    lines = site.machine.output("ip -4 -o address show").splitlines()
    return sorted(" ".join(line.split()[1:4]) for line in lines)


def test_a_boot_with_network_manager_needs_no_manual_step(site: Site) -> None:
    site.verify("with NetworkManager")
    assert site.machine.run("systemctl is-active systemd-networkd", check=False).returncode != 0
    states = list_states(site)
    assert states["eth0"] == "connected"
    assert {"cni0", "kube-ipvs0"} <= states.keys()
    assert any(name.startswith("veth") for name in states)
    assert not list_taken(states)


def test_a_restart_of_network_manager_leaves_all_addresses(site: Site) -> None:
    before = list_addresses(site)
    assert any("10.0.2.250" in line for line in before), before  # keepalived's
    site.machine.run("systemctl restart NetworkManager")
    assert list_addresses(site) == before
    site.verify("after a restart of NetworkManager")


def test_install_brings_its_file_back_and_reloads_network_manager(site: Site) -> None:
    site.machine.run(f"rm {OURS}; systemctl reload NetworkManager")
    wait_for(
        "NetworkManager takes the bridge of pods",
        lambda: "cni0" in list_taken(list_states(site)),
        seconds=patience("a unit"),
    )
    planned = site.machine.output(f"{site.bundle}/install.sh --dry-run")
    assert "reload   NetworkManager.service" in planned
    said = site.install(what="install.sh after its file of NetworkManager was removed")
    assert not list_taken(list_states(site))
    assert "NetworkManager had taken cni0" in said
    site.kubectl("delete pods --all-namespaces --field-selector spec.nodeName=machine")  # the fix
    site.verify("after NetworkManager had detached every pod")
