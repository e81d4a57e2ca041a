"""What the kubelet and kube-proxy leave behind is removed: real chains, in a network of their own."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from support.shells import TEMPLATES, Sh

CHAINS = """\
*mangle
:KUBE-IPTABLES-HINT - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-PROXY-CANARY - [0:0]
COMMIT
*nat
:KUBE-MARK-DROP - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
:SITE - [0:0]
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A POSTROUTING -j SITE
-A KUBE-MARK-DROP -j MARK --set-xmark 0x8000/0x8000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
COMMIT
*filter
:KUBE-FIREWALL - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-FORWARD - [0:0]
-A INPUT -j KUBE-FIREWALL
-A INPUT -p tcp --dport 22 -j ACCEPT
-A OUTPUT -j KUBE-FIREWALL
-A KUBE-FORWARD -j KUBE-FIREWALL
-A KUBE-FIREWALL -m comment --comment "kubernetes firewall for dropping marked packets" -m mark --mark 0x8000/0x8000 -j DROP
COMMIT
"""


@pytest.mark.slow
def test_no_chain_of_the_kubelet_stays_and_no_other_rule_goes(tmp_path: Path) -> None:
    """KUBE-FIREWALL is a DROP, for IPv6 too."""
    if os.getuid() != 0:
        pytest.skip("networks cannot be made: only root may")
    text = (TEMPLATES / "common/uninstall.sh").read_text()
    (found,) = re.findall(r"^remove_kube_chains\(\) \{\n.*?^\}\n", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "chains").write_text(CHAINS)
    script = tmp_path / "script.sh"
    script.write_text(f"work={tmp_path}\n{found}\nremove_kube_chains\n")
    both = f"""
for program in iptables ip6tables; do $program-restore <{tmp_path}/chains || exit 9; done
"$@" || exit 8
for program in iptables ip6tables; do $program-save; done
"""
    done = subprocess.run(
        ["unshare", "-n", "sh", "-c", both, "sh", "sh", script],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "KUBE-" not in done.stdout
    assert done.stdout.count("-A POSTROUTING -j SITE") == 2
    assert done.stdout.count("-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT") == 2


def test_empty_cgroups_of_pods_go_and_others_stay(sh: Sh, tmp_path: Path) -> None:
    text = (TEMPLATES / "common/uninstall.sh").read_text()
    (found,) = re.findall(r"^remove_kube_cgroups\(\) \{\n.*?^\}\n", text, re.MULTILINE | re.DOTALL)
    groups = tmp_path / "sys/fs/cgroup"
    for path in (
        "memory/kubepods/besteffort/pod1",
        "kubepods.slice/kubepods-pod2.slice",
        "system.slice/ssh",
    ):
        (groups / path).mkdir(parents=True)
    (groups / "cpu/kubepods/busy").mkdir(parents=True)
    (groups / "cpu/kubepods/busy/process").touch()
    script = tmp_path / "script.sh"
    script.write_text(f"live={tmp_path}\nsystemctl() {{ :; }}\n{found}\nremove_kube_cgroups\n")
    sh(script)
    left = sorted(str(path.relative_to(groups)) for path in groups.rglob("*") if path.is_dir())
    assert left == [
        "cpu",
        "cpu/kubepods",
        "cpu/kubepods/busy",
        "memory",
        "system.slice",
        "system.slice/ssh",
    ]
