"""The entry point of the program: handles an interrupt also while modules are imported."""

import os
import signal
from types import FrameType

from bundler.errors import INTERRUPTED


def main() -> None:
    """Import the command line, which takes a while, and run it."""
    if os.environ.get("_BUNDLER_COMPLETE", "").startswith("complete_"):
        # the shell draws its line where a message would be
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    # a parent process may have told us to ignore interrupts
    is_heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_heard:
        # an exception during an import could be caught by the imported module
        signal.signal(signal.SIGINT, _exit_at_once)
    from bundler.cli.app import main as run  # noqa: PLC0415

    if is_heard:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


def _exit_at_once(_number: int, _frame: FrameType | None) -> None:
    os.write(2, b"error: interrupted; nothing was done yet\n")
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
