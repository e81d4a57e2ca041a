"""Images as a bundle has them, loaded by a real containerd."""

import shutil
import subprocess
from pathlib import Path

import pytest
from support.containerd_program import NEEDS_CONTAINERD, run_containerd
from support.host_archives import write_host_archive
from support.registries import MadeImage, make_layer

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
    write_host_archive(tmp_path / "cluster.yaml", tmp_path / "image.tar")
    with run_containerd(tmp_path) as address:
        ctr = ["ctr", "-a", address]
        run = [*ctr, "images", "import", "--snapshotter", "native", str(tmp_path / "image.tar")]
        done = subprocess.run(run, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        snapshots = (tmp_path / "root/io.containerd.snapshotter.v1.native").rglob("run")
        assert [path.read_bytes() for path in snapshots] == [b"content" * 1000]
