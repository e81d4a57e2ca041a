"""Images as a bundle has them, loaded by a real containerd."""

import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from support.containerd_program import NEEDS_CONTAINERD, run_containerd
from support.registries import MadeImage, make_layer

from bundler.cache.payload import Payload, read_payload
from bundler.cache.store import Cache
from bundler.cluster.loader import load_cluster
from bundler.cluster.plan import make_plan
from bundler.render.images import DIRECTORY, make_image_files
from bundler.sources.images.wanted import open_files
from bundler.sources.payloads import ensure_layers

CLUSTER = """\
apiVersion: bundler/v1alpha1
name: images
kubernetes: {version: 1.28.3}
runtime: {engine: containerd, version: 1.6.20}
dns: {provider: none}
nodes: [{name: one, address: 192.0.2.1, roles: [etcd, control-plane, worker]}]
images: [{ref: "registry.k8s.io/pause:3.9", file: saved}]
"""
NAME = "registry.k8s.io/pause:3.9"

pytestmark = [
    NEEDS_CONTAINERD,
    pytest.mark.skipif(
        not shutil.which("zstd"), reason="layers cannot be compressed: there is no zstd"
    ),
]


def make_archive(description: Path, target: Path) -> None:
    """The archive that a host assembles: an image's indices, and the blobs that it shares."""
    plan = make_plan(load_cluster(description).cluster)
    files = ensure_layers(open_files(plan), Cache(description.parent / "cache"))
    with tarfile.open(target, "w") as archive:
        for file in make_image_files(plan, plan.nodes[0], files):
            path = file.path.removeprefix(f"{DIRECTORY}/")
            name = path if path.startswith("blobs/") else path.rpartition("/")[2]
            content = file.content
            data = b"".join(read_payload(content)) if isinstance(content, Payload) else content
            if file.path.startswith(DIRECTORY):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


def test_a_layer_compressed_with_zstd_is_unpacked_by_containerd(tmp_path: Path) -> None:
    """containerd 14160: its own import of such an archive calls the layer gzip."""
    image = MadeImage([make_layer("run", b"content" * 1000)])
    saved = tmp_path / "saved"
    saved.mkdir()
    (saved / "c.json").write_bytes(image.config)
    (saved / "l").write_bytes(image.layers[0])
    subprocess.run(["zstd", "-q", "--rm", saved / "l", "-o", saved / "l.tar"], check=True)
    (saved / "manifest.json").write_text(
        f'[{{"Config": "c.json", "RepoTags": ["{NAME}"], "Layers": ["l.tar"]}}]'
    )
    (tmp_path / "cluster.yaml").write_text(CLUSTER)
    make_archive(tmp_path / "cluster.yaml", tmp_path / "image.tar")
    with run_containerd(tmp_path) as address:
        ctr = ["ctr", "-a", address]
        run = [*ctr, "images", "import", "--snapshotter", "native", str(tmp_path / "image.tar")]
        done = subprocess.run(run, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        snapshots = (tmp_path / "root/io.containerd.snapshotter.v1.native").rglob("run")
        assert [path.read_bytes() for path in snapshots] == [b"content" * 1000]
