"""Checks of `tls`: what the programs of a minor, or the clients of a server, cannot do."""

from collections.abc import Iterator

from bundler.catalog import default_version
from bundler.cluster.components import key_of, minor_of
from bundler.cluster.plan import choose_etcd, choose_flannel
from bundler.cluster.problem import Problem
from bundler.cluster.schema import Cluster

TLS13_SINCE = "1.17"
"""The first minor whose programs are built with Go 1.13, which has TLS 1.3 on by default."""

ETCD_TLS13_SINCE = {"3.4": "3.4.25", "3.5": "3.5.8"}
"""etcd's CHANGELOG: --tls-min-version. Before, etcd's servers end at TLS 1.2."""

CLIENTS_TLS13_SINCE = {"coredns": "1.6.5", "flanneld": "0.14.0", "metrics-server": "0.4.0"}
"""Releases built with Go 1.13 or later: older ones cannot talk to a server with TLS 1.3 only."""

HTTP2_NEEDS = "AES_128_GCM_SHA256"
"""Go's HTTP/2 server does not start without a suite with it: golang.org/x/net/http2, server.go."""

KEYS = {
    "ECDSA": "kubelets make such keys for themselves",
    "RSA": "API servers make such a certificate for themselves",
}
"""Kinds of keys in the names of suites, and why each cluster has servers with them."""


def check_tls(cluster: Cluster) -> Iterator[Problem]:
    """Versions and suites with which a server would not start or a client not reach it."""
    is_13_only = cluster.tls.min_version == "TLS1.3"
    if is_13_only:
        for text in _find_tls13_faults(cluster):
            yield Problem(path=("tls", "min_version"), text=text)
    suites = cluster.tls.cipher_suites
    if suites is None:
        return
    where = ("tls", "cipher_suites")
    if is_13_only:
        text = "has no effect with min_version TLS1.3, whose suites cannot be chosen: remove it"
        yield Problem(path=where, text=text)
        return
    for index, suite in enumerate(suites):
        if suite in suites[:index]:
            yield Problem(path=(*where, index), text=f"{suite} is listed twice: keep one")
    for kind, why in KEYS.items():
        if not any(f"_{kind}_" in suite and "_ECDHE_" in suite for suite in suites):
            text = (
                f"no suite is for {kind} keys, and {why}: add TLS_ECDHE_{kind}_WITH_{HTTP2_NEEDS}"
            )
            yield Problem(path=where, text=text)
    if not any("_ECDHE_" in suite and suite.endswith(HTTP2_NEEDS) for suite in suites):
        text = f"HTTP/2 needs TLS_ECDHE_ECDSA_WITH_{HTTP2_NEEDS} or the same with RSA: add it"
        yield Problem(path=where, text=text)


def _find_tls13_faults(cluster: Cluster) -> Iterator[str]:
    minor = minor_of(cluster.kubernetes.version)
    if key_of(minor) < key_of(TLS13_SINCE):
        yield (
            f"Kubernetes {minor} has no TLS 1.3: use TLS1.2, or Kubernetes {TLS13_SINCE} or later"
        )
    etcd = choose_etcd(cluster)
    line = minor_of(etcd)
    if key_of(line) < key_of("3.4") or key_of(etcd) < key_of(ETCD_TLS13_SINCE.get(line, "0")):
        yield f"etcd {etcd} has no TLS 1.3: use TLS1.2, or etcd.version 3.5.8 or later"
    if cluster.network.plugin == "flannel" and cluster.network.flannel.store == "etcd":
        yield (
            "flannel with store etcd cannot use TLS 1.3: use TLS1.2, or network.flannel.store"
            " kubernetes"
        )
    for name, version in _list_clients(cluster, minor):
        least = CLIENTS_TLS13_SINCE[name]
        if key_of(version) < key_of(least):
            yield f"{name} {version} has no TLS 1.3: use TLS1.2, or {name} {least} or later"


def _list_clients(cluster: Cluster, minor: str) -> Iterator[tuple[str, str]]:
    """Name and version of the add-ons that talk to the API server."""
    if cluster.dns.provider == "coredns":
        yield "coredns", cluster.dns.version or default_version("coredns", minor)
    if cluster.network.plugin == "flannel" and cluster.network.flannel.store == "kubernetes":
        yield "flanneld", choose_flannel(cluster)
    if cluster.metrics_server is not None:
        yield (
            "metrics-server",
            cluster.metrics_server.version or default_version("metrics-server", minor),
        )
