"""site-addons-workloads.sh: whether an add-on that is not ready waits for hosts, or fails."""

from pathlib import Path

import pytest
from support.shells import TEMPLATES, Sh

SCRIPT = """
set -u
tab=$(printf '\\t') timeout=60 found_since=0 name={name} network_addon='{network}' work={work}
. {libexec}/site-addons-workloads.sh
last_line() {{ printf '%s\\n' "$1" | tail -n 1; }}
is_late() {{ [ {late} = yes ]; }}
explain_pods() {{ unready="$unready; pod agent-1 on w1: CrashLoopBackOff: no route"; }}
kube() {{
    case "$*" in
        *'get nodes'*) cat {work}/nodes ;;
        *) echo 'Waiting for daemon set "agent" rollout to finish: 0 of 1 updated pods are available...' ;;
    esac
}}
judge_workloads
printf '%s: %s\\n' "$state" "$reason"
"""
CRASH = "DaemonSet agents/agent: Waiting for daemon set"
NOBODY = "waiting: no worker is Ready yet"


@pytest.mark.parametrize(
    ("name", "network", "nodes", "late", "said"),
    [
        ("web", "", "", "no", NOBODY),
        ("web", "calico", "False\n", "yes", NOBODY),
        ("web", "calico", "False\nTrue\n", "no", f"applying: {CRASH}"),
        ("calico", "calico", "", "yes", NOBODY),
        ("calico", "calico", "False\n", "no", f"applying: {CRASH}"),
        ("calico", "calico", "False\n", "yes", f"failed: {CRASH}"),
    ],
)
def test_only_the_add_on_that_makes_the_network_is_judged_on_nodes_that_are_not_ready(
    sh: Sh, tmp_path: Path, name: str, network: str, nodes: str, late: str, said: str
) -> None:
    (tmp_path / "objects").write_text("DaemonSet.apps agents agent wait\n")
    (tmp_path / "nodes").write_text(nodes)
    script = tmp_path / "script.sh"
    libexec = TEMPLATES / "control-plane/rootfs/opt/k8s/libexec"
    script.write_text(
        SCRIPT.format(name=name, network=network, late=late, work=tmp_path, libexec=libexec)
    )
    done = sh(script)
    assert done.stderr == ""
    assert done.stdout.startswith(said)
    assert ("CrashLoopBackOff" in done.stdout) is (said != NOBODY)
