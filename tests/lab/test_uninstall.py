"""uninstall.sh on hosts of the cluster: what install.sh put there is gone, data stay unless asked."""

import pytest
from support.lab import Cluster, differences


@pytest.mark.parametrize("node", ["worker2", "master3"])
def test_uninstall_takes_away_exactly_what_install_put_there(cluster: Cluster, node: str) -> None:
    host = cluster.hosts[node]
    data = host.output(". /opt/k8s/bundle/node.env; echo $DATA_PATHS").split()
    plan = host.output("/opt/k8s/bundle/uninstall.sh --dry-run")
    assert f"keep     {data[0]}" in plan
    said = host.output("/opt/k8s/bundle/uninstall.sh --yes")
    assert " packages that it installed are kept (listed in /var/lib/bundler/packages" in said
    host.run("dpkg --purge $(cat /var/lib/bundler/packages) && rm -r /var/lib/bundler")
    after = host.list_files()
    kept = {path for path in after if any(path == d or path.startswith(f"{d}/") for d in data)}
    assert kept
    for path in kept:
        del after[path]
    assert differences(cluster.before[node], after) == {}
    assert host.output(f"/root/lab-{node}/uninstall.sh").startswith("nothing to do")


def test_data_go_only_when_asked(cluster: Cluster) -> None:
    host = cluster.hosts["master2"]
    host.run("/opt/k8s/bundle/uninstall.sh --yes --purge-data --remove-packages")
    assert differences(cluster.before["master2"], host.list_files()) == {}
