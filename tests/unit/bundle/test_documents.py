"""The SBOM and the provenance in each bundle: valid, complete, the same every time, no secrets."""

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from google.protobuf.json_format import Parse, ParseDict
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from support.command import run_bundler
from support.descriptions import write_description, write_upstream
from support.sboms import assert_valid, flatten

from bundler.bundle.inspect import BundleReport, inspect
from bundler.bundle.provenance import (
    PREDICATE,
    PROVENANCE,
)
from bundler.bundle.sbom import SBOM
from bundler.cache.segments import COMPRESSOR
from bundler.cache.store import Cache
from bundler.downloads import update_lock
from bundler.pipeline import build, render
from bundler.project import Inputs
from bundler.render.images import BLOBS

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


def properties_of(component: dict[str, Any]) -> dict[str, str]:
    return {p["name"].removeprefix("bundler:"): p["value"] for p in component["properties"]}


@pytest.mark.slow
def test_every_bundles_sbom_is_valid_against_the_schema(lab: Path) -> None:
    bundles = sorted((lab / "dist").glob("*.tar.gz"))
    assert len(bundles) == 5
    for bundle in bundles:
        assert_valid(inspect(bundle).texts[SBOM])


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_documents_are_in_the_manifest_and_in_a_rendered_tree(
    lab: Path, worker: BundleReport
) -> None:
    listed = {entry.path: entry for entry in worker.entries}
    assert worker.faults == ()
    render(inputs_of(lab), lab / "trees", text_only=False)
    for name in (SBOM, PROVENANCE):
        assert listed[name].mode == 0o644
        assert (lab / "trees" / "worker1" / name).read_bytes() == worker.texts[name]


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
