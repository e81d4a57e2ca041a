"""A sound description with image archives beside it, for every layer of tests."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

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


def write_description(directory: Path) -> Path:
    """examples/lab.yaml with its image archives, below a directory; its path."""
    write_archive(directory / ".lab" / "images" / "pause.tar", "registry.k8s.io/pause:3.2")
    write_archive(directory / ".lab" / "images" / "nginx.tar", "nginx:1.22")
    path = directory / "site" / "cluster.yaml"
    path.parent.mkdir()
    path.write_text(EXAMPLE.read_text())
    return path
