"""A host made of folders: its /proc and /sys, and programs that stand in for systemctl and others.

install.sh and uninstall.sh run on it as they are, but for a few functions that ask for what no
folder can be (real units, images, network interfaces).
"""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from support.shells import Sh, write_program

SWAPS = "Filename\tType\tSize\tUsed\tPriority\n"

INSTALL = """
is_staged() { false; }
id() { case $1 in -u) echo 0 ;; *) echo root ;; esac; }
list_missing_images() { :; }
load_images() { :; }
wait_until_ready() { unready_units=kubelet.service outcome=$(cat "$fake/outcome" 2>/dev/null || echo ready); }
update_unready_units() { unready_units=$(cat "$fake/unready" 2>/dev/null); }
for name in root systemd targets host arch cgroups commands nginx_stream ports units; do
    eval "check_$name() { :; }"
done
"""
UNINSTALL = """
is_staged() { false; }
id() { case $1 in -u) echo 0 ;; *) echo root ;; esac; }
stop_units() { :; }
"""

# Units are files: known/UNIT, active/UNIT, enabled/UNIT, masked/UNIT, and swap-units/UNIT with its FragmentPath.
SYSTEMCTL = r"""
cd {state}
[ "$1" != -q ] || {{ shift; exec >/dev/null; }}
command=$1
shift
[ "$1" != --runtime ] || shift
case $command in
    --version) echo "systemd 252 (252.39-1~deb12u1)" ;;
    is-active) if [ -e "active/$1" ]; then echo active; else echo inactive; exit 3; fi ;;
    is-enabled) [ -e "enabled/$1" ] && [ ! -e "masked/$1" ] ;;
    cat) [ -e "known/$1" ] ;;
    disable) [ "$1" != --now ] || shift; rm -f "enabled/$1" ;;
    enable) for unit; do : >"enabled/$unit"; done ;;
    --no-block) : >"active/$2" ;;
    list-units)
        for unit in swap-units/*.swap; do
            [ -e "$unit" ] || continue
            unit=${{unit#*/}}
            if [ -e "masked/$unit" ]; then printf '%s masked inactive dead %s\n' "$unit" "$unit"
            else printf '  %s loaded active active /dev/sda2\n' "$unit"; fi
        done
        ;;
    show) echo "FragmentPath=$(cat "swap-units/$3")" ;;
    mask) if [ -e kill-mask ]; then rm kill-mask; kill -9 $PPID; fi; : >"masked/$1" ;;
    unmask) rm -f "masked/$1" ;;
    reload) if [ -e kill-reload ]; then rm kill-reload; kill -9 $PPID; fi ;;
esac
"""


@dataclass(frozen=True)
class FakeHost:
    """The folders, and the scripts run on them."""

    sh: Sh
    bundle: Path
    directory: Path

    @property
    def live(self) -> Path:
        return self.directory / "live"

    @property
    def root(self) -> Path:
        return self.directory / "root"

    @property
    def calls(self) -> list[str]:
        return (self.directory / "calls").read_text().splitlines()

    def program(self, name: str, text: str) -> None:
        """A program in front of the real ones; its calls are written down."""
        write_program(
            self.directory / "bin" / name, f'echo "{name} $*" >>{self.directory}/calls\n{text}\n'
        )

    def write(self, path: str, text: str) -> None:
        """A file of the running system, as /proc/swaps."""
        target = self.live / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.write_text(text)

    def read(self, path: str) -> str:
        return (self.live / path.lstrip("/")).read_text()

    def mark(self, path: str, text: str = "") -> None:
        """State of the stand-in for systemctl: active/UNIT and so on."""
        (self.directory / path).write_text(text)

    def has(self, path: str) -> bool:
        return (self.directory / path).exists()

    def sysctl(self, name: str) -> Path:
        return self.live / "proc/sys" / name.replace(".", "/")

    def forbid(self, name: str) -> None:
        """A setting that not even root may write."""
        self.sysctl(name).unlink(missing_ok=True)
        self.sysctl(name).symlink_to("/proc/sys/kernel/ostype")

    def swap_on(self, used_kilobytes: int = 0) -> None:
        self.write("/proc/swaps", f"{SWAPS}/dev/sda2 partition 2097148 {used_kilobytes} -2\n")
        self.mark("swap-units/dev-sda2.swap", "/run/systemd/generator/dev-sda2.swap")

    def install(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self._run("install.sh", INSTALL, *arguments, **environment)

    def uninstall(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self._run("uninstall.sh", UNINSTALL, "--yes", *arguments, **environment)

    def _run(
        self, name: str, instead: str, *arguments: str, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        # Not in the bundle, which holds what MANIFEST names and no more.
        text = re.sub(
            r"^here=.*",
            lambda _: f"here={self.bundle}",
            (self.bundle / name).read_text(),
            flags=re.MULTILINE,
        )
        script = self.directory / f"fake-{name}"
        instead = f"live={self.live}\nfake={self.directory}\n{instead}"
        script.write_text(
            re.sub(r'^main "\$@"$', lambda _: f'{instead}main "$@"', text, flags=re.MULTILINE)
        )
        path = f"{self.directory}/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        environment = {"DESTDIR": str(self.root), "PATH": path} | environment
        return self.sh(script, *arguments, **environment)


def make_host(sh: Sh, bundle: Path, directory: Path) -> FakeHost:
    """A healthy host for a bundle: nothing to warn of."""
    host = FakeHost(sh=sh, bundle=bundle, directory=directory)
    for name in ("known", "active", "enabled", "masked", "swap-units", "root/etc"):
        (directory / name).mkdir(parents=True)
    host.mark("calls")
    host.mark("active/chronyd.service")
    host.write("/proc/swaps", SWAPS)
    host.write("/proc/self/mountinfo", "")
    host.program("umount", "exit 0")
    host.write("/proc/meminfo", "MemTotal: 4000000 kB\nMemAvailable: 1024000 kB\n")
    host.write("/proc/self/status", "Seccomp:\t0\n")
    host.write("/etc/resolv.conf", "nameserver 192.0.2.53\n")
    facts = (bundle / "node.env").read_text()
    for setting in " ".join(
        re.findall(r"^SYSCTLS(?:_WANTED)?='(.*)'$", facts, re.MULTILINE)
    ).split():
        name, value = re.split(">?=", setting)
        host.write(f"/proc/sys/{name.replace('.', '/')}", f"{value}\n")
    for interface in re.findall(r"^VIP_INTERFACE='(.+)'$", facts, re.MULTILINE):
        (host.live / "sys/class/net" / interface).mkdir(parents=True)
    for module in re.findall(r"^MODULES='(.*)'$", facts, re.MULTILINE)[0].split():
        (host.live / "sys/module" / module).mkdir(parents=True)
    host.program("systemctl", SYSTEMCTL.format(state=directory))
    host.program(
        "swapoff",
        f"[ ! -e {directory}/kill-swapoff ] || {{ rm {directory}/kill-swapoff; kill -9 $PPID; }}\nprintf '{SWAPS}' >{host.live}/proc/swaps",
    )
    host.program("swapon", f'echo "$1 partition 2097148 0 -2" >>{host.live}/proc/swaps')
    host.program("systemd-detect-virt", "exit 1")
    host.program("timedatectl", "echo NTPSynchronized=yes")
    host.program("modprobe", "exit 1")
    host.program("iptables", 'case $1 in -S) echo "-P $2 ACCEPT" ;; *) exit 1 ;; esac')
    host.program(
        "ip",
        f'echo "2: eth0    inet {re.findall("ADDRESS=.(.*).$", facts, re.MULTILINE)[0]}/24 scope global eth0"',
    )
    host.program("chown", "exit 0")
    stat = shutil.which("stat")
    host.program("stat", f"{stat} \"$@\" | sed 's/ [0-9]*:[0-9]* [^ ]*$/ 0:0 root:root/'")
    return host
