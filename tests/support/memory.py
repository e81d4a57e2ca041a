"""The memory that a command uses."""

import subprocess
import sys

CODE = """\
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=sys.stderr).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


def run_measured(command: list[str]) -> tuple[int, str]:
    """Run it; return the peak of its memory in bytes, and what it said.

    A small process measures it: RUSAGE_CHILDREN of this one would include its own memory.
    """
    done = subprocess.run(
        [sys.executable, "-c", CODE, *command], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout) << 10, done.stderr
