"""RPM packages on a host with the real rpm, whose root and database are a directory of the test."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support.fake_host import FakeHost, make_host
from support.rpm_packages import needs_rpm, write_rpm
from support.shells import Sh
from support.trees import Trees, rewrite_manifest

from bundler.sources.packages.files import render_list, select_files
from bundler.sources.packages.rpms import read_rpm

pytestmark = [
    pytest.mark.slow,  # every test builds and installs packages with the real rpm
    needs_rpm,
    pytest.mark.skipif(
        os.geteuid() != 0,
        reason="RPM packages cannot be installed: rpm changes its root, which only root may",
    ),
]
PAIRS = ("nginx:nginx", "conntrack:conntrack-tools", ":chrony")
# The programs that rpm unpacked are the host's: links to them are on its PATH.
RPM = """
{rpm} --root {root} "$@"
code=$?
for program in {root}/usr/bin/*; do [ ! -e "$program" ] || ln -sf "$program" {bin}/; done
case "$*" in
    *--eval* | *-q* | *--test*) ;;
    *-U*) [ ! -e {state}/kill-install ] || {{ rm {state}/kill-install; kill -9 $(cut -d' ' -f1 {lock}); }}
          case "$*" in *nginx-*) : >{state}/known/nginx.service; : >{state}/enabled/nginx.service ;; esac ;;
esac
exit $code
"""


def make_packages(directory: Path) -> list[Path]:
    """nginx needs its core, which needs a library of the host; chrony needs a newer time zone."""
    return [
        write_rpm(directory, "nginx", "1:1.20-1", program="nginx", Requires="nginx-core = 1:1.20-1, /bin/sh"),
        write_rpm(directory, "nginx-core", "1:1.20-1", Requires="libc.so.6()(64bit)"),
        write_rpm(directory, "conntrack-tools", "1.4-1", program="conntrack", Requires="libmnl.so.0()(64bit)"),
        write_rpm(directory, "libmnl", "1.0-1", Provides="libmnl.so.0()(64bit)"),
        write_rpm(directory, "chrony", "4.5-1", Requires="tzdata >= 2024"),
        write_rpm(directory, "tzdata", "2024a-1", arch="noarch"),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_packages(tmp_path_factory.mktemp("packages"))


@pytest.fixture
def host(sh: Sh, trees: Trees, tmp_path: Path, packages: list[Path]) -> FakeHost:
    """A minimal Rocky 9 in name, and worker1's bundle with packages."""
    bundle = trees / "worker1"
    facts = (bundle / "node.env").read_text()
    for name, value in (("OS", "rocky-9"), ("MANAGER", "rpm")):
        facts = facts.replace(f"PACKAGES_{name}=''", f"PACKAGES_{name}='{value}'")
    facts = facts.replace("QUIET_UNITS=''", "QUIET_UNITS='nginx.service'")
    (bundle / "node.env").write_text(facts)
    (bundle / "packages").mkdir()
    files = [read_rpm(path) for path in packages]
    chosen = select_files([pair.partition(":")[2] for pair in PAIRS], files)
    (bundle / "packages" / "LIST").write_text(render_list(chosen, PAIRS))
    for file in chosen:
        shutil.copy(file.path, bundle / "packages" / file.file_name)
    rewrite_manifest(bundle)
    made = make_host(sh, bundle, tmp_path)
    made.write("/etc/os-release", 'ID="rocky"\nVERSION_ID="9.4"\n')
    root = tmp_path / "system"
    root.mkdir()
    lock = made.root / "var/lib/bundler/lock"
    rpm = shutil.which("rpm")
    made.program(
        "rpm", RPM.format(rpm=rpm, root=root, bin=tmp_path / "bin", state=tmp_path, lock=lock)
    )
    put(made, write_rpm(tmp_path / "base", "glibc", "2.34-1", Provides="libc.so.6()(64bit), /bin/sh"))  # fmt: skip
    return made


def put(host: FakeHost, *paths: Path) -> None:
    """What the host has already."""
    rpm(host, "-U", "--oldpackage", *map(str, paths))


def rpm(host: FakeHost, *arguments: str) -> str:
    done = subprocess.run(
        ["rpm", "--root", host.directory / "system", *arguments], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def installed(host: FakeHost) -> list[str]:
    return sorted(rpm(host, "-qa", "--queryformat", "%{NAME}-%{VERSION}\n").split())


ALL = ["chrony-4.5", "conntrack-tools-1.4", "glibc-2.34", "libmnl-1.0", "nginx-1.20", "nginx-core-1.20", "tzdata-2024a"]  # fmt: skip


def test_what_is_missing_is_installed_and_the_units_stay_quiet(host: FakeHost) -> None:
    done = host.install()
    assert done.returncode == 0, done.stderr
    assert installed(host) == ALL
    assert not host.has("enabled/nginx.service")
    assert not host.has("masked/nginx.service")
    assert "nothing to do" in host.install().stdout
    changed = [c for c in host.calls if c.startswith("rpm -U") and "--test" not in c]
    assert len(changed) == 1
    assert sorted((host.root / "var/lib/bundler/packages").read_text().split()) == sorted(
        name.rpartition("-")[0] for name in ALL if "glibc" not in name
    )


def test_installed_packages_are_not_touched(host: FakeHost, tmp_path: Path) -> None:
    host.program("conntrack", "")  # the administrator's own
    put(host, write_rpm(tmp_path / "own", "chrony", "9.0-1"))
    said = host.install("--dry-run").stdout
    assert [line for line in said.splitlines() if line.startswith("package ")] == [
        "package  nginx-core 1:1.20-1", "package  nginx 1:1.20-1",
    ]  # fmt: skip
    assert host.install().returncode == 0
    assert installed(host) == ["chrony-9.0", "glibc-2.34", "nginx-1.20", "nginx-core-1.20"]


def test_rpm_judges_versions_before_anything_is_changed(host: FakeHost, tmp_path: Path) -> None:
    put(host, write_rpm(tmp_path / "old", "tzdata", "2020a-1", arch="noarch"))
    done = host.install()
    assert done.returncode == 3
    assert "rpm would refuse the bundle's packages" in done.stderr
    assert "tzdata >= 2024 is needed by chrony" in done.stderr
    assert installed(host) == ["glibc-2.34", "tzdata-2020a"]


def test_what_neither_has_is_told(host: FakeHost) -> None:
    rpm(host, "-e", "glibc")
    done = host.install()
    assert done.returncode == 3
    assert "packages: nginx-core needs libc.so.6()(64bit), and neither this host" in done.stderr


@pytest.mark.parametrize(
    ("release", "found"),
    [
        ("ID=rocky\nVERSION_ID=8.9\n", "rocky-8 on amd64"),
        ("ID=almalinux\nVERSION_ID=9.4\n", "almalinux-9 on amd64"),
    ],
)
def test_packages_are_for_their_release_alone(host: FakeHost, release: str, found: str) -> None:
    host.write("/etc/os-release", release)
    done = host.install()
    assert done.returncode == 3
    assert f"packages are for rocky-9 on amd64, this host is {found}" in done.stderr


def test_a_killed_installation_is_finished_by_the_next_run(host: FakeHost) -> None:
    host.mark("kill-install")
    assert host.install("--packages-only").returncode != 0
    assert host.has("root/var/lib/bundler/packages-begun")
    done = host.install("--packages-only")
    assert done.returncode == 0, done.stderr
    assert "6 packages installed" in done.stdout
    assert installed(host) == ALL
    assert not host.has("root/var/lib/bundler/packages-begun")
    assert not host.has("enabled/nginx.service")
    assert "nothing to do" in host.install("--packages-only").stdout


def test_uninstall_removes_what_nobody_else_needs(host: FakeHost, tmp_path: Path) -> None:
    host.install()
    put(host, write_rpm(tmp_path / "own", "mine", "1-1", Requires="libmnl.so.0()(64bit)"))
    assert "6 packages that it installed are kept" in host.uninstall().stdout
    done = host.uninstall("--remove-packages")
    assert done.returncode == 0, done.stderr
    assert "are kept: libmnl" in done.stdout
    assert installed(host) == ["glibc-2.34", "libmnl-1.0", "mine-1"]
