"""kube-proxy-mode.sh: the configured mode, or iptables with a message if the host does not support it."""

from pathlib import Path

import pytest
from support.shells import TEMPLATES, Sh, write_program

SCRIPT = TEMPLATES / "kube-proxy/rootfs/opt/k8s/libexec/kube-proxy-mode.sh"
FILE = "bindAddress: 192.0.2.1\nipvs:\n  scheduler: rr\nmode: {mode}\n"


@pytest.mark.parametrize(
    ("wanted", "release", "programs", "kernel_has_ipvs", "expected"),
    [
        ("ipvs", "6.1.0-13-amd64", [], True, "ipvs"),
        ("ipvs", "6.1.0-13-amd64", [], False, "iptables"),
        ("iptables", "3.10.0", [], False, "iptables"),
        ("nftables", "6.1.0-13-amd64", ["nft"], False, "nftables"),
        ("nftables", "5.13.0", ["nft"], False, "nftables"),
        ("nftables", "5.10.0-26-amd64", ["nft"], False, "iptables"),
        ("nftables", "6.1.0", [], False, "iptables"),
    ],
)
def test_the_mode_is_one_that_the_host_supports(
    sh: Sh,
    tmp_path: Path,
    wanted: str,
    release: str,
    programs: list[str],
    kernel_has_ipvs: bool,
    expected: str,
) -> None:
    for directory in ("etc/kubernetes", "run/kube-proxy", "proc/net"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "etc/kubernetes/kube-proxy-config.yaml").write_text(FILE.format(mode=wanted))
    if kernel_has_ipvs:
        (tmp_path / "proc/net/ip_vs").write_text("")
    write_program(tmp_path / "bin/uname", f"echo {release}\n")
    write_program(tmp_path / "bin/modprobe", "exit 1\n")
    write_program(tmp_path / "bin/nft", f"exit {0 if 'nft' in programs else 1}\n")
    done = sh(SCRIPT, DESTDIR=str(tmp_path), PATH=f"{tmp_path}/bin:/usr/bin:/bin")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/kube-proxy/config.yaml").read_text() == FILE.format(mode=expected)
    assert ("uses iptables mode" in done.stderr) == (wanted != expected)
