"""Packages resolved by the real apt, with small repositories that the tests make and sign."""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from support.debian_packages import Signer, make_signer, needs_apt, write_deb, write_repository
from support.descriptions import write_description, write_upstream
from support.endless_server import run_endless_server

from bundler.cache.store import Cache
from bundler.cluster.loader import load_cluster
from bundler.cluster.plan import make_plan
from bundler.downloads import update_lock
from bundler.errors import ArtifactError, BundlerError
from bundler.pipeline import build
from bundler.project import Inputs, check
from bundler.sources.lock import (
    LockEntry,
    LockKind,
    TrustSource,
    lock_path,
    read_lock,
)
from bundler.sources.packages.resolve import resolve_packages

pytestmark = needs_apt
SUITES = ("bookworm", "bookworm-updates")


@pytest.fixture(scope="module")
def signer() -> Iterator[Signer]:
    with make_signer() as made:
        yield made


@pytest.fixture
def mirror(tmp_path: Path, signer: Signer) -> Path:
    """A distribution: libc is the minimal installation, chrony needs a library that needs libc."""
    pool = tmp_path / "repository" / "pool"
    write_deb(pool, "libc", Essential="yes", Priority="required")
    write_deb(pool, "shell", Priority="required", Depends="libreadline")
    write_deb(pool, "libreadline")
    write_deb(pool, "chrony", "1:4.3-2", Depends="libedit (>= 1.0), libc, time-zones | tzdata")
    write_deb(pool, "libedit", Depends="libc, libreadline")
    write_deb(pool, "tzdata", Architecture="all")
    write_deb(pool, "broken", Depends="middle")
    write_deb(pool, "middle", Depends="nowhere (>= 2)")
    write_deb(pool, "either", Depends="middle | other")
    write_deb(pool, "other", Depends="nowhere")
    write_deb(pool, "rival", Conflicts="chrony")
    write_deb(pool, "libc", Architecture="arm64", Essential="yes", Priority="required")
    write_deb(pool, "chrony", "1:4.3-2", Architecture="arm64", Depends="libc, tzdata")
    write_repository(tmp_path / "repository", signer, SUITES)
    return tmp_path / "repository"


@pytest.fixture
def describe(tmp_path: Path, mirror: Path, signer: Signer) -> Callable[..., Path]:
    """Write the example with `packages`, with changes; return its path."""
    path = write_description(tmp_path)

    def write(arch: str = "amd64", **packages: object) -> Path:
        cluster = yaml.safe_load(path.read_text())
        cluster["packages"] = {
            "os": "debian-12", "names": ["chrony"], "mirror": [f"file:{mirror}"],
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
    describe: Callable[..., Path], mirror: Path
) -> None:
    found = resolve(describe())
    assert sorted(found) == [("chrony", "amd64"), ("libedit", "amd64"), ("tzdata", "all")]
    chrony = found["chrony", "amd64"]
    path = mirror / "pool" / "chrony_1%3a4.3-2_amd64.deb"
    assert chrony.version == "1:4.3-2"
    assert chrony.digest == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    assert chrony.size == path.stat().st_size
    assert chrony.origin is TrustSource.UPSTREAM_SIGNATURE
    assert chrony.evidence == "debian-12: Packages of bookworm/main, keyring.gpg"


def test_a_relative_path_of_the_cache_works(
    describe: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = make_plan(load_cluster(describe()).cluster)
    found = resolve_packages(plan, Cache(Path("site/cache")), datetime.now(UTC), offline=True)
    assert {entry.name for entry in found} == {"chrony", "libedit", "tzdata"}


def test_the_evidence_is_the_index_of_the_file(
    describe: Callable[..., Path], mirror: Path, signer: Signer
) -> None:
    """A version that is in the main pool and in a suite elsewhere, as security updates are."""
    security = mirror.parent / "repository-security"
    shutil.copytree(mirror / "pool", security / "pool")
    write_repository(security, signer, ("bookworm-security",))
    places = {"main": f"file:{mirror}", "security": f"file:{security} bookworm-security"}
    for order in (("main", "security"), ("security", "main")):
        chrony = resolve(describe(mirror=[places[name] for name in order]))["chrony", "amd64"]
        of_main = chrony.url.startswith(f"file:{mirror}/")
        suite = "bookworm" if of_main else "bookworm-security"
        assert chrony.evidence == f"debian-12: Packages of {suite}/main, keyring.gpg"


def test_packages_in_base_are_not_resolved(describe: Callable[..., Path]) -> None:
    assert sorted(resolve(describe(base=["libedit"]))) == [("chrony", "amd64"), ("tzdata", "all")]


def test_a_package_of_the_minimal_installation_is_included_if_it_is_named(
    describe: Callable[..., Path],
) -> None:
    assert ("libc", "amd64") in resolve(describe(add=["libc"]))


def test_a_release_of_another_distribution_is_resolved(
    describe: Callable[..., Path], mirror: Path, signer: Signer
) -> None:
    write_repository(mirror, signer, ("noble", "noble-updates", "noble-security"))
    assert ("chrony", "amd64") in resolve(describe(os="ubuntu-24.04"))


def test_each_architecture_is_resolved_separately(describe: Callable[..., Path]) -> None:
    assert sorted(resolve(describe(arch="arm64"))) == [
        ("chrony", "amd64"), ("chrony", "arm64"), ("libedit", "amd64"), ("tzdata", "all"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("packages", "expected"),
    [
        ({"names": ["nothing"]}, r"Unable to locate package nothing"),
        ({"names": ["broken"]}, r"(?s)broken cannot be resolved:.* middle : Depends: nowhere \(>= 2\)"),
        ({"names": ["chrony", "either"]}, r"(?s)either cannot be resolved:.*Depends: nowhere \(>= 2\)"),
        ({"names": ["chrony", "rival"]}, r"rival : Conflicts: chrony"),
        ({"base": ["nothing"]}, r"Unable to locate package nothing"),
        ({"components": ["contrib"]}, r"Unable to locate package chrony"),
        ({"os": "ubuntu-24.04"}, r"noble"),
    ],
)  # fmt: skip
def test_an_unresolvable_package_is_reported_with_the_reason(
    describe: Callable[..., Path], packages: dict[str, object], expected: str
) -> None:
    with pytest.raises(ArtifactError, match=expected) as caught:
        resolve(describe(**packages))
    assert caught.value.hint


def test_only_the_configured_keyring_is_trusted(describe: Callable[..., Path]) -> None:
    with make_signer() as other_signer:
        description = describe(keyring=str(other_signer.keyring))
        with pytest.raises(ArtifactError, match="NO_PUBKEY"):
            resolve(description)


def test_an_index_that_differs_from_the_signed_one_is_refused(
    describe: Callable[..., Path], mirror: Path
) -> None:
    index = mirror / "dists/bookworm/main/binary-amd64/Packages.gz"
    index.write_bytes(index.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ArtifactError, match="cannot be downloaded or verified"):
        resolve(describe())


def test_expired_metadata_is_refused_unless_the_mirror_is_frozen(
    describe: Callable[..., Path], mirror: Path, signer: Signer
) -> None:
    write_repository(mirror, signer, SUITES, valid_until="Fri, 02 Jan 2026 00:00:00 UTC")
    with pytest.raises(ArtifactError, match="not valid anymore|expired"):
        resolve(describe())
    assert ("chrony", "amd64") in resolve(describe(frozen=True))


def make_inputs(description: Path) -> Inputs:
    directory = description.parent
    return Inputs(
        description=description, cache=Cache(directory / "cache"), offline=True,
        pins=write_upstream(directory, description), mirrors=(str(directory / "mirror"),),
    )  # fmt: skip


def test_a_smaller_base_than_in_the_lock_needs_a_new_lock(
    describe: Callable[..., Path],
) -> None:
    inputs = make_inputs(describe(base=["libedit"]))
    path = lock_path(inputs.description)
    update_lock(inputs, [])
    assert read_lock(path).base == ("libedit",)
    check(inputs)
    describe()
    with pytest.raises(ArtifactError, match=r"libedit was in packages\.base when") as caught:
        check(inputs)
    assert "bundler lock --update packages" in (caught.value.hint or "")
    update_lock(inputs, ["packages"])
    assert read_lock(path).base == ()
    assert "libedit" in {entry.name for entry in read_lock(path).of(LockKind.PACKAGE)}
    check(inputs)
    describe(base=["tzdata"])
    with pytest.raises(ArtifactError, match=r"tzdata was not in packages\.base when"):
        build(inputs, inputs.description.parent / "dist")


def test_a_locked_build_uses_the_locked_files_after_the_mirror_changed(
    describe: Callable[..., Path], mirror: Path, signer: Signer
) -> None:
    inputs = make_inputs(describe())
    update_lock(inputs, [])
    first = [bundle.sha256 for bundle in build(inputs, inputs.description.parent / "first")]
    path = lock_path(inputs.description)
    write_deb(mirror / "pool", "chrony", "1:4.4-1", Depends="libc, tzdata")
    write_repository(mirror, signer, SUITES)
    assert {change.what for change in update_lock(inputs, [])} == {"kept"}
    assert first == [b.sha256 for b in build(inputs, inputs.description.parent / "second")]
    changes = {change.entry.name: change.what for change in update_lock(inputs, ["packages"])}
    assert (changes["chrony"], changes["libedit"], changes["tzdata"]) == (
        "renewed", "dropped", "kept",
    )  # fmt: skip
    versions = {entry.name: entry.version for entry in read_lock(path).entries}
    assert versions["chrony"] == "1:4.4-1"


def test_a_file_that_differs_from_the_lock_is_refused(
    describe: Callable[..., Path], mirror: Path
) -> None:
    inputs = make_inputs(describe())
    update_lock(inputs, [])
    (mirror / "pool" / "libedit_1.0_amd64.deb").write_bytes(b"something else")
    fresh = Inputs(
        description=inputs.description, cache=Cache(inputs.description.parent / "fresh"),
        pins=inputs.pins, mirrors=inputs.mirrors,
    )  # fmt: skip
    with pytest.raises(BundlerError, match="libedit"):
        build(fresh, inputs.description.parent / "dist")


def test_a_lock_without_a_package_that_is_needed_now_is_refused(
    describe: Callable[..., Path],
) -> None:
    inputs = make_inputs(describe())
    update_lock(inputs, [])
    describe(names=["chrony", "libreadline"])
    with pytest.raises(
        ArtifactError, match=r"libreadline \(amd64\) is missing in the lock"
    ) as caught:
        build(inputs, inputs.description.parent / "dist")
    assert "bundler lock --update packages" in (caught.value.hint or "")
    describe(os="debian-13")
    with pytest.raises(ArtifactError, match="chrony is for debian-12, but the hosts are debian-13"):
        build(inputs, inputs.description.parent / "dist")


@pytest.mark.parametrize("has_release", [False, True], ids=["release file", "list of packages"])
def test_an_endless_repository_is_given_up(
    describe: Callable[..., Path], mirror: Path, has_release: bool
) -> None:
    with run_endless_server() as server:
        if has_release:
            for path in (mirror / "dists").rglob("*Release*"):
                server.answers[f"/{path.relative_to(mirror)}"] = path.read_bytes()
        with pytest.raises(ArtifactError, match="cannot be downloaded or verified"):
            resolve(describe(mirror=[f"{server.url}/"]), offline=False)
        assert server.requests
        assert server.sent < 128 << 20
    cache = describe().parent / "cache"
    assert sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) < 32 << 20
