"""Five hosts are upgraded to the next minor under load, then both workers and a control plane roll back.

The next minor consists of the same programs with another version in them (stamped.py): the test
covers bundler's steps, and no change of Kubernetes itself.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.lab import Cluster, Kubectl, build, wait_for
from support.stamped import OLD, stamp, use
from support.upgrades import deploy_web, install, join_text, upgrade_side_by_side, versions

pytestmark = pytest.mark.long

NEW = "1.21.2"


@pytest.fixture(scope="module")
def upgraded(running: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The dist directory of the next minor; the web server runs."""
    mirror = stamp(tmp_path_factory.mktemp("stamped"), NEW)
    description = running.directory / "examples" / "lab.yaml"
    text = description.read_text()
    description.write_text(text.replace(f"version: {OLD}", f"version: {NEW}"))
    dist = running.directory / "dist-new"
    build(
        description, dist, cache=running.directory / "cache-new",
        arguments=use(mirror),
    )  # fmt: skip
    description.write_text(text)
    deploy_web(running, "v1beta1")
    yield dist
    shutil.rmtree(mirror)


def test_all_hosts_upgrade_side_by_side_in_rollout_order(running: Cluster, upgraded: Path) -> None:
    for host in running.hosts.values():
        host.unpack(upgraded / f"lab-{host.name}.tar.gz")
    plan = running.workers[0].run("/root/lab-worker1/install.sh --plan", check=False).stdout
    assert "install control planes before workers" in plan
    assert "drain " in plan
    assert "restart  kubelet.service" in plan
    upgrade_side_by_side(running, OLD, NEW)
    verified = running.verify()
    assert verified.returncode == 0, verified.stdout


@pytest.mark.parametrize("name", ["worker1", "worker2", "master1"])
def test_a_host_rolls_back(running: Cluster, upgraded: Path, name: str) -> None:
    """Roll back workers first, so that no API server is older than a kubelet."""
    assert upgraded.is_dir()
    host = running.hosts[name]
    if name == "worker2":
        lines = install(running.masters[0], "/opt/k8s/bundle/install.sh --rollback")
        assert lines[-1].text == "exit 3", join_text(lines)
        assert f"kubelets must not be newer than API server {OLD}: worker2 (v{NEW})" in join_text(
            lines
        )
    lines = install(host, "/opt/k8s/bundle/install.sh --rollback --wait 5m")
    assert lines[-1].text == "exit 0", join_text(lines)
    if name.startswith("worker"):
        wait_for(
            "its kubelet has the former version",
            lambda: versions(running)[name] == f"v{OLD}",
            seconds=30,
        )
    else:
        reported = json.loads(
            Kubectl(host)(f"--server https://{host.address}:6443 version -o json")
        )
        assert reported["serverVersion"]["gitVersion"] == f"v{OLD}"
    verified = running.verify(running.hosts["master2"])
    assert verified.returncode == 0, verified.stdout
