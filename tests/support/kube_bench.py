"""Runs a real kube-bench on the folder of a host, in namespaces of its own."""

import json
import os
import platform
import shlex
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.cis_hosts import Host

VARIABLE = "BUNDLER_KUBE_BENCH"
"""Names a kube-bench program that has its folder cfg next to it, as in upstream's archives."""
CODE = bytes.fromhex("b8220000000f05ebf7")
"""x86-64: pause(2), again and again."""

SCRIPT = """\
set -e
mount -t tmpfs tmpfs /var/lib
cp -a {root}/var/lib/. /var/lib/ 2>/dev/null || :
cp -a {programs} /var/lib/programs
cp /etc/passwd /etc/group /etc/ld.so.cache {root}/etc/
mount --bind {root}/etc /etc
{started}
for name in {names}; do until ps -e -o comm= | grep -qx "$name"; do sleep 0.1; done; done
exec {command}
"""


@dataclass(frozen=True)
class Result:
    """The state of each check, by its number."""

    states: dict[str, str]
    reasons: dict[str, str]

    def having(self, state: str) -> set[str]:
        """The numbers of the checks in a state: PASS, FAIL, WARN or INFO."""
        return {number for number, found in self.states.items() if found == state}


def locate_kube_bench() -> Path | None:
    """The program that BUNDLER_KUBE_BENCH names."""
    path = Path(os.environ.get(VARIABLE, "/nonexistent"))
    return path if path.is_file() and (path.parent / "cfg").is_dir() else None


def find_kube_bench() -> Path:
    """The same; the test is skipped without it."""
    if path := locate_kube_bench():
        return path
    pytest.skip(
        "kube-bench cannot run: BUNDLER_KUBE_BENCH does not name the program, with its cfg next to it"
    )


def write_paused_program(path: Path) -> None:
    """An ELF program for x86-64 that waits without end, whatever its arguments are."""
    size = 64 + 56 + len(CODE)
    head = struct.pack("<4sBBBBB7xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 0, 0, 2, 62, 1,
                       0x400078, 64, 0, 0, 64, 56, 1, 0, 0, 0)  # fmt: skip
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, size, size, 0x1000)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + segment + CODE)
    path.chmod(0o755)


def run_on_folder(program: Path, host: Host, arguments: list[str], programs: Path) -> Result:
    """Run kube-bench where the folder's /etc and /var/lib are the host's and its programs run."""
    if os.geteuid() or platform.machine() != "x86_64" or not shutil.which("unshare"):
        pytest.skip("kube-bench cannot run on folders: that needs root, unshare and x86-64")
    for name in host.processes:
        write_paused_program(programs / name)
    started = "\n".join(
        shlex.join([f"/var/lib/programs/{name}", *command[1:]]) + " &"
        for name, command in host.processes.items()
    )
    command = [
        str(program), "--json", "--config", "/etc/kubernetes/kube-bench/config.yaml",
        "--config-dir", str(program.parent / "cfg"), *arguments,
    ]  # fmt: skip
    script = SCRIPT.format(
        root=shlex.quote(str(host.root)),
        programs=shlex.quote(str(programs)),
        started=started,
        names=" ".join(name[:15] for name in host.processes),
        command=shlex.join(command),
    )
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script],
        capture_output=True, text=True, check=False, timeout=120,
        env={name: value for name, value in os.environ.items() if name != "COLUMNS"},  # cuts ps
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return read_result(done.stdout)


def read_result(text: str) -> Result:
    """The answer of kube-bench --json."""
    states, reasons = {}, {}
    for control in json.loads(text)["Controls"]:
        for group in control["tests"]:
            for check in group["results"]:
                states[check["test_number"]] = check["status"]
                seen = check.get("reason") or check["actual_value"]
                reasons[check["test_number"]] = f"{check['test_desc']}: {seen[:300]}"
    return Result(states, reasons)
