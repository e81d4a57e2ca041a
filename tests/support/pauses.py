"""Stop a script whenever it starts one of some programs, and go on with it at will: every order of two scripts."""

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from support.shells import write_program


def write_pausing_programs(directory: Path, *names: str) -> None:
    """Programs for the head of PATH: each stops the process group that it is in, and then runs the real one."""
    for name in names:
        write_program(directory / name, f'kill -STOP 0\nexec {shutil.which(name)} "$@"\n')


class Paused:
    """A script in a process group of its own. It runs until it starts a program that pauses, or ends."""

    def __init__(self, command: Sequence[str], output: Path, environment: dict[str, str]) -> None:
        self.output = output
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                command, env=environment, stdout=file, stderr=file, process_group=0
            )
        self.ended = False
        self._wait()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def said(self) -> str:
        return self.output.read_text()

    def go_on(self) -> None:
        """Run to the next pause, or to the end."""
        if not self.ended:
            os.killpg(self.pid, signal.SIGCONT)
            self._wait()

    def kill(self) -> None:
        if not self.ended:
            os.killpg(self.pid, signal.SIGKILL)
            self._wait()

    def _wait(self) -> None:
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            self.process.returncode = os.waitstatus_to_exitcode(status)
            self.ended = True
