"""The requests of flannel that reach etcd, by network; flannel_etcd_rights.tsv has those of a real cluster."""

import re
from ipaddress import IPv4Network

import pytest

from bundler.cluster.schema_network import Flannel, Network
from bundler.render.flannel_requests import list_requests


def is_passed_on(request: str, **network: object) -> bool:
    made = Network.model_validate(
        {"plugin": "flannel", "flannel": Flannel(store="etcd"), **network}
    )
    return any(re.search(f"^{pattern}$", request) for pattern in list_requests(made))


@pytest.mark.parametrize(
    ("cidr", "prefix"),
    [("10.200.0.0/16", 24), ("10.0.0.0/8", 20), ("172.16.0.0/12", 25), ("192.168.4.0/22", 28)],
)
def test_every_subnet_of_the_network_can_be_written(cidr: str, prefix: int) -> None:
    subnets = list(IPv4Network(cidr).subnets(new_prefix=prefix))
    for subnet in (*subnets[:300], *subnets[-300:]):
        key = f"/v2/keys/kubernetes/network/subnets/{subnet.network_address}-{prefix}"
        assert is_passed_on(f"PUT {key}?ttl=1", pod_cidr=cidr, pod_subnet_prefix=prefix), key


@pytest.mark.parametrize(
    "subnet", ["10.201.1.0-24", "10.200.1.1-24", "10.200.1.0-25", "10.200.01.0-24", "10.200.300.0-24", "1x.200.1.0-24"]
)  # fmt: skip
def test_no_other_subnet_can_be_written(subnet: str) -> None:
    assert not is_passed_on(f"PUT /v2/keys/kubernetes/network/subnets/{subnet}")


def test_the_prefix_is_taken_as_text() -> None:
    store = {"store": "etcd", "etcd_prefix": "/a.b/c"}
    assert is_passed_on("GET /v2/keys/a.b/c/config", flannel=store)
    assert not is_passed_on("GET /v2/keys/aXb/c/config", flannel=store)
    assert not is_passed_on("GET /v2/keys/kubernetes/network/config", flannel=store)
