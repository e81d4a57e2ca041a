"""All three members of etcd lose their data: a snapshot brings every object back, on all of them."""

import json
import shlex
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.lab import FIGURES, Cluster, Host, wait_for

NAMESPACE = "bulk"
RESTORE = "/opt/k8s/bundle/restore.sh"
KUBECTL = "/opt/k8s/bin/kubectl --kubeconfig /etc/kubernetes/admin.kubeconfig"
WRITE = """
rm -rf /tmp/bulk && mkdir /tmp/bulk && cd /tmp/bulk
awk -v count={count} -v parts=40 -v namespace={namespace} 'BEGIN {{
    for (i = 0; i < count; i++)
        printf "---\\napiVersion: v1\\nkind: ConfigMap\\nmetadata: {{name: c%d, namespace: %s}}\\ndata: {{number: \\"%d\\"}}\\n",
            i, namespace, i >(i % parts ".yaml")
}}'
ls | xargs -P 20 -n 1 {kubectl} create -f >/dev/null
rm -rf /tmp/bulk
"""


def read_objects(cluster: Cluster) -> dict[str, str]:
    """Every ConfigMap of the test: its UID and what it says."""
    found = json.loads(
        cluster.kubectl(f"-n {NAMESPACE} get configmaps --field-selector metadata.name!=kube-root-ca.crt -o json")
    )  # fmt: skip
    return {
        item["metadata"]["name"]: f"{item['metadata']['uid']} {item['data']['number']}"
        for item in found["items"]
    }


def write_objects(cluster: Cluster, count: int) -> dict[str, str]:
    cluster.kubectl(f"create namespace {NAMESPACE}")
    command = WRITE.format(count=count, namespace=NAMESPACE, kubectl=KUBECTL)
    cluster.masters[0].run(command, timeout=900)
    written = read_objects(cluster)
    assert len(written) == count
    return written


def lose_everything(cluster: Cluster) -> None:
    """As on hosts that boot with empty disks: etcd runs, and has nothing."""
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda host: host.run("systemctl stop etcd"), cluster.masters))
        list(pool.map(lambda host: host.run("rm -rf /var/lib/etcd"), cluster.masters))
        list(pool.map(lambda host: host.run("systemctl --no-block start etcd"), cluster.masters))
    for host in cluster.masters:
        wait_for(
            f"{host.name} says that its data are gone",
            lambda host=host: "this host has been a member" in host.output("journalctl -u etcd -n 5 -o cat"),  # type: ignore[misc]
            seconds=60,
        )  # fmt: skip
        assert host.run("ls /var/lib/etcd/member", check=False).returncode != 0


def restore_all(cluster: Cluster, snapshot: str) -> tuple[float, float]:
    """The procedure of docs/guides/backup.md; seconds until the API serves again, and until all is done."""
    first, *others = cluster.masters
    begun = time.monotonic()
    said = first.output(f"{RESTORE} --yes {shlex.quote(snapshot)}")
    assert "is a cluster of this member alone" in said
    serves = time.monotonic() - begun
    for host in others:
        host.run(f"{RESTORE} --join --yes")
    with ThreadPoolExecutor() as pool:
        list(pool.map(restart_watchers, cluster.workers))
    return serves, time.monotonic() - begun


def restart_watchers(worker: Host) -> None:
    """etcd 3.4.23 counts revisions from the snapshot's on: who watches would wait for old ones."""
    worker.run("systemctl restart kubelet kube-proxy")


def go_through(cluster: Cluster, count: int) -> None:
    """Write, back up, lose all, restore, compare."""
    before = write_objects(cluster, count)
    first = cluster.masters[0]
    first.run("systemctl start etcd-backup.service")
    snapshot = first.output("ls -d /var/backups/etcd/*.db | tail -n 1").strip()
    cluster.kubectl(f"-n {NAMESPACE} create configmap later --from-literal=number=x")
    lose_everything(cluster)
    serves, total = restore_all(cluster, snapshot)
    after = read_objects(cluster)
    assert after == before  # `later` was after the snapshot
    FIGURES.append(
        f"restore of {count} objects ({int(first.output(f'stat -c %s {snapshot}')) >> 20} MiB): the API served after"
        f" {serves:.0f} s, all three members and workers were done after {total:.0f} s"
    )
    verified = cluster.verify()
    assert verified.returncode == 0, verified.stdout
    for host in cluster.masters:
        members = host.output(
            "ETCDCTL_API=3 /opt/k8s/bin/etcdctl --endpoints=https://127.0.0.1:2379 --cacert=/etc/etcd/pki/ca.crt "
            "--cert=/etc/etcd/pki/healthcheck-client.crt --key=/etc/etcd/pki/healthcheck-client.key member list"
        ).splitlines()
        assert len(members) == len(cluster.masters)
    cluster.kubectl(f"delete namespace {NAMESPACE} --timeout=300s")
    for host in cluster.masters:
        host.run("rm -rf /var/lib/etcd/member.before-restore-*")


def test_snapshots_are_taken_by_a_timer_and_kept_for_root_only(running: Cluster) -> None:
    for host in running.masters:
        assert "etcd-backup.timer" in host.output("systemctl list-timers --no-legend")
        host.run("systemctl start etcd-backup.service")
        assert host.output("stat -c %a /var/backups/etcd").strip() == "700"
        assert set(host.output("stat -c '%a %U' /var/backups/etcd/*").split("\n")) == {
            "600 root",
            "",
        }
        host.run("cd /var/backups/etcd && sha256sum -c *.sha256")
        assert host.run("grep -l 'PRIVATE KEY' /var/backups/etcd/*.db", check=False).returncode == 1


def test_a_copy_is_refused_where_nothing_is_mounted(running: Cluster) -> None:
    """The bundle's own setting cannot be changed here: its copy is, with another node.env."""
    host = running.masters[0]
    host.run(
        "rm -rf /root/copy /mnt/copies; cp -r /opt/k8s/bundle /root/copy; mkdir -p /mnt/copies;"
        " sed -i \"s|^BACKUP_COPY_TO=.*|BACKUP_COPY_TO='/mnt/copies'|\" /root/copy/node.env"
    )
    refused = host.run("/root/copy/backup.sh", check=False)
    assert refused.returncode == 1
    assert "nothing is mounted on /mnt/copies" in refused.stdout
    host.run("mount -t tmpfs -o size=300m tmpfs /mnt/copies")
    said = host.output("/root/copy/backup.sh")
    assert "copied to /mnt/copies/" in said
    host.run(
        "(cd /mnt/copies && sha256sum -c *.sha256) && umount /mnt/copies && rm -rf /root/copy /mnt/copies"
    )


def test_a_healthy_cluster_is_not_restored_by_mistake(running: Cluster) -> None:
    host = running.masters[1]
    refused = host.run(f"{RESTORE} --yes $(ls -d /var/backups/etcd/*.db | tail -n 1)", check=False)
    assert refused.returncode == 3
    assert "etcd has a quorum" in refused.stdout


def test_every_object_comes_back_when_all_three_lost_their_data(running: Cluster) -> None:
    go_through(running, 300)


@pytest.mark.long
def test_ten_thousand_objects_come_back(running: Cluster) -> None:
    go_through(running, 10_000)
