"""RPM families: their package names, and errors for missing tools."""

from pathlib import Path

import pytest

from bundler.cluster.inputs import Packages
from bundler.cluster.os_packages import (
    RELEASES,
    check_packages,
    manager_of,
    name_of,
    wanted_pairs,
)
from bundler.cluster.plan import make_plan
from bundler.cluster.schema import Cluster
from bundler.cluster.values import Arch
from bundler.errors import ArtifactError
from bundler.sources.packages import rpms
from bundler.sources.packages.dnf import DnfRoot, find_rpm_repositories
from bundler.sources.packages.rpms import read_rpm

RPM_RELEASES = [name for name in RELEASES if manager_of(name) == "rpm"]


def make_cluster(release: str, **packages: object) -> Cluster:
    return Cluster.model_validate(
        {
            "apiVersion": "bundler/v1alpha1", "name": "lab", "packages": {"os": release, **packages},
            "nodes": [{"name": "a", "address": "192.0.2.1", "roles": ["etcd", "control-plane", "load-balancer", "worker"]}],
            "control_plane": {"endpoint": "192.0.2.9:8443"},
        }
    )  # fmt: skip


@pytest.mark.parametrize("release", RPM_RELEASES)
def test_roles_need_packages_by_the_names_of_the_family(release: str) -> None:
    plan = make_plan(make_cluster(release))
    names = {name_of(pair) for pair in wanted_pairs(plan, plan.nodes[0])}
    assert names >= {
        "nginx", "nginx-mod-stream", "conntrack-tools", "iproute", "iputils",
        "iptables-nft", "ipset", "kmod", "socat", "openssl",
    }  # fmt: skip
    assert not names & {"nginx-light", "libnginx-mod-stream", "iproute2", "iputils-ping"}
    assert list(check_packages(plan.cluster)) == []


def test_a_user_may_write_either_name() -> None:
    plan = make_plan(make_cluster("rocky-9", names=["conntrack", "nginx-mod-stream"]))
    assert wanted_pairs(plan, plan.nodes[0]) == (
        "conntrack:conntrack", "nginx-stream:nginx-mod-stream",
    )  # fmt: skip


def packages(**fields: object) -> Packages:
    return Packages.model_validate({"os": "rocky-9", **fields})


@pytest.fixture
def builder(tmp_path: Path) -> Path:
    (tmp_path / "key").write_text("-----BEGIN PGP PUBLIC KEY BLOCK-----\n")
    (tmp_path / "os-release").write_text('ID="rocky"\nVERSION_ID="9.4"\n')
    return tmp_path


def test_a_builder_of_the_same_release_has_its_own_repositories(builder: Path) -> None:
    key = builder / "key"
    own = find_rpm_repositories(
        packages(keyring=key), directory=builder, os_release=builder / "os-release"
    )
    assert (own.addresses, own.directory, own.is_local) == ((), builder, False)
    named = find_rpm_repositories(
        packages(keyring=key, mirror=["https://a.example/os"]), os_release=builder / "os-release"
    )
    assert (named.addresses, named.directory) == (("https://a.example/os",), None)
    assert find_rpm_repositories(packages(keyring=key, mirror=["file:/a"])).is_local


def test_a_missing_tool_or_repository_is_reported_with_the_fix(
    builder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ArtifactError, match="RPM-GPG-KEY-Rocky-9 is missing") as caught:
        find_rpm_repositories(packages())
    assert "packages.keyring" in (caught.value.hint or "")
    (builder / "os-release").write_text("ID=debian\nVERSION_ID=12\n")
    with pytest.raises(ArtifactError, match="no repository of rocky-9 is known") as caught:
        find_rpm_repositories(packages(keyring=builder / "key"), os_release=builder / "os-release")
    assert "$basearch" in (caught.value.hint or "")
    repositories = find_rpm_repositories(packages(keyring=builder / "key", mirror=["file:/a"]))
    monkeypatch.setenv("PATH", str(builder))
    with pytest.raises(ArtifactError, match="dnf is missing on this machine"):
        DnfRoot(builder, repositories, "9", Arch.AMD64)
    (builder / "dnf").write_bytes(b"\x7fELF")
    (builder / "dnf").chmod(0o755)
    with pytest.raises(ArtifactError, match="dnf is not dnf 4"):
        DnfRoot(builder, repositories, "9", Arch.AMD64)
    with pytest.raises(ArtifactError, match="rpm is missing on this machine"):
        read_rpm(builder / "a.rpm")


def test_a_failing_dnf_is_reported(builder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (builder / "python").write_text("#!/bin/sh\necho no module named dnf >&2\nexit 1\n")
    (builder / "dnf").write_text(f"#!{builder}/python\n")
    for name in ("python", "dnf"):
        (builder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(builder))
    repositories = find_rpm_repositories(packages(keyring=builder / "key", mirror=["file:/a"]))
    with pytest.raises(ArtifactError, match="dnf failed: no module named dnf"):
        DnfRoot(builder, repositories, "9", Arch.AMD64).find(["a"], [], offline=True)


@pytest.mark.parametrize(
    ("capability", "is_listed"),
    [
        ("libc.so.6(GLIBC_2.34)(64bit)", True), ("/bin/sh", True), ("config(x)", True),
        ("rpmlib(FileDigests)", False), ("(a or b)", False), ("font(:lang=en)", False),
    ],
)  # fmt: skip
def test_capabilities_that_a_list_cannot_hold_are_left_to_rpm(
    capability: str, is_listed: bool
) -> None:
    assert rpms._is_listed(capability) is is_listed
