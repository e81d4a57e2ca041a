"""Loopback networks: each test cluster has one of its own, also next to other processes of a run."""

import itertools
import os

_STEP, _ALL = 199, 50_000  # networks of a process before those of the next; networks in all
_numbers = itertools.count(os.getpid() * _STEP % _ALL)


def take_network() -> str:
    """The first three numbers of addresses that no other test uses, such as 127.44.34.

    A fixed address would be used twice when pytest-xdist gives two workers tests of one file.
    """
    number = next(_numbers) % _ALL
    return f"127.{32 + number // 250}.{1 + number % 250}"
