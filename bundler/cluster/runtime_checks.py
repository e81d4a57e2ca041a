"""Checks of `runtime`, and of settings in `extra` for programs that the cluster does not run."""

from collections.abc import Iterator, Mapping

from bundler.catalog import default_version
from bundler.cluster.components import MINORS, RUNTIMES, Span, key_of, minor_of
from bundler.cluster.problem import Problem
from bundler.cluster.schema import Cluster, Containerd, Docker

OPTIONAL = frozenset({*RUNTIMES, "cri-dockerd", "flanneld", "kube-proxy", "kube-router"})
"""Components that not every cluster runs, by their names under `extra`."""


def check_runtime(cluster: Cluster) -> Iterator[Problem]:
    minor, runtime = minor_of(cluster.kubernetes.version), cluster.runtime
    where = ("runtime", "engine")
    if minor not in MINORS:
        return
    if isinstance(runtime, Docker) and runtime.cri_dockerd:
        if RUNTIMES["docker"].holds_for(minor):
            text = f"the kubelet of {minor} uses Docker without cri-dockerd: remove this key"
            yield Problem(path=("runtime", "cri_dockerd"), text=text)
    else:
        yield from check_span(RUNTIMES, runtime.engine, minor, where)
    if isinstance(runtime, Containerd):
        yield from _check_containerd(runtime, minor)
    optional = OPTIONAL - runtime_components(cluster)
    for name in cluster.extra:
        if name in optional:
            yield Problem(
                path=("extra", name),
                text=f"the cluster does not use {name}: remove this key",
            )


def runtime_components(cluster: Cluster) -> set[str]:
    """The optional components that the cluster runs, by their names under `extra`."""
    flannel = {"flanneld"} if cluster.network.plugin == "flannel" else set()
    policy = {cluster.network.policy.engine} & OPTIONAL
    proxy = {"kube-proxy"} if cluster.network.proxy_mode != "none" else set()
    shim = isinstance(cluster.runtime, Docker) and cluster.runtime.cri_dockerd
    return (
        {cluster.runtime.engine} | ({"cri-dockerd"} if shim else set()) | flannel | policy | proxy
    )


def check_span(
    spans: Mapping[str, Span], choice: str, minor: str, where: tuple[str, ...]
) -> Iterator[Problem]:
    """A choice that the minor does not support, or soon will not, and what to choose instead."""
    span = spans[choice]
    if not span.holds_for(minor):
        when = (
            f"from Kubernetes {span.since}"
            if key_of(minor) < key_of(span.since)
            else (f"before Kubernetes {span.until}")
        )
        text = f"{choice} works {when}, not with {minor}: {span.instead}"
        yield Problem(path=where, text=text)
    elif key_of(minor) >= key_of(span.deprecated):
        text = f"{choice} is deprecated from Kubernetes {span.deprecated}: {span.instead}"
        yield Problem(path=where, text=text, is_error=False)


def _check_containerd(runtime: Containerd, minor: str) -> Iterator[Problem]:
    version = runtime.version or default_version("containerd", minor)
    where = ("runtime", "version")
    if key_of(minor_of(version)) < (1, 4):
        yield Problem(path=where, text=f"containerd {version} is too old: use 1.4 or later")
    elif key_of(minor) >= (1, 26) and key_of(minor_of(version)) < (1, 6):
        text = (
            f"the kubelet of {minor} needs CRI v1, which containerd {version} does not have:"
            " use 1.6 or later"
        )
        yield Problem(path=where, text=text)
