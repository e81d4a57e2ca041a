"""The archive of an image that a host assembles from its bundle's files."""

import io
import tarfile
from pathlib import Path

from bundler.cache.payload import Payload, read_payload
from bundler.cache.store import Cache
from bundler.cluster.loader import load_cluster
from bundler.cluster.plan import make_plan
from bundler.render.images import DIRECTORY, make_image_files
from bundler.sources.images.wanted import open_files
from bundler.sources.payloads import ensure_layers


def write_host_archive(description: Path, target: Path) -> None:
    """Write it for the only image of cluster.yaml: its indices and its blobs."""
    plan = make_plan(load_cluster(description).cluster)
    files = ensure_layers(open_files(plan), Cache(description.parent / "cache"))
    with tarfile.open(target, "w") as archive:
        for file in make_image_files(plan, plan.nodes[0], files):
            path = file.path.removeprefix(f"{DIRECTORY}/")
            name = path if path.startswith("blobs/") else path.rpartition("/")[2]
            content = file.content
            data = b"".join(read_payload(content)) if isinstance(content, Payload) else content
            if file.path.startswith(DIRECTORY) and name != "blobs":  # the list of the blobs
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
