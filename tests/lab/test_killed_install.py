"""One host that is a whole cluster: killed, and uninstalled.

With containerd, its own nginx, iptables, and the tutorial's PKI: one authority, RSA.
"""

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.lab import INSTALLED, SOLO, Host, build, differences, hosts_sh

# Programs that stand before the real ones in PATH, and kill install.sh at the N-th call.
KILLER = """\
#!/bin/sh
case "{matching}" in "" ) ;; *) case " $* " in *"{matching}"*) ;; *) exec {program} "$@" ;; esac ;; esac
calls=$(($(cat /tmp/calls 2>/dev/null || echo 0) + 1))
echo $calls >/tmp/calls
[ $calls -ne {call} ] || {{ {before} . /tmp/killers/kill-install; exit 1; }}
exec {program} "$@"
"""
KILL_INSTALL = """\
for process in /proc/[0-9]*; do
    case "$(tr '\\0' ' ' <"$process/cmdline" 2>/dev/null)" in
        '/bin/sh /root/'*'/install.sh '*) kill -KILL "${process#/proc/}" ;;
    esac
done
"""

POINTS = [
    # what, program, only with these arguments, at which call, before the kill
    ("while a file is copied", "cp", "", 30, 'head -c 1000 /dev/zero >"$(eval echo \\${$#})";'),
    ("between two file replacements", "mv", ".bundler-new", 20, ""),
    ("after a file was replaced", "mv", ".bundler-new", 10, 'mv "$@";'),
    ("before daemon-reload", "systemctl", "daemon-reload", 1, ""),
    ("before the units are enabled", "systemctl", " enable ", 1, ""),
    ("between two restarts", "systemctl", " restart ", 4, ""),
    ("while an image is loaded", "ctr", " import ", 2, '(timeout 0.2 ctr "$@");'),
]  # fmt: skip


BEFORE: dict[str, dict[str, str]] = {}  # files before any install


@pytest.fixture(scope="module")
def solo(lab_directory: Path, product_cache: Path) -> Iterator[tuple[Host, Path]]:
    """A host that is not installed yet, and its bundle."""
    description = lab_directory / "examples" / "solo.yaml"
    description.write_text(SOLO)
    build(description, lab_directory / "solo", cache=product_cache)
    host = Host("solo", "172.30.20.31")
    hosts_sh("up", f"{host.name}={host.address}")
    yield host, lab_directory / "solo" / "solo-solo.tar.gz"
    shutil.rmtree(lab_directory / "solo")


def plant_killer(host: Host, program: str, matching: str, call: int, before: str) -> None:
    real = f"/opt/k8s/bin/{program}" if program == "ctr" else f"/usr/bin/{program}"
    script = KILLER.format(
        matching=matching,
        call=call,
        program=real,
        before=before.replace(program, real) if before else "",
    )
    host.run("rm -rf /tmp/killers /tmp/calls; mkdir /tmp/killers")
    for name, text in ((program, script), ("kill-install", KILL_INSTALL)):
        host.run(
            f"printf '%s' {shlex.quote(text)} >/tmp/killers/{name}; chmod 755 /tmp/killers/{name}"
        )


def test_an_install_killed_at_any_point_is_finished_by_the_next(solo: tuple[Host, Path]) -> None:
    host, bundle = solo
    before = BEFORE[host.name] = host.list_files()

    # killed while it is unpacked: refused, and nothing is changed
    directory = host.unpack(bundle)
    host.run(
        f"rm -rf {directory}; timeout -s KILL 0.4 tar -xzf {directory}.tar.gz -C /root", check=False
    )
    refused = host.run(f"{directory}/install.sh", check=False)
    assert refused.returncode != 0
    assert host.list_files() == before
    host.run(f"rm -rf {directory}; tar -xzf {directory}.tar.gz -C /root")

    # packages have their own test of kills (test_minimal_hosts.py), and are no files of the bundle's
    host.run(f"{directory}/install.sh --packages-only")
    with_packages = host.list_files()

    for what, program, matching, call, first in POINTS:
        plant_killer(host, program, matching, call, first)
        killed = host.run(f"PATH=/tmp/killers:$PATH {directory}/install.sh", check=False)
        assert killed.returncode == 137, f"not killed {what}: {killed.returncode}\n{killed.stdout}"

    said = host.run(f"{directory}/install.sh", check=False)
    assert said.returncode == 0, said.stdout
    assert "All units are ready." in said.stdout, said.stdout
    verified = host.run("/opt/k8s/bundle/verify.sh", check=False, timeout=400)
    assert verified.returncode == 0, verified.stdout

    # exactly the manifest's files, and what the units made: as after an undisturbed run
    expected = set()
    for line in host.output(f"cat {directory}/MANIFEST").splitlines():
        sha256, mode, _, path = line.split(" ")
        if path.startswith("rootfs/"):
            installed = path.removeprefix("rootfs")
            assert host_file(host, installed) == f"{int(mode, 8):o} 0:0 {sha256}", installed
            expected.add(installed)
    units = host.output(". /opt/k8s/bundle/node.env; echo $BOOT_UNITS $UNITS").split()
    wants = {".service": "multi-user.target.wants", ".timer": "timers.target.wants"}
    expected |= {f"/etc/systemd/system/{wants[Path(unit).suffix]}/{unit}" for unit in units}
    expected |= {"/etc/kubernetes/kubelet.kubeconfig"}
    after = host.list_files(INSTALLED)
    new = {
        path
        for path in set(after) - set(with_packages)
        if path.startswith(("/etc/", "/opt/")) and not after[path].startswith("d")
        and not path.startswith(("/opt/k8s/bundle/", "/opt/containerd"))
    }  # fmt: skip
    assert new == expected
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
    }
    assert host.output(f"{directory}/install.sh").strip() == "solo: nothing to do"


def host_file(host: Host, path: str) -> str:
    facts, digest = host.output(
        f"stat -c '%a %u:%g' {path}; openssl dgst -sha256 -r {path}"
    ).splitlines()
    return f"{facts} {digest.split(' ')[0]}"


def test_uninstall_leaves_the_host_as_it_was(solo: tuple[Host, Path]) -> None:
    host, _ = solo
    said = host.output("/opt/k8s/bundle/uninstall.sh --yes --purge-data --remove-packages")
    assert "removed" in said
    assert differences(BEFORE[host.name], host.list_files()) == {}
    assert not {"cni0", "kube-ipvs0"} & set(host.output("ls /sys/class/net").split())
    assert host.run("grep -l '[/]opt/k8s/bin' /proc/[0-9]*/cmdline", check=False).stdout == ""
