"""Every certificate of the five hosts is renewed, while clients ask each control plane all the time."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from lab import FIGURES, Cluster, build
from load import Api, Load, under_load

pytestmark = pytest.mark.long
BUNDLER = Path(sys.executable).parent / "bundler"


def certs(cluster: Cluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [BUNDLER, "certs", *arguments, "-c", cluster.directory / "examples" / "lab.yaml"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def look(cluster: Cluster) -> list[dict[str, Any]]:
    """What every server of the plan shows."""
    rows: list[dict[str, Any]] = json.loads(certs(cluster, "check", "--live", "--json").stdout)
    return rows


def test_every_certificate_is_renewed_with_at_most_one_failed_request(
    running: Cluster, product_cache: Path
) -> None:
    pki = running.directory / "examples" / "lab.state" / "pki"
    through = Api(
        host="172.30.20.250", port=8443, authority=pki / "kubernetes-ca/cert.pem",
        certificate=pki / "admin/cert.pem", key=pki / "admin/key.pem",
    )  # fmt: skip
    assert [row for row in look(running) if row["faults"]] == []
    etcd_began = {h.name: h.unit_starts()["etcd.service"] for h in running.masters}
    assert len(look(running)) == 3 * 5 + 2 + 1
    renewed = certs(running, "renew", "--all")
    assert renewed.returncode == 0, renewed.stderr
    # what runs is not what the state has by now; kubelets' are their own, the endpoint is any of three
    same = {f"kubelet on {worker.name}" for worker in running.workers} | {"the API's endpoint"}
    assert {row["title"] for row in look(running) if not row["faults"]} == same
    description = running.directory / "examples" / "lab.yaml"
    dist = running.directory / "renewal"
    build(
        description, dist, cache=product_cache, arguments=("--since", str(running.dist)),
    )  # fmt: skip
    sizes = [bundle.stat().st_size for bundle in dist.glob("lab-*.tar.gz")]
    assert max(sizes) < 20_000_000  # the packages of the operating system, above all
    load = Load(through.is_ready)
    with under_load(load), ThreadPoolExecutor(5) as pool:

        def install(name: str) -> str:
            host = running.hosts[name]
            directory = host.unpack(dist / f"lab-{name}.tar.gz")
            return host.run(f"{directory}/install.sh --wait 15m", timeout=900).stdout

        said = dict(zip(running.hosts, pool.map(install, running.hosts), strict=True))
    assert all("All units are ready." in text for text in said.values()), said
    FIGURES.append(
        f"all certificates renewed by bundles of at most {max(sizes) / 1e6:.0f} MB:"
        f" {len(load.failures)} of {load.done} requests failed"
    )
    assert len(load.failures) <= len(running.masters), load.failures
    assert [row for row in look(running) if row["faults"] or row["days_left"] < 300] == []
    assert {h.name: h.unit_starts()["etcd.service"] for h in running.masters} == etcd_began
    verified = running.verify()
    assert verified.returncode == 0, verified.stdout
