"""Image archives: read as docker save writes them, refused with the fix where they are not."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bundler.config import Image
from bundler.errors import ArtifactError
from bundler.images import find_image, normalize, read_archive, serves


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("nginx:1.22", "docker.io/library/nginx:1.22"),
        ("bitnami/nginx:1", "docker.io/bitnami/nginx:1"),
        ("registry.k8s.io/pause:3.2", "registry.k8s.io/pause:3.2"),
        ("localhost/a:1", "localhost/a:1"),
        ("host:5000/a/b", "host:5000/a/b:latest"),
        ("nginx@sha256:abc", "docker.io/library/nginx@sha256:abc"),
    ],
)
def test_references_have_one_full_form(short: str, full: str) -> None:
    assert normalize(short) == full


def test_an_archive_gives_the_image_under_its_reference(
    tmp_path: Path, make_archive: Callable[[Path, str], str]
) -> None:
    image_id = make_archive(tmp_path / "x.tar", "nginx:1.22")
    assert (
        find_image(Image(ref="docker.io/library/nginx:1.22", file=tmp_path / "x.tar")).image_id
        == image_id
    )


def test_an_archive_without_the_reference_says_what_it_holds(
    tmp_path: Path, make_archive: Callable[[Path, str], str]
) -> None:
    make_archive(tmp_path / "x.tar", "nginx:1.22")
    with pytest.raises(
        ArtifactError, match="does not hold nginx:1.23; it holds docker.io/library/nginx:1.22"
    ):
        find_image(Image(ref="nginx:1.23", file=tmp_path / "x.tar"))


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no archive")
    with pytest.raises(ArtifactError, match="not a whole, uncompressed tar archive"):
        read_archive(tmp_path / "text")
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    with pytest.raises(ArtifactError, match="no manifest.json"):
        read_archive(tmp_path / "empty.tar")
    (tmp_path / "manifest.json").write_text(json.dumps([{"Config": "none.json", "RepoTags": []}]))
    with tarfile.open(tmp_path / "odd.tar", "w") as archive:
        archive.add(tmp_path / "manifest.json", "manifest.json")
    with pytest.raises(ArtifactError, match="does not describe the archive"):
        read_archive(tmp_path / "odd.tar")


def test_the_pause_image_is_known_by_its_name_or_mark() -> None:
    assert serves(Image(ref="k8s.gcr.io/pause:3.2", file=Path("x")), "pause")
    assert serves(Image(ref="mirror.example/k8s/pause-amd64:3.1", file=Path("x")), "pause")
    assert serves(Image(ref="mine/sandbox:1", file=Path("x"), use="pause"), "pause")
    assert not serves(Image(ref="pause-menu:1", file=Path("x"), use="verify"), "pause")
    assert serves(Image(ref="registry.k8s.io/coredns/coredns:v1.8.6", file=Path("x")), "coredns")
