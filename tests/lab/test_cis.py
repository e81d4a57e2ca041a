"""`profile: cis` on the five hosts: installed over a cluster without it, checked by verify.sh and by kube-bench."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.kube_bench import Result, find_kube_bench, locate_kube_bench, read_result
from support.lab import FIGURES, Cluster, Host, build, docker, hosts_sh, side_by_side

from bundler.cluster.cis import choose_benchmark, list_checks
from bundler.cluster.components import minor_of
from bundler.cluster.loader import load_cluster

pytestmark = pytest.mark.long

CONFIG = "/etc/kubernetes/kube-bench/config.yaml"
TOOLS = "/root/kube-bench"


@dataclass(frozen=True)
class Hardened:
    """The five hosts with the profile, and what kube-bench found before: nothing, or a result a host."""

    cluster: Cluster
    before: dict[str, Result]

    @property
    def unmet(self) -> set[str]:
        """The numbers that the table says cannot hold."""
        loaded = load_cluster(self.cluster.directory / "examples/lab.yaml")
        minor = minor_of(loaded.cluster.kubernetes.version)
        benchmark = choose_benchmark(minor) or ""
        return {
            check.find_id(benchmark) or ""
            for check in list_checks(minor, "cis")
            if check.met_by == "no" and check.is_automated
        }


@pytest.fixture(scope="module")
def hardened(cluster: Cluster, product_cache: Path) -> Iterator[Hardened]:
    """The hosts again as after their first boot, installed without the profile and then with it."""
    hosts = cluster.hosts
    hosts_sh("up", *(f"{host.name}={host.address}" for host in hosts.values()))
    description = cluster.directory / "examples/lab.yaml"
    text = description.read_text()
    plain, made = cluster.directory / "plain", cluster.directory / "hardened"
    build(description, plain, cache=product_cache)
    install(cluster, plain)
    description.write_text(f"{text}\nprofile: cis\n")
    build(description, made, cache=product_cache)
    before = {}
    if locate_kube_bench():
        for host in hosts.values():
            bring_kube_bench(host)
            bundle = host.unpack(made / f"lab-{host.name}.tar.gz")
            before[host.name] = run_kube_bench(host, f"{bundle}/rootfs{CONFIG}")
    install(cluster, made)
    yield Hardened(cluster=cluster, before=before)
    description.write_text(text)
    cluster.is_green = False


def install(cluster: Cluster, dist: Path) -> None:
    def run(host: Host) -> subprocess.CompletedProcess[str]:
        bundle = host.unpack(dist / f"lab-{host.name}.tar.gz")
        return host.run(f"{bundle}/install.sh --wait 15m", check=False, timeout=1200)

    hosts = cluster.hosts.values()
    for host, done in zip(hosts, side_by_side(run, hosts), strict=True):
        assert done.returncode == 0, f"{host.name}: {done.stdout}"
    verified = cluster.verify()
    assert verified.returncode == 0, verified.stdout


def bring_kube_bench(host: Host) -> None:
    """The program with its checks, and ps, which the lab's hosts do not have."""
    program = find_kube_bench()
    host.run(f"mkdir -p {TOOLS}")
    docker("cp", str(program), f"{host.container}:{TOOLS}/kube-bench")
    docker("cp", str(program.parent / "cfg"), f"{host.container}:{TOOLS}/cfg")
    if host.run("test -x /bin/ps", check=False).returncode:
        libraries = subprocess.run(
            ["ldd", "/bin/ps"], capture_output=True, text=True, check=True
        ).stdout
        for path in [word for word in libraries.split() if "/libproc" in word] + ["/bin/ps"]:
            docker("cp", "--follow-link", path, f"{host.container}:{path}")


def run_kube_bench(host: Host, config: str) -> Result:
    """Run the command that the head of the config file names."""
    line = host.output(f"sed -n 's/.*--config-dir DIRECTORY.cfg //p' {config}").strip()
    command = (
        f"cd {TOOLS} && ./kube-bench --json --config {config} --config-dir cfg {line} 2>/dev/null"
    )
    return read_result(host.output(command))


def verify(host: Host) -> dict[str, Any]:
    done = host.run("/opt/k8s/bundle/verify.sh --cis --json 2>/dev/null", check=False)
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["ok"] is (done.returncode == 0), done.stdout
    return answer


def test_every_host_meets_the_benchmark(hardened: Hardened) -> None:
    for host in hardened.cluster.hosts.values():
        answer = verify(host)
        failed = [check for check in answer["checks"] if check["verdict"] == "FAIL"]
        assert failed == [], host.name
        cannot = {check["name"] for check in answer["checks"] if check["verdict"] == "no"}
        assert hardened.unmet & {check["name"] for check in answer["checks"]} <= cannot


def test_kube_bench_finds_nothing_but_what_cannot_hold(hardened: Hardened) -> None:
    find_kube_bench()
    for host in hardened.cluster.hosts.values():
        after, before = run_kube_bench(host, CONFIG), hardened.before[host.name]
        failed = after.having("FAIL")
        assert failed <= hardened.unmet, [after.reasons[one] for one in failed]
        if host in hardened.cluster.masters:
            assert len(before.having("FAIL")) > len(failed), host.name
        else:  # a worker has nothing that fails without the profile
            assert (before.having("FAIL"), failed) == (set(), set()), host.name
        totals = [
            f"{len(one.having('PASS'))} PASS, {len(one.having('FAIL'))} FAIL"
            for one in (before, after)
        ]
        FIGURES.append(f"kube-bench on {host.name}: {totals[0]}; with the profile: {totals[1]}")


def test_controller_managers_cannot_be_reached_from_other_hosts(hardened: Hardened) -> None:
    first, second, *_ = hardened.cluster.masters
    for port in (10257, 10259):
        assert ask(second, second.address, port) == "000"
        assert ask(first, second.address, port) == "000"
        assert ask(second, "127.0.0.1", port) == "200"


def ask(host: Host, address: str, port: int) -> str:
    """The status of /healthz there, as the host sees it; 000 for none."""
    command = "curl -ks -m 5 -o /dev/null -w '%{http_code}' " + f"https://{address}:{port}/healthz"
    return host.run(command, check=False).stdout.strip()


def test_a_change_on_a_host_is_found(hardened: Hardened) -> None:
    host = hardened.cluster.workers[0]
    unit = "/etc/systemd/system/kubelet.service"
    host.run(f"chmod 0644 {unit}")
    failed = [check["name"] for check in verify(host)["checks"] if check["verdict"] == "FAIL"]
    host.run(f"chmod 0400 {unit}")
    assert failed == ["4.1.1"]
