"""How long tests of machines wait: one table for a processor of its own speed, and one factor for all of it.

An emulated processor beside other work is 10 to 40 times slower. BUNDLER_PATIENCE=N is another factor: 1 suits KVM.
"""

import os

FACTOR = float(os.environ.get("BUNDLER_PATIENCE", "40"))

SECONDS = {
    "an answer": 5,  # of a server that answers
    "a settled unit": 1,  # how long it must have run
    "a check": 40,  # of verify.sh, tried again
    "a rule": 10,  # of a firewall
    "a pod": 60,
    "a unit": 60,  # from its start until it is ready
    "a shutdown": 60,
    "a boot": 60,  # from the power to an answer of ssh
    "the units of a boot": 120,  # and from there to its end
    "a moment": 120,  # at which the power is cut
    "a command": 120,
    "verify.sh": 120,
    "install.sh": 180,
}


def patience(what: str) -> int:
    """The seconds that this may take at most."""
    return round(SECONDS[what] * FACTOR)
