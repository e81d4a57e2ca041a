"""Cluster plans for the PKI tests, built by hand so that they depend only on the models."""

from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path

from bundler.cluster.plan import ClusterPlan, NodePlan
from bundler.cluster.schema import Cluster, Role
from bundler.cluster.values import Arch
from bundler.pki.cluster_pki import Pki, ensure_pki
from bundler.state.directory import open_state

NOW = datetime(2026, 3, 4, 5, 6, 7, 890, tzinfo=UTC)
MASTER = (Role.ETCD, Role.CONTROL_PLANE, Role.LOAD_BALANCER)
WORKER = (Role.WORKER,)


def make_plan(*, masters=2, workers=1, endpoint="172.30.20.250", name="lab", **pki):
    nodes = [
        (f"master{number}", f"172.30.20.{10 + number}", MASTER) for number in range(1, masters + 1)
    ] + [
        (f"worker{number}", f"172.30.20.{20 + number}", WORKER) for number in range(1, workers + 1)
    ]
    cluster = Cluster.model_validate(
        {
            "apiVersion": "bundler/v1alpha1",
            "name": name,
            "pki": pki,
            "nodes": [
                {"name": name, "address": address, "roles": list(roles)}
                for name, address, roles in nodes
            ],
        }
    )
    return ClusterPlan(
        cluster=cluster,
        nodes=tuple(
            NodePlan(
                name=name,
                address=IPv4Address(address),
                roles=roles,
                arch=Arch.AMD64,
                pod_subnet=None,
            )
            for name, address, roles in nodes
        ),
        endpoint_host=endpoint,
        endpoint_port=8443,
        service_ip=IPv4Address("10.254.0.1"),
        dns_ip=IPv4Address("10.254.0.2"),
        etcd_version="3.4.23",
    )


def ensure_state(path: Path, plan: ClusterPlan | None = None, now: datetime = NOW) -> Pki:
    """Create or complete a state directory."""
    with open_state(path, create=True) as state:
        return ensure_pki(state, plan or make_plan(), now)


def read_files(directory: Path) -> dict[str, bytes]:
    """The content of every file, by relative path."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }
