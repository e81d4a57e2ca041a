"""Images as a bundle has them, loaded by a real Docker."""

import subprocess
from pathlib import Path

from support.docker_program import run_dockerd, short_directory
from support.host_archives import write_host_archive
from support.registries import MadeImage, make_layer, sha256, write_oci_directory

from bundler.cluster.loader import load_cluster

NAME = "registry.k8s.io/pause:3.2"
CLUSTER = """\
apiVersion: bundler/v1alpha1
name: images
kubernetes: {{version: 1.20.2}}
runtime: {{engine: docker}}
dns: {{provider: none}}
nodes: [{{name: one, address: 192.0.2.1, roles: [etcd, control-plane, worker]}}]
images: [{{ref: "{ref}", file: oci}}]
"""


def test_docker_finds_a_pinned_image_by_its_tag_only(tmp_path: Path) -> None:
    """moby/moby 43570, polarsquad/krops 372; `bundler check` warns."""
    image = MadeImage([make_layer("run", b"content")])
    digest = sha256(image.manifest)
    write_oci_directory(tmp_path / "oci", {NAME: [image]})
    (tmp_path / "cluster.yaml").write_text(CLUSTER.format(ref=f"{NAME}@{digest}"))
    warnings = load_cluster(tmp_path / "cluster.yaml").warnings
    assert any(f"pods must name it {NAME}, without @sha256" in text for text in warnings)
    write_host_archive(tmp_path / "cluster.yaml", tmp_path / "image.tar")
    with short_directory() as directory, run_dockerd(directory, {"bridge": "none"}) as docker:
        load = [*docker.command, "load", "-q", "-i", tmp_path / "image.tar"]
        loaded = subprocess.run(load, capture_output=True, text=True, check=False)
        assert loaded.returncode == 0, loaded.stderr
        name = NAME.partition(":")[0]
        found = {
            reference: subprocess.run(
                [*docker.command, "image", "inspect", reference], capture_output=True, check=False
            ).returncode
            == 0
            for reference in (NAME, f"{name}@{digest}", f"{NAME}@{digest}")
        }
    assert list(found.values()) == [True, False, False]
