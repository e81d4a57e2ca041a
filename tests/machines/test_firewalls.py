"""A host's firewall stops the cluster; the commands that install.sh prints make it work.

They are run exactly as printed. The cluster has one host: its firewall stops requests from outside
and from pods.
"""

import re
import shlex

import pytest
from support.lab import wait_for
from support.machine_clusters import Site
from support.machine_disks import Installed
from support.patience import patience

API, WEB, PORTS = 6443, 30080, {26443: 6443, 30080: 30080}
FIREWALLS = {
    "firewalld": "systemctl enable firewalld",
    "ufw": "ufw allow 22/tcp && ufw --force enable && systemctl enable ufw",
    "nftables": "systemctl enable nftables",
}
DROPPING = """\
#!/usr/sbin/nft -f
flush ruleset
table inet filter {
    chain input {
        type filter hook input priority filter; policy drop;
        iif "lo" accept
        ct state established,related accept
        tcp dport 22 accept
    }
    chain forward { type filter hook forward priority filter; policy drop; }
}
"""


def pod_reaches_the_api(site: Site) -> bool:
    request = "exec 3<>/dev/tcp/10.254.0.1/443"
    return site.machine.run(
        f"timeout 60 /opt/k8s/bin/kubectl --kubeconfig /etc/kubernetes/admin.kubeconfig exec deployment/web -- timeout 20 bash -c {shlex.quote(request)}",
        check=False,
    ).returncode == 0  # fmt: skip


def read_advice(site: Site) -> list[str]:
    """The commands of the firewall's advice, as install.sh printed them."""
    said = site.machine.run(f"{site.bundle}/install.sh --dry-run", check=False).stdout
    found = re.search(r"^warning: firewall: .*\n((?:    .*\n)+)", said, re.MULTILINE)
    assert found, said
    return [line.strip().removeprefix("fix: ") for line in found[1].splitlines()]


@pytest.mark.parametrize("firewall", FIREWALLS)
def test_the_printed_commands_open_what_the_cluster_needs(
    open_host: Installed, firewall: str
) -> None:
    site = open_host.new_site(ports=PORTS)
    site.verify(f"before {firewall}")
    assert site.machine.answers(API)
    assert site.machine.answers(WEB)
    assert pod_reaches_the_api(site)

    site.machine.run(f"printf '%s' {shlex.quote(DROPPING)} >/etc/nftables.conf")
    site.machine.run(FIREWALLS[firewall])
    site.machine.reboot()
    wait_for(
        "the API runs",
        lambda: "ok" in site.kubectl("get --raw /healthz", check=False),
        seconds=patience("a unit"),
        pause=5,
    )
    assert not site.machine.answers(API)
    assert not pod_reaches_the_api(site)

    for command in read_advice(site):
        site.machine.run(command)
    wait_for(
        "the API answers outside", lambda: site.machine.answers(API), seconds=patience("a rule")
    )
    wait_for(
        "the NodePort answers outside",
        lambda: site.machine.answers(WEB),
        seconds=patience("a rule"),
    )
    wait_for("a pod reaches the API", lambda: pod_reaches_the_api(site), seconds=patience("a rule"))
    site.verify(f"with {firewall}")

    if firewall != "nftables":  # its advice leaves it to the owner how rules are kept
        site.machine.reboot()
        site.verify(f"with {firewall}, after a reboot")
        assert site.machine.answers(WEB)
