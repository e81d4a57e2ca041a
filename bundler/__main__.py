"""Where the program begins: an interrupt is a line and an exit code from the first moment on."""

import os
import signal
from types import FrameType

INTERRUPTED = 130


def main() -> None:
    """Load all the rest, which takes a while, and run it."""
    # who started it may have it ignore interrupts
    is_heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_heard:
        # not as an exception, which what is being loaded might take for its own
        signal.signal(signal.SIGINT, _end)
    from bundler.cli.app import main as run  # noqa: PLC0415

    if is_heard:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


def _end(_number: int, _frame: FrameType | None) -> None:
    os.write(2, b"error: interrupted before anything was begun\n")
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
