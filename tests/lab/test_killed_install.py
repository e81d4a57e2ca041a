"""install.sh on a cluster of one host is killed at many points, and the host is uninstalled.

The host has containerd, a node-local nginx, iptables, and a PKI with one CA and RSA keys.
"""

from pathlib import Path

import pytest
from support.killed_installs import plant_killer
from support.lab import INSTALLED, SOLO, Host, build, differences, hosts_sh

POINTS = [
    # what, program, only with these arguments, at which call, before the kill
    ("while a file is copied", "cp", ".bundler-new", 5, 'head -c 1000 /dev/zero >"$(eval echo \\${$#})${1##*/}";'),
    ("between two files of a directory", "mv", ".bundler-new", 2, 'mv -f "$2" "$(eval echo \\${$#})";'),
    ("before daemon-reload", "systemctl", "daemon-reload", 1, ""),
    ("before the units are enabled", "systemctl", " enable ", 1, ""),
    ("between two restarts", "systemctl", " restart ", 4, ""),
    ("while an image is loaded", "ctr", " import ", 2, '(timeout 0.2 ctr "$@");'),
]  # fmt: skip


BEFORE: dict[str, dict[str, str]] = {}  # files before any install


@pytest.fixture(scope="module")
def solo(lab_directory: Path, product_cache: Path, network: None) -> tuple[Host, Path]:
    """A host with nothing installed, and its bundle."""
    description = lab_directory / "examples" / "solo.yaml"
    description.write_text(SOLO)
    build(description, lab_directory / "solo", cache=product_cache)
    host = Host("solo", "172.30.20.31")
    hosts_sh("up", f"{host.name}={host.address}")
    return host, lab_directory / "solo" / "solo-solo.tar.gz"


def test_the_next_run_completes_an_install_that_was_killed(solo: tuple[Host, Path]) -> None:
    host, bundle = solo
    before = BEFORE[host.name] = host.list_files()

    # a bundle that is incomplete, because tar was killed, is refused
    directory = host.unpack(bundle)
    host.run(
        f"rm -rf {directory}; timeout -s KILL 0.4 tar -xzf {directory}.tar.gz -C /root", check=False
    )
    refused = host.run(f"{directory}/install.sh", check=False)
    assert refused.returncode != 0
    assert host.list_files() == before
    host.run(f"rm -rf {directory}; tar -xzf {directory}.tar.gz -C /root")

    # test_minimal_hosts.py kills the installation of packages
    host.run(f"{directory}/install.sh --packages-only")
    with_packages = host.list_files()

    for what, program, matching, call, first in POINTS:
        plant_killer(host, program, matching, call, first)
        killed = host.run(f"PATH=/tmp/killers:$PATH {directory}/install.sh", check=False)
        assert killed.returncode == 137, f"not killed {what}: {killed.returncode}\n{killed.stdout}"

    # Wait longer: the other lane uses the processors too. How long units last is not tested here.
    said = host.run(f"{directory}/install.sh --settle 3 --ready-within 300", check=False)
    assert said.returncode == 0, said.stdout
    assert "All units are ready." in said.stdout, said.stdout
    verified = host.run("/opt/k8s/bundle/verify.sh", check=False, timeout=400)
    assert verified.returncode == 0, verified.stdout

    check_files(host, directory, with_packages)
    assert host.output(f"{directory}/install.sh").strip() == "solo: nothing to do"


def check_files(host: Host, directory: str, with_packages: dict[str, str]) -> None:
    """Check that the host has the files of the manifest and of the units, and no others."""
    expected = {}
    for line in host.output(f"cat {directory}/MANIFEST").splitlines():
        sha256, mode, _, path = line.split(" ")
        if path.startswith("rootfs/"):
            expected[path.removeprefix("rootfs")] = f"{int(mode, 8):o} 0:0 {sha256}"
    assert read_files(host, list(expected)) == expected
    paths = set(expected)
    units = host.output(". /opt/k8s/bundle/node.env; echo $BOOT_UNITS $UNITS").split()
    wants = {
        ".service": "multi-user.target.wants", ".path": "multi-user.target.wants",
        ".timer": "timers.target.wants",
    }  # fmt: skip
    paths |= {f"/etc/systemd/system/{wants[Path(unit).suffix]}/{unit}" for unit in units}
    paths |= {"/etc/kubernetes/kubelet.kubeconfig"}
    after = host.list_files(INSTALLED)
    new = {
        path
        for path in set(after) - set(with_packages)
        if path.startswith(("/etc/", "/opt/")) and not after[path].startswith("d")
        and not path.startswith(("/opt/k8s/bundle/", "/opt/containerd"))
    }  # fmt: skip
    assert new == paths
    assert set(host.output("ls /var/lib/bundler").split()) - {"sysctls"} == {
        "current",
        "dirs",
        "packages.log",
        "etcd-member",
        "existed",
        "files",
        "generations",
        "journal",
        "packages",
        "users",
    }


def read_files(host: Host, paths: list[str]) -> dict[str, str]:
    """Map each path to its mode, owner and digest."""
    lines = host.output(
        f"for f in {' '.join(paths)}; do stat -c '%n %a %u:%g' $f; openssl dgst -sha256 -r $f; done"
    ).splitlines()
    pairs = (facts.split(" ", 1) for facts in lines[::2])
    digests = (line.split(" ")[0] for line in lines[1::2])
    return {path: f"{facts} {digest}" for (path, facts), digest in zip(pairs, digests, strict=True)}


def test_uninstall_restores_the_host(solo: tuple[Host, Path]) -> None:
    host, _ = solo
    said = host.output("/opt/k8s/bundle/uninstall.sh --yes --purge-data --remove-packages")
    assert "removed" in said
    assert differences(BEFORE[host.name], host.list_files()) == {}
    assert not {"cni0", "kube-ipvs0"} & set(host.output("ls /sys/class/net").split())
    assert host.run("grep -l '[/]opt/k8s/bin' /proc/[0-9]*/cmdline", check=False).stdout == ""
