"""The bundle's programs are started where they will be installed, before anything changes."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.fake_host import make_host
from support.shells import SHELLS, TEMPLATES, Sh
from support.trees import rewrite_manifest

SCRIPT = """
set -u
work={work} here={bundle} wait_limit=0
for part in core/common transaction/payload preflight/checks preflight/host coordination/rollout-order preflight/programs; do
    . {lib}/$part.sh
done
prefix={root} live={live} store={work} secrets='' skipped=' ' manifest={work}/MANIFEST
systemctl() {{ case "$*" in *" {service}") return 0 ;; --version) echo '{systemd}' ;; *) return 1 ;; esac; }}
uname() {{ echo {kernel}; }}
is_from() {{ false; }}
: >"$work/failures"
: >"$work/packages"
{commands}
cat "$work/failures"
"""
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="mounts cannot be made: only root may")


@dataclass
class ProgramHost:
    """A bundle with programs, and the file system of a host."""

    shell: list[str]
    directory: Path

    @property
    def root(self) -> Path:
        return self.directory / "root"

    def add(self, name: str, content: bytes, directory: str = "opt/k8s/bin") -> None:
        target = self.directory / "bundle/rootfs" / directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        target.chmod(0o755)
        with (self.directory / "changes").open("a") as changes:
            changes.write(f"new 0 0755 1 rootfs/{directory}/{name} /{directory}/{name}\n")

    def run(
        self, commands: str = "check_programs", *, before: str = "", live: str = "",
        service: str = "none.service", systemd: str = "systemd 252 (252-1)", kernel: str = "6.1.0",
    ) -> str:  # fmt: skip
        work = self.directory / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        (self.root / "opt").mkdir(parents=True, exist_ok=True)
        shutil.copy(self.directory / "changes", work / "changes")
        script = self.directory / "script.sh"
        script.write_text(
            SCRIPT.format(
                work=work, bundle=self.directory / "bundle", root=self.root, live=live,
                lib=TEMPLATES / "common/lib", commands=commands, service=service,
                systemd=systemd, kernel=kernel,
            )
        )  # fmt: skip
        line = f"{before}exec {' '.join(self.shell)} {script}"
        command = ["unshare", "--mount", "sh", "-c", line] if before else ["sh", "-c", line]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        return done.stdout

    @property
    def left(self) -> list[str]:
        """What is in the host's file system."""
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*"))


@pytest.fixture(params=SHELLS, ids=[shell[0] for shell in SHELLS])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> ProgramHost:
    (tmp_path / "changes").touch()
    return ProgramHost(request.param, tmp_path)


TRUE = Path(shutil.which("true") or "/bin/true").resolve().read_bytes()


def test_programs_that_run_leave_nothing_behind(host: ProgramHost) -> None:
    host.add("kubelet", TRUE)
    host.add("odd", b"#!/bin/sh\nexit 3\n")  # it ran
    host.add("bridge", TRUE, "opt/cni/bin")
    assert host.run() == ""
    assert host.left == ["opt"]


@ROOT
def test_a_file_system_without_exec_is_named_with_a_fix_that_works(host: ProgramHost) -> None:
    host.add("kubelet", TRUE)
    host.add("kubectl", TRUE)
    host.run("")
    mount = f"mount -t tmpfs -o noexec none {host.root}/opt; "
    said = host.run(before=mount)
    assert "programs: /opt/k8s/bin: these programs cannot run here" in said
    assert ": kubelet kubectl\n" in said
    assert said.count("fix:") == 1
    assert f"fix: {host.root}/opt is mounted noexec: remove noexec in /etc/fstab" in said
    fix = said.partition("then: ")[2].strip()
    assert fix == f"mount -o remount,exec {host.root}/opt"
    assert host.run(before=f"{mount}{fix}; ") == ""


@ROOT
def test_fapolicyd_is_named_if_it_runs_and_the_mount_allows_programs(host: ProgramHost) -> None:
    host.add("kubelet", TRUE)
    mounts = host.directory / "live/proc/self/mounts"
    mounts.parent.mkdir(parents=True)
    mounts.write_text(f"none {host.root}/opt ext4 rw,relatime 0 0\n")
    mount = f"mount -t tmpfs -o noexec none {host.root}/opt; "
    host.run("")
    said = host.run(before=mount, live=f"{host.directory}/live", service="fapolicyd.service")
    assert "fix: fapolicyd denies programs that it does not know" in said
    assert "allow perm=any all : dir=/opt/k8s/bin/" in said
    other = host.run(before=mount, live=f"{host.directory}/live")
    assert "fix: find what denies it: ausearch" in other


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"libc.so.6\0", b"libx.so.6\0", "libx.so.6: cannot open shared object file"),
        (b"GLIBC_2.34\0", b"GLIBC_2.99\0", "version `GLIBC_2.99' not found"),
    ],
)
def test_a_library_that_is_missing_or_too_old_is_named(
    host: ProgramHost, old: bytes, new: bytes, reason: str
) -> None:
    assert old in TRUE
    host.add("containerd", TRUE.replace(old, new))
    said = host.run()
    assert f"programs: /opt/k8s/bin: these programs cannot run here ({reason}" in said
    assert "containerd\n" in said
    assert "fix: this host's libraries are too old or missing" in said


def test_a_program_whose_library_is_in_the_packages_is_tried_again_after_them(
    host: ProgramHost,
) -> None:
    host.add("runc", TRUE.replace(b"libc.so.6\0", b"libx.so.6\0"))
    commands = 'echo a >"$work/packages"; check_programs; echo checked; '
    assert host.run(commands) == "checked\n"
    refused = host.run(
        f'{commands}die() {{ shift; echo "$*"; exit 3; }}; exec 2>&1; check_programs_again'
    )
    assert "libx.so.6: cannot open shared object file" in refused
    assert refused.endswith("nothing but the packages of the operating system was changed\n")


def test_a_damaged_program_is_named_with_its_signal(host: ProgramHost) -> None:
    host.add("etcd", b"#!/bin/sh\nkill -SEGV $$\n")
    assert "these programs cannot run here (it ended by signal 11): etcd" in host.run()


def test_a_file_that_is_not_a_program_is_refused_and_not_run(host: ProgramHost) -> None:
    ran = host.directory / "ran"
    host.add("kube-scheduler", f"touch {ran}\n".encode())
    assert "these programs cannot run here (it is not a program): kube-scheduler" in host.run()
    assert not ran.exists()


def test_a_kill_while_a_program_is_tried_leaves_nothing_after_the_next_run(
    host: ProgramHost,
) -> None:
    pid = host.directory / "pid"
    host.add("kubelet", f"#!/bin/sh\n[ ! -e {pid} ] || kill -9 $(cat {pid})\n".encode())
    host.run(f"echo $$ >{pid}; check_programs")
    assert any(path.startswith("opt/k8s/bin/.bundler-try.") for path in host.left)
    pid.unlink()
    assert host.run() == ""
    assert host.left == ["opt"]


def test_the_directories_of_copies_are_noted_while_programs_are_tried(host: ProgramHost) -> None:
    """For the boot after a power cut; not on a host without a generation."""
    store = host.directory / "work"
    host.add("kubelet", f"#!/bin/sh\ncat {store}/trying >{host.directory}/seen 2>&1\n".encode())
    host.add("bridge", b"#!/bin/sh\n", "opt/cni/bin")
    host.add("kubectl", b"#!/bin/sh\n")
    host.run("echo 1 >$work/current; check_programs")
    assert (host.directory / "seen").read_text().splitlines() == [
        f"{host.root}/opt/k8s/bin",
        f"{host.root}/opt/cni/bin",
    ]
    assert not (store / "trying").exists()
    host.run()
    assert "No such file" in (host.directory / "seen").read_text()


@pytest.mark.parametrize(
    ("row", "has", "said"),
    [
        ("cgroup\t2\t-\tkubelet 1.35.1 needs cgroup v2\tboot", "v1", "kubelet 1.35.1 needs cgroup v2, and this host has cgroup 1"),
        ("cgroup\t2\t-\tkubelet 1.35.1 needs cgroup v2\tboot", "v2", ""),
        ("cgroup\t-\t2\tkubelet 1.18.9 needs cgroup v1\tboot", "v2", "kubelet 1.18.9 needs cgroup v1, and this host has cgroup 2"),
        ("cgroup\t-\t2\tkubelet 1.18.9 needs cgroup v1\tboot", "v1", ""),
        ("kernel\t5.13\t-\tkube-proxy needs Linux 5.13 or newer\tuse", "4.18.0-553.el8_10.x86_64", "and this host has kernel 4.18.0"),
        ("kernel\t5.13\t-\tkube-proxy needs Linux 5.13 or newer\tuse", "5.13.0-1-generic", ""),
        ("kernel\t5.13\t-\tkube-proxy needs Linux 5.13 or newer\tuse", "6.1.0", ""),
        ("systemd\t235\t-\tthis bundle needs systemd 235 or newer\tuse", "systemd 219", "and this host has systemd 219"),
        ("systemd\t235\t-\tthis bundle needs systemd 235 or newer\tuse", "systemd 257 (257.9-1)", ""),
        ("systemd\t235\t-\tthis bundle needs systemd 235 or newer\tuse", "nonsense", "the version of this host's systemd cannot be read"),
    ],
)  # fmt: skip
def test_a_host_without_what_a_version_needs_is_refused(
    host: ProgramHost, row: str, has: str, said: str
) -> None:
    lib = host.directory / "bundle/lib"
    lib.mkdir(parents=True)
    (lib / "requirements.tsv").write_text(f"{row}\n")
    cgroup = host.directory / "live/sys/fs/cgroup"
    cgroup.mkdir(parents=True)
    if has == "v2":
        (cgroup / "cgroup.controllers").touch()
    facts = {row.partition("\t")[0]: has} if "cgroup" not in row else {}
    found = host.run("check_requirements", live=f"{host.directory}/live", **facts)
    assert said in found
    assert bool(found) == bool(said)


@pytest.mark.slow
def test_install_refuses_a_host_where_a_program_does_not_run_and_changes_nothing(
    sh: Sh, trees: Path, tmp_path: Path
) -> None:
    made = make_host(sh, trees / "worker1", tmp_path / "host")
    program = made.bundle / "rootfs/opt/k8s/bin/kubelet"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_bytes(TRUE.replace(b"libc.so.6\0", b"libx.so.6\0"))
    program.chmod(0o755)
    rewrite_manifest(made.bundle)
    before = sorted(made.root.rglob("*"))
    for arguments in (["--dry-run"], []):
        refused = made.install(*arguments)
        assert refused.returncode == 3, refused.stdout
        assert "/opt/k8s/bin: these programs cannot run here (libx.so.6" in refused.stderr
        assert sorted(made.root.rglob("*")) == before
    skipped = made.install("--skip-preflight", "programs", "--dry-run")
    assert skipped.returncode == 0, skipped.stderr
    program.write_bytes(TRUE)
    rewrite_manifest(made.bundle)
    done = made.install()
    assert done.returncode == 0, done.stderr
    assert (made.root / "opt/k8s/bin/kubelet").read_bytes() == TRUE
    assert made.install().stdout == "worker1: nothing to do\n"
