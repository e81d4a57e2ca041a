"""Real packages: resolved with the distribution's mirror, installed without a network."""

from pathlib import Path

import pytest
import yaml
from support.descriptions import write_description, write_upstream
from support.minimal_hosts import MinimalHost, boot, require_repositories
from support.paths import LAB_CACHE

from bundler.cache.store import Cache
from bundler.pipeline import build
from bundler.project import Inputs

pytestmark = (
    pytest.mark.long
)  # the lab's hosts are minimal too, and get packages from their bundles

COMMANDS = [
    "ip",
    "openssl",
    "nginx",
    "keepalived",
    "iptables",
    "conntrack",
    "ipset",
    "curl",
    "ping",
    "socat",
    "ethtool",
    "modprobe",
    "ipvsadm",
    "apparmor_parser",
]
SNAPSHOT = "dpkg-query -W -f '${Package} ${db:Status-Status}\\n' | grep -v config-files | sort"
CONFIGURATION = "find /etc/apt /usr/sbin/policy-rc.d -type f 2>/dev/null | sort | xargs sha256sum"
INSTALL = "/root/lab-master1/install.sh --skip-preflight address --skip-preflight cgroups"


def make_bundle(directory: Path, os_name: str) -> Path:
    """The bundle of a host with every role, with stand-ins for upstream programs."""
    description = write_description(directory)
    cluster = yaml.safe_load(description.read_text())
    cluster["packages"] = {"os": os_name}
    cluster["nodes"][0]["roles"].append("worker")
    description.write_text(yaml.safe_dump(cluster))
    inputs = Inputs(
        description=description, cache=Cache(LAB_CACHE / "packages-cache"),
        pins=write_upstream(directory, description), mirrors=(str(directory / "mirror"),),
    )  # fmt: skip
    build(inputs, directory / "dist")
    return directory / "dist" / "lab-master1.tar.gz"


def missing(host: MinimalHost) -> list[str]:
    told = host.run(f"for c in {' '.join(COMMANDS)}; do command -v $c >/dev/null || echo $c; done")
    return told.stdout.split()


@pytest.mark.parametrize("os_name", ["debian-11", "debian-12", "debian-13"])
def test_a_minimal_host_gets_missing_packages_offline_and_uninstall_removes_them(
    os_name: str, tmp_path: Path
) -> None:
    repositories = require_repositories(os_name)
    bundle = make_bundle(tmp_path, os_name)
    with boot(os_name, repositories, "master1") as host:
        assert missing(host) == COMMANDS
        packages, configuration = host.run(SNAPSHOT).stdout, host.run(CONFIGURATION).stdout
        host.unpack(bundle)

        said = host.run(f"{INSTALL} --dry-run --packages-only").stdout
        assert "package  libnginx-mod-stream " in said
        assert "Dry run: nothing was changed." in said
        assert host.run(SNAPSHOT).stdout == packages

        said = host.run(f"{INSTALL} --packages-only").stdout
        assert " packages installed\n" in said
        assert missing(host) == []
        assert host.run("dpkg --audit").stdout == ""
        assert host.run(CONFIGURATION).stdout == configuration
        for unit in ("nginx.service", "keepalived.service"):
            state = host.run(
                f"systemctl is-active {unit}; systemctl is-enabled {unit}", check=False
            )
            assert state.stdout.split() == ["inactive", "disabled"]
        assert host.run("cat /proc/net/tcp | grep -c ' 0A ' || true").stdout.strip() == "0"
        conf = "include /etc/nginx/modules-enabled/*.conf; events {} stream {}"
        host.run(f"echo '{conf}' >/tmp/nginx.conf; nginx -t -c /tmp/nginx.conf")

        assert "nothing to do" in host.run(f"{INSTALL} --packages-only").stdout
        said = host.run("/root/lab-master1/uninstall.sh --yes").stdout
        assert " packages that it installed are kept" in said
        host.run("/root/lab-master1/uninstall.sh --yes --purge-data --remove-packages")
        assert host.run(SNAPSHOT).stdout == packages
        assert not host.run("ls -d /var/lib/bundler", check=False).stdout.startswith("/var")


def test_a_killed_installation_is_finished_by_the_next_run(tmp_path: Path) -> None:
    repositories = require_repositories("debian-12")
    bundle = make_bundle(tmp_path, "debian-12")
    with boot("debian-12", repositories, "master1") as host:
        host.unpack(bundle)
        for step in ("Unpacking keepalived", "Setting up libelf1", "Setting up nginx-common"):
            host.run(
                f"rm -f /var/lib/bundler/packages.log; ({INSTALL} --packages-only) >/tmp/said 2>&1 &"
                f" until grep -qs '{step}' /tmp/tmp.*/packages.log; do sleep 0.05; kill -0 $! || break; done;"
                " pkill=$(ls /proc | grep '^[0-9]*$' | while read p; do"
                " case $(cat /proc/$p/comm 2>/dev/null) in install.sh | dpkg) echo $p ;; esac; done);"
                " kill -9 $pkill; wait",
                check=False,
            )
            assert missing(host) != [] or host.run("dpkg --audit").stdout != ""
        host.run(f"{INSTALL} --packages-only")
        assert missing(host) == []
        assert host.run("dpkg --audit").stdout == ""
        state = host.run("systemctl is-active nginx; systemctl is-enabled nginx", check=False)
        assert state.stdout.split() == ["inactive", "disabled"]
        assert "nothing to do" in host.run(f"{INSTALL} --packages-only").stdout
