"""Machines whose kernel is a process of this computer: user-mode Linux, for where KVM runs no kernel of Debian's.

BUNDLER_MACHINE_KERNEL names a directory with such a kernel: the program `linux`, and its modules in
`lib/modules/VERSION`. docs/development/testing.md says what it has to have.
"""

import gzip
import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from support.lab import wait_for
from support.paths import PROJECT

DIRECTORY = Path(os.environ.get("BUNDLER_MACHINE_KERNEL", ""))
CHOSEN = "BUNDLER_MACHINE_KERNEL" in os.environ

NETWORK = "bundler-machine"
"""The network namespace with the machine's other end: no way out, as with QEMU's restrict=on."""
HERE = "10.0.2.2"
"""The address of that end, which the machine's disk has as its gateway."""
INSIDE = ("ip", "netns", "exec", NETWORK)
"""The words before a program that reaches the machine."""

DISKS = {"vda": ("disk.qcow2", "qcow2"), "vdb": ("swap.raw", "raw")}
"""Name of the machine's disk → its file and format. The order gives them their names."""
WORDS = (
    "mount",
    "umount",
    "insmod",
    "uname",
    "mkdir",
    "cp",
    "cat",
    "chroot",
    "awk",
    "date",
    "switch_root",
)
"""What the first process runs."""
BLOCK_DEVICE = 2
"""virtio's number of a disk."""
SECURITY = "security=apparmor"
"""The security module of Debian's kernels where their command line names none."""


def start(run: Path, line: str, memory: str, processors: int, clock: str) -> None:
    """Turn the machine in `run` on; its process is in `run/pid`.

    Its hardware's clock is this computer's: for another one, its first process sets the kernel's clock.
    """
    _ensure_network()
    _serve_disks(run)
    _make_first_system(run)
    security = () if "security=" in line else (SECURITY,)
    off_by = (f"clock_is_off_by={_subtract_now(clock)}",) if clock else ()
    disks = [f"virtio_uml.device={run / name}.sock:{BLOCK_DEVICE}" for name in DISKS]
    kernel = [
        DIRECTORY / "linux", f"mem={memory}", f"ncpus={processors}", "seccomp=on",
        f"initrd={run / 'first.img'}", *disks, "vec0:transport=raw,ifname=machine,depth=128,gro=1", "con=null", "con0=null,fd:1", *security, *off_by, line,
    ]  # fmt: skip
    (run / "console.log").unlink(missing_ok=True)
    with (run / "console.log").open("wb") as console:
        subprocess.run(
            ["setsid", "--fork", "sh", "-c", 'echo $$ >"$0"; exec "$@"', run / "pid", *INSIDE, *kernel],
            check=True, stdin=subprocess.DEVNULL, stdout=console, stderr=console,
        )  # fmt: skip
    # until then its process has no command line at moments: it becomes another program twice
    wait_for("the kernel starts", lambda: b"Linux version" in (run / "console.log").read_bytes(), seconds=60, pause=0.1)  # fmt: skip


def _subtract_now(clock: str) -> int:
    """Seconds between now and a time like 2026-12-01T09:30:00 (UTC); negative for the past."""
    return round(
        (datetime.fromisoformat(clock).replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds()
    )


def end(run: Path) -> None:
    """End the process that serves the machine's disks; it writes what the machine gave it."""
    with suppress(OSError, ValueError):
        process = int((run / "disks.pid").read_text())
        os.kill(process, signal.SIGTERM)
        while True:
            os.kill(process, 0)
            time.sleep(0.1)
    (run / "disks.pid").unlink(missing_ok=True)


def _make_first_system(run: Path) -> None:
    """A file system in memory that mounts the machine's disk, and brings it the kernel's modules."""
    root = run / "first"
    shutil.rmtree(root, ignore_errors=True)
    for name in ("bin", "dev", "proc", "disk"):
        (root / name).mkdir(parents=True)
    (modules,) = (DIRECTORY / "lib" / "modules").iterdir()
    (root / "modules.from").write_text(str(modules.resolve()))
    shutil.copy(PROJECT / "scripts" / "machines" / "user-mode-init.sh", root / "init")
    for driver in modules.rglob("virtio_blk.ko"):
        shutil.copy(driver, root)
    busybox = shutil.which("busybox")
    assert busybox
    listed = subprocess.run(["ldd", busybox], capture_output=True, text=True, check=False).stdout
    for library in re.findall(r"/\S+", listed):
        (root / library[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, root / library[1:])
    shutil.copy(busybox, root / "bin" / "busybox")
    for word in ("sh", *WORDS):
        (root / "bin" / word).symlink_to("busybox")
    files = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
    archive = subprocess.run(
        [busybox, "cpio", "-o", "-H", "newc"], cwd=root, input=files.encode(), capture_output=True, check=True
    )  # fmt: skip
    (run / "first.img").write_bytes(gzip.compress(archive.stdout, 1))


def _ensure_network() -> None:
    if Path("/run/netns", NETWORK).exists():
        return
    for command in (
        ("ip", "netns", "add", NETWORK),
        (*INSIDE, "ip", "link", "set", "lo", "up"),
        (*INSIDE, "ip", "link", "add", "here", "type", "veth", "peer", "name", "machine"),
        (*INSIDE, "ip", "address", "add", f"{HERE}/24", "dev", "here"),
        (*INSIDE, "ip", "link", "set", "here", "up"),
        (*INSIDE, "ip", "link", "set", "machine", "up"),
    ):
        subprocess.run(command, check=True, capture_output=True)


def _serve_disks(run: Path) -> None:
    """These disks have no cache: in a power cut the machine loses what it had not written to them.

    Nothing is flushed, because this computer stays on. The server stopped to answer at times (docs/development/testing.md).
    """
    end(run)
    words = []
    for name, (file, form) in DISKS.items():
        (run / f"{name}.sock").unlink(missing_ok=True)
        words += [
            "--blockdev", f"driver=file,node-name={name}-file,filename={run / file}",
            "--blockdev", f"driver={form},node-name={name},file={name}-file,cache.no-flush=on",
            "--export", f"vhost-user-blk,id={name}-export,node-name={name},writable=on,addr.type=unix,addr.path={run / name}.sock",
        ]  # fmt: skip
    subprocess.run(
        ["qemu-storage-daemon", *words, "--pidfile", run / "disks.pid", "--daemonize"],
        check=True, capture_output=True,
    )  # fmt: skip
