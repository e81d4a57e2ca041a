"""Hosts with real etcd members, which component tests share."""

import itertools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.etcd_hosts import Member, Site, find_etcd

NUMBERS = itertools.count(os.getpid() * 97 % 60000)


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return find_etcd(tmp_path_factory.mktemp("etcd"))


@pytest.fixture
def site(programs: Path, tmp_path: Path) -> Iterator[Site]:
    number = next(NUMBERS)
    made = Site(tmp_path, programs, f"127.{1 + number // 250 % 250}.{1 + number % 250}")
    yield made
    with ThreadPoolExecutor() as pool:
        list(pool.map(Member.stop, made.made.values()))
