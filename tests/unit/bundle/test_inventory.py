"""Items of bundles: versions, licences, purls, and digests of bundler itself."""

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.descriptions import EXAMPLE
from support.sboms import assert_valid, flatten

from bundler.bundle.inventory import (
    BuildInputs,
    Item,
    ItemKind,
    list_items,
)
from bundler.bundle.provenance import (
    hash_directory,
    list_program,
    make_provenance,
)
from bundler.bundle.sbom import make_sbom
from bundler.catalog import COMPONENTS
from bundler.catalog.licences import find_upstream_project, is_published_by_project
from bundler.cluster.loader import load_cluster
from bundler.cluster.plan import ClusterPlan, make_plan
from bundler.errors import ArtifactError
from bundler.formats.image_archives import open_image
from bundler.formats.image_references import parse_reference
from bundler.overlays.files import list_fetched
from bundler.render.tree import File, Tree
from bundler.sources.artifacts import resolve_artifacts
from bundler.sources.images.needed import Images, list_needed
from bundler.sources.lock import LockEntry, LockKind, TrustSource

BUNDLER = Path(sys.executable).parent / "bundler"
LAYERS = [f"sha256:{hashlib.sha256(name).hexdigest()}" for name in (b"base", b"program")]


@pytest.fixture
def plan(tmp_path: Path, make_archive: Callable[[Path, str], str]) -> ClusterPlan:
    """One node with built-in pins."""
    for name, reference in (("pause", "registry.k8s.io/pause:3.10.2"), ("nginx", "nginx:1.22")):
        make_archive(tmp_path / f"{name}.tar", reference)
    path = tmp_path / "cluster.yaml"
    path.write_text("""\
apiVersion: bundler/v1alpha1
name: solo
kubernetes: {version: 1.36.2}
runtime: {engine: docker, version: 26.1.3, cri_dockerd: 0.3.25}
dns: {provider: none}
nodes:
  - {name: one, address: 192.0.2.10, roles: [etcd, control-plane, worker]}
images:
  - {ref: "registry.k8s.io/pause:3.10.2", file: pause.tar}
  - {ref: "nginx:1.22", file: nginx.tar, use: verify}
artifacts:
  crictl:
    url: "https://robot:hunter2@files.example/crictl.tgz?signature=hunter3"
    sha256: "1111111111111111111111111111111111111111111111111111111111111111"
""")
    return make_plan(load_cluster(path).cluster)


def make_tree(plan: ClusterPlan) -> Tree:
    return Tree(
        File(path=f.path, mode=0o755, content=f.path.encode(), origin="a test")
        for f in list_fetched(plan, plan.nodes[0])
    )


def open_images(plan: ClusterPlan) -> Images:
    return {
        (needed.reference.name, needed.arch): open_image(
            needed.image.file or Path(), needed.reference, needed.arch
        )
        for needed in list_needed(plan)
    }


def make_items(
    plan: ClusterPlan, tree: Tree, locked: tuple[LockEntry, ...] = ()
) -> tuple[Item, ...]:
    taken = BuildInputs(artifacts=resolve_artifacts(plan), images=open_images(plan), locked=locked)
    return list_items(plan, plan.nodes[0], tree, taken)


def test_upstream_releases_have_a_licence_and_a_github_purl(plan: ClusterPlan) -> None:
    items = {item.name: item for item in make_items(plan, make_tree(plan))}
    etcd = items["etcd"]
    assert etcd.purl == f"pkg:github/etcd-io/etcd@v{plan.etcd_version}"
    assert etcd.licence == "Apache-2.0"
    assert etcd.evidence.startswith("catalog: ")
    assert items["kubernetes-server"].digest.startswith("sha512:")
    docker = {part.name: part for part in items["docker"].parts}
    assert items["docker"].licence == ""  # several projects' programs
    assert items["docker"].purl.startswith("pkg:generic/docker@26.1.3?")
    assert (docker["dockerd"].version, docker["dockerd"].licence) == ("26.1.3", "Apache-2.0")
    assert (docker["docker-init"].version, docker["docker-init"].licence) == ("", "MIT")
    assert docker["runc"].version == ""


@pytest.mark.slow
def test_a_file_from_elsewhere_has_no_licence_and_its_address_no_password(
    plan: ClusterPlan,
) -> None:
    tree = make_tree(plan)
    items = make_items(plan, tree)
    crictl = next(item for item in items if item.name == "crictl")
    assert (crictl.licence, crictl.parts[0].licence) == ("", "")
    assert crictl.url == "https://files.example/crictl.tgz"
    assert crictl.purl.startswith("pkg:generic/crictl@")
    documents = make_sbom("solo-one", {}, items, 0) + make_provenance({}, {}, items, tree, 0)
    assert b"files.example/crictl.tgz" in documents
    for secret in (b"hunter2", b"hunter3", b"robot"):
        assert secret not in documents
    assert_valid(make_sbom("solo-one", {}, items, 0))


def test_an_upstream_address_alone_does_not_make_an_upstream_release(plan: ClusterPlan) -> None:
    """The lab's Kubernetes has upstream's address, a user's pin, and bytes of somebody's own."""
    found = {}
    for digest in ("own", "upstreams"):
        artifact = resolve_artifacts(plan)["etcd", "amd64"]
        if digest == "own":
            artifact = replace(artifact, digest="0" * 64)
        found[digest] = [
            is_published_by_project(artifact, is_confirmed=is_confirmed)
            for is_confirmed in (False, True)
        ]
    assert found == {"own": [False, True], "upstreams": [True, True]}
    elsewhere = replace(artifact, digest="0" * 64, url="https://files.example/etcd.tar.gz")
    assert not is_published_by_project(elsewhere, is_confirmed=True)


@pytest.mark.parametrize(
    ("url", "is_known"),
    [
        ("https://files.example/crictl.tgz", True),
        ("https://192.0.2.7/crictl.tgz", True),
        ("https://files.example/v{version}/crictl-{version}.tgz", True),
        ("https://files.example/crictl-0.0.1.tgz", False),
    ],
)
def test_a_version_that_the_address_contradicts_is_not_claimed(
    plan: ClusterPlan, url: str, is_known: bool
) -> None:
    tree, artifacts = make_tree(plan), dict(resolve_artifacts(plan))
    version = artifacts["crictl", "amd64"].version
    artifacts["crictl", "amd64"] = replace(
        artifacts["crictl", "amd64"], url=url.format(version=version)
    )
    taken = BuildInputs(artifacts=artifacts, images=open_images(plan))
    items = list_items(plan, plan.nodes[0], tree, taken)
    crictl = next(item for item in items if item.name == "crictl")
    expected = version if is_known else ""
    assert (crictl.version, crictl.parts[0].version) == (expected, expected)
    assert (f"crictl@{version}" in crictl.purl) is is_known


def test_every_component_of_the_catalogue_has_a_project() -> None:
    without = [component for component in COMPONENTS if not find_upstream_project(component)]
    assert without == ["docker"]  # its archive holds programs of several


def make_entry(name: str, content: bytes) -> LockEntry:
    return LockEntry(
        kind=LockKind.PACKAGE, name=name, version="1:2.3-4", arch="amd64",
        url=f"https://packages.example/{name}.deb", size=len(content),
        digest=f"sha256:{hashlib.sha256(content).hexdigest()}", origin=TrustSource.UPSTREAM_SIGNATURE,
        evidence="debian-12: InRelease", locked=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip


@pytest.mark.slow
def test_locked_packages_are_items_where_their_file_is_in_the_bundle(
    plan: ClusterPlan, tmp_path: Path
) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(f"{path.read_text()}packages: {{os: debian-12}}\n")
    plan = make_plan(load_cluster(path).cluster)
    tree = make_tree(plan)
    tree.add(File(path="packages/socat.deb", mode=0o644, content=b"socat", origin="a test"))
    packages = make_entry("socat", b"socat"), make_entry("ipset", b"ipset")
    items = make_items(plan, tree, packages)
    found = [item for item in items if item.kind is ItemKind.PACKAGE]
    assert [(i.name, i.version, i.path) for i in found] == [
        ("socat", "1:2.3-4", "packages/socat.deb")
    ]
    assert found[0].evidence == "upstream-signature: debian-12: InRelease"
    sbom = make_sbom("solo-one", {}, items, 0)
    assert_valid(sbom)
    component = flatten(json.loads(sbom)["components"])["package/packages/socat.deb"]
    assert component["type"] == "library"
    statement = json.loads(make_provenance({}, {}, items, tree, 0))
    last = statement["predicate"]["buildDefinition"]["resolvedDependencies"][-1]
    assert last["uri"] == "https://packages.example/socat.deb"


def write_layered(path: Path, layers: object) -> Path:
    """An archive whose image says that it has these layers; each file in it is `layer N`."""
    config = json.dumps({"architecture": "amd64", "rootfs": {"diff_ids": layers}}).encode()
    files = {f"{n}/layer.tar": f"layer {n}".encode() for n in (1, 2)}
    names = ["1/layer.tar", "2/layer.tar", "1/layer.tar"]
    entry = {"Config": "config.json", "RepoTags": ["registry.k8s.io/pause:3.10.2"], "Layers": names}
    files |= {"config.json": config, "manifest.json": json.dumps([entry]).encode()}
    with tarfile.open(path, "w") as archive:
        for each, content in files.items():
            member = tarfile.TarInfo(each)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


LAYERED = [f"sha256:{hashlib.sha256(f'layer {n}'.encode()).hexdigest()}" for n in (1, 2)]


def test_an_images_layers_are_parts_of_it(plan: ClusterPlan, tmp_path: Path) -> None:
    write_layered(tmp_path / "pause.tar", [*LAYERED, LAYERED[0]])  # empty layers come again
    items = make_items(plan, make_tree(plan))
    pause = next(item for item in items if item.name == "registry.k8s.io/pause")
    assert [layer.digest for layer in pause.parts] == [*LAYERED, LAYERED[0]]
    sbom = make_sbom("solo-one", {}, [pause], 0)
    assert_valid(sbom)
    layers = [c for c in flatten(json.loads(sbom)["components"]).values() if c["type"] == "file"]
    assert {c["hashes"][0]["content"] for c in layers} == {d.partition(":")[2] for d in LAYERED}


@pytest.mark.parametrize(
    "layers", [["nonsense"] * 3, ["sha256:0"] * 3, [7] * 3, "text", {"a": 1}, LAYERED]
)
def test_an_image_with_odd_layers_is_refused(tmp_path: Path, layers: object) -> None:
    path = write_layered(tmp_path / "odd.tar", layers)
    with pytest.raises(
        ArtifactError,
        match="has no rootfs.diff_ids|has invalid diff_ids|manifest.json has .* layers",
    ):
        open_image(path, parse_reference("registry.k8s.io/pause:3.10.2"), "amd64")


def test_two_images_with_the_same_layer_make_a_valid_sbom() -> None:
    layer = Item(kind=ItemKind.LAYER, name=LAYERS[0], digest=LAYERS[0])
    images = [
        Item(
            kind=ItemKind.IMAGE, name=f"r.example/{name}", version="1", digest=LAYERS[1],
            path=f"images/{name}.tar", parts=(layer,),
        )
        for name in ("a", "b")
    ]  # fmt: skip
    sbom = make_sbom("x", {}, images, 0)
    assert_valid(sbom)
    assert sum(c["type"] == "file" for c in flatten(json.loads(sbom)["components"]).values()) == 2


def test_the_digest_of_a_directory_is_gos_hash1(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("a", "b/c", "b.d"):
        (tmp_path / name).write_text(f"content of {name}")
    files = [(p.relative_to(tmp_path).as_posix(), p) for p in tmp_path.rglob("*") if p.is_file()]
    expected = subprocess.run(
        ["sh", "-c", "find . -type f | sed 's|^./||' | LC_ALL=C sort | xargs sha256sum | sha256sum"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert hash_directory(reversed(files)) == expected.stdout.split()[0]


def test_bundlers_code_and_templates_are_dependencies() -> None:
    names = [own["name"] for own in list_program()]
    assert names == ["bundler", "templates"]
    root = EXAMPLE.parents[1] / "templates"
    files = [(p.relative_to(root).as_posix(), p) for p in root.rglob("*") if p.is_file()]
    assert list_program()[1]["digest"] == {"dirHash": hash_directory(files)}
