"""Replaces systemctl and systemd on a directory that is a host, and runs the programs of its units.

    stand_in_systemctl.py ROOT COMMAND [OPTION...] UNIT...

It supports ExecStartPre, ExecStart, ExecStartPost, ExecStopPost, Type=notify and Restart=on-failure of
a unit file, with ROOT before every path, like DESTDIR. Programs run as the user of the tests. Each start
has its own process, which supervises the unit and writes its state to ROOT/run/units/UNIT: activating,
active or inactive. A unit whose program is not in ROOT (kube-apiserver) is only recorded as active.
"""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PAUSE = 0.3  # seconds before a restart; systemd's own is RestartSec


def read_unit(root: Path, unit: str) -> dict[str, list[str]]:
    text = (root / "etc/systemd/system" / unit).read_text().replace("\\\n", " ")
    values: dict[str, list[str]] = {}
    for line in text.splitlines():
        if "=" in line and not line.startswith(("#", "[")):
            key, _, value = line.partition("=")
            values.setdefault(key, []).append(value)
    return values


def relocate(root: Path, command: str) -> list[str]:
    """Put ROOT before paths, and remove 127.0.0.1, which all members of this machine share."""
    command = command.lstrip("-+").replace(",https://127.0.0.1:2379", "")
    command = command.replace("/proc/1/root/", "/")  # the host's files, as process 1 sees them
    command = re.sub(r"(?<![\w/.:])/(opt|etc|run|var)/", rf"{root}/\1/", command)
    return shlex.split(command)


class Supervisor:
    """Supervises one unit from its start until it is stopped."""

    def __init__(self, root: Path, unit: str) -> None:
        self.root, self.unit = root, unit
        self.values = read_unit(root, unit)
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        path = Path("/tmp") / f"notify-{os.getpid()}"
        path.unlink(missing_ok=True)
        self.notify.bind(str(path))
        self.notify.settimeout(0.1)
        self.environment = {
            **os.environ,
            "DESTDIR": str(root),
            "NOTIFY_SOCKET": str(path),
            "PATH": f"{root}/opt/k8s/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "PAUSE": "1",
        }
        self.child: subprocess.Popen[bytes] | None = None
        self.stopping = False

    def write_state(self, state: str) -> None:
        (self.root / "run/units" / self.unit).write_text(f"{state} {os.getpid()}\n")

    def stop(self, *_: object) -> None:
        self.stopping = True
        if self.child and self.child.poll() is None:
            self.child.terminate()

    def run_all(self, key: str) -> None:
        for command in self.values.get(key, []):
            subprocess.run(relocate(self.root, command), env=self.environment, check=False)

    def run(self) -> None:
        signal.signal(signal.SIGTERM, self.stop)
        while not self.stopping:
            self.write_state("activating")
            self.run_all("ExecStartPre")
            log = (self.root / "run/log").open("ab")
            self.child = subprocess.Popen(
                relocate(self.root, self.values["ExecStart"][-1]),
                env=self.environment, stdout=log, stderr=log,
            )  # fmt: skip
            (self.root / "run/pid").write_text(str(self.child.pid))
            self.watch(self.child)
            code = self.child.wait()
            self.run_all("ExecStopPost")
            if code == 0:
                break
            time.sleep(PAUSE)
        self.write_state("inactive")

    def watch(self, child: subprocess.Popen[bytes]) -> None:
        while child.poll() is None:
            try:
                message = self.notify.recv(4096)
            except TimeoutError:
                continue
            if b"READY=1" in message:
                self.run_all("ExecStartPost")
                self.write_state("active")


def state_of(root: Path, unit: str) -> tuple[str, int]:
    try:
        state, pid = (root / "run/units" / unit).read_text().split()
        os.kill(int(pid), 0)
    except (OSError, ValueError):
        return ("inactive", 0)
    return (state, int(pid))


def start(root: Path, unit: str) -> None:
    if state_of(root, unit)[0] != "inactive":
        return
    (root / "run/units").mkdir(parents=True, exist_ok=True)
    with (root / "run/calls").open("a") as calls:
        calls.write(f"start {unit}\n")
    program = relocate(root, read_unit(root, unit)["ExecStart"][-1])[0]
    if not Path(program).exists():
        (root / "run/units" / unit).write_text("active 1\n")
        return
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            with open(os.devnull, "r+b") as nothing:
                for descriptor in (0, 1, 2):
                    os.dup2(nothing.fileno(), descriptor)
            os.closerange(3, 64)
            Supervisor(root, unit).run()
        os._exit(0)
    os.wait()
    while state_of(root, unit)[0] == "inactive":
        time.sleep(0.05)


def stop(root: Path, unit: str) -> None:
    state, pid = state_of(root, unit)
    with (root / "run/calls").open("a") as calls:
        calls.write(f"stop {unit}\n")
    if pid == 1:
        (root / "run/units" / unit).unlink()
    elif state != "inactive":
        os.kill(pid, signal.SIGTERM)
        while state_of(root, unit)[0] != "inactive":
            time.sleep(0.05)


def main() -> int:
    root, *words = sys.argv[1:]
    names = [word for word in words if not word.startswith("-")]
    command, units = names[0], [n if "." in n else f"{n}.service" for n in names[1:]]
    for unit in units:
        match command:
            case "start":
                start(Path(root), unit)
            case "stop":
                stop(Path(root), unit)
            case "restart":
                stop(Path(root), unit)
                start(Path(root), unit)
            case "is-active":
                state = state_of(Path(root), unit)[0]
                print(state)
                return 0 if state == "active" else 3
            case _:
                return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
