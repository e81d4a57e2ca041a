"""ready.sh: whether flannel waits for other hosts or fails on this one."""

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
