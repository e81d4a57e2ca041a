"""RPM packages resolved by the real dnf, with small repositories that the tests make and sign."""

import hashlib
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from support.descriptions import write_description, write_upstream
from support.endless_server import run_endless_server
from support.rpm_packages import (
    RpmSigner,
    make_rpm_signer,
    needs_dnf,
    write_rpm,
    write_rpm_repository,
)

from bundler.bundle.inspect import inspect
from bundler.cache.store import Cache
from bundler.cluster.loader import load_cluster
from bundler.cluster.plan import make_plan
from bundler.downloads import update_lock
from bundler.errors import ArtifactError, BundlerError
from bundler.pipeline import build
from bundler.project import Inputs
from bundler.sources.lock import LockEntry, TrustSource
from bundler.sources.packages.resolve import resolve_packages

pytestmark = needs_dnf


REPOMD = b"""<repomd xmlns="http://linux.duke.edu/metadata/repo"><data type="primary">
<checksum type="sha256">0000000000000000000000000000000000000000000000000000000000000000</checksum>
<location href="primary.xml.gz"/><timestamp>1</timestamp><size>100</size></data></repomd>"""


@pytest.fixture(scope="module")
def signer() -> Iterator[RpmSigner]:
    with make_rpm_signer() as made:
        yield made


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, signer: RpmSigner) -> Path:
    """A distribution: glibc and bash are the minimal installation, chrony needs a library."""
    directory = tmp_path_factory.mktemp("rocky")
    for name, version, more in (
        ("glibc", "2.34-100", {"Provides": "libc.so.6()(64bit)"}),
        ("bash", "5.1-9", {"Requires": "glibc", "Provides": "/bin/sh"}),
        ("chrony", "1:4.5-1", {"Requires": "libedit.so.0()(64bit), libc.so.6()(64bit), tzdata >= 2024, /bin/sh"}),
        ("libedit", "3.1-38", {"Provides": "libedit.so.0()(64bit)", "Requires": "bash"}),
        ("broken", "1-1", {"Requires": "middle"}),
        ("middle", "1-1", {"Requires": "nowhere >= 2"}),
        ("rival", "1-1", {"Conflicts": "chrony"}),
    ):  # fmt: skip
        write_rpm(directory, name, version, signer=signer, **more)
    write_rpm(directory, "tzdata", "2024a-1", arch="noarch", signer=signer)
    write_rpm(directory, "chrony", "1:4.5-1", arch="aarch64", signer=signer, Requires="tzdata")
    write_rpm(directory, "libedit", "9.9-1", arch="i686", signer=signer, Provides="libedit.so.0()(64bit)")  # fmt: skip
    write_rpm_repository(directory)
    return directory


@pytest.fixture
def describe(tmp_path: Path, repository: Path, signer: RpmSigner) -> Callable[..., Path]:
    """Write the example with `packages`, with changes; return its path."""
    path = write_description(tmp_path)

    def write(arch: str = "amd64", **packages: object) -> Path:
        cluster = yaml.safe_load(path.read_text())
        cluster["packages"] = {
            "os": "rocky-9", "names": ["chrony"], "mirror": [f"file://{repository}"],
            "keyring": str(signer.keyring),
        } | packages  # fmt: skip
        cluster["nodes"][0]["arch"] = arch
        path.write_text(yaml.safe_dump(cluster))
        return path

    return write


def resolve(description: Path, *, offline: bool = True) -> dict[tuple[str, str], LockEntry]:
    plan = make_plan(load_cluster(description).cluster)
    cache = Cache(description.parent / "cache")
    found = resolve_packages(plan, cache, datetime.now(UTC), offline=offline)
    return {(entry.name, entry.arch): entry for entry in found}


def test_dependencies_outside_the_minimal_installation_are_resolved(
    describe: Callable[..., Path], repository: Path
) -> None:
    found = resolve(describe())
    assert sorted(found) == [("chrony", "amd64"), ("libedit", "amd64"), ("tzdata", "all")]
    chrony, path = found["chrony", "amd64"], repository / "chrony-4.5-1.x86_64.rpm"
    assert chrony.version == "1:4.5-1"
    assert chrony.url == f"file://{path}"
    assert chrony.digest == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    assert chrony.size == path.stat().st_size
    assert chrony.origin is TrustSource.UPSTREAM_SIGNATURE
    assert chrony.evidence == "rocky-9: signed package of mirror-1, RPM-GPG-KEY-test"


def test_a_relative_path_of_the_cache_works(
    describe: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = make_plan(load_cluster(describe()).cluster)
    found = resolve_packages(plan, Cache(Path("site/cache")), datetime.now(UTC), offline=True)
    assert {entry.name for entry in found} == {"chrony", "libedit", "tzdata"}


def test_packages_in_base_are_not_resolved(describe: Callable[..., Path]) -> None:
    assert sorted(resolve(describe(base=["libedit"]))) == [("chrony", "amd64"), ("tzdata", "all")]


def test_a_package_of_the_minimal_installation_is_included_if_it_is_named(
    describe: Callable[..., Path],
) -> None:
    assert ("glibc", "amd64") in resolve(describe(add=["glibc"]))


def test_each_architecture_is_resolved_separately(describe: Callable[..., Path]) -> None:
    assert sorted(resolve(describe(arch="arm64"))) == [
        ("chrony", "amd64"), ("chrony", "arm64"), ("libedit", "amd64"), ("tzdata", "all"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("packages", "expected"),
    [
        ({"names": ["nothing"]}, r"nothing"),
        ({"names": ["broken"]}, r"(?s)nothing provides nowhere >= 2 needed by middle"),
        ({"names": ["chrony", "rival"]}, r"conflicts with chrony"),
        ({"base": ["nothing"]}, r"nothing"),
        ({"mirror": ["file:///nowhere/at/all"]}, r"(?s)cannot be resolved.*mirror-1"),
    ],
)
def test_an_unresolvable_package_is_reported_with_the_reason(
    describe: Callable[..., Path], packages: dict[str, object], expected: str
) -> None:
    with pytest.raises(ArtifactError, match=expected) as caught:
        resolve(describe(**packages))
    assert caught.value.hint


def make_inputs(description: Path) -> Inputs:
    directory = description.parent
    return Inputs(
        description=description, cache=Cache(directory / "cache"), offline=True,
        pins=write_upstream(directory, description), mirrors=(str(directory / "mirror"),),
    )  # fmt: skip


def test_a_bundle_has_the_packages_and_their_dependencies(
    describe: Callable[..., Path],
) -> None:
    inputs = make_inputs(describe())
    update_lock(inputs, [])
    bundle = build(inputs, inputs.description.parent / "dist")[0]
    found = inspect(bundle.path, keep=1 << 20)
    text = found.texts["packages/LIST"].decode()
    rows = {line.split()[1]: line.split() for line in text.splitlines()}
    assert [line.split()[0] for line in text.splitlines()] == [
        "libedit-3.1-38.x86_64.rpm", "tzdata-2024a-1.noarch.rpm", "chrony-4.5-1.x86_64.rpm",
    ]  # fmt: skip
    assert rows["chrony"][2:4] == ["1:4.5-1", "amd64"]
    assert rows["chrony"][5] == "wanted"
    needs = rows["chrony"][6].split(",")
    assert "libedit.so.0()(64bit)|libedit:ge:3.1-38" in needs
    assert "libc.so.6()(64bit)" in needs
    assert "tzdata|tzdata:ge:2024a-1" in needs
    assert "/bin/sh" in needs
    assert b"PACKAGES_MANAGER='rpm'" in found.texts["node.env"]
    components = found.texts["sbom.cdx.json"].decode()
    (chrony,) = re.findall(r"pkg:rpm/rocky/chrony@[^\"]*", components)
    assert chrony.startswith("pkg:rpm/rocky/chrony@4.5-1")
    assert "&epoch=1&" in chrony


def test_only_packages_signed_by_the_configured_key_are_accepted(
    describe: Callable[..., Path], tmp_path: Path, repository: Path, signer: RpmSigner
) -> None:
    with make_rpm_signer() as other_signer:
        inputs = make_inputs(describe(keyring=str(other_signer.keyring)))
        with pytest.raises(BundlerError, match="is not signed by RPM-GPG-KEY-test"):
            update_lock(inputs, [])
    assert not (tmp_path / "cluster.lock.yaml").exists()
    unsigned = tmp_path / "unsigned"
    write_rpm(unsigned, "chrony", "1:4.6-1")
    write_rpm_repository(unsigned)
    inputs = make_inputs(describe(mirror=[f"file://{unsigned}"]))
    with pytest.raises(BundlerError, match="is not signed by RPM-GPG-KEY-test"):
        update_lock(inputs, [])


def test_files_in_packages_dir_can_be_used(describe: Callable[..., Path], tmp_path: Path) -> None:
    write_rpm(tmp_path / "site/rpms", "mine", "2.0-3", Requires="other-thing")
    write_rpm(tmp_path / "site/rpms", "helper", Provides="other-thing")
    path = describe()
    cluster = yaml.safe_load(path.read_text())
    cluster["packages"] = {"os": "rocky-9", "dir": "rpms"}
    path.write_text(yaml.safe_dump(cluster))
    found = resolve(path)
    assert {entry.url for entry in found.values()} == {
        "file:mine-2.0-3.x86_64.rpm", "file:helper-1.0-1.x86_64.rpm",
    }  # fmt: skip
    assert found["mine", "amd64"].origin is TrustSource.USER
    (tmp_path / "site/rpms/odd.rpm").write_bytes(b"odd")
    with pytest.raises(ArtifactError, match=r"odd.rpm: not an RPM package"):
        resolve(path)


@pytest.mark.parametrize("answers", [{}, {"/repodata/repomd.xml": REPOMD}], ids=["index", "list"])
def test_an_endless_repository_is_given_up(
    describe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, answers: dict[str, bytes]
) -> None:
    monkeypatch.setattr("bundler.sources.packages.dnf.MAX_FILE", 8 << 20)
    with run_endless_server() as server:
        server.answers |= answers
        with pytest.raises(ArtifactError, match="cannot be resolved") as caught:
            resolve(describe(mirror=[server.url]), offline=False)
        assert server.requests[-1][0] == ("/primary.xml.gz" if answers else "/repodata/repomd.xml")
        assert server.sent < 64 << 20
    cache = describe().parent / "cache"
    assert sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) < 16 << 20
    assert caught.value.hint
