"""What all layers share: a sound description with image archives beside it."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "lab.yaml"


def write_archive(path: Path, reference: str) -> str:
    """A docker-save archive with one small image; the image's id. The same bytes every time."""
    layer = f"layer of {reference}".encode()
    config = json.dumps({"architecture": "amd64", "os": "linux", "ref": reference}).encode()
    digest = hashlib.sha256(config).hexdigest()
    manifest = [{"Config": f"{digest}.json", "RepoTags": [reference], "Layers": ["layer.tar"]}]
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in {
            f"{digest}.json": config,
            "layer.tar": layer,
            "manifest.json": json.dumps(manifest).encode(),
        }.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return f"sha256:{digest}"


@pytest.fixture
def make_archive() -> Callable[[Path, str], str]:
    return write_archive


@pytest.fixture
def description(tmp_path: Path) -> Path:
    """examples/lab.yaml with its image archives, in a directory of its own."""
    write_archive(tmp_path / ".lab" / "images" / "pause.tar", "registry.k8s.io/pause:3.2")
    write_archive(tmp_path / ".lab" / "images" / "nginx.tar", "nginx:1.22")
    path = tmp_path / "site" / "cluster.yaml"
    path.parent.mkdir()
    path.write_text(EXAMPLE.read_text())
    return path
