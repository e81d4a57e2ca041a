"""OS packages: which nodes need which, their repositories, their order, and errors."""

import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from support.debian_packages import needs_dpkg_deb, write_deb
from support.descriptions import write_upstream

from bundler.bundle.inspect import inspect
from bundler.cache.store import Cache
from bundler.cluster.components import COMMANDS, COMMANDS_WANTED
from bundler.cluster.inputs import Packages
from bundler.cluster.loader import load_cluster
from bundler.cluster.os_packages import (
    MINIMAL,
    QUIET_UNITS,
    RELEASES,
    ROWS,
    wanted_pairs,
)
from bundler.cluster.plan import ClusterPlan, make_plan
from bundler.downloads import update_lock
from bundler.errors import ArtifactError, BundlerError, ConfigError
from bundler.pipeline import build
from bundler.project import Inputs, check
from bundler.sources.lock import LockKind, TrustSource, lock_path, read_lock
from bundler.sources.packages import apt
from bundler.sources.packages.debs import parse_relations, read_deb
from bundler.sources.packages.files import (
    PackageFile,
    PackageNeed,
    render_list,
    select_files,
)
from bundler.sources.packages.repositories import PackageSource, find_repositories, read_sources
from bundler.sources.packages.resolve import resolve_packages


@pytest.fixture
def describe(description: Path) -> Callable[..., Path]:
    """Write the example with `packages`; return its path."""

    def write(**packages: object) -> Path:
        cluster = yaml.safe_load(description.read_text())
        cluster["packages"] = {"os": "debian-12"} | packages
        description.write_text(yaml.safe_dump(cluster))
        return description

    return write


def plan_of(description: Path) -> ClusterPlan:
    return make_plan(load_cluster(description).cluster)


def wanted(description: Path, node: str, *brought: str) -> tuple[str, ...]:
    plan = plan_of(description)
    return wanted_pairs(plan, next(n for n in plan.nodes if n.name == node), brought)


def test_without_packages_in_cluster_yaml_no_package_is_bundled(description: Path) -> None:
    assert wanted(description, "master1") == ()
    assert resolve_packages(plan_of(description), Cache(description), datetime.now(UTC)) == ()


def test_roles_and_settings_decide_which_packages_a_node_needs(
    describe: Callable[..., Path],
) -> None:
    assert wanted(describe(), "master1") == (
        "ip:iproute2", "openssl:openssl", "nginx:nginx", "keepalived:keepalived",
        "nginx-stream:libnginx-mod-stream",
    )  # fmt: skip
    worker = wanted(describe(), "worker1")
    assert {"conntrack:conntrack", "ipset:ipset", "socat:socat", "ipvsadm:ipvsadm"} <= set(worker)
    assert not any("nginx" in pair or "nftables" in pair for pair in worker)


def test_apparmor_and_selinux_are_needs_of_their_families(describe: Callable[..., Path]) -> None:
    assert "apparmor_parser:apparmor" in wanted(describe(), "worker1")
    assert not any(
        "apparmor" in pair or "selinux" in pair for pair in wanted(describe(), "master1")
    )
    selinux = {"matchpathcon:libselinux-utils", "semanage:policycoreutils-python-utils"}
    for node in ("master1", "worker1"):
        pairs = wanted(describe(os="rocky-9"), node)
        assert selinux <= set(pairs)
        assert not any("apparmor" in pair or pair.endswith(":") for pair in pairs)


def test_a_package_may_have_another_name_in_a_release(describe: Callable[..., Path]) -> None:
    assert "nginx:nginx-light" in wanted(describe(os="debian-11"), "master1")
    assert "nginx:nginx" in wanted(describe(os="debian-13"), "master1")


def test_every_command_of_preflight_is_in_the_table_or_in_a_minimal_installation() -> None:
    required = {pair for pair, _, _ in (*COMMANDS, *COMMANDS_WANTED)}
    assert required - {row[0] for row in ROWS} == {"mount:mount", "nsenter:util-linux"}
    assert {pair.partition(":")[2] for pair in required} >= MINIMAL
    assert {"nginx", "nginx-light", "keepalived"} <= set(QUIET_UNITS)


def test_named_packages_go_to_the_roles_that_need_them_and_others_to_all_nodes(
    describe: Callable[..., Path],
) -> None:
    description = describe(names=["nginx-light", "keepalived", "ipset", "chrony"], add=["vim"])
    assert wanted(description, "master1") == (
        "nginx:nginx-light", "keepalived:keepalived", ":chrony", ":vim",
    )  # fmt: skip
    assert wanted(description, "worker1") == ("ipset:ipset", ":chrony", ":vim")


FAULTS = [
    ({"os": "sles-15"}, r"packages.os: sles-15 uses zypper, which bundler does not support"),
    ({"os": "debian-10"}, r"packages.os: debian-10 is not supported; supported: debian-11"),
    ({"os": "debian"}, r"packages.os"),
    ({"names": ["Nginx"]}, r"packages.names\[0\]"),
    ({"names": ["-y"]}, r"packages.names\[0\]"),
    ({"mirror": ["ftp://mirror.example/debian"]}, r"packages.mirror\[0\]: must be URL or URL SUITE"),
    ({"mirror": ["http://mirror.example/debian [trusted=yes]"]}, r"packages.mirror\[0\]: .*suites such as"),
    ({"keyring": "nowhere.gpg"}, r"packages.keyring: .*/nowhere.gpg: no such file"),
    ({"dir": "nowhere"}, r"packages.dir: .*/nowhere: no such directory"),
    ({"dir": ".", "mirror": ["http://mirror.example/"]}, r"packages.mirror: cannot be used together with dir"),
    ({"name": ["nginx"]}, r"packages.name: unknown key; did you mean 'names'\?"),
]  # fmt: skip


@pytest.mark.parametrize(("packages", "expected"), FAULTS)
def test_errors_in_packages_are_reported_with_their_place_in_cluster_yaml(
    describe: Callable[..., Path], packages: dict[str, object], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        load_cluster(describe(**packages))


BOOKWORM = """\
# the distribution's
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main

Types: deb
URIs: https://vendor.example/debian
Suites: bookworm
Components: main
Signed-By: /usr/share/keyrings/vendor.gpg

Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
Enabled: no
"""
LINES = """\
# deb http://comment.example/debian bookworm main
deb [arch=amd64 signed-by=/k.gpg] http://vendor.example/ bookworm stable # a remark
deb-src http://source.example/debian bookworm main
deb cdrom:[disc]/ bookworm main
"""


@pytest.fixture
def builder(tmp_path: Path) -> Path:
    """The /etc of a Debian 12 builder."""
    parts = tmp_path / "etc" / "apt" / "sources.list.d"
    parts.mkdir(parents=True)
    (parts / "debian.sources").write_text(BOOKWORM)
    (parts / "vendor.list").write_text(LINES)
    (parts / "ignored.save").write_text(LINES)
    (tmp_path / "etc" / "os-release").write_text('VERSION_ID="12"\nID=debian\n')
    return tmp_path / "etc"


def find(builder: Path, **packages: object) -> tuple[PackageSource, ...]:
    keyring = builder / "keyring.gpg"
    keyring.write_bytes(b"")
    made = Packages.model_validate({"keyring": keyring, **packages})
    return find_repositories(made, apt=builder / "apt", os_release=builder / "os-release").sources


def test_the_builders_sources_are_used_for_other_releases_of_its_distribution(
    builder: Path,
) -> None:
    assert find(builder, os="debian-13") == (
        PackageSource(uri="http://mirror.example/debian", suites=("trixie", "trixie-updates"), components=("main",)),
        PackageSource(uri="http://mirror.example/debian-security", suites=("trixie-security",), components=("main",)),
    )  # fmt: skip
    assert len(list(read_sources(builder / "apt"))) == 5


def test_another_distribution_needs_a_mirror(builder: Path) -> None:
    with pytest.raises(ArtifactError, match="no repository of ubuntu-24.04 is known") as caught:
        find(builder, os="ubuntu-24.04")
    assert "packages.mirror" in (caught.value.hint or "")
    (builder / "os-release").unlink()
    with pytest.raises(ArtifactError, match="no repository of debian-12 is known"):
        find(builder, os="debian-12")


def test_mirrors_have_their_own_suites_or_those_of_the_distribution(builder: Path) -> None:
    mirror = ("http://a.example/debian", "http://a.example/security bookworm-security")
    assert [source.suites for source in find(builder, os="debian-12", mirror=mirror)] == [
        ("bookworm", "bookworm-updates"), ("bookworm-security",),
    ]  # fmt: skip
    ubuntu = find(builder, os="ubuntu-22.04", mirror=("https://a.example/ubuntu",))
    assert ubuntu[0].suites == ("jammy", "jammy-updates", "jammy-security")


def test_a_missing_keyring_is_reported_with_the_package_that_has_it(
    builder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bundler.sources.packages.repositories.KEYRINGS", builder)
    for name, release in RELEASES.items():
        if release.family.manager != "dpkg":
            continue
        with pytest.raises(ArtifactError, match=r"keyring.gpg is missing") as caught:
            find_repositories(Packages(os=name))
        assert release.family.keyring_package in (caught.value.hint or "")


def test_every_source_is_signed_and_only_a_frozen_one_may_be_old(builder: Path) -> None:
    keyring = builder / "keyring.gpg"
    keyring.write_bytes(b"")
    mirror = ("file:/srv/mirror",)
    packages = Packages(os="debian-12", mirror=mirror, keyring=keyring)
    text = find_repositories(packages).render("arm64")
    assert f"Signed-By: {keyring}\n" in text
    assert "Architectures: arm64\n" in text
    assert "Valid-Until" not in text
    frozen = packages.model_copy(update={"frozen": True})
    assert "Check-Valid-Until: no\n" in find_repositories(frozen).render("arm64")


def test_a_builder_without_apt_is_told_to_set_packages_dir(
    builder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyring = builder / "keyring.gpg"
    keyring.write_bytes(b"")
    packages = Packages(os="debian-12", mirror=("file:/srv",), keyring=keyring)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ArtifactError, match="apt is missing on this machine") as caught:
        apt.AptRoot(tmp_path / "apt", find_repositories(packages), "amd64")
    assert "packages.dir" in (caught.value.hint or "")


def test_only_download_settings_are_used_from_the_builders_apt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dump = (
        'Acquire::http::Proxy "http://proxy.example:3128/";\nAcquire::https::CaInfo "/ca.pem";\n'
        'Acquire::AllowInsecureRepositories "1";\nAPT::Get::AllowUnauthenticated "1";\n'
        'Acquire::Check-Valid-Until "false";\nAcquire::http "";\n'
        'Acquire::https::Verify-Peer "false";\nAcquire::http::Proxy::mirror.example "DIRECT";\n'
    )
    monkeypatch.setattr(
        apt.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, dump, "")
    )
    assert apt._own_settings() == (
        'Acquire::http::Proxy "http://proxy.example:3128/";\nAcquire::https::CaInfo "/ca.pem";\n'
        'Acquire::Check-Valid-Until "false";\nAcquire::http::Proxy::mirror.example "DIRECT";\n'
    )


def test_relations_are_read_as_groups_of_alternatives() -> None:
    text = "libc6 (>= 2.36), debconf (>= 0.5) | debconf-2.0, python3:any, x (<< 1:2~rc1), y (= 3)"
    assert list(parse_relations(text)) == [
        (PackageNeed(name="libc6", op="ge", version="2.36"),),
        (PackageNeed(name="debconf", op="ge", version="0.5"), PackageNeed(name="debconf-2.0")),
        (PackageNeed(name="python3"),),
        (PackageNeed(name="x", op="lt", version="1:2~rc1"),),
        (PackageNeed(name="y", op="eq", version="3"),),
    ]
    assert list(parse_relations("")) == []


def make_deb(name: str, needs: str = "", provides: str = "", version: str = "1") -> PackageFile:
    return PackageFile(
        path=Path(name), file_name=f"{name}_{version.replace(':', '%3a')}_amd64.deb", name=name, version=version,
        arch="amd64", kilobytes=10,
        needs=tuple(parse_relations(needs)), provides=tuple(n for g in parse_relations(provides) for n in g),
    )  # fmt: skip


def test_a_node_gets_its_packages_and_their_dependencies_in_order() -> None:
    debs = [
        make_deb("nginx", "libc6, nginx-common (= 1)", "httpd, nginx-abi-1"),
        make_deb("nginx-common", "adduser | base"),
        make_deb("adduser"),
        make_deb("libnginx-mod-stream", "nginx-abi-1"),
        make_deb("unrelated", "nginx"),
        make_deb("ring", "ring2"),
        make_deb("ring2", "ring"),
    ]
    chosen = [deb.name for deb in select_files(["libnginx-mod-stream"], debs)]
    assert chosen == ["adduser", "nginx-common", "nginx", "libnginx-mod-stream"]
    assert {deb.name for deb in select_files(["ring"], debs)} == {"ring", "ring2"}


def test_the_list_has_the_reason_and_the_needs_of_each_package() -> None:
    debs = (
        make_deb("nginx", "libc6 (>= 2.36), me", "nginx-abi-1, me", version="2:1"),
        make_deb("stream", "nginx-abi-1, a | b (>= 2)"),
        make_deb("plain"),
    )
    assert render_list(debs, ("nginx:nginx", ":plain")) == (
        "nginx_2%3a1_amd64.deb nginx 2:1 amd64 10 wanted:nginx libc6:ge:2.36\n"
        "stream_1_amd64.deb stream 1 amd64 10 needed nginx-abi-1|nginx:ge:2:1,a|b:ge:2\n"
        "plain_1_amd64.deb plain 1 amd64 10 wanted -\n"
    )


@needs_dpkg_deb
def test_a_package_is_read_from_its_control_file(tmp_path: Path) -> None:
    path = write_deb(
        tmp_path, "chrony", "1:4.3-2", Pre_Depends="dpkg (>= 1.17)", Depends="libc6, dpkg (>= 1.17)",
        Provides="time-daemon (= 1)", Installed_Size="700",
    )  # fmt: skip
    deb = read_deb(path)
    assert (deb.name, deb.version, deb.arch, deb.kilobytes) == ("chrony", "1:4.3-2", "amd64", 700)
    assert [group[0].text for group in deb.needs] == ["dpkg:ge:1.17", "libc6"]
    assert deb.provides == (PackageNeed(name="time-daemon", op="eq", version="1"),)
    assert deb.file_name == path.name


@needs_dpkg_deb
def test_a_file_that_is_not_a_package_is_reported(tmp_path: Path) -> None:
    (tmp_path / "odd.deb").write_bytes(b"no archive")
    with pytest.raises(ArtifactError, match=r"odd.deb: not a Debian package: unexpected end"):
        read_deb(tmp_path / "odd.deb")


def test_reading_needs_dpkg_deb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "any.deb").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ArtifactError, match="dpkg-deb is missing on this machine"):
        read_deb(tmp_path / "any.deb")


def test_a_missing_package_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"any.deb: not a Debian package: No such file"):
        read_deb(tmp_path / "any.deb")


@needs_dpkg_deb
def test_a_file_that_was_replaced_is_read_again(tmp_path: Path) -> None:
    path = write_deb(tmp_path, "chrony", "1:4.3")
    assert read_deb(path).needs == ()
    other = write_deb(tmp_path / "other", "chrony", "1:4.3", Depends="libedit")
    other.replace(path)
    assert read_deb(path).needs == ((PackageNeed(name="libedit"),),)


@pytest.fixture
def inputs(describe: Callable[..., Path]) -> Inputs:
    """A cluster with packages.dir: nginx, and chrony with its library."""
    if not shutil.which("dpkg-deb"):
        pytest.skip("Debian packages cannot be read: there is no dpkg-deb")
    description = describe(dir="debs")
    directory = description.parent
    write_deb(directory / "debs", "nginx")
    write_deb(directory / "debs", "chrony", "1:4.3", Depends="libedit")
    write_deb(directory / "debs", "libedit")
    return Inputs(
        description=description, cache=Cache(directory / "cache"), offline=True,
        pins=write_upstream(directory, description), mirrors=(str(directory / "mirror"),),
    )  # fmt: skip


def build_names(inputs: Inputs, node: str) -> list[str]:
    written = build(inputs, inputs.description.parent / "dist")
    bundles = {file.path.name.removesuffix(".tar.gz").partition("-")[2]: file for file in written}
    report = inspect(bundles[node].path)
    assert report.faults == ()
    return [
        e.path.removeprefix("packages/") for e in report.entries if e.path.startswith("packages/")
    ]


@pytest.mark.slow
def test_files_in_packages_dir_go_to_the_nodes_that_need_them(inputs: Inputs) -> None:
    assert build_names(inputs, "master1") == [
        "LIST", "chrony_1%3a4.3_amd64.deb", "libedit_1.0_amd64.deb", "nginx_1.0_amd64.deb",
    ]  # fmt: skip
    assert build_names(inputs, "worker1") == [
        "LIST", "chrony_1%3a4.3_amd64.deb", "libedit_1.0_amd64.deb",
    ]  # fmt: skip


@pytest.mark.slow
def test_files_in_packages_dir_are_locked_with_the_trust_source_user(inputs: Inputs) -> None:
    changes = [c for c in update_lock(inputs, []) if c.entry.kind == "package"]
    assert {(c.what, c.entry.origin, c.entry.url) for c in changes} >= {
        ("added", TrustSource.USER, "file:nginx_1.0_amd64.deb")
    }
    assert len(read_lock(lock_path(inputs.description)).entries) > len(changes) == 3
    check(inputs)
    assert {change.what for change in update_lock(inputs, [])} == {"kept"}
    assert "nginx_1.0_amd64.deb" in build_names(inputs, "master1")


@pytest.mark.parametrize("fault", ["is missing in the lock", "but not in", "the file is sha256"])
def test_files_in_packages_dir_that_changed_after_the_lock_are_refused(
    inputs: Inputs, fault: str
) -> None:
    update_lock(inputs, [])
    directory = inputs.description.parent / "debs"
    if fault == "is missing in the lock":
        write_deb(directory, "unknown")
    elif fault == "but not in":
        (directory / "nginx_1.0_amd64.deb").unlink()
    else:
        write_deb(directory, "nginx", Depends="libedit")
    with pytest.raises(ArtifactError, match=fault) as caught:
        check(inputs)
    assert "bundler lock --update packages" in (caught.value.hint or "")


@pytest.mark.slow
def test_packages_dir_must_have_exactly_one_file_for_each_package(inputs: Inputs) -> None:
    directory = inputs.description.parent / "debs"
    write_deb(directory, "nginx", "2.0")
    with pytest.raises(ArtifactError, match=r"are both nginx \(amd64\)"):
        build(inputs, inputs.description.parent / "dist")
    shutil.rmtree(directory)
    directory.mkdir()
    with pytest.raises(ArtifactError, match="has no .deb file"):
        build(inputs, inputs.description.parent / "dist")


def test_a_file_in_packages_dir_for_another_architecture_is_refused(inputs: Inputs) -> None:
    directory = inputs.description.parent / "debs"
    write_deb(directory, "tzdata", Architecture="all")
    update_lock(inputs, [])
    write_deb(directory, "chrony", "1:4.3", Architecture="arm64")
    for use in (check, lambda inputs: update_lock(inputs, ["packages"])):
        with pytest.raises(
            ArtifactError, match=r"chrony_1%3a4\.3_arm64\.deb is for arm64, but nodes"
        ):
            use(inputs)


@pytest.mark.slow
def test_a_named_package_without_a_file_is_reported(
    inputs: Inputs, describe: Callable[..., Path]
) -> None:
    describe(dir="debs", names=["nginx", "vim"])
    with pytest.raises(BundlerError, match=r"master1: no file for the packages vim \(amd64\)"):
        build(inputs, inputs.description.parent / "dist")


def add_release(inputs: Inputs, **more: object) -> None:
    """worker2 runs Debian 13, with a chrony of its own and the same libedit."""
    cluster = yaml.safe_load(inputs.description.read_text())
    newer = {"os": "debian-13", "dir": "newer", **more}
    cluster["groups"] = {"new": {"packages": newer}}
    cluster["nodes"][4]["groups"] = ["new"]
    inputs.description.write_text(yaml.safe_dump(cluster))
    directory = inputs.description.parent
    write_deb(directory / "newer", "chrony", "1:4.6", Depends="libedit")
    write_deb(directory / "newer", "libedit")


@pytest.mark.slow
def test_hosts_of_two_distributions_get_packages_of_their_own(inputs: Inputs) -> None:
    add_release(inputs)
    newer = ["LIST", "chrony_1%3a4.6_amd64.deb", "libedit_1.0_amd64.deb"]
    older = ["LIST", "chrony_1%3a4.3_amd64.deb", "libedit_1.0_amd64.deb"]
    assert (build_names(inputs, "worker2"), build_names(inputs, "worker1")) == (newer, older)
    update_lock(inputs, [])
    lock = read_lock(lock_path(inputs.description))
    assert sorted((e.release, e.name) for e in lock.of(LockKind.PACKAGE)) == [
        ("debian-12", "chrony"), ("debian-12", "libedit"), ("debian-12", "nginx"),
        ("debian-13", "chrony"), ("debian-13", "libedit"),
    ]  # fmt: skip
    assert {change.what for change in update_lock(inputs, [])} == {"kept"}
    assert (build_names(inputs, "worker2"), build_names(inputs, "worker1")) == (newer, older)


def test_a_distribution_that_is_not_in_the_lock_is_named(inputs: Inputs) -> None:
    update_lock(inputs, [])
    add_release(inputs)
    with pytest.raises(
        ArtifactError, match=r"newer/chrony_1%3a4.6_amd64.deb is missing in the lock"
    ):
        check(inputs)
    update_lock(inputs, ["packages"])
    check(inputs)
    cluster = yaml.safe_load(inputs.description.read_text())
    inputs.description.write_text(yaml.safe_dump({**cluster, "groups": {"new": {}}}))
    with pytest.raises(ArtifactError, match="chrony is for debian-13, but the hosts are debian-12"):
        check(inputs)


def test_hosts_of_one_distribution_share_its_repositories(inputs: Inputs) -> None:
    add_release(inputs, os="debian-12")
    with pytest.raises(ConfigError) as caught:
        load_cluster(inputs.description)
    assert "groups.new.packages.dir: must be equal on all hosts with debian-12" in str(caught.value)
    assert "(node worker2)" in str(caught.value)


def test_a_group_adds_packages_and_a_node_can_have_none(describe: Callable[..., Path]) -> None:
    path = describe(add=["vim"])
    cluster = yaml.safe_load(path.read_text())
    cluster["groups"] = {"tools": {"packages": {"add": ["tcpdump"]}}}
    cluster["nodes"][3]["groups"] = ["tools"]
    cluster["nodes"][4]["packages"] = None
    path.write_text(yaml.safe_dump(cluster))
    assert {":vim", ":tcpdump"} <= set(wanted(path, "worker1"))
    assert ":tcpdump" not in wanted(path, "master1")
    assert wanted(path, "worker2") == ()
