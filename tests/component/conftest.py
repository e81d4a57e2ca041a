"""Hosts with real etcd members, which component tests share."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.etcd_hosts import Member, Site, find_etcd
from support.networks import take_network


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return find_etcd(tmp_path_factory.mktemp("etcd"))


@pytest.fixture
def site(programs: Path, tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path, programs, take_network())
    yield made
    with ThreadPoolExecutor() as pool:
        list(pool.map(Member.stop, made.made.values()))
