"""Files of a host that win over the bundle's, compared with what systemd's own programs make of them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support.fake_host import make_host
from support.shells import TEMPLATES, Sh
from support.trees import Trees

LIB = TEMPLATES / "common/lib"
SYSCTLS = "net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1"
WANTED = "vm.swappiness=0 fs.inotify.max_user_watches>=1048576"
SYSTEMD_SYSCTL = Path("/lib/systemd/systemd-sysctl")

needs_namespaces = pytest.mark.skipif(
    os.getuid() != 0 or not SYSTEMD_SYSCTL.exists() or not shutil.which("unshare"),
    reason="systemd cannot apply settings in a namespace: there is no systemd-sysctl or unshare, or the user is not root",
)
needs_analyze = pytest.mark.skipif(
    not shutil.which("systemd-analyze"),
    reason="units cannot be read by systemd: there is no systemd-analyze",
)


class Host:
    """A root directory with files of a host."""

    def __init__(self, sh: Sh, root: Path) -> None:
        self.sh = sh
        self.root = root

    def write(self, path: str, text: str) -> None:
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def link(self, path: str, target: str) -> None:
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target)

    def overrides(self, features: str = "cni static", addon: str = "") -> list[list[str]]:
        script = self.root / "script.sh"
        script.write_text(
            f"set -u\nhere={TEMPLATES}/common\n"
            "UNITS='kubelet.service kube-nginx.service docker.service' BOOT_UNITS=bundler-recover.service\n"
            f"ROLES=worker FEATURES='{features}' NETWORK_ADDON='{addon}' MODULES='br_netfilter ip_vs' SYSCTLS='{SYSCTLS}' SYSCTLS_WANTED='{WANTED}'\n"
            f". {LIB}/overrides/overrides.sh\nlist_overrides {self.root}\n"
        )
        done = self.sh(script)
        assert (done.returncode, done.stderr) == (0, "")
        return [line.split("\t") for line in done.stdout.splitlines()]


@pytest.fixture
def host(sh: Sh, tmp_path: Path) -> Host:
    return Host(sh, tmp_path)


def test_a_host_with_the_bundles_files_only_has_no_override(host: Host) -> None:
    host.write("/etc/sysctl.d/99-kubernetes.conf", "net.ipv4.ip_forward = 1\n")
    host.write("/etc/sysctl.d/00-kubernetes-limits.conf", "fs.inotify.max_user_watches = 1048576\n")
    host.write("/etc/cni/net.d/10-bridge.conflist", "{}")
    host.write("/proc/cmdline", "root=/dev/sda1 quiet\n")
    assert host.overrides() == []


def test_a_value_of_several_words_may_be_written_with_tabs(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.SYSCTLS", "net.ipv4.tcp_rmem=4096+87380+6291456")
    host.write("/etc/sysctl.d/99-z.conf", "net.ipv4.tcp_rmem = 4096\t87380  6291456\n")
    assert host.overrides() == []
    host.write("/etc/sysctl.d/99-z.conf", "net.ipv4.tcp_rmem = 1 2 3\n")
    (found,) = host.overrides()
    assert found[2] == "set it to 4096 87380 6291456 there, or remove the line"


FORWARDING = [
    ("/etc/sysctl.d/98-site.conf", "net.ipv4.ip_forward = 0\n", 1),
    ("/etc/sysctl.d/99-sysctl.conf", "net.ipv4.ip_forward = 0\n", 0),
    ("/etc/sysctl.d/99-z.conf", "-net.ipv4.ip_forward=0\n", 0),
    ("/usr/lib/sysctl.d/99-z.conf", "net/ipv4/ip_forward = 0\n", 0),
    ("/etc/sysctl.d/99-z.conf", "net.ipv4.conf.all.forwarding = 0\n", 0),
    ("/etc/sysctl.d/99-z.conf", "net.ipv4.conf.*.forwarding = 0\n", 0),
    ("/etc/sysctl.d/99-z.conf", "# net.ipv4.ip_forward = 0\n", 1),
    ("/etc/sysctl.d/99-z.conf.bak", "net.ipv4.ip_forward = 0\n", 1),
]


@pytest.mark.parametrize(("path", "text", "after"), FORWARDING, ids=str)
def test_a_later_sysctl_file_is_named(host: Host, path: str, text: str, after: int) -> None:
    host.write(path, text)
    found = host.overrides()
    if after:
        assert found == []
        return
    ((level, what, fix),) = found
    assert level == "must"
    assert what.startswith(f"{path} sets net.ipv4.")
    assert what.endswith(" = 0 at the next boot, and the node needs 1")
    assert fix == "set it to 1 there, or remove the line"


@needs_namespaces
@pytest.mark.slow
@pytest.mark.parametrize(("path", "text", "after"), FORWARDING, ids=str)
def test_systemd_applies_sysctl_files_in_this_order(
    tmp_path: Path, path: str, text: str, after: int
) -> None:
    """The real systemd-sysctl, on the settings of a network namespace: all other files are hidden."""
    folders = ("etc/sysctl.d", "usr/lib/sysctl.d", "run/sysctl.d")
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "etc/sysctl.d/99-kubernetes.conf").write_text("net.ipv4.ip_forward = 1\n")
    (tmp_path / path.lstrip("/")).write_text(text)
    script = "set -e\nmount -t tmpfs tmpfs /run\nmkdir -p /run/sysctl.d\n"
    script += "".join(
        f"[ ! -d /{folder} ] || mount --bind {tmp_path}/{folder} /{folder}\n"
        for folder in folders[:2]
    )
    script += (
        "for other in /usr/local/lib/sysctl.d /lib/sysctl.d; do\n"
        '[ ! -d $other ] || [ "$(readlink -f $other)" = /usr/lib/sysctl.d ] || mount -t tmpfs tmpfs $other\ndone\n'
        f"{SYSTEMD_SYSCTL}\ncat /proc/sys/net/ipv4/ip_forward\n"
    )
    done = subprocess.run(
        ["unshare", "--mount", "--net", "sh", "-c", script],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, f"{after}\n"), done.stderr


def test_sysctl_conf_and_ufw_come_last(host: Host) -> None:
    host.write("/etc/sysctl.conf", "vm.swappiness = 60\nfs.inotify.max_user_watches = 8192\n")
    host.write("/etc/ufw/sysctl.conf", "net/ipv4/ip_forward=0\n")
    levels = [(level, what.split()[0]) for level, what, _ in host.overrides()]
    assert levels == [("advice", "/etc/sysctl.conf"), ("advice", "/etc/sysctl.conf")]
    host.write("/etc/ufw/ufw.conf", "ENABLED=yes\n")
    assert ["must", "/etc/ufw/sysctl.conf"] in [
        [level, what.split()[0]] for level, what, _ in host.overrides()
    ]


def test_a_file_in_etc_hides_one_of_the_same_name(host: Host) -> None:
    host.write("/usr/lib/sysctl.d/99-z.conf", "net.ipv4.ip_forward = 0\n")
    host.link("/etc/sysctl.d/99-z.conf", "/dev/null")
    assert host.overrides() == []


def test_networkd_that_turns_forwarding_off_is_named(host: Host) -> None:
    host.write("/etc/systemd/networkd.conf.d/site.conf", "[Network]\nIPv4Forwarding=no\n")
    ((level, what, _),) = host.overrides()
    assert level == "must"
    assert what.startswith("/etc/systemd/networkd.conf.d/site.conf turns net.ipv4.ip_forward off")


KUBEADM = '[Service]\nEnvironment="KUBELET_CONFIG_ARGS=--config=/x"\nExecStart=\nExecStart=/usr/bin/kubelet\n'


@pytest.mark.parametrize(
    ("path", "text", "level", "what", "fix"),
    [
        ("/etc/systemd/system/kubelet.service.d/10-kubeadm.conf", KUBEADM, "must",
         "Environment, ExecStart of kubelet.service", "rm /etc/systemd/system/kubelet.service.d/10-kubeadm.conf"),
        ("/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf", KUBEADM, "must",
         "Environment, ExecStart of kubelet.service",
         "ln -s /dev/null /etc/systemd/system/kubelet.service.d/10-kubeadm.conf"),
        ("/etc/systemd/system/docker.service.d/http-proxy.conf", "[Service]\nEnvironment=HTTPS_PROXY=x\n", "advice",
         "Environment of docker.service", "rm "),
        ("/etc/systemd/system/docker.service.d/post.conf", "[Service]\nExecStartPost=/bin/true\n", "advice",
         "ExecStartPost of docker.service", "rm "),
        ("/etc/systemd/system/kube-.service.d/site.conf", "[Service]\nUser=nobody\n", "must",
         "User of kube-nginx.service", "rm "),
        ("/run/systemd/system.control/docker.service.d/50-MemoryMax.conf", "[Service]\nMemoryMax=1G\n", "", "", ""),
    ],
)  # fmt: skip
def test_drop_ins_that_change_what_a_unit_runs_are_named(
    host: Host, path: str, text: str, level: str, what: str, fix: str
) -> None:
    host.write(path, text)
    found = host.overrides()
    if not level:
        assert found == []
        return
    assert [row[0] for row in found] == [level]
    assert found[0][1] == f"{path} changes {what}"
    assert fix in found[0][2]
    assert found[0][2].endswith("; systemctl daemon-reload")


def test_a_masked_unit_is_named(host: Host) -> None:
    host.link("/etc/systemd/system/docker.service", "/dev/null")
    ((level, what, _),) = host.overrides()
    assert (level, what) == (
        "advice", "docker.service is masked on this host, and the bundle's file replaces the mask"
    )  # fmt: skip


@needs_analyze
@pytest.mark.slow
def test_systemd_reads_the_same_drop_ins(host: Host) -> None:
    """systemd-analyze in a root of its own warns of an unknown key in each file that it reads."""
    places = [
        "etc/systemd/system/kube-nginx.service.d/1.conf",
        "usr/lib/systemd/system/kube-nginx.service.d/1.conf",
        "usr/lib/systemd/system/kube-.service.d/2.conf",
        "run/systemd/system/service.d/3.conf",
        "etc/systemd/system.control/kube-nginx.service.d/4.conf",
        "etc/systemd/system/nginx.service.d/5.conf",
    ]
    for place in places:
        host.write(place, "[Service]\nExecStart=\nExecStart=/bin/true\nUnknown=1\n")
    host.write("etc/systemd/system/kube-nginx.service", "[Service]\nExecStart=/bin/false\n")
    done = subprocess.run(
        ["systemd-analyze", f"--root={host.root}", "verify", "kube-nginx.service"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    shown = {
        line.split(":")[0].removeprefix(str(host.root))
        for line in done.stderr.splitlines()
        if "Unknown" in line
    }
    named = {
        what.split()[0] for _, what, _ in host.overrides() if what.endswith("kube-nginx.service")
    }
    assert named == shown != set()


def test_an_earlier_cni_file_is_named_unless_it_is_of_multus(host: Host) -> None:
    host.write("/etc/cni/net.d/05-cilium.conflist", '{"name": "cilium"}')
    host.write("/etc/cni/net.d/10-bridge.conflist", "{}")
    ((level, what, fix),) = host.overrides()
    assert (level, what) == (
        "must", "/etc/cni/net.d/05-cilium.conflist comes before 10-bridge.conflist: pods would get its network"
    )  # fmt: skip
    assert fix == (
        "mv /etc/cni/net.d/05-cilium.conflist /etc/cni/net.d/05-cilium.conflist.disabled"
    )
    assert host.overrides("flannel flannel-etcd") == []
    host.write("/etc/cni/net.d/05-cilium.conflist", '{"type": "multus"}')
    assert host.overrides() == []
    host.write("/etc/cni/net.d/05-cilium.conflist.disabled", "{}")
    host.write("/etc/cni/net.d/100-crio-bridge.conf", "{}")
    assert host.overrides() == []


def test_before_an_add_on_makes_the_network_no_other_one_may_be_there(host: Host) -> None:
    features = "cni network-addon"
    assert host.overrides(features, "calico") == []
    host.write("/etc/cni/net.d/10-bridge.conflist", "{}")
    ((level, what, fix),) = host.overrides(features, "calico")
    assert (level, what) == (
        "must",
        "/etc/cni/net.d/10-bridge.conflist is there before calico has made a network: pods would get that one",
    )
    assert fix == "mv /etc/cni/net.d/10-bridge.conflist /etc/cni/net.d/10-bridge.conflist.disabled"
    (host.root / "opt/k8s/bundle").mkdir(parents=True)
    assert host.overrides(features, "calico") == []


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("/etc/modprobe.d/cis.conf", "install br_netfilter /bin/true\n", "br_netfilter"),
        ("/usr/lib/modprobe.d/x.conf", "blacklist br-netfilter\n", "br_netfilter"),
        ("/etc/modprobe.d/x.conf", "blacklist pcspkr\n# blacklist ip_vs\n", ""),
        ("/proc/cmdline", "quiet module_blacklist=foo,ip_vs\n", "ip_vs"),
        ("/proc/cmdline", "quiet br_netfilter.x=1 blacklisted=ip_vs\n", ""),
    ],
)
def test_modules_that_may_not_be_loaded_are_named(
    host: Host, path: str, text: str, expected: str
) -> None:
    host.write(path, text)
    found = host.overrides()
    assert [row[0] for row in found] == (["must"] if expected else [])
    assert not expected or f"the module {expected} " in found[0][1]


def test_variables_for_every_unit_are_advice(host: Host) -> None:
    host.write(
        "/etc/systemd/system.conf", "[Manager]\nDefaultEnvironment=HTTPS_PROXY=http://proxy:3128\n"
    )
    ((level, what, _),) = host.overrides()
    assert (level, what) == (
        "advice", "/etc/systemd/system.conf sets variables for every unit (DefaultEnvironment)"
    )  # fmt: skip


@pytest.mark.slow
def test_install_refuses_and_plan_names_what_wins(sh: Sh, trees: Trees, tmp_path: Path) -> None:
    worker = make_host(sh, trees / "worker1", tmp_path / "host")
    worker.write("/etc/sysctl.d/99-sysctl.conf", "net.ipv4.ip_forward = 0\n")
    worker.write("/etc/sysctl.d/99-tune.conf", "vm.swappiness = 10\n")
    for arguments in ((), ("--plan",)):
        done = worker.install(*arguments)
        assert done.returncode == 3
        assert (
            "  overrides: /etc/sysctl.d/99-sysctl.conf sets net.ipv4.ip_forward = 0" in done.stderr
        )
        assert (
            "warning: overrides: /etc/sysctl.d/99-tune.conf sets vm.swappiness = 10" in done.stderr
        )
    assert not worker.has("root/opt")
    assert worker.install("--skip-preflight", "overrides").returncode == 0
