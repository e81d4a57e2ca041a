"""Loopback networks: each test cluster has one of its own, also next to other processes of a run."""

import ctypes
import itertools
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_STEP, _ALL = 199, 50_000  # networks of a process before those of the next; networks in all
_numbers = itertools.count(os.getpid() * _STEP % _ALL)


def take_network() -> str:
    """The first three numbers of addresses that no other test uses, such as 127.44.34.

    A fixed address would be used twice when pytest-xdist gives two workers tests of one file.
    """
    number = next(_numbers) % _ALL
    return f"127.{32 + number // 250}.{1 + number % 250}"


CLONE_NEWNET = 0x40000000


@contextmanager
def own_network(subnet: str) -> Iterator[None]:
    """This process, and what it starts, have a network of their own, in which all of the subnet is this machine.

    Addresses of loopback are not enough where proxies are concerned: Go never uses one for 127.0.0.0/8.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open() as former:
        if libc.unshare(CLONE_NEWNET) != 0:
            pytest.skip("networks cannot be made: only root may")
        try:
            for line in ("link set lo up", f"route add local {subnet} dev lo src 127.0.0.1"):
                subprocess.run(["ip", *line.split()], check=True)
            yield
        finally:
            assert libc.setns(former.fileno(), CLONE_NEWNET) == 0
