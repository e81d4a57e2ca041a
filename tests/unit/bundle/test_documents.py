"""The SBOM and the provenance in each bundle: valid, complete, the same every time, no secrets."""

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from google.protobuf.json_format import Parse, ParseDict
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from support.command import run_bundler
from support.descriptions import EXAMPLE, write_description, write_upstream

from bundler.bundle.inspect import BundleReport, inspect
from bundler.bundle.inventory import (
    BuildInputs,
    Item,
    ItemKind,
    list_items,
)
from bundler.bundle.provenance import (
    PREDICATE,
    PROVENANCE,
    hash_directory,
    list_program,
    make_provenance,
)
from bundler.bundle.sbom import SBOM, make_sbom
from bundler.cache.segments import COMPRESSOR
from bundler.cache.store import Cache
from bundler.catalog import COMPONENTS
from bundler.catalog.licences import find_upstream_project, is_published_by_project
from bundler.cluster.loader import load_cluster
from bundler.cluster.plan import ClusterPlan, make_plan
from bundler.downloads import update_lock
from bundler.errors import ArtifactError
from bundler.formats.image_archives import open_image
from bundler.formats.image_references import parse_reference
from bundler.overlays.files import list_fetched
from bundler.pipeline import build, render
from bundler.project import Inputs
from bundler.render.images import BLOBS
from bundler.render.tree import File, Tree
from bundler.sources.artifacts import resolve_artifacts
from bundler.sources.images.needed import Images, list_needed
from bundler.sources.lock import LockEntry, LockKind, TrustSource

BUNDLER = Path(sys.executable).parent / "bundler"
LAYERS = [f"sha256:{hashlib.sha256(name).hexdigest()}" for name in (b"base", b"program")]


def inputs_of(directory: Path) -> Inputs:
    return Inputs(
        description=directory / "site" / "cluster.yaml", cache=Cache(directory / "cache"),
        pins=directory / "pins.yaml", mirrors=(str(directory / "mirror"),),
    )  # fmt: skip


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lab's description, its upstream files, and its bundles in dist/."""
    directory = tmp_path_factory.mktemp("lab")
    write_upstream(directory, write_description(directory))
    build(inputs_of(directory), directory / "dist")
    return directory


@pytest.fixture(scope="module")
def worker(lab: Path) -> BundleReport:
    return inspect(lab / "dist" / "lab-worker1.tar.gz")


@pytest.fixture(scope="module")
def master(lab: Path) -> BundleReport:
    return inspect(lab / "dist" / "lab-master1.tar.gz")


def run_inspect(bundle: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return run_bundler(["inspect", bundle, *arguments], capture_output=True, check=False)


def flatten(components: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Every component of an SBOM by its reference, parts included."""
    found = {}
    for component in components:
        found[component["bom-ref"]] = component
        found |= flatten(component.get("components", []))
    return found


def properties_of(component: dict[str, Any]) -> dict[str, str]:
    return {p["name"].removeprefix("bundler:"): p["value"] for p in component["properties"]}


def assert_valid(sbom: bytes) -> None:
    errors = JsonStrictValidator(SchemaVersion.V1_6).validate_str(sbom.decode(), all_errors=True)
    assert [str(error) for error in errors or ()] == []


# --- in bundles


def test_every_bundles_sbom_is_valid_against_the_schema(lab: Path) -> None:
    bundles = sorted((lab / "dist").glob("*.tar.gz"))
    assert len(bundles) == 5
    for bundle in bundles:
        assert_valid(inspect(bundle).texts[SBOM])


def test_a_second_build_elsewhere_gives_the_same_documents(lab: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "another person's" / "copy"
    shutil.copytree(lab, elsewhere, ignore=shutil.ignore_patterns("cache", "dist"))
    environment = {"TZ": "Asia/Kathmandu", "HOME": str(tmp_path), "LC_ALL": "C", "USER": "second"}
    subprocess.run(
        [BUNDLER, "build", "-q", "-c", elsewhere / "site/cluster.yaml", "-o", elsewhere / "dist",
         "--cache", elsewhere / "cache", "--pins", elsewhere / "pins.yaml",
         "--mirror", elsewhere / "mirror"],
        check=True, env=environment, cwd="/", stdout=subprocess.DEVNULL, umask=0o077,
    )  # fmt: skip
    for bundle in sorted((lab / "dist").glob("*.tar.gz")):
        first, second = inspect(bundle), inspect(elsewhere / "dist" / bundle.name)
        assert first.texts[SBOM] == second.texts[SBOM]
        assert first.texts[PROVENANCE] == second.texts[PROVENANCE]
        assert str(lab).encode() not in first.texts[SBOM] + first.texts[PROVENANCE]


def test_the_documents_are_in_the_manifest_and_in_a_rendered_tree(
    lab: Path, worker: BundleReport
) -> None:
    listed = {entry.path: entry for entry in worker.entries}
    assert worker.faults == ()
    render(inputs_of(lab), lab / "trees", text_only=False)
    for name in (SBOM, PROVENANCE):
        assert listed[name].mode == 0o644
        assert (lab / "trees" / "worker1" / name).read_bytes() == worker.texts[name]


def test_a_rendering_without_programs_has_no_documents_about_them(lab: Path) -> None:
    render(inputs_of(lab), lab / "texts", text_only=True)
    assert not (lab / "texts" / "worker1" / SBOM).exists()


def test_the_sbom_has_every_program_and_image_with_the_digest_of_its_file(
    worker: BundleReport,
) -> None:
    components = flatten(json.loads(worker.texts[SBOM])["components"])
    by_path = {
        properties_of(c)["path"]: c["hashes"][0]["content"]
        for c in components.values()
        if properties_of(c)["kind"] == "program"
    }
    entries = {e.path: e.sha256 for e in worker.entries}
    programs = ("rootfs/opt/k8s/bin/", "rootfs/opt/cni/bin/")
    assert by_path == {path: sha for path, sha in entries.items() if path.startswith(programs)}
    assert len(by_path) > 10
    images = [c for c in components.values() if c["type"] == "container"]
    assert len(images) == 2
    for image in images:
        assert entries[properties_of(image)["path"]] in properties_of(image)["path"]
        assert f"{BLOBS}/{image['hashes'][0]['content']}" in entries
        for layer in image["components"]:
            assert entries[properties_of(layer)["path"]] == layer["hashes"][0]["content"]
    pause = next(c for c in images if c["name"] == "registry.k8s.io/pause")
    image_id = pause["hashes"][0]["content"]
    assert pause["version"] == "3.2"
    assert pause["purl"] == f"pkg:docker/pause@sha256:{image_id}?repository_url=registry.k8s.io"


def test_an_sbom_names_only_what_the_bundle_holds(
    master: BundleReport, worker: BundleReport
) -> None:
    names = [
        {c["name"] for c in flatten(json.loads(r.texts[SBOM])["components"]).values()}
        for r in (master, worker)
    ]
    assert {"etcd", "kube-apiserver"} <= names[0]
    assert {"kubelet", "docker", "cni-plugins"} <= names[1]
    assert not {"kubelet", "registry.k8s.io/pause"} & names[0]
    assert not {"etcd", "kube-apiserver"} & names[1]


def test_the_sbom_names_its_tool_time_and_subject(
    lab: Path, master: BundleReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = json.loads(master.texts[SBOM])
    bundle = document["metadata"]["component"]
    assert bundle["name"] == "lab-master1"
    assert properties_of(bundle)["roles"] == "etcd control-plane load-balancer"
    assert document["metadata"]["tools"]["components"][0]["name"] == "bundler"
    root = next(d for d in document["dependencies"] if d["ref"] == "bundle")
    assert set(root["dependsOn"]) == {c["bom-ref"] for c in document["components"]}
    with tarfile.open(lab / "dist" / "lab-master1.tar.gz") as tar:
        mtime = tar.next().mtime
    assert datetime.fromisoformat(document["metadata"]["timestamp"]) == datetime.fromtimestamp(
        mtime, UTC
    )
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    build(inputs_of(lab), lab / "dated")
    dated = json.loads(inspect(lab / "dated" / "lab-master1.tar.gz").texts[SBOM])
    assert dated["metadata"]["timestamp"] == "2001-09-09T01:46:40+00:00"
    assert UUID(dated["serialNumber"]).version == 5
    assert dated["serialNumber"] != document["serialNumber"]


def test_in_totos_reader_accepts_the_statement(worker: BundleReport) -> None:
    message = Parse(worker.texts[PROVENANCE], statement_pb2.Statement())
    statement = Statement.copy_from_pb(message)
    statement.validate()
    assert statement.pb.predicate_type == PREDICATE
    predicate = json.loads(worker.texts[PROVENANCE])["predicate"]
    parsed = ParseDict(predicate, provenance_pb2.Provenance())
    assert parsed.run_details.builder.id == "pkg:generic/bundler-k8s"
    assert dict(parsed.build_definition.internal_parameters)["compressor"] == COMPRESSOR


@pytest.mark.parametrize("node", ["master1", "worker1"])
def test_subjects_are_all_files_without_secrets(lab: Path, node: str) -> None:
    report = inspect(lab / "dist" / f"lab-{node}.tar.gz")
    statement = json.loads(report.texts[PROVENANCE])
    subjects = {s["name"]: s["digest"]["sha256"] for s in statement["subject"]}
    assert subjects == {
        e.path: e.sha256 for e in report.entries if e.mode != 0o600 and e.path != PROVENANCE
    }
    assert SBOM in subjects
    secrets = [e.sha256 for e in report.entries if e.mode == 0o600]
    text = (report.texts[PROVENANCE] + report.texts[SBOM]).decode()
    assert secrets
    assert not [digest for digest in secrets if digest in text]


def test_inputs_are_the_users_files_and_the_downloads(lab: Path) -> None:
    inputs = inputs_of(lab)
    update_lock(inputs, [])
    lock = lab / "site" / "cluster.lock.yaml"
    try:
        build(inputs, lab / "locked")
        digests = {
            "cluster.yaml": inputs.description, "cluster.lock.yaml": lock, "pins.yaml": inputs.pins,
        }  # fmt: skip
        expected = {n: hashlib.sha256(p.read_bytes()).hexdigest() for n, p in digests.items() if p}
    finally:
        lock.unlink()
    report = inspect(lab / "locked" / "lab-master1.tar.gz")
    definition = json.loads(report.texts[PROVENANCE])["predicate"]["buildDefinition"]
    parameters = definition["externalParameters"]
    assert (parameters["cluster"], parameters["node"]) == ("lab", "master1")
    assert {i["name"]: i["digest"]["sha256"] for i in parameters["inputs"]} == expected
    pins = json.loads(inputs.pins.read_text())["artifacts"] if inputs.pins else {}
    taken = {d["uri"]: d["digest"] for d in definition["resolvedDependencies"]}
    for component in ("etcd/amd64", "kubernetes-server/amd64"):
        assert taken[pins[component]["url"]] == {"sha256": pins[component]["sha256"]}
    assert not any("docker" in uri for uri in taken)


def test_inspect_prints_a_document_byte_by_byte_and_nothing_else(
    lab: Path, worker: BundleReport
) -> None:
    bundle = lab / "dist" / "lab-worker1.tar.gz"
    for option, name in (("--sbom", SBOM), ("--provenance", PROVENANCE)):
        done = run_inspect(bundle, option)
        assert (done.returncode, done.stdout) == (0, worker.texts[name])
    assert run_inspect(bundle, "--sbom", "--json").returncode == 2


def test_a_bundle_without_documents_is_reported_with_a_hint(lab: Path, tmp_path: Path) -> None:
    older = tmp_path / "older.tar.gz"
    with (
        tarfile.open(lab / "dist" / "lab-worker1.tar.gz") as old,
        tarfile.open(older, "w:gz") as new,
    ):
        for member in old:
            name = member.name.partition("/")[2]
            content = old.extractfile(member)
            if name == "MANIFEST" and content:
                lines = content.read().splitlines(keepends=True)
                text = b"".join(
                    line for line in lines if not line.endswith((b"cdx.json\n", b"intoto.json\n"))
                )
                member.size, content = len(text), io.BytesIO(text)
            if name not in {SBOM, PROVENANCE}:
                new.addfile(member, content)
    done = run_inspect(older, "--sbom")
    assert (done.returncode, done.stdout) == (6, b"")
    assert b"sbom.cdx.json is missing" in done.stderr
    assert b"build it again" in done.stderr
    assert run_inspect(older).returncode == 0


# --- of items


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
        evidence="InRelease", locked=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip


def test_locked_packages_are_items_where_their_file_is_in_the_bundle(plan: ClusterPlan) -> None:
    tree = make_tree(plan)
    tree.add(File(path="packages/socat.deb", mode=0o644, content=b"socat", origin="a test"))
    packages = make_entry("socat", b"socat"), make_entry("ipset", b"ipset")
    items = make_items(plan, tree, packages)
    found = [item for item in items if item.kind is ItemKind.PACKAGE]
    assert [(i.name, i.version, i.path) for i in found] == [
        ("socat", "1:2.3-4", "packages/socat.deb")
    ]
    assert found[0].evidence == "upstream-signature: InRelease"
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
        ArtifactError, match="has no rootfs.diff_ids|has invalid diff_ids|does not describe"
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


# --- digests of directories


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
