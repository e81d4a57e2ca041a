"""A valid cluster.yaml with image archives, for all kinds of tests."""

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

from bundler.cluster.loader import load_cluster
from bundler.cluster.plan import make_plan
from bundler.sources.artifacts import list_needs

EXAMPLE = Path(__file__).parents[2] / "scripts" / "lab.yaml"


def write_archive(path: Path, reference: str, arch: str = "amd64", change: str = "") -> str:
    """Write a docker-save archive with one small image, always the same bytes; return the image ID."""
    layer = f"layer of {reference}{change}".encode()
    diff_ids = [f"sha256:{hashlib.sha256(layer).hexdigest()}"]
    config = json.dumps(
        {
            "architecture": arch,
            "os": "linux",
            "ref": reference,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
    ).encode()
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


ELF_MACHINES = {"amd64": 62, "arm64": 183}


def write_upstream(directory: Path, description: Path) -> Path:
    """Write stand-ins for all upstream files: empty programs for the right architecture.

    They are always the same bytes, below directory/mirror for `--mirror`. Returns the path of
    their pins. A shell that reads one as a script ends before amd64's number, which is a `>`.
    """
    plan = make_plan(load_cluster(description).cluster)
    pins = {}
    for (component, arch), members in list_needs(plan).items():
        program = (
            b"\x7fELF\x02\x01\x01\nexit 1\n" + bytes(3) + ELF_MACHINES[arch].to_bytes(2, "little")
        )
        file = io.BytesIO()
        if members == ("",):
            file.write(program + component.encode())
        else:
            with (
                gzip.GzipFile(fileobj=file, mode="w", mtime=0) as zipped,
                tarfile.open(fileobj=zipped, mode="w") as archive,
            ):
                for name in members:
                    member = tarfile.TarInfo(name)
                    content = program + name.encode()
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
        host = f"upstream.example/{arch}/{component}"
        target = directory / "mirror" / host
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.getvalue())
        digest = hashlib.sha256(file.getvalue()).hexdigest()
        pins[f"{component}/{arch}"] = {"url": f"https://{host}", "sha256": digest}
    path = directory / "pins.yaml"
    path.write_text(json.dumps({"artifacts": pins}))
    return path


def write_description(directory: Path) -> Path:
    """Write scripts/lab.yaml with its image archives below a directory; return its path.

    It has no `packages`: those are Debian's, and only the lab has them.
    """
    write_archive(directory / ".lab" / "images" / "pause.tar", "registry.k8s.io/pause:3.2")
    write_archive(directory / ".lab" / "images" / "nginx.tar", "nginx:1.22")
    path = directory / "site" / "cluster.yaml"
    path.parent.mkdir()
    before, _, after = EXAMPLE.read_text().partition("packages:")
    path.write_text(before + after[after.index("extra:") :])
    return path
