"""docker.service accepts forwarding for pods only, and uninstall.sh ends that: real iptables, in a network of its own."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from support.shells import TEMPLATES
from support.trees import Trees

RULES = ["-A FORWARD -s 10.200.0.0/16 -j ACCEPT", "-A FORWARD -d 10.200.0.0/16 -j ACCEPT"]


@pytest.mark.slow
def test_packets_of_pods_are_forwarded_and_no_others(trees: Trees, tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("networks cannot be made: only root may")
    unit = (trees / "worker1/rootfs/etc/systemd/system/docker.service").read_text()
    commands = re.findall(r"^ExecStartPost=(.*)$", unit, re.MULTILINE)
    assert len(commands) == 2
    start = "\n".join(command.replace("$$", "$") for command in commands)
    text = (TEMPLATES / "common/uninstall.sh").read_text()
    (remove,) = re.findall(
        r"^remove_forward_rules\(\) \{\n.*?^\}\n", text, re.MULTILINE | re.DOTALL
    )
    script = tmp_path / "script.sh"
    script.write_text(
        f"set -eu\niptables -P FORWARD DROP\n{start}\n{start}\niptables -S FORWARD\necho //\n"
        f"UNITS=' docker.service ' POD_CIDR=10.200.0.0/16\n{remove}\nremove_forward_rules\niptables -S FORWARD\n"
    )
    done = subprocess.run(
        ["unshare", "-n", "sh", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    started, _, removed = done.stdout.partition("//\n")
    assert started.splitlines() == ["-P FORWARD DROP", *RULES]
    assert removed.splitlines() == ["-P FORWARD DROP"]
