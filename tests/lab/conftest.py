"""Five hosts, built and installed once for all tests of the lab; the files run in their order."""

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from support.lab import CACHE, FIGURES, PROJECT, Cluster, Host, build, hosts_sh


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.lab)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if FIGURES:
        terminalreporter.section("figures")
        for figure in FIGURES:
            terminalreporter.line(figure)


@pytest.fixture(scope="session")
def lab_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example's cluster.yaml and the lab's image archives beside it."""
    directory = tmp_path_factory.mktemp("cluster")
    (directory / ".lab").mkdir()
    for made in ("images", "packages"):
        (directory / ".lab" / made).symlink_to(CACHE / made)
    (directory / "examples").mkdir()
    shutil.copy(PROJECT / "examples" / "lab.yaml", directory / "examples")
    return directory


@pytest.fixture(scope="session")
def product_cache() -> Path:
    """The cache that builds share, so that only one of them compresses."""
    return CACHE / "product-cache"


@pytest.fixture(scope="session")
def cluster(lab_directory: Path, product_cache: Path) -> Iterator[Cluster]:
    """The example's five hosts, booted, with their bundles unpacked and nothing installed."""
    description = lab_directory / "examples" / "lab.yaml"
    build(description, lab_directory / "dist", cache=product_cache)
    nodes = yaml.safe_load(description.read_text())["nodes"]
    hosts = {node["name"]: Host(node["name"], node["address"]) for node in nodes}
    hosts_sh("down")
    hosts_sh("up", *(f"{host.name}={host.address}" for host in hosts.values()))
    made = Cluster(directory=lab_directory, hosts=hosts)
    made.before = {name: host.list_files() for name, host in hosts.items()}
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(lambda host: host.unpack(made.bundle(host)), hosts.values()))
    yield made
    if "BUNDLER_KEEP_LAB" not in os.environ:
        hosts_sh("down")


@pytest.fixture(scope="session")
def running(cluster: Cluster) -> Cluster:
    """The five hosts with everything installed and ready, whichever tests ran before."""
    absent = [
        host
        for host in cluster.hosts.values()
        if host.run("test -f /opt/k8s/bundle/node.env", check=False).returncode
    ]
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(lambda host: host.run(f"/root/lab-{host.name}/install.sh"), absent))
    verified = cluster.verify()
    assert verified.returncode == 0, verified.stdout
    return cluster
