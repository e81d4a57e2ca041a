"""Checks of how the container runtime reaches registries: mirrors, CA certificates, versions."""

import re
from collections.abc import Iterator
from pathlib import Path

from bundler.catalog import default_version
from bundler.cluster.components import MINORS, key_of, minor_of
from bundler.cluster.problem import Problem
from bundler.cluster.schema import Cluster, Containerd, Docker
from bundler.formats.image_references import (
    DOCKER_HUB,
    HOSTS,
    has_path,
    is_api_url,
    needs_override_path,
)

DOCKER_HUB_NAMES = frozenset({HOSTS[DOCKER_HUB], "index.docker.io"})


def check_registries(cluster: Cluster) -> Iterator[Problem]:
    """Registries and mirrors that the runtime's version cannot use as they are written."""
    runtime, minor = cluster.runtime, minor_of(cluster.kubernetes.version)
    if isinstance(runtime, Docker):
        yield from _check_docker(runtime)
    elif minor in MINORS:
        yield from _check_containerd(
            runtime, runtime.version or default_version("containerd", minor)
        )


def _check_docker(runtime: Docker) -> Iterator[Problem]:
    """dockerd does not start with such a mirror (moby, ValidateMirror)."""
    for index, url in enumerate(runtime.registry_mirrors):
        where = ("runtime", "registry_mirrors", index)
        if is_api_url(url):
            text = f"{url}: Docker adds /v2 to a mirror itself: give only the address before it"
            yield Problem(path=where, text=text)
        elif has_path(url) and key_of(minor_of(runtime.version)) < (25, 0):
            text = (
                f"{url}: Docker {runtime.version} does not start with a mirror that has a path:"
                " give the mirror a host name or port of its own, or use Docker 25 or later"
            )
            yield Problem(path=where, text=text)


def _check_containerd(runtime: Containerd, version: str) -> Iterator[Problem]:
    if runtime.registries and key_of(minor_of(version)) < (1, 5):
        text = f"containerd {version} does not read hosts.toml: use 1.5 or later"
        yield Problem(path=("runtime", "registries"), text=text)
    seen: set[str] = set()
    for index, registry in enumerate(runtime.registries):
        here = ("runtime", "registries", index)
        if registry.host in seen:
            yield Problem(
                path=(*here, "host"), text=f"{registry.host} is listed twice: merge the entries"
            )
        seen.add(registry.host)
        if registry.host in DOCKER_HUB_NAMES:
            text = f"images of Docker Hub have the registry {DOCKER_HUB}: write {DOCKER_HUB}"
            yield Problem(path=(*here, "host"), text=text)
        for number, url in enumerate(registry.mirrors):
            if needs_override_path(url) and key_of(minor_of(version)) < (1, 6):
                text = f"{url}: containerd {version} appends /v2 to the path: use 1.6 or later"
                yield Problem(path=(*here, "mirrors", number), text=text)
        if registry.ca is not None and not _holds_certificates(registry.ca):
            text = f"{registry.ca}: must be a PEM file with certificates only"
            yield Problem(path=(*here, "ca"), text=text)


def _holds_certificates(path: Path) -> bool:
    """Whether the file has certificates only: every user of a host can read it, so no key."""
    try:
        return set(re.findall(r"-----BEGIN ([A-Z0-9 ]+)-----", path.read_text())) == {"CERTIFICATE"}
    except (OSError, UnicodeDecodeError):
        return False
