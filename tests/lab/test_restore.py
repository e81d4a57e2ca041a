"""All three etcd members lose their data, and a snapshot restores every object."""

import json
import shlex
import time

import pytest
from support.lab import FIGURES, Cluster, Host, side_by_side, wait_for

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


def read_objects(cluster: Cluster, namespace: str) -> dict[str, str]:
    """Map every ConfigMap of the test to its UID and content."""
    found = json.loads(
        cluster.kubectl(f"-n {namespace} get configmaps --field-selector metadata.name!=kube-root-ca.crt -o json")
    )  # fmt: skip
    return {
        item["metadata"]["name"]: f"{item['metadata']['uid']} {item['data']['number']}"
        for item in found["items"]
    }


def write_objects(cluster: Cluster, namespace: str, count: int) -> dict[str, str]:
    cluster.kubectl(f"create namespace {namespace}")
    command = WRITE.format(count=count, namespace=namespace, kubectl=KUBECTL)
    cluster.masters[0].run(command, timeout=900)
    written = read_objects(cluster, namespace)
    assert len(written) == count
    return written


def lose_everything(cluster: Cluster) -> None:
    """Delete etcd's data on every host, as if the hosts booted with empty disks."""
    for command in (
        "systemctl stop etcd",
        "rm -rf /var/lib/etcd",
        "systemctl --no-block start etcd",
    ):
        side_by_side(lambda host, command=command: host.run(command), cluster.masters)
    for host in cluster.masters:
        wait_for(
            f"{host.name} reports that its data is missing",
            lambda host=host: "this host was a member" in host.output("journalctl -u etcd -n 5 -o cat"),  # type: ignore[misc]
            seconds=60,
        )  # fmt: skip
        assert host.run("ls /var/lib/etcd/member", check=False).returncode != 0


def restore_all(cluster: Cluster, snapshot: str) -> tuple[float, float]:
    """Follow docs/guides/backup.md; return the seconds until the API serves, and until the end."""
    first, *others = cluster.masters
    start = time.monotonic()
    said = first.output(f"{RESTORE} --yes {shlex.quote(snapshot)}")
    assert "is a cluster of this member only" in said
    serves = time.monotonic() - start
    for host in others:
        host.run(f"{RESTORE} --join --yes")
    side_by_side(restart_watchers, cluster.workers)
    return serves, time.monotonic() - start


def restart_watchers(worker: Host) -> None:
    """Restart clients that watch: etcd 3.4.23 continues at the snapshot's revision, below theirs."""
    worker.run("systemctl restart kubelet kube-proxy")


def check_restore(cluster: Cluster, count: int) -> str:
    """Write objects, take a snapshot, lose all data, restore, compare; return their namespace."""
    cluster.is_green = False
    namespace = f"bulk-{count}"
    before = write_objects(cluster, namespace, count)
    first = cluster.masters[0]
    first.run("systemctl start etcd-backup.service")
    snapshot = first.output("ls -d /var/backups/etcd/*.db | tail -n 1").strip()
    cluster.kubectl(f"-n {namespace} create configmap later --from-literal=number=x")
    lose_everything(cluster)
    serves, total = restore_all(cluster, snapshot)
    after = read_objects(cluster, namespace)
    assert after == before  # `later` is newer than the snapshot
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
    cluster.kubectl(f"delete namespace {namespace} --wait=false")
    for host in cluster.masters:
        host.run("rm -rf /var/lib/etcd/member.before-restore-*")
    return namespace


def test_a_timer_takes_snapshots_that_only_root_can_read(running: Cluster) -> None:
    def check(host: Host) -> None:
        assert "etcd-backup.timer" in host.output("systemctl list-timers --no-legend")
        host.run("systemctl start etcd-backup.service")
        assert host.output("stat -c %a /var/backups/etcd").strip() == "700"
        assert set(host.output("stat -c '%a %U' /var/backups/etcd/*").split("\n")) == {
            "600 root",
            "",
        }
        host.run("cd /var/backups/etcd && sha256sum -c *.sha256")
        assert host.run("grep -l 'PRIVATE KEY' /var/backups/etcd/*.db", check=False).returncode == 1

    side_by_side(check, running.masters)


def test_a_copy_is_refused_when_its_target_is_not_mounted(running: Cluster) -> None:
    """Use a copy of the bundle with another node.env: the installed one stays as it is."""
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


def test_a_restore_is_refused_while_etcd_has_a_quorum(running: Cluster) -> None:
    host = running.masters[1]
    refused = host.run(f"{RESTORE} --yes $(ls -d /var/backups/etcd/*.db | tail -n 1)", check=False)
    assert refused.returncode == 3
    assert "etcd has a quorum" in refused.stdout


def test_a_restore_brings_back_every_object(running: Cluster) -> None:
    check_restore(running, 300)


@pytest.mark.long
def test_a_restore_brings_back_ten_thousand_objects(running: Cluster) -> None:
    namespace = check_restore(running, 10_000)
    # Wait: later tests measure requests, which the deletion would slow down.
    running.kubectl(f"delete namespace {namespace} --ignore-not-found --timeout=300s")
