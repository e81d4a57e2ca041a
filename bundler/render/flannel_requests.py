"""Which requests of flannel reach etcd: those of flannel 0.11 in subnet/etcdv2/registry.go."""

import re
from ipaddress import IPv4Network

from bundler.cluster.schema_network import Network

OCTET = "([1-9]?[0-9]|1[0-9][0-9]|2[0-4][0-9]|25[0-5])"
QUERY = r"(\?[A-Za-z0-9=&]*)?"


def list_requests(network: Network) -> tuple[str, ...]:
    """Regular expressions of `METHOD URI`: nginx passes on a request that matches one.

    A worker reads the configuration and all subnets, and writes subnets of the network, which
    bounds how many keys there can be. flannel deletes its former subnet, which may be another's
    network since.
    """
    keys = re.escape(f"/v2/keys{network.flannel.etcd_prefix}")
    subnet = _match_subnet(network.pod_cidr, network.pod_subnet_prefix)
    return (
        f"GET {keys}/config{QUERY}",
        f"GET {keys}/subnets{QUERY}",
        f"(GET|DELETE) {keys}/subnets/[0-9.]+-[0-9]+{QUERY}",
        f"PUT {keys}/subnets/{subnet}{QUERY}",
    )


def _match_subnet(cidr: IPv4Network, prefix: int) -> str:
    """The key of a subnet, such as `10.200.1.0-24`: octets that the networks leave open vary."""
    fixed, open_octets = cidr.prefixlen // 8, -(-prefix // 8)
    octets = str(cidr.network_address).split(".")
    octets[fixed:open_octets] = [OCTET] * (open_octets - fixed)
    return r"\.".join(octets) + f"-{prefix}"
