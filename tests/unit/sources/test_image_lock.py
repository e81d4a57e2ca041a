"""Images in cluster.lock.yaml, and the command-line options for registries."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.descriptions import write_upstream
from support.registries import MadeImage, Registry, make_layer, run_registry, sha256
from support.small_builds import unpack
from typer.testing import CliRunner

from bundler.cache.store import Cache
from bundler.cli.app import app
from bundler.cli.options import make_inputs
from bundler.downloads import fetch, update_lock
from bundler.errors import ArtifactError, ConfigError
from bundler.pipeline import build
from bundler.project import Inputs
from bundler.sources.images.registry import RegistryOptions
from bundler.sources.lock import LockEntry, LockKind, lock_path, read_lock

PAUSE = "registry.k8s.io/pause:3.9"
SITE = """\
apiVersion: bundler/v1alpha1
name: site
kubernetes: {version: 1.28.4}
runtime: {engine: containerd}
dns: {provider: none}
nodes: [{name: one, address: 192.0.2.1, roles: [etcd, control-plane, worker]}]
"""


def make_image(text: str) -> MadeImage:
    return MadeImage([make_layer("pause", text.encode())])


@pytest.fixture
def registry() -> Iterator[Registry]:
    with run_registry() as web:
        web.put("pause", "3.9", make_image("first"), make_other_machine())
        yield web


def make_other_machine() -> MadeImage:
    return MadeImage([make_layer("pause", b"arm")], "arm64")


@pytest.fixture
def inputs(registry: Registry, tmp_path: Path) -> Inputs:
    """A cluster without own images, and a mirror of the upstream registry."""
    (tmp_path / "cluster.yaml").write_text(SITE)
    return Inputs(
        description=tmp_path / "cluster.yaml",
        cache=Cache(tmp_path / "cache"),
        mirrors=(str(tmp_path / "mirror"),),
        pins=write_upstream(tmp_path, tmp_path / "cluster.yaml"),
        registries=RegistryOptions(mirrors={"registry.k8s.io": (f"http://{registry.host}",)}),
    )


def find_pause(inputs: Inputs) -> LockEntry:
    entry = read_lock(lock_path(inputs.description)).find(LockKind.IMAGE, PAUSE, "amd64")
    assert entry is not None
    return entry


@pytest.mark.slow
def test_an_image_without_a_digest_is_pulled_with_a_warning_about_its_tag(
    inputs: Inputs, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    build(inputs, inputs.description.parent / "dist")
    said = " ".join(capsys.readouterr().err.split())
    assert f"{PAUSE} (amd64): there is no digest for its tag" in said
    registry.put("pause", "3.9", make_image("second"))
    offline = dataclasses.replace(inputs, offline=True)
    sums = (inputs.description.parent / "dist/SHA256SUMS").read_bytes()
    build(offline, inputs.description.parent / "dist")
    assert (inputs.description.parent / "dist/SHA256SUMS").read_bytes() == sums


@pytest.mark.slow
@pytest.mark.usefixtures("no_line_has_ended")
def test_the_lock_has_the_manifest_of_the_architecture_and_the_index(
    inputs: Inputs, registry: Registry
) -> None:
    update_lock(inputs, ())
    entry = find_pause(inputs)
    image = make_image("first")
    assert entry.digest == sha256(image.manifest)
    assert entry.index in {key.rpartition("/")[2] for key in registry.manifests}
    assert entry.url == "https://registry.k8s.io/v2/pause/manifests/3.9"
    assert entry.size == sum(len(content) for content in image.contents.values())
    assert (entry.version, entry.origin) == ("3.9", "first-use")
    strict = dataclasses.replace(inputs, strict=True)
    with pytest.raises(ArtifactError, match=r"pause:3.9 .*only seen on first use"):
        build(strict, inputs.description.parent / "dist")


@pytest.mark.slow
def test_the_index_of_an_image_for_the_clusters_registry_is_fetched_by_the_lock(
    inputs: Inputs, registry: Registry, tmp_path: Path
) -> None:
    images = [make_image("web"), make_other_machine()]
    index = registry.put("web", "1.0", *images)
    moved = (
        "registry: {nodes: [one]}\nimages: [{ref: 'registry.k8s.io/web:1.0', where: registry}]\n"
    )
    inputs.description.write_text(SITE + moved)
    write_upstream(tmp_path, inputs.description)
    update_lock(inputs, ())
    other = dataclasses.replace(inputs, cache=Cache(tmp_path / "other"))
    fetch(other)
    build(dataclasses.replace(other, offline=True), tmp_path / "dist")
    bundle = unpack(tmp_path / "dist/site-one.tar.gz", tmp_path / "unpacked")
    rows = (bundle / "lib/registry.tsv").read_text().splitlines()
    hexadecimal = index.removeprefix("sha256:")
    assert f"tag\tregistry.k8s.io/web\t{hexadecimal}\t1.0" in rows
    blobs = bundle / "rootfs/opt/k8s/images/blobs/sha256"
    assert sha256((blobs / hexadecimal).read_bytes()) == index
    assert "web" not in (bundle / "lib/images.tsv").read_text()


@pytest.mark.parametrize("update", [PAUSE, "images", "all"])
@pytest.mark.slow
def test_a_moved_tag_is_used_only_if_update_names_it(
    inputs: Inputs, registry: Registry, update: str
) -> None:
    update_lock(inputs, ())
    before = find_pause(inputs)
    newer = make_image("second")
    registry.put("pause", "3.9", newer)
    update_lock(inputs, ())
    assert find_pause(inputs) == before
    files = {file.digest for file, _ in fetch(inputs)}
    assert before.digest.removeprefix("sha256:") in files
    update_lock(inputs, (update,))
    assert find_pause(inputs).digest == sha256(newer.manifest)


@pytest.mark.slow
def test_an_image_that_is_missing_or_different_in_the_lock_is_refused(
    inputs: Inputs, registry: Registry
) -> None:
    update_lock(inputs, ())
    digest = find_pause(inputs).index
    images = f'images: [{{ref: "{PAUSE}@{digest}"}}, {{ref: "nginx:1.22", use: verify}}]\n'
    inputs.description.write_text(SITE + images)
    with pytest.raises(ArtifactError) as caught:
        build(inputs, inputs.description.parent / "dist")
    assert "pause:3.9 (amd64) is locked from" in caught.value.message
    assert "docker.io/library/nginx:1.22 (amd64) is missing in the lock" in caught.value.message
    assert f"--update {PAUSE} --update docker.io/library/nginx:1.22" in (caught.value.hint or "")
    inputs.description.write_text(SITE + f'images: [{{ref: "{PAUSE}@{digest}"}}]\n')
    update_lock(inputs, (PAUSE,))
    assert (find_pause(inputs).origin, find_pause(inputs).index) == ("user", digest)


@pytest.mark.slow
def test_an_altered_document_in_the_cache_is_downloaded_again(inputs: Inputs) -> None:
    update_lock(inputs, ())
    digest = find_pause(inputs).digest.removeprefix("sha256:")
    inputs.cache.blob_path("sha256", digest).write_bytes(b"altered")
    with pytest.raises(ArtifactError, match="is not in the cache"):
        build(dataclasses.replace(inputs, offline=True), inputs.description.parent / "dist")
    build(inputs, inputs.description.parent / "dist")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("docker.io", "must be REGISTRY=URL"),
        ("docker.io=mirror.example", "must be REGISTRY=URL"),
        ("=https://mirror.example", "must be REGISTRY=URL"),
        ("docker.io=https://me:hunter2@mirror.example", "must not contain a login"),
    ],
)
def test_mirrors_of_registries_are_checked(tmp_path: Path, given: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected) as caught:
        make_inputs(tmp_path, offline=True, registry_mirror=[given])
    assert "hunter2" not in f"{caught.value.message}{caught.value.hint}"


def test_logins_are_read_only_if_a_registry_is_used(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.json").write_text("{")
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "bad.json"))
    arguments = ["-c", f"{tmp_path}/cluster.yaml", "--pins", f"{tmp_path}/pins.yaml"]
    checked = CliRunner().invoke(app, ["check", *arguments])
    assert checked.exit_code == 0
    arguments += ["--mirror", f"{tmp_path}/mirror", "--cache", f"{tmp_path}/new"]
    fetched = CliRunner().invoke(app, ["fetch", *arguments])
    assert isinstance(fetched.exception, ConfigError)
    assert json.loads((tmp_path / "pins.yaml").read_text())
