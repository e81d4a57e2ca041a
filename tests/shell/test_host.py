"""The kernel settings, swap, firewall and services of a host: what install.sh changes or advises."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.expiring_certificates import make_pem
from support.fake_host import SWAPS, FakeHost, make_host
from support.shells import Sh
from support.trees import Trees, rewrite_manifest

pytestmark = pytest.mark.slow  # every test runs a whole install.sh

NOTHING = "{}: nothing to do\n"
FIREWALLD = 'case "$*" in *get-zone*) echo internal ;; *--query-*) {} ;; esac'


@pytest.fixture
def host_of(sh: Sh, trees: Trees, tmp_path: Path) -> Callable[[str], FakeHost]:
    return lambda node: make_host(sh, trees / node, tmp_path / "host")


@pytest.fixture
def worker(host_of: Callable[[str], FakeHost]) -> FakeHost:
    return host_of("worker1")


@pytest.mark.parametrize("node", ["worker1", "master1"])
def test_a_healthy_host_gets_no_warning(host_of: Callable[[str], FakeHost], node: str) -> None:
    host = host_of(node)
    announced = host.install("--dry-run")
    assert (announced.returncode, announced.stderr) == (0, "")
    done = host.install()
    assert (done.returncode, done.stderr) == (0, "")
    again = host.install()
    assert (again.returncode, again.stdout, again.stderr) == (0, NOTHING.format(node), "")
    gone = host.uninstall()
    assert (gone.returncode, gone.stderr) == (0, "")
    assert not host.has("root/opt")


# The bootstrap token


@pytest.mark.parametrize("joined", [False, True])
def test_a_token_that_has_ended_is_refused_unless_the_node_has_joined(
    worker: FakeHost, joined: bool
) -> None:
    state = worker.bundle / "state.env"
    state.write_text(
        re.sub(
            "TOKEN_EXPIRES='.*'", f"TOKEN_EXPIRES='{int(time.time()) - 200000}'", state.read_text()
        )
    )
    rewrite_manifest(worker.bundle)
    if joined:
        pki = worker.root / "var/lib/kubelet/pki"
        pki.mkdir(parents=True)
        (pki / "kubelet-client-current.pem").write_bytes(make_pem("system:node:worker1", 30))
    done = worker.install("--dry-run")
    assert done.returncode == (0 if joined else 3)
    assert (
        "bootstrap-token: this bundle's bootstrap token ended 2 days ago" in done.stderr
    ) is not joined


# Swap


def test_swap_is_turned_off_and_restored(worker: FakeHost) -> None:
    worker.swap_on()
    said = worker.install("--dry-run").stdout
    assert "\nswap off /dev/sda2\n" in said
    assert "\nmask     dev-sda2.swap\n" in said
    assert not worker.has("masked/dev-sda2.swap")
    done = worker.install()
    assert done.returncode == 0, done.stderr
    assert "turning swap off: /dev/sda2" in done.stdout
    assert worker.read("/proc/swaps") == SWAPS
    assert worker.has("masked/dev-sda2.swap")
    assert worker.install().stdout == NOTHING.format("worker1")
    assert "swap on  /dev/sda2\nunmask   dev-sda2.swap\n" in worker.uninstall("--dry-run").stdout
    gone = worker.uninstall()
    assert gone.returncode == 0, gone.stderr
    assert "/dev/sda2" in worker.read("/proc/swaps")
    assert not worker.has("masked/dev-sda2.swap")


def test_swap_that_was_off_before_stays_off(worker: FakeHost) -> None:
    worker.mark("swap-units/dev-sda2.swap", "/run/systemd/generator/dev-sda2.swap")
    worker.mark("swap-units/dev-dm\\x2d0.swap")  # another name of it, without a file
    assert worker.install().returncode == 0
    assert worker.has("masked/dev-sda2.swap")
    assert not worker.has("masked/dev-dm\\x2d0.swap")
    assert not [call for call in worker.calls if call.startswith("swapoff")]
    assert worker.install().stdout == NOTHING.format("worker1")
    assert worker.uninstall().returncode == 0
    assert not worker.has("masked/dev-sda2.swap")
    assert worker.read("/proc/swaps") == SWAPS


def test_services_that_make_swap_are_masked_too(worker: FakeHost) -> None:
    worker.mark("enabled/zramswap.service")
    assert worker.install().returncode == 0
    assert worker.has("masked/zramswap.service")
    assert worker.install().stdout == NOTHING.format("worker1")


def test_nodes_without_a_kubelet_keep_their_swap(host_of: Callable[[str], FakeHost]) -> None:
    host = host_of("master1")
    host.swap_on(used_kilobytes=2000000)
    assert host.install().returncode == 0
    assert "/dev/sda2" in host.read("/proc/swaps")
    assert not host.has("masked/dev-sda2.swap")
    assert host.install().stdout == NOTHING.format("master1")


def test_swap_that_does_not_fit_into_memory_is_refused(worker: FakeHost) -> None:
    worker.swap_on(used_kilobytes=2048000)
    done = worker.install()
    assert done.returncode == 3
    assert (
        "swap: 2000 MiB are swapped out (/dev/sda2), and 1000 MiB of memory are free" in done.stderr
    )
    assert "Nothing was changed." in done.stderr
    assert not worker.has("root/opt")


def test_swap_stays_on_if_the_check_is_skipped(worker: FakeHost) -> None:
    worker.swap_on(used_kilobytes=2048000)
    done = worker.install("--skip-preflight", "swap")
    assert done.returncode == 0
    assert done.stderr == "warning: swap: it stays on: /dev/sda2 (skipped)\n"
    assert "/dev/sda2" in worker.read("/proc/swaps")
    assert not worker.has("masked/dev-sda2.swap")
    assert worker.install("--skip-preflight", "swap").stdout == NOTHING.format("worker1")


def test_swap_of_the_containers_machine_is_not_touched(worker: FakeHost) -> None:
    worker.swap_on()
    worker.program("systemd-detect-virt", "exit 0")
    done = worker.install()
    assert done.returncode == 3
    assert "swap: it is on outside of this container: /dev/sda2" in done.stderr
    assert "/dev/sda2" in worker.read("/proc/swaps")


def test_a_swap_unit_in_etc_must_be_disabled_by_its_owner(worker: FakeHost) -> None:
    worker.write("/etc/systemd/system/swapfile.swap", "[Swap]\nWhat=/swapfile\n")
    assert worker.install("--dry-run").returncode == 0
    worker.mark("enabled/swapfile.swap")
    done = worker.install("--dry-run")
    assert done.returncode == 3
    assert "fix: systemctl disable --now swapfile.swap" in done.stderr


@pytest.mark.parametrize("moment", ["mask", "swapoff", "reload"])
def test_the_next_run_completes_a_killed_run(worker: FakeHost, moment: str) -> None:
    worker.swap_on()
    worker.mark("active/NetworkManager.service")
    worker.mark(f"kill-{moment}")
    assert worker.install().returncode in {-9, 137}
    assert worker.install().returncode == 0
    assert worker.read("/proc/swaps") == SWAPS
    assert worker.has("masked/dev-sda2.swap")
    assert worker.calls.count("systemctl reload NetworkManager.service") == 1 + (moment == "reload")
    assert worker.install().stdout == NOTHING.format("worker1")
    assert worker.uninstall().returncode == 0
    assert "/dev/sda2" in worker.read("/proc/swaps")
    assert not worker.has("masked/dev-sda2.swap")


# Kernel settings


def test_the_rollout_slot_of_a_killed_run_is_released_by_the_next(worker: FakeHost) -> None:
    assert worker.install().returncode == 0
    ticket = worker.root / "var/lib/bundler/ticket"
    ticket.write_text("5\n")
    worker.program("kubectl", "exit 1")
    done = worker.install()
    assert (done.returncode, ticket.exists()) == (0, True)
    assert "other nodes still wait for worker1" in done.stderr
    worker.program("kubectl", "exit 0")
    assert worker.install().returncode == 0
    assert any(call.endswith("annotate node worker1 bundler/turn-") for call in worker.calls)
    assert worker.install().stdout == NOTHING.format("worker1")


def test_settings_are_set_and_restored(worker: FakeHost) -> None:
    worker.sysctl("net.ipv4.ip_forward").write_text("0\n")
    worker.sysctl("vm.swappiness").write_text("60\n")
    worker.sysctl("fs.inotify.max_user_instances").write_text("128\n")
    said = worker.install("--dry-run").stdout
    assert "\nset      net.ipv4.ip_forward=1\n" in said
    assert "\nset      fs.inotify.max_user_instances>=8192\n" in said
    done = worker.install()
    assert (done.returncode, done.stderr) == (0, "")
    assert worker.sysctl("net.ipv4.ip_forward").read_text() == "1\n"
    assert worker.sysctl("vm.swappiness").read_text() == "0\n"
    assert worker.sysctl("fs.inotify.max_user_instances").read_text() == "8192\n"
    assert worker.install().stdout == NOTHING.format("worker1")
    worker.uninstall()
    assert worker.sysctl("net.ipv4.ip_forward").read_text() == "0\n"
    assert worker.sysctl("fs.inotify.max_user_instances").read_text() == "128\n"


def test_a_setting_of_several_words_is_set_and_restored(worker: FakeHost) -> None:
    edit_facts(worker, "SYSCTLS='", "SYSCTLS='net.ipv4.tcp_rmem=4096+87380+6291456 ")
    file = worker.sysctl("net.ipv4.tcp_rmem")
    file.write_text("4096\t131072\t6291456\n")
    assert worker.install().returncode == 0
    assert file.read_text() == "4096 87380 6291456\n"
    file.write_text("4096\t87380\t6291456\n")  # as the kernel shows it
    assert worker.install().stdout == NOTHING.format("worker1")
    worker.uninstall()
    assert file.read_text() == "4096\t131072\t6291456\n"


def test_a_higher_limit_of_the_host_stays(worker: FakeHost) -> None:
    worker.sysctl("fs.inotify.max_user_watches").write_text("9999999\n")
    worker.sysctl("fs.file-max").write_text("18446744073709551615\n")  # of older kernels
    assert "set      " not in worker.install("--dry-run").stdout
    worker.install()
    assert worker.sysctl("fs.inotify.max_user_watches").read_text() == "9999999\n"
    assert worker.sysctl("fs.file-max").read_text() == "18446744073709551615\n"


def test_an_optional_setting_that_the_kernel_does_not_have_is_a_warning(worker: FakeHost) -> None:
    worker.sysctl("net.ipv4.neigh.default.gc_thresh1").unlink()
    worker.forbid("vm.swappiness")
    assert "gc_thresh" not in worker.install("--dry-run").stdout
    done = worker.install()
    assert done.returncode == 0
    assert done.stderr == (
        "warning: kernel settings that this kernel does not have or forbids: "
        "vm.swappiness=0 net.ipv4.neigh.default.gc_thresh1>=1024\n"
    )
    again = worker.install()
    assert (again.stdout, again.stderr) == (NOTHING.format("worker1"), "")
    assert worker.uninstall().returncode == 0


def test_a_host_that_forbids_a_required_setting_is_refused(worker: FakeHost) -> None:
    worker.forbid("net.ipv4.ip_forward")
    done = worker.install()
    assert done.returncode == 3
    assert "sysctls: this kernel does not have or forbids net.ipv4.ip_forward=1" in done.stderr
    assert not worker.has("root/opt")
    skipped = worker.install("--skip-preflight", "sysctls")
    assert skipped.returncode == 0
    assert "forbids net.ipv4.ip_forward=1 (skipped)" in skipped.stderr
    assert worker.install("--skip-preflight", "sysctls").stdout == NOTHING.format("worker1")


def forget_bridge(host: FakeHost, modprobe: str) -> list[Path]:
    """The bridge's settings come with a module that is not loaded yet."""
    (host.live / "sys/module/br_netfilter").rmdir()
    files = [host.sysctl(f"net.bridge.bridge-nf-call-ip{six}tables") for six in ("", "6")]
    for file in files:
        file.unlink()
    host.program("modprobe", modprobe)
    return files


def test_settings_that_come_with_a_module_are_set_after_it_is_loaded(worker: FakeHost) -> None:
    directory = worker.sysctl("net.bridge")
    files = forget_bridge(
        worker,
        f'[ "$1" = -n ] || for name in ip ip6; do echo 0 >{directory}/bridge-nf-call-${{name}}tables; done',
    )
    done = worker.install()
    assert (done.returncode, done.stderr) == (0, "")
    assert [file.read_text() for file in files] == ["1\n", "1\n"]
    assert worker.install().stdout == NOTHING.format("worker1")


def test_the_installation_fails_if_a_required_setting_cannot_be_set(worker: FakeHost) -> None:
    forget_bridge(worker, "exit 0")
    done = worker.install()
    assert done.returncode == 1
    assert "cannot set net.bridge.bridge-nf-call-iptables=1" in done.stderr
    assert not worker.has("active/kubelet.service")


def test_a_host_without_br_netfilter_is_refused(worker: FakeHost) -> None:
    forget_bridge(worker, "exit 1")
    done = worker.install()
    assert done.returncode == 3
    assert "boot a kernel that has them (net.bridge: br_netfilter)" in done.stderr


# Advice


def test_advice_can_be_skipped_by_name_and_stops_nothing(worker: FakeHost) -> None:
    worker.write("/etc/resolv.conf", "nameserver 127.0.0.53\n")
    (worker.directory / "active/chronyd.service").unlink()
    done = worker.install("--skip-preflight", "time-sync")
    assert done.returncode == 0
    assert "resolver: " in done.stderr
    assert "time-sync" not in done.stderr
    again = worker.install()
    assert (again.stdout, again.stderr) == (NOTHING.format("worker1"), "")
    assert "time-sync: " in worker.install("--dry-run").stderr


def test_failures_are_printed_with_the_advice(worker: FakeHost) -> None:
    worker.write("/etc/resolv.conf", "nameserver 127.0.0.53\n")
    worker.forbid("net.ipv4.ip_forward")
    done = worker.install()
    assert done.returncode == 3
    assert "warning: resolver: " in done.stderr
    assert "  sysctls: " in done.stderr


@pytest.mark.parametrize(
    ("services", "timedatectl", "expected"),
    [
        ([], "echo NTPSynchronized=yes", "time-sync: no service synchronizes the clock"),
        (["ntpd"], "echo NTPSynchronized=no", "time-sync: ntpd runs, and the clock is not"),
        (["ntpd"], "exit 1", None),
        (
            ["ntpd"],
            'case $1 in show) exit 1 ;; *) echo "NTP synchronized: no" ;; esac',
            "ntpd runs",
        ),
        (["systemd-timesyncd"], "echo NTPSynchronized=yes", None),
    ],
)
def test_an_unsynchronized_clock_is_reported(
    worker: FakeHost, services: list[str], timedatectl: str, expected: str | None
) -> None:
    (worker.directory / "active/chronyd.service").unlink()
    for service in services:
        worker.mark(f"active/{service}.service")
    worker.program("timedatectl", timedatectl)
    done = worker.install("--dry-run")
    assert done.returncode == 0
    assert expected in done.stderr if expected else done.stderr == ""
    worker.program("systemd-detect-virt", "exit 0")
    assert worker.install("--dry-run").stderr == ""


@pytest.mark.parametrize(
    ("resolver", "better", "expected"),
    [
        ("nameserver 127.0.0.53\noptions edns0\n", "nameserver 192.0.2.53\n", False),
        ("nameserver 127.0.0.1\nnameserver ::1\n", "", True),
        ("nameserver 127.0.0.53\n", "nameserver 127.0.0.1\n", True),
        ("nameserver 127.0.0.1\nnameserver 192.0.2.53\n", "", False),
        ("search example.org\n", "", False),
    ],
)  # fmt: skip
def test_a_resolver_on_loopback_is_reported_where_there_is_no_better_one(
    worker: FakeHost, resolver: str, better: str, expected: bool
) -> None:
    worker.write("/etc/resolv.conf", resolver)
    if better:
        worker.write("/run/systemd/resolve/resolv.conf", better)
    done = worker.install("--dry-run")
    assert done.returncode == 0
    assert ("resolvConf: a file with your site's name servers" in done.stderr) is expected
    assert expected or done.stderr == ""


def test_a_host_without_a_file_of_name_servers_is_refused(worker: FakeHost) -> None:
    (worker.live / "etc/resolv.conf").unlink()
    done = worker.install("--dry-run")
    assert done.returncode == 3
    assert "resolver: /etc/resolv.conf is not on this host, and without it no pod" in done.stderr
    worker.write("/run/systemd/resolve/resolv.conf", "nameserver 192.0.2.53\n")
    assert worker.install("--dry-run").returncode == 0


def test_a_named_file_of_name_servers_that_is_missing_is_refused(worker: FakeHost) -> None:
    edit_facts(
        worker, "RESOLV_CONF='/run/kubelet-join/resolv.conf'", "RESOLV_CONF='/etc/site.conf'"
    )
    done = worker.install("--dry-run")
    assert done.returncode == 3
    assert (
        "resolver: /etc/site.conf is not on this host, and without it no pod starts" in done.stderr
    )


def test_a_named_interface_that_this_host_does_not_have_is_refused(
    host_of: Callable[[str], FakeHost],
) -> None:
    host = host_of("master1")
    (host.live / "sys/class/net/eth0").rmdir()
    done = host.install("--dry-run")
    assert done.returncode == 3
    assert "interface: this host has no interface eth0 for the endpoint's address" in done.stderr
    assert "Nothing was changed." in done.stderr
    edit_facts(host, "VIP_INTERFACE='eth0'", "VIP_INTERFACE=''")
    assert host.install("--dry-run").returncode == 0
    host.program("ip", 'echo "1: lo    inet 172.30.20.11/32 scope global lo"')
    done = host.install("--dry-run")
    assert "interface: 172.30.20.11 is on lo only, and the endpoint's address" in done.stderr


def test_docker_on_a_kernel_with_apparmor_needs_its_parser(worker: FakeHost) -> None:
    worker.write("/sys/module/apparmor/parameters/enabled", "Y\n")
    assert worker.install("--dry-run").returncode == 0  # not mounted: off
    (worker.live / "sys/kernel/security/apparmor").mkdir(parents=True)
    done = worker.install("--dry-run")
    assert done.returncode == 3
    assert "apparmor: the kernel has AppArmor on, and without apparmor_parser" in done.stderr
    worker.program("apparmor_parser", "exit 0")
    assert worker.install("--dry-run").returncode == 0


def test_a_kernel_without_seccomp_is_reported(worker: FakeHost) -> None:
    worker.write("/proc/self/status", "Name:\tsh\n")
    done = worker.install("--dry-run")
    assert done.returncode == 0
    assert "seccomp: the kernel has no seccomp" in done.stderr


def test_selinux_gets_advice_and_files_are_labelled(worker: FakeHost) -> None:
    worker.write("/sys/fs/selinux/enforce", "1")
    worker.program("restorecon", "exit 0")
    worker.program("matchpathcon", "echo system_u:object_r:usr_t:s0")
    done = worker.install()
    assert done.returncode == 0
    assert "semanage fcontext -a -t bin_t '/opt/k8s/bundle(/.*)?'\n" in done.stderr
    assert "restorecon" not in done.stderr  # nothing is there yet: the command would fail
    assert "restorecon -RF /opt/k8s/bundle\n" in worker.install("--dry-run").stderr
    labelled = " ".join(call for call in worker.calls if call.startswith("restorecon -F "))
    assert f"{worker.root}/etc/docker/daemon.json" in labelled.split()
    assert f"{worker.root}/opt/k8s" in labelled.split()


def test_selinux_with_a_policy_or_permissive_gets_no_advice(worker: FakeHost) -> None:
    worker.write("/sys/fs/selinux/enforce", "1")
    worker.program("matchpathcon", "echo system_u:object_r:bin_t:s0")
    worker.program("restorecon", "exit 0")
    assert worker.install("--dry-run").stderr == ""
    worker.program("matchpathcon", "exit 1")
    worker.write("/sys/fs/selinux/enforce", "0")
    assert worker.install("--dry-run").stderr == ""


def test_network_manager_is_reloaded_only_when_its_file_changed(worker: FakeHost) -> None:
    worker.mark("active/NetworkManager.service")
    reload = "systemctl reload NetworkManager.service"
    assert "reload   NetworkManager.service\n" in worker.install("--dry-run").stdout
    worker.install()
    assert worker.calls.count(reload) == 1
    (worker.root / "etc/docker/daemon.json").write_text("changed by hand\n")
    worker.install()
    assert worker.calls.count(reload) == 1
    worker.uninstall()
    assert worker.calls.count(reload) == 2


STATES = "eth0:connected cni0:disconnected docker0:connected(externally) veth0a0b2d83:unmanaged cnx:connected"


def test_network_manager_releases_what_it_took_while_the_file_was_missing(worker: FakeHost) -> None:
    worker.mark("active/NetworkManager.service")
    worker.program("nmcli", f"echo '{STATES}' | tr ' ' '\\n'")
    done = worker.install()
    assert done.returncode == 0
    changes = [call for call in worker.calls if call.endswith(" NetworkManager.service")]
    assert changes[-2:] == [
        f"systemctl {verb} NetworkManager.service" for verb in ("reload", "restart")
    ]
    assert done.stderr == (
        "warning: NetworkManager had taken cni0: pods that ran on this host may be cut off\n"
        "    fix: kubectl delete pods --all-namespaces --field-selector spec.nodeName=worker1\n"
    )


def test_network_manager_that_cannot_be_asked_is_said(worker: FakeHost) -> None:
    worker.mark("active/NetworkManager.service")
    worker.program("nmcli", "exit 1")
    done = worker.install()
    assert done.returncode == 0
    assert done.stderr.startswith("warning: nmcli cannot tell")
    assert "fix: systemctl restart NetworkManager " in done.stderr


# Firewalls


def rules_of(stderr: str) -> list[str]:
    """The commands that a warning prints."""
    return [line.removeprefix("    fix: ").strip() for line in stderr.splitlines()[1:]]


def test_missing_firewalld_rules_are_printed(worker: FakeHost) -> None:
    worker.mark("active/firewalld.service")
    worker.program("firewall-cmd", FIREWALLD.format('[ "${3#*port=10250}" != "$3" ]'))
    done = worker.install("--dry-run")
    assert done.returncode == 0
    assert done.stderr.startswith("warning: firewall: firewalld is running, and has no rules")
    assert rules_of(done.stderr) == [
        "firewall-cmd --permanent --zone=internal --add-port=10256/tcp",
        "firewall-cmd --permanent --zone=internal --add-port=30000-32767/tcp",
        "firewall-cmd --permanent --zone=internal --add-port=30000-32767/udp",
        "firewall-cmd --permanent --zone=trusted --add-source=10.200.0.0/16",
        "firewall-cmd --permanent --zone=trusted --add-source=10.254.0.0/16",
        "firewall-cmd --reload",
    ]
    worker.program("firewall-cmd", FIREWALLD.format("exit 0"))
    assert worker.install("--dry-run").stderr == ""


def test_vrrp_is_open_on_load_balancers(host_of: Callable[[str], FakeHost]) -> None:
    host = host_of("master1")
    host.mark("active/firewalld.service")
    host.program("firewall-cmd", FIREWALLD.format("exit 1"))
    rules = rules_of(host.install("--dry-run").stderr)
    assert "firewall-cmd --permanent --zone=internal --add-protocol=vrrp" in rules
    assert "firewall-cmd --permanent --zone=internal --add-port=8443/tcp" in rules
    assert not any("--zone=trusted" in rule for rule in rules)


def test_the_port_of_flannel_is_open(worker: FakeHost) -> None:
    edit_facts(worker, "30000-32767/udp'", "30000-32767/udp 8472/udp'")
    worker.mark("active/firewalld.service")
    worker.program("firewall-cmd", FIREWALLD.format("exit 1"))
    assert "--add-port=8472/udp" in worker.install("--dry-run").stderr


def test_the_ports_of_add_ons_are_open(worker: FakeHost) -> None:
    edit_facts(worker, "OPEN_PORTS=", "ADDON_PORTS='4789/udp 7946-7950/tcp'\nOPEN_PORTS=")
    worker.program("ufw", "echo 'Status: active'")
    rules = rules_of(worker.install("--dry-run").stderr)
    assert {"ufw allow 4789/udp", "ufw allow 7946:7950/tcp"} <= set(rules)


def test_missing_ufw_rules_are_printed(worker: FakeHost) -> None:
    present = "Status: active\n\nTo    Action  From\n10250/tcp   ALLOW   Anywhere\nAnywhere   ALLOW   10.200.0.0/16\n"
    worker.program("ufw", f"printf '%s' '{present}'")
    done = worker.install("--dry-run")
    assert done.stderr.startswith("warning: firewall: ufw is active")
    assert rules_of(done.stderr) == [
        "ufw allow 10256/tcp",
        "ufw allow 30000:32767/tcp",
        "ufw allow 30000:32767/udp",
        "ufw allow from 10.254.0.0/16",
    ]
    worker.program("ufw", "echo 'Status: inactive'")
    assert worker.install("--dry-run").stderr == ""


@pytest.mark.parametrize("chain", ["-P INPUT DROP", "-A INPUT -j REJECT --reject-with icmp-port"])
def test_missing_iptables_rules_are_printed(worker: FakeHost, chain: str) -> None:
    present = "-C INPUT -s 10.200.0.0/16 -j ACCEPT"
    worker.program(
        "iptables", f'case "$*" in "-S INPUT") echo "{chain}" ;; "{present}") ;; *) exit 1 ;; esac'
    )
    done = worker.install("--dry-run")
    assert rules_of(done.stderr)[:5] == [
        "iptables -I INPUT -p tcp --dport 10250 -j ACCEPT",
        "iptables -I INPUT -p tcp --dport 10256 -j ACCEPT",
        "iptables -I INPUT -p tcp --dport 30000:32767 -j ACCEPT",
        "iptables -I INPUT -p udp --dport 30000:32767 -j ACCEPT",
        "iptables -I INPUT -s 10.254.0.0/16 -j ACCEPT",
    ]  # fmt: skip
    assert rules_of(done.stderr)[5].startswith("# and save them")


def test_dropped_forwarding_is_reported_unless_a_unit_accepts_it(worker: FakeHost) -> None:
    worker.program(
        "iptables", 'case "$*" in "-S FORWARD") echo "-P FORWARD DROP" ;; *) exit 1 ;; esac'
    )
    assert worker.install("--dry-run").stderr == ""
    edit_facts(worker, "kube-pod-routes.service docker.service ", "")
    assert rules_of(worker.install("--dry-run").stderr)[:2] == [
        "iptables -I FORWARD -s 10.200.0.0/16 -j ACCEPT",
        "iptables -I FORWARD -d 10.200.0.0/16 -j ACCEPT",
    ]


CHAINS = """table ip filter {
	chain INPUT {
		type filter hook input priority filter; policy drop;
	}
}
table inet host {
	chain in {
		type filter hook input priority filter; policy drop;
	}
	chain through {
		type filter hook forward priority filter; policy drop;
	}
}
"""


def test_missing_nftables_rules_are_printed(host_of: Callable[[str], FakeHost]) -> None:
    host = host_of("worker1")
    host.program(
        "nft",
        f"case \"$*\" in 'list chains') printf '%s' '{CHAINS}' ;;\n"
        "'list chain inet host in') echo 'tcp dport 10250 accept' ;; esac",
    )
    assert rules_of(host.install("--dry-run").stderr) == [
        "nft insert rule inet host in tcp dport 10256 accept",
        "nft insert rule inet host in tcp dport 30000-32767 accept",
        "nft insert rule inet host in udp dport 30000-32767 accept",
        "nft insert rule inet host in ip saddr 10.200.0.0/16 accept",
        "nft insert rule inet host in ip saddr 10.254.0.0/16 accept",
        "nft insert rule inet host through ip saddr 10.200.0.0/16 accept",
        "nft insert rule inet host through ip daddr 10.200.0.0/16 accept",
        "# and write them to /etc/nftables.conf",
    ]


def edit_facts(host: FakeHost, old: str, new: str) -> None:
    """Another node.env, and a manifest that knows it."""
    facts = host.bundle / "node.env"
    text = facts.read_text()
    assert old in text
    facts.write_text(text.replace(old, new))
    rewrite_manifest(host.bundle)
