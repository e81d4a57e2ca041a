"""A terminal for a program: what a person types there, and what the screen shows."""

import math
import os
import pty
import select
import signal
import termios
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

INTERRUPT = "\x03"
"""Typed again every 2 s: a shell that has not begun to read when the signal comes goes on to read."""


@dataclass(frozen=True)
class Session:
    """What a program left on its terminal."""

    code: int
    screen: str
    echoes: bool  # whether the terminal shows what is typed, as before


def run_on_terminal(
    command: Sequence[str], typed: Mapping[str, str], environment: Mapping[str, str], *,
    times: int = 1, seconds: float = 60,
) -> Session:  # fmt: skip
    """Run the command; each time that the screen ends with a prompt, type its answer."""
    child, screen_end = pty.fork()
    if child == 0:
        for each in (signal.SIGINT, signal.SIGQUIT):  # a test run in the background ignores them
            signal.signal(each, signal.SIG_DFL)
        os.execvpe(command[0], list(command), {**os.environ, **environment})  # noqa: S606
    screen, seen, answered, again = b"", 0, 0, math.inf
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not select.select([screen_end], [], [], 0.1)[0]:
            if time.monotonic() > again:  # as a person does
                os.write(screen_end, INTERRUPT.encode())
                again += 2
            continue
        try:
            piece = os.read(screen_end, 4096)
        except OSError:  # the program ended
            break
        screen += piece
        for prompt, answer in typed.items():
            if answered < times and prompt.encode() in screen[seen:]:
                seen, answered = len(screen), answered + 1
                while termios.tcgetattr(screen_end)[3] & termios.ECHO and time.monotonic() < end:
                    time.sleep(0.02)
                os.write(screen_end, answer.encode())
                again = time.monotonic() + 2 if answer == INTERRUPT else math.inf
    echoes = bool(termios.tcgetattr(screen_end)[3] & termios.ECHO)
    if time.monotonic() >= end:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(screen_end)
    return Session(os.waitstatus_to_exitcode(status), screen.decode(errors="replace"), echoes)


def converse(command: Sequence[str], answers: Sequence[str], *, seconds: float = 60) -> Session:
    """Run the command on a terminal that shows what is typed; give each question its answer."""
    child, screen_end = pty.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.execvpe(command[0], list(command), {**os.environ, "NO_COLOR": "1"})  # noqa: S606
    screen, asked, left, again = b"", 0, list(answers), math.inf
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if left and screen[asked:].endswith(b": "):
            asked, answer = len(screen), left.pop(0)
            os.write(screen_end, answer.encode())
            again = time.monotonic() + 2 if answer == INTERRUPT else math.inf
        if time.monotonic() > again:
            os.write(screen_end, INTERRUPT.encode())
            again += 2
        if select.select([screen_end], [], [], 0.1)[0]:
            try:
                screen += os.read(screen_end, 4096)
            except OSError:  # the program ended
                break
    else:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(screen_end)
    return Session(os.waitstatus_to_exitcode(status), screen.decode(errors="replace"), echoes=True)
