"""Packages of the operating system with a fake dpkg: install.sh installs the missing ones only."""

import hashlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.debian_host import DPKG, LIST, MINIMAL, make_debian_host
from support.fake_host import FakeHost
from support.shells import Sh
from support.trees import Trees

pytestmark = pytest.mark.slow  # every test runs a whole install.sh


@pytest.fixture
def host(sh: Sh, trees: Trees, tmp_path: Path) -> FakeHost:
    return make_debian_host(sh, trees, tmp_path / "host")


def installed(host: FakeHost) -> list[list[str]]:
    """The files of each `dpkg --install` that was not a trial."""
    calls = [call for call in host.calls if call.startswith("dpkg ") and "--install" in call]
    return [re.findall(r"\S+\.deb", call) for call in calls if "--no-act" not in call]


def names(host: FakeHost) -> list[str]:
    rows = (line.split("|") for line in (host.directory / "dpkg").read_text().splitlines())
    return sorted(row[0] for row in rows if row[2] == "installed")


ALL = [line.split()[0] for line in LIST.splitlines()]


def test_missing_packages_are_installed_at_once_and_in_order(host: FakeHost) -> None:
    done = host.install()
    assert done.returncode == 0, done.stderr
    assert installed(host) == [ALL]
    call = next(
        call for call in host.calls if call.startswith("dpkg --force") and "--no-act" not in call
    )
    assert "--force-confdef --force-confold" in call
    assert "frontend noninteractive" in host.calls
    assert "nothing to do" in host.install().stdout
    assert installed(host) == [ALL]


def test_a_package_that_changes_after_the_checks_is_not_installed(host: FakeHost) -> None:
    """Its digest is that of the copy that dpkg gets."""
    evil = host.bundle / "packages" / ALL[0]
    cp = shutil.which("cp")
    host.program("cp", f'case $* in *package-files*) echo evil >{evil} ;; esac\nexec {cp} "$@"')
    done = host.install()
    assert done.returncode == 3
    assert f"{ALL[0]}: altered or damaged" in done.stderr
    assert "Nothing was changed." in done.stderr
    assert installed(host) == []


def test_dpkg_gets_copies_that_only_root_can_change(host: FakeHost) -> None:
    state, lock = host.directory, host.root / "var/lib/bundler/lock"
    look = f"case $* in *--no-act*) ;; *--install*) (pwd; ls -ld .) >{state}/seen ;; esac\n"
    host.program("dpkg", look + DPKG.format(state=state, lock=lock))
    assert host.install().returncode == 0
    copies = host.root / "var/lib/bundler/package-files"
    place, mode = (state / "seen").read_text().splitlines()
    assert (place, mode[:10]) == (str(copies), "drwx------")
    assert not copies.exists()


def test_installed_packages_are_not_touched(host: FakeHost) -> None:
    host.program("conntrack", "")  # the administrator's own
    host.mark("dpkg", MINIMAL + "chrony|5.0|installed|amd64|\n")
    assert host.install().returncode == 0
    assert installed(host) == [["nginx-common_1%3a2_all.deb", "nginx_1%3a2_amd64.deb"]]


def test_a_package_that_provides_the_wanted_one_is_accepted(host: FakeHost) -> None:
    host.mark("dpkg", MINIMAL + "ntpsec|1|installed|amd64|time-daemon, chrony\n")
    host.install()
    assert "chrony_4.3_amd64.deb" not in installed(host)[0]


def test_a_dependency_that_is_too_old_is_updated(host: FakeHost) -> None:
    old = "libmnl0|0.9|installed|amd64|\nnginx-common|1:2|installed|all|\n"
    host.mark("dpkg", MINIMAL + old)
    said = host.install("--dry-run").stdout
    assert "package  libmnl0 1.0 (instead of 0.9)\n" in said
    assert "package  conntrack 1.4\n" in said
    host.install()
    assert installed(host) == [[file for file in ALL if "nginx-common" not in file]]
    assert "libmnl0" not in (host.root / "var/lib/bundler/packages").read_text()


def test_a_dry_run_installs_nothing(host: FakeHost) -> None:
    said = host.install("--dry-run").stdout
    assert [line for line in said.splitlines() if line.startswith("package ")] == [
        "package  libmnl0 1.0", "package  nginx-common 1:2", "package  nginx 1:2",
        "package  conntrack 1.4", "package  chrony 4.3",
    ]  # fmt: skip
    assert installed(host) == []
    assert not host.has("root/var/lib/bundler")


def test_packages_only_installs_nothing_else(host: FakeHost) -> None:
    done = host.install("--packages-only")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("worker1: 5 packages installed\n")
    assert installed(host) == [ALL]
    assert not host.has("root/opt")
    assert "nothing to do" in host.install("--packages-only").stdout


def test_with_destdir_no_package_is_installed(host: FakeHost, sh: Sh) -> None:
    done = sh(host.bundle / "install.sh", DESTDIR=str(host.root))
    assert done.returncode == 0, done.stderr
    assert host.calls == []


@pytest.mark.parametrize(
    ("release", "machine", "found"),
    [
        ('ID=debian\nVERSION_ID="11"\n', "amd64", "debian-11 on amd64"),
        ("ID=ubuntu\nVERSION_ID='12'\n", "amd64", "ubuntu-12 on amd64"),
        ("ID=debian\nVERSION_ID=12\n", "arm64", "debian-12 on arm64"),
        ("ID=rocky\nVERSION_ID=9\n", "", "rocky-9 on an architecture that dpkg does not report"),
    ],
)
def test_packages_of_another_system_are_refused(
    host: FakeHost, release: str, machine: str, found: str
) -> None:
    host.write("/etc/os-release", release)
    host.program("dpkg", f"echo {machine}" if machine else "exit 127")
    done = host.install()
    assert done.returncode == 3
    expected = f"packages: the bundle's packages are for debian-12 on amd64, this host is {found}\n"
    assert expected in done.stderr
    assert not host.has("root/var/lib/bundler/journal")
    done = host.install("--skip-preflight", "packages")
    assert done.returncode == 0, done.stderr
    assert installed(host) == []


def test_an_unmet_dependency_is_reported_before_anything_changes(host: FakeHost) -> None:
    old = MINIMAL.replace("libc6|2.36", "libc6|2.28").replace("awk\n", "\n")
    host.mark("dpkg", old.replace("debconf-2.0", ""))
    done = host.install()
    assert done.returncode == 3
    for expected in (
        "packages: nginx needs libc6 >= 2.30, and neither this host nor the bundle has it\n",
        "packages: nginx needs debconf >= 0.5 or debconf-2.0, and neither",
        "packages: chrony needs awk, and neither",
    ):
        assert expected in done.stderr
    assert "packages.add" in done.stderr
    assert installed(host) == []


def test_a_refusal_of_dpkg_is_reported_before_anything_changes(host: FakeHost) -> None:
    host.mark("dpkg-refuses")
    done = host.install()
    assert done.returncode == 3
    assert (
        "dpkg would refuse the bundle's packages: dpkg: error: conflicts with rival" in done.stderr
    )
    assert not host.has("root/var/lib/bundler/journal")


def test_services_of_bundlers_own_units_are_not_started_and_not_enabled(host: FakeHost) -> None:
    host.install()
    calls = [call for call in host.calls if call.startswith(("systemctl", "dpkg --force"))]
    begin = calls.index("systemctl -q mask --runtime nginx.service")
    install = next(i for i, c in enumerate(calls) if "--install" in c and "--no-act" not in c)
    end = calls.index("systemctl -q unmask --runtime nginx.service")
    assert begin < install < end < calls.index("systemctl -q disable nginx.service")
    assert not host.has("enabled/nginx.service")
    assert not host.has("masked/nginx.service")


def test_a_service_that_the_host_had_before_is_not_touched(host: FakeHost) -> None:
    host.mark("known/nginx.service")
    host.mark("enabled/nginx.service")
    host.install()
    assert host.has("enabled/nginx.service")
    assert not any("mask --runtime nginx" in call for call in host.calls)


@pytest.mark.parametrize("name", ["libmnl0", "nginx", "chrony"])
def test_the_next_run_completes_a_killed_installation_of_packages(
    host: FakeHost, name: str
) -> None:
    host.mark(f"kill-{name}")
    assert host.install().returncode != 0
    assert host.has("root/var/lib/bundler/packages-pending")
    done = host.install()
    assert done.returncode == 0, done.stderr
    assert {"libmnl0", "nginx-common", "nginx", "conntrack", "chrony"} <= set(names(host))
    assert any(call.endswith("--configure -a") for call in host.calls)
    assert not host.has("root/var/lib/bundler/packages-pending")
    assert not host.has("masked/nginx.service")
    assert not host.has("enabled/nginx.service")
    recorded = (host.root / "var/lib/bundler/packages").read_text().split()
    assert recorded == ["libmnl0", "nginx-common", "nginx", "conntrack", "chrony"]


def test_install_waits_for_another_dpkg(host: FakeHost) -> None:
    host.mark("dpkg-locked")
    done = host.install()
    assert done.returncode == 0, done.stderr
    assert "waiting until another dpkg has ended" in done.stdout
    assert installed(host) == [ALL, ALL]


def test_an_error_of_dpkg_is_printed(host: FakeHost) -> None:
    fails = 'case $* in *--no-act*) ;; *--install*) echo "dpkg: error: no space"; exit 1 ;; esac'
    state = host.directory
    lock = host.root / "var/lib/bundler/lock"
    host.program("dpkg", fails + DPKG.format(state=state, lock=lock))
    done = host.install()
    assert done.returncode == 1
    assert "dpkg: error: no space" in done.stderr
    assert "run install.sh again" in done.stderr
    assert host.has("root/var/lib/bundler/packages-pending")


def test_a_damaged_or_unknown_package_is_refused(host: FakeHost) -> None:
    (host.bundle / "packages" / "unknown.deb").write_text("")
    (host.bundle / "packages" / ALL[0]).write_text("other")
    done = host.install()
    assert done.returncode == 3
    assert "packages/unknown.deb: not in the manifest" in done.stderr
    assert f"packages/{ALL[0]}: altered or damaged" in done.stderr


def test_a_delta_leaves_packages_out_and_says_when_one_is_wanted_again(host: FakeHost) -> None:
    """As `build --since` makes it: the list is whole, the files are with the bundle before."""
    assert host.install().returncode == 0
    manifest = host.bundle / "MANIFEST"
    left_out = "".join(f"# from-base packages/{line.split()[0]}\n" for line in LIST.splitlines())
    for line in LIST.splitlines():
        (host.bundle / "packages" / line.split()[0]).unlink()
    base = hashlib.sha256(manifest.read_bytes()).hexdigest()
    manifest.write_text(f"# base {base}\n{left_out}{manifest.read_text()}")
    done = host.install()
    assert done.returncode == 0, done.stderr
    database = host.directory / "dpkg"
    database.write_text(
        re.sub("^libmnl0.*\n|^conntrack.*\n", "", database.read_text(), flags=re.MULTILINE)
    )
    (host.directory / "bin/conntrack").unlink()
    done = host.install()
    assert done.returncode == 3, done.stdout
    assert "a change to one that had them: libmnl0 conntrack" in done.stderr
    assert "take this node's complete bundle" in done.stderr


@pytest.fixture
def uninstall(host: FakeHost) -> Callable[..., str]:
    host.mark("dpkg", MINIMAL + "chrony|5.0|installed|amd64|\n")
    host.install()

    def run(*arguments: str) -> str:
        done = host.uninstall(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_uninstall_keeps_packages_and_says_so(
    host: FakeHost, uninstall: Callable[..., str]
) -> None:
    assert "keep     package nginx\n" in uninstall("--dry-run")
    before = names(host)
    assert "4 packages that it installed are kept" in uninstall()
    assert names(host) == before
    assert uninstall("--remove-packages").startswith("worker1: removed 0 files")
    assert names(host) == ["cdebconf", "chrony", "libc6", "mawk"]
    assert not host.has("root/var/lib/bundler")


def test_uninstall_removes_installed_packages_with_remove_packages(
    host: FakeHost, uninstall: Callable[..., str]
) -> None:
    assert "remove   package nginx\n" in uninstall("--dry-run", "--remove-packages")
    uninstall("--remove-packages")
    assert names(host) == ["cdebconf", "chrony", "libc6", "mawk"]
    assert any(call.startswith("dpkg --remove ") for call in host.calls)
    assert not host.has("root/var/lib/bundler")


def test_uninstall_with_purge_data_removes_the_packages_configuration(
    host: FakeHost, uninstall: Callable[..., str]
) -> None:
    point = f"{host.root}/var/lib/docker/overlay2/a/merged"
    Path(point).mkdir(parents=True)
    table = f"31 1 8:1 / / rw - ext4 /dev/sda1 rw\n32 31 0:44 / {point} rw shared:9 - overlay overlay rw\n"
    host.write("/proc/self/mountinfo", table)
    host.program("umount", f'sed -i "\\\\| $2 |d" {host.live}/proc/self/mountinfo')
    uninstall("--remove-packages", "--purge-data")
    assert any(call.startswith("dpkg --purge ") for call in host.calls)
    # the host's own mounts, and not those of the machine that runs this test
    assert [call for call in host.calls if call.startswith("umount")] == [f"umount -l {point}"]


def test_uninstall_keeps_packages_that_others_need(
    host: FakeHost, uninstall: Callable[..., str]
) -> None:
    host.mark("somebody-needs-libmnl0")
    assert "are kept: libmnl0" in uninstall("--remove-packages")
    assert names(host) == ["cdebconf", "chrony", "libc6", "libmnl0", "mawk"]


FIB_TRIE = """\
Local:
  +-- 0.0.0.0/0 3 0 5
     |-- 10.0.0.0
        /24 link UNICAST
        |-- 10.0.0.7
           /32 host LOCAL
        |-- 127.0.0.1
           /32 host LOCAL
        |-- 10.0.0.255
           /32 link BROADCAST
"""


def test_addresses_are_found_without_iproute2(host: FakeHost, sh: Sh, tmp_path: Path) -> None:
    host.write("/proc/net/fib_trie", FIB_TRIE)
    (tmp_path / "only").mkdir()
    awk = shutil.which("awk")
    assert awk
    (tmp_path / "only" / "awk").symlink_to(awk)
    script = tmp_path / "script.sh"
    script.write_text(
        f". {host.bundle}/lib/preflight/checks.sh\nlive={host.live}\nPATH={tmp_path}/only\nlist_addresses\n"
    )
    assert sh(script).stdout.split() == ["10.0.0.7", "127.0.0.1"]
