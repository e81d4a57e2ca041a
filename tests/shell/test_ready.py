"""ready.sh: whether flannel, the kubelet and add-ons wait for others or fail on this host."""

import json
from pathlib import Path

import pytest
from support.shells import TEMPLATES, Sh, write_program

LIB = TEMPLATES / "common/lib"
SCRIPT = """
ENDPOINT=https://192.0.2.9:8443 KUBELET_ROOT={work}/kubelet FEATURES='flannel flannel-{store}' live={work}
. {lib}/core/https.sh; . {lib}/transaction/units.sh; . {lib}/transaction/ready.sh
https_status() {{ cat {work}/status; }}
ready_flannel flannel.service
echo "$?"
"""


@pytest.mark.parametrize(
    ("state", "certificate", "status", "said"),
    [
        ("activating", False, "200", "systemd says activating\n2\n"),
        ("activating", True, "000 refused", "systemd says activating\n2\n"),
        ("activating", True, "200", "systemd says activating\n1\n"),
        ("active", True, "200", "this node has no subnet yet\n1\n"),
    ],
    ids=["no certificate yet", "no API yet", "cannot start", "no subnet"],
)
def test_flannel_waits_for_the_certificate_of_the_kubelet_and_for_the_api(
    sh: Sh, tmp_path: Path, state: str, certificate: bool, status: str, said: str
) -> None:
    write_program(tmp_path / "bin/systemctl", f"echo {state}\n")
    (tmp_path / "kubelet/pki").mkdir(parents=True)
    if certificate:
        (tmp_path / "kubelet/pki/kubelet-client-current.pem").touch()
    (tmp_path / "status").write_text(status)
    script = tmp_path / "script.sh"
    script.write_text(SCRIPT.format(work=tmp_path, lib=LIB, store="kubernetes"))
    done = sh(script, PATH=f"{tmp_path}/bin:/usr/bin:/bin")
    assert (done.stdout, done.stderr) == (said, "")


@pytest.mark.parametrize("waits_for", ["", "the network configuration is not in etcd yet\n"])
def test_flannel_waits_for_the_proxies_in_front_of_etcd(
    sh: Sh, tmp_path: Path, waits_for: str
) -> None:
    write_program(tmp_path / "bin/systemctl", "echo activating\n")
    if waits_for:  # flannel-wait.sh writes it
        (tmp_path / "run/flannel").mkdir(parents=True)
        (tmp_path / "run/flannel/reason").write_text(waits_for)
    script = tmp_path / "script.sh"
    script.write_text(SCRIPT.format(work=tmp_path, lib=LIB, store="etcd"))
    done = sh(script, PATH=f"{tmp_path}/bin:/usr/bin:/bin")
    said = f"{waits_for}2\n" if waits_for else "systemd says activating\n1\n"
    assert (done.stdout, done.stderr) == (said, "")


ADDONS = """
ADDRESS=192.0.2.1 API_LOCAL=https://192.0.2.1:6443 wait_limit=1 settle=0 ADDONS_WAIT={wait} well_before=no
work={work} UNITS=kube-addons.service here={work}
. {lib}/core/common.sh; . {lib}/core/https.sh; . {lib}/core/json.sh; . {lib}/transaction/host-diff.sh
. {lib}/transaction/units.sh; . {lib}/transaction/ready.sh; . {lib}/transaction/report.sh; . {lib}/transaction/dry-run.sh
https_status() {{ echo 200; }}
live={work}
now() {{ cat {work}/clock; }}
unit_field() {{ echo kube-addons; }}
show_journal() {{ :; }}
wait_until_ready
echo "$outcome"
say_addons
printf '[%s]\n' "$(list_json_addons | join_json)"
"""


@pytest.mark.parametrize(
    ("states", "outcome"),
    [
        ("web failed no pod runs\nbase ready \n", "failed"),
        ("web applying starts\nbase ready \n", "pending"),
        ("web waiting it needs base\nbase ready \n", "ready"),
    ],
)
def test_add_ons_that_are_not_ready_are_named_with_their_reason(
    sh: Sh, tmp_path: Path, states: str, outcome: str
) -> None:
    write_program(tmp_path / "bin/systemctl", "[ $1 != is-active ] || echo active\n")
    write_clock(tmp_path)
    (tmp_path / "run/kube-addons").mkdir(parents=True)
    (tmp_path / "run/kube-addons/state").write_text(states)
    script = tmp_path / "script.sh"
    script.write_text(ADDONS.format(work=tmp_path, lib=LIB, wait=0))
    done = sh(script, PATH=f"{tmp_path}/bin:/usr/bin:/bin")
    name, state, reason = states.splitlines()[0].split(" ", 2)
    verdict = "FAILED " if outcome == "failed" else outcome
    if outcome != "ready":
        assert (
            f"  {verdict}  kube-addons.service: add-on {name}: {state}: {reason}\n" in done.stdout
        )
    _, _, rest = done.stdout.partition(f"\n{outcome}\n")
    lines = rest.splitlines()
    assert lines[:2] == [f"  add-on {name}: {state}: {reason}", "  add-on base: ready"]
    assert json.loads("".join(lines[2:])) == [
        {"name": name, "state": state, "reason": reason},
        {"name": "base", "state": "ready", "reason": None},
    ]


def write_clock(work: Path) -> None:
    """A clock that only `sleep` moves."""
    (work / "clock").write_text("0\n")
    write_program(
        work / "bin/sleep",
        f"t=$(($(cat {work}/clock) + 1))\necho $t >{work}/clock\necho >>{work}/slept\n",
    )


def test_install_waits_longer_than_for_units_while_add_ons_are_being_applied(
    sh: Sh, tmp_path: Path
) -> None:
    write_program(tmp_path / "bin/systemctl", "[ $1 != is-active ] || echo active\n")
    write_clock(tmp_path)
    (tmp_path / "run/kube-addons").mkdir(parents=True)
    (tmp_path / "run/kube-addons/state").write_text("web applying starts\n")
    script = tmp_path / "script.sh"
    script.write_text(ADDONS.format(work=tmp_path, lib=LIB, wait=2))
    sh(script, PATH=f"{tmp_path}/bin:/usr/bin:/bin")
    assert (tmp_path / "slept").read_text() == "\n" * 3


KUBELET = """
ENDPOINT=https://192.0.2.9:8443 NODE=w1 KUBELET_ROOT={work}/kubelet NETWORK_ADDON='{addon}' live={work}
. {lib}/core/https.sh; . {lib}/transaction/units.sh; . {lib}/transaction/ready.sh
https_status() {{ echo 200; }}
https_get() {{ cat {work}/node; }}
ready_kubelet kubelet.service
echo "$?"
"""
NO_NETWORK = "runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:docker: cni config uninitialized"


@pytest.mark.parametrize(
    ("addon", "ready", "message", "said"),
    [
        ("calico", "True", "kubelet is posting ready status", "0\n"),
        ("calico", "False", NO_NETWORK, "the add-on calico has not made the pod network of this node yet\n3\n"),
        ("calico", "False", "PLEG is not healthy", "the node is not Ready yet\n1\n"),
        ("", "False", NO_NETWORK, "the node is not Ready yet\n1\n"),
    ],
    ids=["ready", "no network yet", "another reason", "no such add-on"],
)  # fmt: skip
def test_a_node_without_a_network_waits_for_the_add_on_that_makes_it(
    sh: Sh, tmp_path: Path, addon: str, ready: str, message: str, said: str
) -> None:
    write_program(tmp_path / "bin/systemctl", "echo active\n")
    (tmp_path / "kubelet/pki").mkdir(parents=True)
    (tmp_path / "kubelet/pki/kubelet-client-current.pem").touch()
    condition = {"type": "Ready", "status": ready, "reason": "x", "message": message}
    node = {"status": {"conditions": [{"type": "DiskPressure", "status": "False"}, condition]}}
    (tmp_path / "node").write_text(json.dumps(node, indent=1))
    script = tmp_path / "script.sh"
    script.write_text(KUBELET.format(lib=LIB, work=tmp_path, addon=addon))
    done = sh(script, PATH=f"{tmp_path}/bin:/usr/bin:/bin")
    assert (done.stdout, done.stderr) == (said, "")
