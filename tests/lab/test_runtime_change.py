"""A host changes from Docker to containerd, as Kubernetes 1.24 requires, and back."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.lab import SOLO, Host, build, docker, hosts_sh

pytestmark = pytest.mark.long

CONTAINERD = "runtime: {engine: containerd, version: 1.6.20, runc: 1.1.5, crictl: none}"
DOCKER = "runtime: {engine: docker, version: 20.10.24}"


@dataclass(frozen=True)
class Site:
    """The host, and the directories of its two bundles there."""

    host: Host
    bundles: dict[str, str]

    def check(self, runtime: str) -> None:
        done = self.host.run("/opt/k8s/bundle/verify.sh", check=False, timeout=400)
        assert done.returncode == 0, done.stdout
        reported = self.host.output(
            "/opt/k8s/bin/kubectl --kubeconfig /etc/kubernetes/admin.kubeconfig"
            " get nodes -o jsonpath='{.items[*].status.nodeInfo.containerRuntimeVersion}'"
        )
        assert reported.startswith(f"{runtime}://")

    def shims(self) -> set[str]:
        """List the sockets of container shims; each runtime has a directory of its own."""
        text = self.host.output(
            "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline 2>/dev/null; echo; done | grep containerd-shim || true"
        )
        return {
            line.partition("-address ")[2].split()[0]
            for line in text.splitlines()
            if "-address " in line
        }


@pytest.fixture(scope="module")
def site(lab_directory: Path, product_cache: Path, network: None) -> Iterator[Site]:
    host = Host("change", "172.30.20.33")
    hosts_sh("up", f"{host.name}={host.address}")
    description = lab_directory / "examples" / "change.yaml"
    solo = SOLO.replace("solo", "change").replace("172.30.20.31", host.address)
    bundles = {}
    for name, text in (("docker", solo.replace(CONTAINERD, DOCKER)), ("containerd", solo)):
        description.write_text(text)
        build(description, lab_directory / f"change-{name}", cache=product_cache)
        directory = host.unpack(lab_directory / f"change-{name}" / "change-change.tar.gz")
        bundles[name] = f"/root/{name}"
        host.run(f"mv {directory} {bundles[name]}")
    host.run(f"{bundles['docker']}/install.sh")
    yield Site(host=host, bundles=bundles)
    docker("rm", "-fv", host.container)


def test_containerd_replaces_docker_and_no_docker_process_remains(site: Site) -> None:
    site.check("docker")
    site.host.run("/opt/k8s/bundle/verify.sh --keep --only pods-running", timeout=400)
    assert any("docker" in socket for socket in site.shims())
    plan = site.host.run(f"{site.bundles['containerd']}/install.sh --plan", check=False).stdout
    assert "remove   /etc/systemd/system/docker.service" in plan
    said = site.host.output(f"{site.bundles['containerd']}/install.sh")
    assert "stopping docker.service" in said
    assert not [socket for socket in site.shims() if "docker" in socket]
    site.check("containerd")


def test_a_rollback_returns_to_docker(site: Site) -> None:
    said = site.host.output("/opt/k8s/bundle/install.sh --rollback")
    assert "stopping containerd.service" in said
    assert not [socket for socket in site.shims() if socket == "/run/containerd/containerd.sock"]
    site.check("docker")
