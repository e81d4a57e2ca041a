"""The cluster's registry on the five hosts: pulled by the kubelet, pushed to, copied, and one of its hosts lost.

Docker has mirrors of Docker Hub only, so the image that comes from the registry has a name of Docker Hub.
"""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from support.charts import write_program
from support.lab import (
    FIGURES,
    Cluster,
    Host,
    boot_cluster,
    build,
    docker,
    link_mirror,
    make_image,
    make_lab_directory,
    wait_for,
)
from support.paths import LAB_CACHE

PROGRAM = LAB_CACHE / "programs/usr/bin/docker-registry"
VERSION = "2.8.2"
URL = f"github.com/distribution/distribution/releases/download/v{VERSION}/registry_{VERSION}_linux_amd64.tar.gz"
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        not PROGRAM.exists(),
        reason="a real registry cannot run: there is no docker-registry (scripts/setup.sh lab unpacks Debian's)",
    ),
]
IMAGE = "docker.io/library/web:1.0"
PASSWORD = "correct horse"
PUSHED = "payments/app:2.0"


@dataclass(frozen=True)
class Site:
    """The five hosts; the registry is on the first two control planes."""

    cluster: Cluster

    @property
    def first(self) -> Host:
        return self.cluster.masters[0]

    @property
    def second(self) -> Host:
        return self.cluster.masters[1]

    def run_everywhere(self, name: str, image: str) -> None:
        """A pod of the image on every worker, and the node's own pull of it."""
        labels = {"app": name}
        container = {"name": "a", "image": image, "imagePullPolicy": "Always"}
        pod = {"containers": [container], "tolerations": [{"operator": "Exists"}]}
        document = {
            "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": name},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        }  # fmt: skip
        self.kubectl(f"apply -f - <<'END'\n{json.dumps(document)}\nEND")
        wanted = len(self.cluster.workers)
        path = f"get daemonset {name} -o jsonpath={{.status.numberReady}}"
        wait_for(
            f"{name} on every worker",
            lambda: self.kubectl(path, check=False).strip() == str(wanted),
            seconds=180,
        )

    def kubectl(self, words: str, *, check: bool = True) -> str:
        """Of the third control plane, which has no registry."""
        host = self.cluster.masters[2]
        line = f"/opt/k8s/bin/kubectl --kubeconfig /etc/kubernetes/admin.kubeconfig --server https://{host.address}:6443 {words}"
        return host.run(line, check=check).stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, network: None) -> Iterator[Site]:
    """The first build with a registry, installed on all hosts at once."""
    directory = make_lab_directory(tmp_path_factory.mktemp("registry"))
    examples = directory / "examples"
    hashed = subprocess.run(
        ["openssl", "passwd", "-6", PASSWORD], capture_output=True, text=True, check=True
    )
    (examples / "payments.hash").write_text(hashed.stdout)
    document = yaml.safe_load((examples / "lab.yaml").read_text())
    document["registry"] = {
        "version": VERSION, "nodes": ["master1", "master2"],
        "push": {"users": [{"name": "payments", "password": "payments.hash"}]},
    }  # fmt: skip
    for name, reference in (("web", "web:1.0"), ("pushed", "pushed:1")):
        (directory / name).write_text(reference)
        make_image(examples / f"{name}.tar", reference, {"marker": directory / name})
    document["images"].append({"ref": IMAGE, "file": "web.tar", "where": "registry"})
    (examples / "lab.yaml").write_text(yaml.safe_dump(document))
    mirror, pins = directory / "mirror", directory / "pins.yaml"
    link_mirror(mirror)
    pins.write_text(json.dumps(yaml.safe_load((LAB_CACHE / "pins.yaml").read_text())))
    write_program(mirror / URL, "registry", PROGRAM.read_bytes(), pins, "registry/amd64")
    build(
        examples / "lab.yaml", directory / "dist", cache=LAB_CACHE / "product-cache",
        sources=("--mirror", str(mirror), "--pins", str(pins)),
    )  # fmt: skip
    cluster = boot_cluster(directory)
    cluster.install(directory / "dist")
    yield Site(cluster)
    cluster.is_green = False


def test_the_images_of_the_bundle_are_in_the_registry_and_on_no_worker(site: Site) -> None:
    done = site.cluster.verify()
    assert done.returncode == 0, done.stdout
    assert " registry-images " in done.stdout
    for host in site.cluster.workers:
        assert (
            "web"
            not in host.output("/opt/k8s/bin/docker image ls --format '{{.Repository}}'").split()
        )
        assert host.run(f"ls /etc/docker/certs.d/{site.first.address}:5000/ca.crt").returncode == 0


def test_kubelets_pull_by_upstreams_name(site: Site) -> None:
    """The hosts reach no network beyond their own."""
    site.run_everywhere("web", IMAGE)
    assert "web:1.0" in site.kubectl("exec daemonset/web -- cat /marker")


def test_a_user_pushes_below_the_own_prefix_and_the_other_host_has_it(
    site: Site, tmp_path: Path
) -> None:
    worker = site.cluster.workers[0]
    place = f"{site.first.address}:5001"
    docker("cp", str(site.cluster.directory / "examples/pushed.tar"), f"{worker.container}:/root/")
    worker.run(
        f"mkdir -p /etc/docker/certs.d/{place} && cp /etc/kubernetes/pki/ca.crt /etc/docker/certs.d/{place}/"
        f" && /opt/k8s/bin/docker load -q -i /root/pushed.tar && /opt/k8s/bin/docker tag pushed:1 {place}/{PUSHED}"
        f" && /opt/k8s/bin/docker tag pushed:1 {place}/other/app:2.0"
    )
    assert worker.run(f"/opt/k8s/bin/docker push {place}/{PUSHED}", check=False).returncode != 0
    worker.run(
        f"echo '{PASSWORD}' | /opt/k8s/bin/docker login -u payments --password-stdin {place}"
    )
    worker.run(f"/opt/k8s/bin/docker push {place}/{PUSHED}")
    refused = worker.run(f"/opt/k8s/bin/docker push {place}/other/app:2.0", check=False)
    assert refused.returncode != 0
    assert "denied" in refused.stdout.lower(), refused.stdout
    worker.run(f"/opt/k8s/bin/docker rmi pushed:1 {place}/{PUSHED} {place}/other/app:2.0")
    tag = f"/var/lib/registry/docker/registry/v2/repositories/{PUSHED.replace(':', '/_manifests/tags/')}/current/link"

    def is_copied() -> bool:
        return site.second.run(f"ls {tag}", check=False).returncode == 0

    seconds = wait_for("the other host has it", is_copied, seconds=150)
    FIGURES.append(f"a pushed image is on the other host of the registry after {seconds:.0f} s")
    state = site.second.run("systemctl is-failed kube-registry-copy.service", check=False)
    assert state.stdout.strip() != "failed"


def test_without_the_first_host_both_images_are_pulled_from_the_second(site: Site) -> None:
    docker("stop", "-t", "5", site.first.container)
    try:
        for host in site.cluster.workers:
            host.run(f"/opt/k8s/bin/docker rmi -f {IMAGE}", check=False)
        site.run_everywhere("again", IMAGE)
        site.run_everywhere("pushed", f"{site.second.address}:5000/{PUSHED}")
        assert "pushed:1" in site.kubectl("exec daemonset/pushed -- cat /marker")
    finally:
        docker("start", site.first.container)


def test_a_first_host_with_a_new_disk_gets_what_was_pushed_from_the_second(site: Site) -> None:
    storage = "/var/lib/registry"
    wait_for(
        "the first host runs",
        lambda: site.first.run("systemctl is-active kube-registry", check=False).returncode == 0,
        seconds=120,
    )
    site.first.run(f"systemctl stop kube-registry && find {storage} -mindepth 1 -delete")
    site.first.run("systemctl start kube-registry")
    path = (
        f"{storage}/docker/registry/v2/repositories/payments/app/_manifests/tags/2.0/current/link"
    )
    wait_for(
        "it has the pushed image",
        lambda: site.first.run(f"ls {path}", check=False).returncode == 0,
        seconds=240,
    )
    wait_for("verify.sh is green", lambda: site.cluster.verify().returncode == 0, seconds=400)
