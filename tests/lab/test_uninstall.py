"""uninstall.sh removes exactly what install.sh installed; data only on request."""

from dataclasses import dataclass

import pytest
from support.lab import Cluster, Host, differences, side_by_side

KEEPS_DATA, PURGES_DATA = ("worker2", "master3"), "master2"


@dataclass(frozen=True)
class Uninstalled:
    """What uninstall.sh printed on a host, and the host's files after it."""

    data: list[str]
    plan: str
    said: str
    again: str
    files: dict[str, str]


def uninstall(host: Host) -> Uninstalled:
    data = host.output(". /opt/k8s/bundle/node.env; echo $DATA_PATHS").split()
    script = "/opt/k8s/bundle/uninstall.sh"
    plan = host.output(f"{script} --dry-run")
    if host.name == PURGES_DATA:
        said = host.output(f"{script} --yes --purge-data --remove-packages")
    else:
        said = host.output(f"{script} --yes")
        # the owner of the data stays with them
        host.run("! getent passwd etcd || userdel etcd")
        host.run("dpkg --purge $(cat /var/lib/bundler/packages) && rm -r /var/lib/bundler")
    files = host.list_files()
    again = host.output(f"/root/lab-{host.name}/uninstall.sh")
    return Uninstalled(data=data, plan=plan, said=said, again=again, files=files)


@pytest.fixture(scope="module")
def uninstalled(running: Cluster) -> dict[str, Uninstalled]:
    """Three hosts, uninstalled side by side."""
    running.is_green = False
    names = (*KEEPS_DATA, PURGES_DATA)
    found = side_by_side(uninstall, [running.hosts[name] for name in names])
    return dict(zip(names, found, strict=True))


@pytest.mark.parametrize("node", KEEPS_DATA)
def test_uninstall_removes_exactly_what_install_installed(
    cluster: Cluster, uninstalled: dict[str, Uninstalled], node: str
) -> None:
    host = uninstalled[node]
    assert f"keep     {host.data[0]}" in host.plan
    assert " packages that it installed are kept (listed in /var/lib/bundler/packages" in host.said
    after = dict(host.files)
    kept = {path for path in after if any(path == d or path.startswith(f"{d}/") for d in host.data)}
    assert kept
    for path in kept:
        del after[path]
    assert differences(cluster.before[node], after) == {}
    assert host.again.startswith("nothing to do")


def test_data_is_removed_only_on_request(
    cluster: Cluster, uninstalled: dict[str, Uninstalled]
) -> None:
    assert differences(cluster.before[PURGES_DATA], uninstalled[PURGES_DATA].files) == {}
