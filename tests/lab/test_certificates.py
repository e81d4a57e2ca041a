"""Every certificate of the five hosts is renewed under load, and the servers use the new ones."""

import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.json_shapes import read_shape
from support.lab import FIGURES, Cluster, Host, build, docker, wait_for
from support.load import Api, Load, under_load
from support.paths import LAB_CACHE

pytestmark = pytest.mark.long
NOT_RESTARTED = ("etcd.service", "kube-apiserver.service", "kubelet.service", "docker.service")
RESTARTED = {
    "master": {"kube-controller-manager.service", "kube-scheduler.service"},
    "worker": {"kube-proxy.service"},
}
CA_FILES = re.compile(r"ca(-signing|-servers)?\.crt$")
TEXTFILES = "/var/lib/prometheus/node-exporter"
FINGERPRINT = "openssl x509 -noout -fingerprint -sha256"
LIST = (
    f"for f in $(find /etc -name '*.crt' -path '*/pki/*'); do echo $f $({FINGERPRINT} -in $f); done;"
    " for f in $(grep -ls client-certificate-data /etc/kubernetes/*.kubeconfig); do echo $f"
    f" $(sed -n 's/.*client-certificate-data: //p' $f | base64 -d | {FINGERPRINT}); done"
)
"""Prints the path and the digest of each certificate of a host, also of those in kubeconfigs."""


def bundler(cluster: Cluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).parent / "bundler", *arguments, "-c", cluster.directory / "examples/lab.yaml"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def unpack(host: Host, bundle: Path) -> str:
    """Copy a bundle to the host and keep the full bundle there, which later tests need."""
    host.run("rm -rf /root/renewal && mkdir /root/renewal")
    docker("cp", str(bundle), f"{host.container}:/root/renewal.tar.gz")
    host.run("tar -xzf /root/renewal.tar.gz -C /root/renewal && rm /root/renewal.tar.gz")
    return f"/root/renewal/{bundle.name.removesuffix('.tar.gz')}"


@dataclass(frozen=True)
class Renewal:
    """The state before the renewal, and the requests during it."""

    cluster: Cluster
    certificates: dict[str, str]  # `host path` → fingerprint
    starts: dict[str, dict[str, str]]
    clients: dict[str, Load]  # by control plane
    sizes: dict[str, int]


def list_certificates(cluster: Cluster) -> dict[str, str]:
    return {
        f"{host.name} {line.split()[0]}": line.split()[-1]
        for host in cluster.hosts.values()
        for line in host.output(LIST).splitlines()
    }


@pytest.fixture(scope="module")
def renewal(running: Cluster, product_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Renewal:  # fmt: skip
    """Renew every certificate: control planes one by one, then both workers."""
    cluster = running
    old_pki = tmp_path_factory.mktemp("old") / "pki"
    subprocess.run(["cp", "-a", cluster.directory / "examples/lab.state/pki", old_pki], check=True)
    # The former certificate of the administrator stays valid until it expires.
    clients = {
        host.name: Load(
            Api(
                host=host.address, port=6443, authority=old_pki / "kubernetes-ca/cert.pem",
                certificate=old_pki / "admin/cert.pem", key=old_pki / "admin/key.pem",
            ).write_and_read
        )
        for host in cluster.masters
    }  # fmt: skip
    certificates = list_certificates(cluster)
    starts = {host.name: host.unit_starts() for host in cluster.hosts.values()}
    new = cluster.directory / "renewal"
    done = bundler(
        cluster, "certs", "renew", "--all", "--since", str(cluster.dist), "-o", str(new),
        "--cache", str(product_cache), "--mirror", str(LAB_CACHE / "mirror"),
        "--pins", str(LAB_CACHE / "pins.yaml"), "--offline",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    directories = {
        host.name: unpack(host, new / f"lab-{host.name}.tar.gz") for host in cluster.hosts.values()
    }
    start = time.monotonic()
    with under_load(*clients.values()):
        time.sleep(5)
        for host in cluster.masters:
            host.run(f"{directories[host.name]}/install.sh --wait 5m", timeout=600)
        with ThreadPoolExecutor(2) as pool:
            list(
                pool.map(
                    lambda host: host.run(f"{directories[host.name]}/install.sh --wait 10m", timeout=900),
                    cluster.workers,
                )
            )  # fmt: skip
        taken = time.monotonic() - start
        time.sleep(75)  # API servers reload their files every minute
    FIGURES.append(f"all certificates renewed on five hosts, one control plane after another: {taken:.0f} s")  # fmt: skip
    sizes = {p.name: p.stat().st_size for p in new.glob("*.tar.gz")}
    return Renewal(cluster, certificates, starts, clients, sizes)


def test_the_bundles_of_a_renewal_are_small(renewal: Renewal) -> None:
    assert len(renewal.sizes) == 5
    FIGURES.append(f"bundles of a renewal: {max(renewal.sizes.values()) // 1024} KiB at most")
    full = {path.name: path.stat().st_size for path in renewal.cluster.dist.glob("*.tar.gz")}
    assert all(size < full[name] / 20 for name, size in renewal.sizes.items())


def test_at_most_one_request_fails_per_control_plane(renewal: Renewal) -> None:
    for name, client in renewal.clients.items():
        FIGURES.append(
            f"writes and reads at {name} during the renewal: {client.done} done,"
            f" {len(client.failures)} failed"
        )
    for client in renewal.clients.values():
        assert client.done > 100
        assert len(client.failures) <= 1, client.failures


def test_only_units_that_do_not_reload_certificates_are_restarted(renewal: Renewal) -> None:
    for host in renewal.cluster.hosts.values():
        before, after = renewal.starts[host.name], host.unit_starts()
        for unit in NOT_RESTARTED:
            assert after.get(unit) == before.get(unit), f"{host.name}: {unit}"
        kind = "master" if host in renewal.cluster.masters else "worker"
        assert {unit for unit in after if after[unit] != before[unit]} >= RESTARTED[kind]


def test_every_certificate_on_every_host_is_replaced(renewal: Renewal) -> None:
    after = list_certificates(renewal.cluster)
    assert after.keys() == renewal.certificates.keys()
    same = {path for path in after if after[path] == renewal.certificates[path]}
    assert {path for path in same if not CA_FILES.search(path)} == set()
    assert same
    assert len(after) - len(same) > 35


def test_servers_use_the_new_certificates(renewal: Renewal) -> None:
    done = bundler(renewal.cluster, "certs", "check", "--live", "--json", "--warn", "60d")
    rows = read_shape(done.stdout, "certs-check")["servers"]
    assert [row for row in rows if row["faults"]] == []
    assert done.returncode == 0, done.stderr
    assert len(rows) == 3 * 5 + 2 + 1
    assert sum(1 for row in rows if row["known_as"]) == 3 * 5 + 1


def test_the_cluster_is_healthy(renewal: Renewal) -> None:
    verified = renewal.cluster.verify()
    assert verified.returncode == 0, verified.stdout
    for host in renewal.cluster.hosts.values():
        done = host.run("/opt/k8s/bundle/verify.sh --node", check=False)
        assert done.returncode == 0, done.stdout


def test_the_timer_reports_every_certificate(renewal: Renewal) -> None:
    for host in renewal.cluster.hosts.values():
        count = len(host.output(LIST).splitlines())
        host.run(f"mkdir -p {TEXTFILES} && systemctl start kube-certs.service")
        metrics = host.output(f"cat {TEXTFILES}/bundler-certificates.prom")
        host.run(f"rm -r {TEXTFILES}")
        series = [line for line in metrics.splitlines() if line.startswith("bundler_certificate_")]
        assert len(series) >= count
        assert all(float(line.split()[-1]) > time.time() + 60 * 86400 for line in series)
        assert ('path="kube-apiserver\'s memory"' in metrics) is (host in renewal.cluster.masters)
        said = host.output("journalctl -u kube-certs.service -o cat -n 100 --no-pager")
        assert "days left: /etc/kubernetes/pki/ca.crt" in said


def test_a_full_bundle_of_the_new_state_changes_nothing(
    renewal: Renewal, product_cache: Path
) -> None:
    """Later tests need dist/ to hold what is installed."""
    cluster = renewal.cluster
    build(cluster.directory / "examples" / "lab.yaml", cluster.dist, cache=product_cache)
    for host in cluster.hosts.values():
        directory = host.unpack(cluster.bundle(host))
        assert host.output(f"{directory}/install.sh").strip() == f"{host.name}: nothing to do"
    wait_for("verify.sh is green", lambda: cluster.verify().returncode == 0, seconds=300)
