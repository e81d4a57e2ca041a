"""Sources without an end: every download stops at a size, and leaves nothing behind."""

import gzip
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.command import run_bundler
from support.endless_server import EndlessServer, run_endless_server
from support.misbehaving_server import make_artifact
from support.registries import OCI_MANIFEST, sha256
from support.small_builds import make_site

from bundler import catalog
from bundler.cache.store import Cache
from bundler.errors import ArtifactError
from bundler.formats.image_manifests import MAX_LAYER
from bundler.formats.image_references import parse_reference
from bundler.sources.fetch import FetchOptions, ensure_artifact, fetch_unpinned
from bundler.sources.images.options import RegistryOptions
from bundler.sources.images.pull import Puller
from bundler.sources.images.wanted import WantedImage
from bundler.sources.sidecars import DIGEST, fetch_sidecar

MIB = 1 << 20
ON_THE_WAY = 64 * MIB  # bytes that the buffers of two sockets may hold


@pytest.fixture(params=[False, True], ids=["until the connection closes", "chunked"])
def server(request: pytest.FixtureRequest) -> Iterator[EndlessServer]:
    with run_endless_server() as web:
        web.is_chunked = request.param
        yield web


@pytest.fixture
def options(tmp_path: Path) -> FetchOptions:
    return FetchOptions(cache=Cache(tmp_path / "cache"), backoff=0.01)


def sum_size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


@pytest.mark.slow
def test_a_build_from_an_endless_mirror_stops_at_the_size_of_each_kind(
    tmp_path: Path, server: EndlessServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every kind of file that the catalog has; the pins have digests, and no sizes."""
    site = make_site(tmp_path / "site")
    kinds = dict.fromkeys(catalog.COMPONENTS, 2 * MIB)
    monkeypatch.setattr("bundler.sources.artifacts.MAX_SIZES", kinds)
    done = run_bundler(
        ["build", *site.arguments[:-1], server.url, "-o", tmp_path / "dist"], text=True
    )
    assert done.returncode == 3
    assert "it has more than 2097152 bytes, which is too large" in done.stderr
    assert len(server.requests) >= 4
    assert sum_size(site.directory / "cache") < MIB
    assert not (tmp_path / "dist").exists()
    assert not list(site.directory.glob("*.state"))


def test_every_component_has_a_largest_size() -> None:
    for component in catalog.COMPONENTS:
        assert 128 * MIB <= catalog.MAX_SIZES[component] <= 1024 * MIB
        for version in catalog.list_versions(component):
            for arch in catalog.MACHINES:
                found = catalog.find_artifact(component, version, arch)
                assert not found or found.most == catalog.MAX_SIZES[component]


def test_an_unpinned_file_and_a_sidecar_stop_at_their_sizes(
    server: EndlessServer, options: FetchOptions
) -> None:
    artifact = replace(make_artifact(f"{server.url}/etcd.tar.gz"), digest="", most=3 * MIB)
    with pytest.raises(ArtifactError, match="more than 3145728 bytes"):
        fetch_unpinned(artifact, options)
    with pytest.raises(ArtifactError, match="more than 1048576 bytes"):
        fetch_sidecar(artifact, DIGEST, f"{server.url}/SHA256SUMS", options)
    assert sum_size(options.cache.root) < MIB
    assert server.sent < 4 * MIB + ON_THE_WAY


def test_a_lock_that_states_a_huge_size_is_not_believed(
    server: EndlessServer, options: FetchOptions
) -> None:
    artifact = replace(make_artifact(f"{server.url}/etcd.tar.gz"), size=1 << 50)
    with pytest.raises(ArtifactError, match="states 1125899906842624 bytes, and such a file has"):
        ensure_artifact(artifact, options)
    assert server.requests == []


def pull(server: EndlessServer, options: FetchOptions) -> None:
    host = server.url.removeprefix("http://")
    reference = parse_reference(f"{host}/team/app:1.0")
    registries = RegistryOptions(insecure=frozenset({host}))
    wanted = WantedImage(reference=reference, arch="amd64", digest=None)
    Puller(options, registries).pull([wanted])


def describe_image(layer_size: int, config_size: int = 100) -> bytes:
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": "x", "digest": sha256(b"config"), "size": config_size},
            "layers": [
                {
                    "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                    "digest": sha256(b"layer"),
                    "size": layer_size,
                }
            ],
        }
    ).encode()


@pytest.mark.slow
def test_an_endless_manifest_is_refused(server: EndlessServer, options: FetchOptions) -> None:
    with pytest.raises(ArtifactError, match="sent a document of more than 8 MiB"):
        pull(server, options)
    assert server.sent < 2 * 8 * MIB + ON_THE_WAY
    assert sum_size(options.cache.root) < MIB


def test_endless_blobs_stop_at_the_sizes_in_the_manifest(
    server: EndlessServer, options: FetchOptions
) -> None:
    server.answers["/manifests/1.0"] = describe_image(5000)
    with pytest.raises(ArtifactError) as caught:
        pull(server, options)
    assert caught.value.message.count("more bytes; they were not read") == 2
    assert sum_size(options.cache.root) < MIB


def test_a_manifest_with_huge_blobs_is_refused_without_a_request_for_them(
    server: EndlessServer, options: FetchOptions
) -> None:
    server.answers["/manifests/1.0"] = describe_image(MAX_LAYER + 1, config_size=1 << 40)
    with pytest.raises(ArtifactError) as caught:
        pull(server, options)
    assert caught.value.message.count("and such a file has at most") == 2
    assert [path for path, _ in server.requests] == ["/v2/team/app/manifests/1.0"]


def test_a_compressed_answer_of_a_registry_is_not_unpacked(options: FetchOptions) -> None:
    with run_endless_server() as server:
        server.headers["Content-Encoding"] = "gzip"
        server.answers["/manifests/1.0"] = gzip.compress(describe_image(5000))
        with pytest.raises(ArtifactError, match="not an image manifest"):
            pull(server, options)
        assert {encoding for _, encoding in server.requests} == {"identity"}


@pytest.mark.parametrize("kind", ["device", "pipe", "growing"])
def test_a_mirror_directory_with_endless_files_is_refused(
    tmp_path: Path, options: FetchOptions, kind: str
) -> None:
    path = tmp_path / "file"
    artifact = replace(make_artifact(f"file://{path}"), most=MIB)
    if kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(bytes(2 * MIB))
    expected = "more than 1048576 bytes" if kind == "growing" else "not a regular file"
    with pytest.raises(ArtifactError, match=expected):
        ensure_artifact(artifact, options)
    assert sum_size(options.cache.root) < MIB
