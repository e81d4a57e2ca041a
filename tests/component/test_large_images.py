"""Gigabytes of layers for the registry: bundler reads, compresses and packs them in bounded memory.

BUNDLER_LAYERS_GIB   how much, in layers of half a GiB (default: 2)
"""

import hashlib
import io
import json
import os
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.descriptions import write_description, write_upstream
from support.memory import run_measured

pytestmark = pytest.mark.long

GIBIBYTES = int(os.environ.get("BUNDLER_LAYERS_GIB", "2"))
MEBIBYTE = 1 << 20
LAYER = 512  # MiB
REFERENCE = "docker.io/library/data:1.0"
MOST = 150 * 10**6
"""Bytes of memory that the build may use, however large the layers are."""


def write_large_archive(path: Path, layers: int) -> None:
    """A docker-save archive, as a stream: each layer is a tar archive with one file, and no two are the same."""
    digests, names = [], []
    with path.open("wb") as file:
        for number in range(layers):
            head = tarfile.TarInfo(f"{number}/layer.tar")
            head.size = (LAYER + 1) * MEBIBYTE
            file.write(head.tobuf(tarfile.GNU_FORMAT))
            digest = hashlib.sha256()
            for block in iterate_layer(number):
                digest.update(block)
                file.write(block)
            digests.append(f"sha256:{digest.hexdigest()}")
            names.append(head.name)
        config = {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": digests},
        }
        text = json.dumps(config).encode()
        name = f"{hashlib.sha256(text).hexdigest()}.json"
        manifest = [{"Config": name, "RepoTags": ["data:1.0"], "Layers": names}]
        with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for member, content in ((name, text), ("manifest.json", json.dumps(manifest).encode())):
                head = tarfile.TarInfo(member)
                head.size = len(content)
                tar.addfile(head, io.BytesIO(content))


def iterate_layer(number: int) -> Iterator[bytes]:
    """One MiB at a time. They differ, so that no part of a layer can be taken for another one."""
    head = tarfile.TarInfo(f"data-{number}")
    head.size = LAYER * MEBIBYTE
    yield head.tobuf(tarfile.GNU_FORMAT)
    pattern = hashlib.sha512(str(number).encode()).digest() * (MEBIBYTE // 64)
    for block in range(LAYER):
        yield block.to_bytes(64, "big") + pattern[64:]
    yield bytes(MEBIBYTE - tarfile.BLOCKSIZE)


def test_layers_of_gigabytes_are_packed_for_the_registry_in_bounded_memory(tmp_path: Path) -> None:
    description = write_description(tmp_path)
    document = yaml.safe_load(description.read_text())
    document["registry"] = {"nodes": ["master1"]}
    archive = tmp_path / "data.tar"
    document["images"].append({"ref": REFERENCE, "file": str(archive), "where": "registry"})
    description.write_text(yaml.safe_dump(document))
    write_large_archive(archive, 2 * GIBIBYTES)
    command = [
        str(Path(sys.executable).parent / "bundler"), "build", "-c", str(description), "-o", str(tmp_path / "dist"),
        "--cache", str(tmp_path / "cache"), "--offline", "--mirror", str(tmp_path / "mirror"),
        "--pins", str(write_upstream(tmp_path, description)),
    ]  # fmt: skip
    peak, said = run_measured(command)
    assert said.count("compressing data.tar: 5") == 2 * GIBIBYTES, said
    assert peak <= MOST
    with tarfile.open(tmp_path / "dist" / "lab-master1.tar.gz") as tar:
        layers = [member for member in tar if member.size > MEBIBYTE]
    assert len(layers) >= 2 * GIBIBYTES
    print(f"{GIBIBYTES} GiB of layers: peak {peak / 10**6:.0f} MB")
