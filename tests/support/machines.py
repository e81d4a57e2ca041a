"""Machines with a kernel of their own: QEMU or user-mode Linux runs the images of scripts/machines, one at a time.

A machine's disk is an overlay of its image. It reaches no network: tests reach it through ssh, and
through the ports that they name.
"""

import functools
import os
import shlex
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support import user_mode
from support.lab import Host, locked, wait_for
from support.paths import LAB_CACHE, PROJECT
from support.patience import patience

MACHINES = LAB_CACHE / "machines"
RUN = MACHINES / "run"
"""Disks and logs of the machine that runs."""
KEY = MACHINES / "key"
"""The ssh key of all machines: a disk that is kept has it, and takes no other (tmpfiles.d, provision.conf)."""

ADDRESS = "10.0.2.15"
MEMORY, PROCESSORS = "5120M", 2
SSH_PORT = 22022
ENDS = ("Dropping to a shell!", "You are in emergency mode", "Kernel panic")
"""What the console says where a boot has ended and there is no system."""

INSTRUCTIONS = "shift=1,sleep=on,align=off"
"""An emulated machine's clock counts its instructions, 2 ns each: it does not notice that it has to wait for a
processor, and no time limit in it ends early. With a clock of its own its kernel measured its timers wrongly. It has one
processor, because of several each would wait for the other in turn."""

KVM_SECONDS = 20
"""How long a kernel may take to its first line, if /dev/kvm is to be used."""


@dataclass(frozen=True)
class Image:
    """One image of scripts/machines/image.sh, and the machine that it is for."""

    name: str
    program: str
    console: str
    hardware: tuple[str, ...]
    processor: str  # emulated
    accelerated: bool

    @property
    def directory(self) -> Path:
        return MACHINES / self.name

    @property
    def is_in_user_mode(self) -> bool:
        """Whether its kernel is a process of this computer."""
        return self.accelerated and user_mode.CHOSEN

    def list_brought(self) -> list[str]:
        """The names of the packages that its bundles bring: those that the image does not have."""
        names = (self.directory / "brought").read_text().split()
        return [name for name in names if list((self.directory / "packages").glob(f"{name}_*.deb"))]


PC = ("qemu-system-x86_64", "ttyS0", ("-machine", "q35"), "max", True)
# Pointers are signed by a quick function: that of the processor takes half of the time.
ARM = ("qemu-system-aarch64", "ttyAMA0", ("-machine", "virt"), "max,pauth-impdef=on,sve=off", False)
IMAGES = {
    name: Image(name, *kind)
    for name, kind in {
        "debian-12": PC,
        "debian-12-site": PC,
        "debian-13": PC,
        "debian-12-arm64": ARM,
    }.items()
}


def ensure_image(name: str) -> Image:
    """The image, made if it is missing; the test is skipped where that cannot be."""
    image = IMAGES[name]
    program = "qemu-storage-daemon" if image.is_in_user_mode else image.program
    if not all(map(shutil.which, (program, "qemu-img", "mmdebstrap", "ssh"))):
        pytest.skip(
            "machines cannot run: there is no QEMU, mmdebstrap or ssh (scripts/setup.sh machines)"
        )
    if user_mode.CHOSEN and not image.accelerated:
        pytest.skip(
            "machines of another processor cannot run: BUNDLER_MACHINE_KERNEL names a kernel in user mode"
        )
    if os.geteuid() != 0:
        pytest.skip("machines cannot run: only root can make their disks")
    script = PROJECT / "scripts" / "machines" / "image.sh"
    done = subprocess.run([script, name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return image


@functools.cache
def accelerator(image: Image) -> tuple[str, ...]:
    """KVM where a kernel runs with it; /dev/kvm may be there, and run none."""
    if image.accelerated and os.access("/dev/kvm", os.R_OK | os.W_OK) and _boots_with_kvm(image):
        return "-accel", "kvm", "-cpu", "host", "-smp", str(PROCESSORS)
    return (
        "-accel",
        "tcg,thread=single",
        "-icount",
        INSTRUCTIONS,
        "-cpu",
        image.processor,
        "-smp",
        "1",
    )


def _boots_with_kvm(image: Image) -> bool:
    log = MACHINES / "kvm.log"
    process = subprocess.Popen(
        [image.program, *image.hardware, "-accel", "kvm", "-cpu", "host", "-m", "512", "-nodefaults",
         "-display", "none", "-serial", f"file:{log}", "-kernel", image.directory / "vmlinuz",
         "-append", f"console={image.console} earlyprintk=serial panic=-1"],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        end = time.monotonic() + KVM_SECONDS
        while process.poll() is None and time.monotonic() < end:
            if log.exists() and b"Linux version" in log.read_bytes():
                return True
            time.sleep(0.5)
        return False
    finally:
        process.kill()
        process.wait()


@dataclass(frozen=True)
class Machine(Host):
    """One machine; its disk is kept when it is off."""

    image: Image
    ports: dict[int, int] = field(default_factory=dict, hash=False)
    """Port of this computer → port of the machine."""

    @property
    def disk(self) -> Path:
        return RUN / "disk.qcow2"

    @property
    def console(self) -> str:
        return (RUN / "console.log").read_text(errors="replace")

    def start(self, *, clock: str = "", words: str = "") -> float:
        """Turn it on, with the clock of its hardware and more words on its kernel's command line.

        With a wrong clock a boot may have no end: units start again and again until certificates are valid.
        """
        key = KEY.with_suffix(".pub").read_text().strip()
        line = (
            f"root=/dev/vda rw net.ifnames=0 {words}"
            f' "systemd.set_credential=ssh.authorized_keys.root:{key}"'
        )
        if not self.image.is_in_user_mode:
            self._start_qemu(line, clock)
        else:
            user_mode.start(RUN, line, MEMORY, PROCESSORS, clock)
        return self.await_boot(to_its_end=not clock)

    def _start_qemu(self, line: str, clock: str) -> None:
        network = ",".join(
            ("user", "id=network", "restrict=on", *(f"hostfwd=tcp:127.0.0.1:{here}-:{there}" for here, there in self.forwards.items()))
        )  # fmt: skip
        command = [
            self.image.program, *self.image.hardware, *accelerator(self.image),
            "-name", self.name, "-m", MEMORY, "-nodefaults", "-display", "none",
            "-serial", f"file:{RUN / 'console.log'}", "-pidfile", RUN / "pid", "-daemonize",
            # The host writes when the machine flushes: what it did not flush is lost in a power cut.
            "-drive", f"file={self.disk},if=virtio,cache=writeback",
            "-drive", f"file={RUN / 'swap.raw'},if=virtio,format=raw,cache=writeback",
            "-netdev", network, "-device", "virtio-net-pci,netdev=network",
            "-object", "rng-random,id=random,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=random",
            "-kernel", self.image.directory / "vmlinuz", "-initrd", self.image.directory / "initrd.img",
            "-append", f"console={self.image.console} mitigations=off no5lvl {line}", *(["-rtc", f"base={clock}"] if clock else []),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def await_boot(self, but: str = "", *, to_its_end: bool = True) -> float:
        """Wait until it has booted, and not with the boot's name in `but`; return the seconds."""
        start = time.monotonic()

        def is_up() -> bool:
            assert self.is_on(), f"the machine ended:\n{self.console[-3000:]}"
            assert not any(end in self.console for end in ENDS), self.console[-3000:]
            try:
                done = subprocess.run(
                    self.shell("cat /proc/sys/kernel/random/boot_id"),
                    capture_output=True, text=True, check=False, timeout=patience("an answer"),
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                return False
            return done.returncode == 0 and done.stdout.strip() != but

        wait_for("the machine boots", is_up, seconds=patience("a boot"), pause=2)
        if to_its_end:
            self.run(
                "systemctl is-system-running --wait",
                check=False,
                timeout=patience("the units of a boot"),
            )
        return time.monotonic() - start

    def is_on(self) -> bool:
        return bool(find_process())

    def reboot(self) -> float:
        """Let it shut down and boot again, as its operator does."""
        before = self.output("cat /proc/sys/kernel/random/boot_id").strip()
        self.run("systemctl reboot", check=False)
        self.hang_up()
        return self.await_boot(before)

    def cut_power(self) -> None:
        """Kill its process; what the machine had not written to its disk is lost."""
        self.hang_up()
        end_process()

    def power_off(self) -> None:
        self.run("systemctl poweroff", check=False)
        self.hang_up()
        wait_for("the machine turns off", lambda: not self.is_on(), seconds=patience("a shutdown"))
        user_mode.end(RUN)

    def save_disk(self, target: Path) -> None:
        """Turn it off; keep its disk as a base for others."""
        self.power_off()
        target.parent.mkdir(exist_ok=True)
        self.disk.replace(target)

    def hang_up(self) -> None:
        """Close the connection that all commands share."""
        subprocess.run([*self.ssh(), "-O", "exit", self.login], capture_output=True, check=False)

    def answers(self, port: int) -> bool:
        """Whether a request from outside to one of its `ports` is answered, with whatever."""
        before, host, here = self.reach(port)
        request = [*before, "curl", "-so/dev/null", f"-m{patience('an answer')}", f"http://{host}:{here}/"]  # fmt: skip
        return subprocess.run(request, capture_output=True, check=False).returncode == 0

    def reach(self, port: int) -> tuple[tuple[str, ...], str, int]:
        """How this computer reaches a port: the words before a program, the host and the port that it asks."""
        if self.image.is_in_user_mode:
            return user_mode.INSIDE, ADDRESS, port
        return (), "127.0.0.1", {port: here for here, port in self.forwards.items()}[port]

    @property
    def forwards(self) -> dict[int, int]:
        return {SSH_PORT: 22, **self.ports}

    @property
    def login(self) -> str:
        return f"root@{self.reach(22)[1]}"

    def ssh(self, program: str = "ssh") -> list[str]:
        before, _, port = self.reach(22)
        options = {
            "ControlMaster": "auto", "ControlPath": str(RUN / "connection"), "ControlPersist": "yes",
            "IdentityFile": str(KEY), "Port": str(port), "BatchMode": "yes",
            "StrictHostKeyChecking": "no", "UserKnownHostsFile": "/dev/null", "LogLevel": "ERROR",
            "ConnectTimeout": "30", "ServerAliveInterval": "30", "ServerAliveCountMax": "120",
        }  # fmt: skip
        return [*before, program, *(f"-o{key}={value}" for key, value in options.items())]

    def shell(self, command: str) -> list[str]:
        return [*self.ssh(), self.login, f"sh -c {shlex.quote(command)}"]

    def copy(self, file: Path, target: str) -> None:
        subprocess.run(
            [*self.ssh("scp"), str(file), f"{self.login}:{target}"],
            check=True,
            capture_output=True,
        )

    def run(
        self, command: str, *, check: bool = True, timeout: float | None = None
    ) -> subprocess.CompletedProcess[str]:
        return super().run(command, check=check, timeout=timeout or patience("a command"))


def find_process() -> int:
    """The process of the machine in RUN, also one of an earlier run; 0 if there is none."""
    with suppress(OSError, ValueError):
        process = int((RUN / "pid").read_text())
        words = Path(f"/proc/{process}/cmdline").read_bytes()
        # a kernel in user mode that reboots becomes another program, and has no words until then
        if not words or str(RUN).encode() in words:
            return process
    return 0


def end_process() -> None:
    if process := find_process():
        os.kill(process, signal.SIGKILL)
        wait_for("the machine ends", lambda: not find_process(), seconds=30, pause=0.1)
    user_mode.end(RUN)


@contextmanager
def the_only_machine() -> Iterator[None]:
    """Let one run at a time have a machine; end what a killed run left."""
    MACHINES.mkdir(parents=True, exist_ok=True)
    with locked(MACHINES / "lock"):
        end_process()
        yield
        if "BUNDLER_KEEP_LAB" not in os.environ:
            end_process()
            shutil.rmtree(RUN, ignore_errors=True)


def new_machine(
    image: Image, *, base: Path | None = None, ports: dict[int, int] | None = None
) -> Machine:
    """A machine that is off, with a new disk over `base` (default: the image's)."""
    end_process()
    shutil.rmtree(RUN, ignore_errors=True)
    RUN.mkdir(mode=0o700)
    machine = Machine(name="machine", address=ADDRESS, image=image, ports=ports or {})
    backing = base or image.directory / "disk.qcow2"
    commands = [
        ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", backing, machine.disk],
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "machine", "-f", KEY],
    ]
    for command in commands[: 1 if KEY.exists() else 2]:
        subprocess.run(command, check=True, capture_output=True)
    _make_swap_disk(RUN / "swap.raw")
    return machine


def _make_swap_disk(path: Path) -> None:
    """A disk with one partition of swap, from its second mebibyte on."""
    swap = path.with_suffix(".swap")
    subprocess.run(["truncate", "-s", "256M", swap], check=True)
    subprocess.run(["mkswap", "-q", swap], check=True)
    sectors = swap.stat().st_size // 512
    table = bytearray(512)
    struct.pack_into("<B3sB3sII", table, 446, 0, b"", 0x82, b"", 2048, sectors)
    table[510:] = b"\x55\xaa"
    with path.open("wb") as disk:
        disk.write(table)
        disk.seek(2048 * 512)
        disk.write(swap.read_bytes())
    swap.unlink()
