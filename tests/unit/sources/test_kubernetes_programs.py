"""Kubernetes' programs come from the server's archive, or each from its own upstream file."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.command import run_bundler
from support.descriptions import ELF_MACHINES, write_archive
from support.sboms import flatten

from bundler import catalog
from bundler.cache.store import Cache
from bundler.catalog import KUBERNETES_PROGRAMS, Artifact, find_artifact, list_available
from bundler.catalog.signatures import Scheme, find_signed
from bundler.cluster.inputs import UpstreamKey
from bundler.cluster.loader import load_cluster
from bundler.cluster.plan import ClusterPlan, make_plan
from bundler.downloads import update_lock
from bundler.errors import ArtifactError
from bundler.pipeline import build
from bundler.project import Inputs
from bundler.sources.artifacts import choose_artifacts, list_needs, resolve_artifacts
from bundler.sources.lock import LockKind, lock_path, read_lock
from bundler.sources.trust import find_key

CLUSTER = """\
apiVersion: bundler/v1alpha1
name: small
kubernetes: {version: VERSION}
runtime: {engine: containerd}
dns: {provider: none}
nodes:
  - {name: one, address: 192.0.2.1, roles: [etcd, control-plane, worker]}
  - {name: two, address: 192.0.2.2, roles: [worker], arch: arm64}
images:
  - {ref: "PAUSE", file: pause-amd64.tar, arch: amd64}
  - {ref: "PAUSE", file: pause-arm64.tar, arch: arm64}
"""
OF_WORKERS = {"kubelet", "kube-proxy", "kubectl"}


def write_cluster(directory: Path, version: str, **own: object) -> Path:
    pause = f"registry.k8s.io/pause:{catalog.default_version('pause', version.rpartition('.')[0])}"
    for arch in ("amd64", "arm64"):
        write_archive(directory / f"pause-{arch}.tar", pause, arch)
    path = directory / "cluster.yaml"
    text = CLUSTER.replace("VERSION", version).replace("PAUSE", pause)
    path.write_text(text + (yaml.safe_dump(own) if own else ""))
    return path


def make(directory: Path, version: str, **own: object) -> ClusterPlan:
    return make_plan(load_cluster(write_cluster(directory, version, **own)).cluster)


def list_kubernetes(plan: ClusterPlan, arch: str) -> set[str]:
    known = {catalog.KUBERNETES_ARCHIVE, *KUBERNETES_PROGRAMS}
    return {name for name, machine in list_needs(plan) if machine == arch and name in known}


def test_an_archive_with_a_pin_is_taken_before_single_programs(tmp_path: Path) -> None:
    plan = make(tmp_path, "1.36.2")
    assert list_kubernetes(plan, "amd64") == list_kubernetes(plan, "arm64") == {"kubernetes-server"}


def test_without_such_a_pin_a_machine_gets_only_the_programs_of_its_nodes(tmp_path: Path) -> None:
    plan = make(tmp_path, "1.36.3")
    assert list_kubernetes(plan, "amd64") == set(KUBERNETES_PROGRAMS)
    assert list_kubernetes(plan, "arm64") == OF_WORKERS
    chosen = resolve_artifacts(plan)
    assert chosen["kubelet", "arm64"].url == (
        "https://dl.k8s.io/release/v1.36.3/bin/linux/arm64/kubelet"
    )
    assert all(artifact.digest for artifact in chosen.values())


@pytest.mark.parametrize(
    ("pinned", "expected"),
    [
        ("kubernetes-server", {"kubernetes-server"}),
        ("kubernetes-server/arm64", set(OF_WORKERS)),
        ("kubelet/amd64", set(KUBERNETES_PROGRAMS)),
    ],
)
def test_a_pin_of_the_user_decides(tmp_path: Path, pinned: str, expected: set[str]) -> None:
    own = {pinned: {"sha256": "ab" * 32}}
    plan = make(tmp_path, "1.36.3", artifacts=own)
    arch = "arm64" if pinned == "kubernetes-server" else "amd64"
    if pinned == "kubernetes-server/arm64":
        assert list_kubernetes(plan, "arm64") == {"kubernetes-server"}
        assert list_kubernetes(plan, "amd64") == set(KUBERNETES_PROGRAMS)
    else:
        assert list_kubernetes(plan, arch) == expected


def test_a_program_that_the_user_pins_replaces_that_of_the_archive(tmp_path: Path) -> None:
    plan = make(tmp_path, "1.36.2", artifacts={"kubelet/amd64": {"sha256": "ab" * 32}})
    assert list_kubernetes(plan, "amd64") == {"kubernetes-server", "kubelet"}
    members = list_needs(plan)["kubernetes-server", "amd64"]
    assert "kubernetes/server/bin/kubelet" not in members
    assert choose_artifacts(plan)["kubelet", "amd64"].digest == "ab" * 32


def test_a_version_with_pins_of_some_programs_only_needs_the_archive(tmp_path: Path) -> None:
    assert find_artifact("kubelet", "1.34.11", "amd64")
    assert find_artifact("kube-apiserver", "1.34.11", "amd64") is None
    with pytest.raises(ArtifactError) as error:
        resolve_artifacts(make(tmp_path, "1.34.11"))
    assert "kubernetes-server 1.34.11 (amd64) has no built-in pin" in error.value.message
    assert "similar pinned versions: 1.34.10, 1.34.9" in error.value.message


def test_every_patch_from_1_25_on_is_available_for_both_machines() -> None:
    newest = {25: 16, 26: 15, 27: 16, 28: 15, 29: 15, 30: 14, 31: 14, 32: 13, 33: 13}
    newest |= {34: 10, 35: 7, 36: 4, 37: 1}
    expected = {f"1.{minor}.{patch}" for minor, last in newest.items() for patch in range(last + 1)}
    for arch in ("amd64", "arm64"):
        assert expected <= set(list_available("kubernetes-server", arch))


@pytest.mark.parametrize("program", KUBERNETES_PROGRAMS)
def test_the_key_of_the_archive_must_also_have_signed_single_programs(program: str) -> None:
    key = UpstreamKey.model_construct(cosign=Path("fulcio.pem"))
    other = UpstreamKey.model_construct(cosign=Path("other.pem"))
    assert find_key({"kubernetes-server": key}, program) is key
    assert find_key({"kubernetes-server": key, program: other}, program) is other
    assert find_key({"kubernetes-server": key}, "etcd") is None
    signed = find_signed(program, "1.36.3", Scheme.COSIGN)
    assert signed == find_signed("kubernetes-server", "1.36.3", Scheme.COSIGN)


def test_a_build_without_a_lock_refuses_programs_whose_archive_must_be_signed(
    tmp_path: Path,
) -> None:
    (tmp_path / "fulcio.pem").write_text("")
    keys = {"kubernetes-server": {"cosign": f"{tmp_path}/fulcio.pem"}}
    plan = make(tmp_path, "1.36.3", upstream_keys=keys)
    with pytest.raises(ArtifactError, match=r"kubelet 1\.36\.3 \(amd64\).*requires a signature"):
        resolve_artifacts(plan)


PROGRAM = b"\x7fELF\x02\x01\x01" + bytes(11)


class Site:
    """A cluster whose upstream files are small stand-ins in a mirror, pinned in the catalog."""

    def __init__(self, directory: Path, version: str) -> None:
        self.directory = directory
        self.plan = make(directory, version)
        self.inputs = Inputs(
            description=directory / "cluster.yaml",
            cache=Cache(directory / "cache"),
            mirrors=(str(directory / "mirror"),),
            offline=True,
        )
        self.arguments = [
            "-c", directory / "cluster.yaml", "--cache", directory / "cache",
            "--mirror", directory / "mirror", "--offline",
        ]  # fmt: skip
        self.pins = {(pin.component, pin.version, pin.arch): pin for pin in self._write_files()}

    def _write_files(self) -> Iterator[Artifact]:
        """Write every upstream file; yield its pin, and that of each program in an archive."""
        for (component, arch), artifact in choose_artifacts(self.plan).items():
            program = PROGRAM + ELF_MACHINES[arch].to_bytes(2, "little")
            members = list_needs(self.plan)[component, arch]
            contents = {name: program + name.rpartition("/")[2].encode() for name in members}
            content = contents.get("") or pack(contents)
            path = self.directory / "mirror" / artifact.url.removeprefix("https://")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            yield make_pin(artifact, content)
            if component == "kubernetes-server":
                for name, inside in contents.items():
                    alone = replace(artifact, component=name.rpartition("/")[2])
                    yield make_pin(alone, inside)


def make_pin(artifact: Artifact, content: bytes) -> Artifact:
    digest = hashlib.sha256(content).hexdigest()
    return replace(artifact, algorithm="sha256", digest=digest, source="catalog: a test", sources=2)


def pack(contents: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=file, mode="w", mtime=0) as zipped,  # the same bytes in every second
        tarfile.open(fileobj=zipped, mode="w") as archive,
    ):
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


MakeSite = Callable[[str], Site]


@pytest.fixture
def make_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeSite:
    """Make a site for a version, in a directory of its own; its pins are added to the catalog."""
    table = dict(catalog._pins())
    monkeypatch.setattr("bundler.catalog._pins", lambda: table)

    def make_one(version: str) -> Site:
        site = Site(tmp_path / version, version)
        table.update(site.pins)
        return site

    return make_one


def read_sbom(bundle: Path) -> dict[str, dict[str, Any]]:
    done = run_bundler(["inspect", bundle, "--sbom"], check=True)
    return flatten(json.loads(done.stdout)["components"])


def test_single_programs_are_locked_fetched_and_built_and_the_sbom_names_them(
    make_site: MakeSite,
) -> None:
    site = make_site("1.36.3")
    update_lock(site.inputs, ())
    lock = read_lock(lock_path(site.inputs.description))
    entry = lock.find(LockKind.ARTIFACT, "kubelet", "arm64")
    assert entry is not None
    assert (entry.origin, entry.sources, entry.version) == ("catalog", 2, "1.36.3")
    fetched = run_bundler(["fetch", *site.arguments], check=True, text=True).stdout
    assert entry.digest in fetched
    build(site.inputs, site.directory / "dist")
    found = read_sbom(site.directory / "dist/small-two.tar.gz")
    kubelet = found["artifact/kubelet"]
    assert kubelet["version"] == "1.36.3"
    assert kubelet["purl"] == "pkg:github/kubernetes/kubernetes@v1.36.3"
    assert kubelet["licenses"][0]["license"]["id"] == "Apache-2.0"
    assert {f"artifact/{name}" for name in OF_WORKERS} <= set(found)
    assert "artifact/kube-apiserver" not in found
    assert "artifact/kubernetes-server" not in found


def test_a_lock_without_the_programs_is_refused_with_the_command_that_adds_them(
    make_site: MakeSite,
) -> None:
    site = make_site("1.36.3")
    update_lock(site.inputs, ())
    path = lock_path(site.inputs.description)
    data = yaml.safe_load(path.read_text())
    data["entries"] = [e for e in data["entries"] if (e["name"], e["arch"]) != ("kubelet", "arm64")]
    path.write_text(yaml.safe_dump(data))
    done = run_bundler(["build", *site.arguments, "-o", site.directory / "dist"], text=True)
    assert done.returncode == 3
    assert "kubelet (arm64) is missing in the lock" in done.stderr
    assert "bundler lock --update kubelet" in done.stderr


def test_a_diff_shows_the_archive_and_the_programs_that_replace_it(make_site: MakeSite) -> None:
    before, after = make_site("1.36.2"), make_site("1.36.3")
    for site in (before, after):
        build(site.inputs, site.directory / "dist")
    name = "dist/small-two.tar.gz"
    shown = run_bundler(["diff", before.directory / name, after.directory / name], text=True).stdout
    assert "kubernetes-server (arm64)" in shown
    assert "kubelet (arm64)" in shown
    assert "1.36.3" in shown


def test_programs_of_an_archive_that_match_their_own_pins_are_built(make_site: MakeSite) -> None:
    site = make_site("1.36.2")
    build(site.inputs, site.directory / "dist")
    assert "artifact/kubernetes-server" in read_sbom(site.directory / "dist/small-two.tar.gz")


def test_a_program_of_an_archive_that_differs_from_its_own_pin_is_refused(
    make_site: MakeSite,
) -> None:
    site = make_site("1.36.2")
    key = ("kubelet", "1.36.2", "arm64")
    catalog._pins()[key] = replace(site.pins[key], digest="ab" * 32)
    with pytest.raises(ArtifactError) as error:
        build(site.inputs, site.directory / "dist")
    message = error.value.message
    assert "kubernetes-server 1.36.2 (arm64): kubelet does not match its own pin" in message
    assert f"expected sha256:{'ab' * 32} (catalog: a test)" in message
    assert "kube-proxy" not in message
    assert error.value.hint
    assert "under `artifacts` as kubernetes-server" in error.value.hint


def test_an_archive_that_the_user_pins_may_be_another_build(make_site: MakeSite) -> None:
    site = make_site("1.36.2")
    for name in ("kubelet", "kubectl"):
        key = (name, "1.36.2", "arm64")
        catalog._pins()[key] = replace(site.pins[key], digest=name[3] * 64)
    pins = {
        f"kubernetes-server/{arch}": {
            "url": pin.url,
            "sha256": pin.digest,
        }
        for (name, _, arch), pin in site.pins.items()
        if name == "kubernetes-server"
    }
    own = site.directory / "pins.yaml"
    own.write_text(yaml.safe_dump({"artifacts": pins}))
    done = run_bundler(
        ["build", *site.arguments, "--pins", own, "-o", site.directory / "dist"], text=True
    )
    assert done.returncode == 0
    warning = "kubernetes-server 1.36.2 (arm64) of `artifacts` is not upstream's build:"
    assert f"{warning} kubectl, kubelet" in done.stderr
