"""The hosts that the lab's tests share, the order of its files, and what runs side by side."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.lab import (
    Cluster,
    Host,
    boot_cluster,
    build,
    make_lab_directory,
    shared_lab,
    side_by_side,
)
from support.paths import LAB_CACHE, PROJECT
from xdist.scheduler import LoadScopeScheduling

HERE = Path(__file__).parent
MEASURING = PROJECT / ".lab" / "measuring"
"""`make test` makes it, and begins its other tests when it is gone."""


@dataclass(frozen=True)
class Place:
    """Where a file's tests run, and why there."""

    lane: str
    reason: str


# The files of a lane run in this order, on hosts that no other lane touches.
FIVE_HOSTS, ONE_HOST = "five-hosts", "one-host"
ORDER = {
    "test_build": Place(FIVE_HOSTS, "fills the cache of builds, and makes the bundles of the five hosts"),
    "test_preflight": Place(FIVE_HOSTS, "needs hosts that have nothing installed"),
    "test_cluster": Place(FIVE_HOSTS, "the first installation, whose time it measures"),
    "test_failures": Place(FIVE_HOSTS, "needs the running cluster, and leaves it healthy"),
    "test_stolen_bundle": Place(FIVE_HOSTS, "installs a worker again, and leaves the cluster healthy"),
    "test_restore": Place(FIVE_HOSTS, "replaces the data of etcd, and leaves the cluster healthy"),
    "test_certificates": Place(FIVE_HOSTS, "renews what the first build issued"),
    "test_rotation": Place(FIVE_HOSTS, "replaces the CAs; a renewal before it has more to replace"),
    "test_key_rotation": Place(FIVE_HOSTS, "needs the running cluster, and leaves it healthy"),
    "test_fleet": Place(FIVE_HOSTS, "needs the running cluster, and leaves it healthy"),
    "test_upgrade": Place(FIVE_HOSTS, "leaves hosts of two versions"),
    "test_uninstall": Place(FIVE_HOSTS, "leaves the hosts empty, so nothing can follow on them"),
    "test_sealed": Place(FIVE_HOSTS, "boots the five hosts again"),
    "test_cis": Place(FIVE_HOSTS, "boots the five hosts again"),
    "test_addons": Place(FIVE_HOSTS, "boots the five hosts again, with add-ons from the first installation on"),
    "test_network_addon": Place(FIVE_HOSTS, "boots the five hosts again, with another network"),
    "test_registry": Place(FIVE_HOSTS, "boots the five hosts again, with a registry on two"),
    "test_real_upgrades": Place(FIVE_HOSTS, "boots the five hosts again, with versions of its own"),
    "test_killed_install": Place(ONE_HOST, "has its own host"),
    "test_generations": Place(ONE_HOST, "has its own host"),
    "test_service_users": Place(ONE_HOST, "has its own host"),
    "test_runtime_change": Place(ONE_HOST, "has its own host"),
    "test_nodes_join_and_leave": Place(ONE_HOST, "has its own six hosts, the most at a time"),
}  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    files = {path.stem for path in HERE.glob("test_*.py")}
    if files != ORDER.keys():
        raise pytest.UsageError(
            f"tests/lab/conftest.py: ORDER and the files differ in {sorted(files ^ ORDER.keys())}"
        )
    places = list(ORDER)
    lab = [item for item in items if HERE in item.path.parents]
    for item in lab:
        item.add_marker(pytest.mark.lab)
    lab.sort(key=lambda item: places.index(item.path.stem))
    items[:] = [item for item in items if HERE not in item.path.parents] + lab


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Hosts of the other lane wait while the first installation of the five is measured."""
    place = ORDER.get(item.path.stem)
    if place and place.lane == ONE_HOST:
        end = time.monotonic() + 900
        while MEASURING.exists() and time.monotonic() < end:
            time.sleep(1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Give each worker of `pytest -n 2` a lane.

    pytest-xdist's own groups do not work with pytest 9: they change an attribute that is gone.
    """
    return Lanes(config, log)


class Lanes(LoadScopeScheduling):
    """Keep the files of a lane in one worker, in their order."""

    def _split_scope(self, nodeid: str) -> str:
        place = ORDER.get(Path(nodeid.partition("::")[0]).stem)
        return place.lane if place else super()._split_scope(nodeid)


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The lab's network with no host of an earlier run, shared by the lanes."""
    base = tmp_path_factory.getbasetemp()
    # a worker of xdist has a directory of its own in the run's
    shared = base.parent if base.name.startswith("popen-") else base
    with shared_lab(shared):
        yield


@pytest.fixture(scope="session")
def lab_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the example's cluster.yaml and links to the lab's image archives."""
    return make_lab_directory(tmp_path_factory.mktemp("cluster"))


@pytest.fixture(scope="module", autouse=True)
def remove_builds(lab_directory: Path) -> Iterator[None]:
    """A file's bundles go after its tests: those of five hosts are 620 MB, and a dozen filled a tmpfs of 12 GB."""
    before = set(lab_directory.iterdir())
    yield
    for path in set(lab_directory.iterdir()) - before:
        is_shared = path.name == "dist"
        if not is_shared and ((path / "SHA256SUMS").exists() or path.name.startswith("cache")):
            shutil.rmtree(path)


@pytest.fixture(scope="session")
def product_cache() -> Path:
    """The cache that builds share, so that only one of them compresses."""
    return LAB_CACHE / "product-cache"


@pytest.fixture(scope="session")
def lab_bundles(lab_directory: Path, product_cache: Path) -> Path:
    """The bundles of the example's five hosts."""
    build(
        lab_directory / "examples" / "lab.yaml", lab_directory / "dist", cache=product_cache,
        environment={"TZ": "UTC", "LC_ALL": "C"},
    )  # fmt: skip
    return lab_directory / "dist"


@pytest.fixture(scope="session")
def cluster(lab_directory: Path, lab_bundles: Path, network: None) -> Cluster:
    """The example's five hosts, booted, with their bundles unpacked and nothing installed."""
    made = boot_cluster(lab_directory)
    hosts = made.hosts.values()
    made.before = dict(zip(made.hosts, side_by_side(Host.list_files, hosts), strict=True))
    side_by_side(lambda host: host.unpack(lab_bundles / f"lab-{host.name}.tar.gz"), hosts)
    return made


@pytest.fixture
def empty_cluster(cluster: Cluster) -> Cluster:
    """The five hosts before anything is installed."""
    assert cluster.first_install is None, "these tests must run before the installation"
    return cluster


@pytest.fixture(scope="session")
def installed(cluster: Cluster) -> Cluster:
    """The five hosts after install.sh ran on all of them at once, and a green verify.sh."""
    try:
        cluster.install_first()
    finally:
        MEASURING.unlink(missing_ok=True)
    return cluster


def renew_tokens(cluster: Cluster, workers: list[Host]) -> None:
    """Let workers that were uninstalled join again: their tokens are used."""
    if not workers:
        return
    description = cluster.directory / "examples" / "lab.yaml"
    names = [host.name for host in workers]
    subprocess.run(
        [Path(sys.executable).parent / "bundler", "tokens", "renew", *names, "-c", description],
        check=True,
    )
    build(description, cluster.dist, cache=LAB_CACHE / "product-cache")
    side_by_side(lambda host: host.unpack(cluster.bundle(host)), [cluster.masters[0], *workers])
    cluster.masters[0].run(f"/root/lab-{cluster.masters[0].name}/install.sh")


@pytest.fixture(scope="module")
def running(installed: Cluster) -> Cluster:
    """The five hosts, ready: a host that an earlier file uninstalled is installed again."""
    missing = [
        host
        for host in installed.hosts.values()
        if host.run("test -f /opt/k8s/bundle/node.env", check=False).returncode
    ]
    renew_tokens(installed, [host for host in missing if host in installed.workers])
    if missing:
        side_by_side(lambda host: host.run(f"/root/lab-{host.name}/install.sh"), missing)
    if missing or not installed.is_green:
        verified = installed.verify()
        assert verified.returncode == 0, verified.stdout
    return installed
