"""bundler audit: advisories that are true for a version are found, and none for one with the fix."""

import json
import sqlite3
import zipfile
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from packageurl import PackageURL
from support.command import run_bundler
from support.descriptions import write_upstream
from support.json_shapes import read_shape
from support.small_builds import SmallSite, make_site

from bundler.audit.advisory import Range, rate_vector, read_ranges
from bundler.audit.built_in import BuiltIn
from bundler.audit.compare import Result, compare
from bundler.audit.database import open_database
from bundler.audit.openvex import make_bundle_vex, make_openvex
from bundler.audit.parts import (
    MODULES,
    SETTING_FILES,
    Contents,
    make_artifact,
    make_image,
    make_package,
    read_bundle_parts,
)
from bundler.bundle.inventory import Item, ItemKind, _make_image_package
from bundler.bundle.sbom import SBOM, make_sbom
from bundler.catalog import COMPONENTS, find_artifact, list_versions
from bundler.catalog.advisories import READ, list_advisories
from bundler.errors import ArtifactError, OutputError
from bundler.formats.image_packages import ImagePackage

RUNC = ("CVE-2025-31133", "CVE-2025-52565", "CVE-2025-52881")


def audit(*parts: Any, db: Path | None = None, settings: dict[str, str] | None = None) -> Result:
    databases = [BuiltIn(), *([open_database(db)] if db else [])]
    return compare([Contents(name="one", parts=parts, settings=settings or {})], databases)


def names(result: Result) -> set[str]:
    return {one.id for one in result.findings}


def deb(name: str, version: str, release: str = "debian-12", upstream: str = "") -> Any:
    where = {"distro": release, **({"upstream": upstream} if upstream else {})}
    return make_package(PackageURL("deb", release.partition("-")[0], name, version, where))


# --- the built-in table


def test_every_row_is_about_something_that_a_bundle_can_hold() -> None:
    for row in list_advisories():
        assert read_ranges(row.affected), row
        assert row.component in MODULES or "/" in row.component, row
        assert row.severity in {"", "low", "medium", "high", "critical"}, row
        assert row.summary, row
        assert row.source, row
        assert bool(row.not_affected) == bool(row.reason), row
        assert row.not_affected or not row.unless, row
    assert {row.component for row in list_advisories() if "/" not in row.component} <= {
        *COMPONENTS, "kubernetes",
    }  # fmt: skip
    assert datetime.now(UTC).date() >= READ
    keys = [(row.component, row.id) for row in list_advisories()]
    assert len(set(keys)) == len(keys)


def test_every_pinned_version_can_be_compared() -> None:
    for component in COMPONENTS:
        parts = [make_artifact(component, version, "") for version in list_versions(component)]
        assert audit(*parts).unknown == () or not parts[0].scheme


@pytest.mark.parametrize(
    ("component", "vulnerable", "fixed", "ids"),
    [
        ("runc", ("1.0.3", "1.1.5", "1.1.15", "1.2.7", "1.3.0", "1.3.2", "1.4.0-rc.2"),
         ("1.2.8", "1.2.9", "1.3.3", "1.4.0-rc.3", "1.4.0", "1.5.0"), RUNC),
        ("docker", ("18.09.6", "20.10.24", "28.5.1"), ("28.5.2", "29.0.0"), RUNC),
        ("runc", ("1.1.11",), ("1.1.12", "1.2.0"), ("CVE-2024-21626",)),
        ("containerd", ("1.6.39", "1.7.34", "2.0.11", "2.1.9", "2.2.7", "2.3.4"),
         ("1.7.35", "2.0.12", "2.2.8", "2.3.5", "2.4.0"), ("CVE-2026-53495",)),
        ("containerd", ("2.1.8", "2.3.1"), ("1.7.34", "2.0.1", "2.1.9", "2.3.2"), ("CVE-2026-53489",)),
        ("etcd", ("3.4.23", "3.5.32", "3.7.0"), ("3.5.33", "3.6.14", "3.7.1"), ("CVE-2026-73500",)),
        ("cni-plugins", ("1.6.0", "1.8.0"), ("1.4.1", "1.5.1", "1.9.0"), ("CVE-2025-67499",)),
        ("kubernetes-server", ("1.20.2", "1.33.3"), ("1.31.12", "1.32.8", "1.33.4", "1.34.0"), ("CVE-2025-5187",)),
    ],
)  # fmt: skip
def test_a_vulnerability_is_found_in_versions_without_the_fix_and_in_no_other(
    component: str, vulnerable: tuple[str, ...], fixed: tuple[str, ...], ids: tuple[str, ...]
) -> None:
    for version in vulnerable:
        assert set(ids) <= names(audit(make_artifact(component, version, ""))), version
    for version in fixed:
        assert set(ids).isdisjoint(names(audit(make_artifact(component, version, "")))), version


@pytest.mark.parametrize("name", ["nginx", "nginx-common", "libnginx-mod-stream"])
def test_nginx_of_debian_is_compared_by_its_source_package(name: str) -> None:
    found = audit(deb(name, "1.22.1-9+deb12u10", upstream="nginx"))
    assert names(found) == {"CVE-2026-93479"}
    assert {one.id for one in found.not_affected} == {"CVE-2026-123640", "CVE-2026-123634"}
    assert found.findings[0].fixes == ("1.22.1-9+deb12u11",)
    fixed = audit(deb(name, "1.22.1-9+deb12u11", upstream="nginx"))
    assert (fixed.findings, fixed.not_affected, fixed.compared) == ((), (), 1)
    other = audit(deb(name, "1.22.1-9+deb12u10", "debian-13", upstream="nginx"))
    assert other.findings == ()


@pytest.mark.parametrize(
    ("settings", "applies"),
    [
        ({}, False),
        ({"etcd": "--listen-client-urls=https://192.0.2.1:2379"}, False),
        ({"etcd": "  --listen-client-http-urls=https://192.0.2.1:2381 \\"}, True),
    ],
)
def test_what_does_not_apply_is_listed_with_its_reason_unless_a_setting_makes_it_apply(
    settings: dict[str, str], applies: bool
) -> None:
    result = audit(make_artifact("etcd", "3.5.31", ""), settings=settings)
    assert ("GHSA-3wh4-j44w-pg92" in names(result)) == applies
    reasons = {one.id: one.not_affected for one in result.not_affected}
    assert ("GHSA-3wh4-j44w-pg92" in reasons) != applies
    # no flag turns etcd's users on
    assert reasons["GHSA-xg4h-6gfc-h4m8"].reason.startswith(
        "bundler never turns on etcd's own users"
    )


@pytest.mark.parametrize(("value", "applies"), [("0", False), ("10255", True)])
def test_a_field_that_is_0_does_not_make_a_vulnerability_apply(value: str, applies: bool) -> None:
    result = audit(
        make_artifact("kubernetes-server", "1.29.1", ""),
        settings={"kubelet": f"port: 10250\nreadOnlyPort: {value}\n"},
    )
    assert ("CVE-2025-0426" in names(result)) == applies


def test_parts_without_a_version_are_named_as_not_compared() -> None:
    result = audit(make_artifact("runc", "", ""), make_image("docker.io/library/nginx", "1.22", ""))
    assert result.findings == ()
    assert result.unknown == (
        "runc: its version is not known",
        "docker.io/library/nginx 1.22: no database has it by this name",
    )


def test_an_addon_is_compared_by_the_name_and_tag_of_its_image() -> None:
    part = make_image("harbor.example/mirror/coredns", "v1.11.3", "")
    assert (part.version, part.packages) == ("1.11.3", (("Go", "github.com/coredns/coredns"),))


def test_the_epoch_of_an_rpm_is_a_qualifier_of_its_purl() -> None:
    made = _make_image_package(
        ImagePackage(kind="rpm", name="bind", version="32:9.16.23-18.el9", arch="x86_64"),
        "rhel-9.4",
    )
    assert made.purl == "pkg:rpm/redhat/bind@9.16.23-18.el9?arch=x86_64&distro=rhel-9.4&epoch=32"
    part = make_package(PackageURL.from_string(made.purl))
    assert part.version == "32:9.16.23-18.el9"
    assert part.packages == (("Red Hat:enterprise_linux:9", "bind"),)


# --- the SBOM of a bundle


def make_bundle(*items: Item) -> dict[str, bytes]:
    """The small files of a bundle, by path."""
    return {SBOM: make_sbom("x-one", {}, items, 0)}


def test_artifacts_and_packages_of_an_sbom_are_compared_and_programs_are_parts_of_theirs() -> None:
    digest = f"sha256:{'0' * 64}"
    program = Item(kind=ItemKind.PROGRAM, name="runc", digest=digest, path="rootfs/runc")
    contents = read_bundle_parts(
        "x-one",
        make_bundle(
            Item(kind=ItemKind.ARTIFACT, name="docker", version="20.10.24", digest=digest, parts=(program,)),
            Item(
                kind=ItemKind.PACKAGE, name="nginx-common", version="1.22.1-9+deb12u10", digest=digest,
                path="packages/a.deb",
                purl="pkg:deb/debian/nginx-common@1.22.1-9%2Bdeb12u10?arch=all&distro=debian-12&upstream=nginx",
            ),
        ),
    )  # fmt: skip
    result = compare([contents], [BuiltIn()])
    assert {one.part.label for one in result.findings} == {
        "docker 20.10.24", "nginx-common 1.22.1-9+deb12u10",
    }  # fmt: skip
    assert set(RUNC) < names(result)
    assert result.compared == 2


RUNC_OF_DEBIAN = "pkg:deb/debian/runc@1.1.5%2Bds1-1%2Bdeb12u1?distro=debian-12"


@pytest.mark.parametrize(
    ("purl", "found"),
    [
        # the tarball's version is 1.1.5 each time
        ("", {*RUNC, "CVE-2024-21626", "CVE-2026-41579"}),
        (RUNC_OF_DEBIAN, {*RUNC}),
        (RUNC_OF_DEBIAN.replace("%2Bdeb12u1", ""), {*RUNC, "CVE-2024-21626"}),
    ],
)
def test_a_file_that_a_distribution_made_is_compared_with_that_distributions_advisories(
    purl: str, found: set[str]
) -> None:
    item = Item(
        kind=ItemKind.ARTIFACT, name="runc", version="1.1.5", arch="amd64", digest=f"sha256:{'0' * 64}",
        made_from=(purl,) if purl else (),
    )  # fmt: skip
    result = compare([read_bundle_parts("x-one", make_bundle(item))], [BuiltIn()])
    assert names(result) == found
    assert result.assumed == (() if purl else ("runc 1.1.5",))


def test_a_release_of_upstream_is_known_by_its_digest() -> None:
    built_in = find_artifact("runc", "1.1.12", "amd64")
    assert built_in
    item = Item(
        kind=ItemKind.ARTIFACT, name="runc", version="1.1.12", arch="amd64", digest=built_in.pin
    )
    result = compare([read_bundle_parts("x-one", make_bundle(item))], [BuiltIn()])
    assert set(RUNC) <= names(result)
    assert result.assumed == ()


@pytest.mark.parametrize("program", SETTING_FILES)
def test_settings_are_read_from_files_that_a_bundle_has(program: str) -> None:
    templates = Path(__file__).parents[3] / "templates"
    for path in SETTING_FILES[program]:
        assert list(templates.glob(f"*/{path}.j2")), path
        bundle = {**make_bundle(), path: b"  ssl_preread on;"}
        assert "ssl_preread" in read_bundle_parts("x", bundle).settings[program]


def test_packages_inside_an_image_are_compared_and_an_image_that_was_not_read_is_named() -> None:
    digest = f"sha256:{'0' * 64}"

    def image(name: str, **more: Any) -> Item:
        return Item(kind=ItemKind.IMAGE, name=name, version="1", digest=digest, path=name, **more)

    package = Item(
        kind=ItemKind.IMAGE_PACKAGE, name="libnginx-mod-http", version="1:2+b1",
        purl="pkg:deb/debian/libnginx-mod-http@1:2%2Bb1?arch=amd64&distro=debian-12&upstream=nginx%401.22.1-9%2Bdeb12u10",
    )  # fmt: skip
    bundle = make_bundle(
        image("docker.io/site/web", parts=(package,)), image("docker.io/site/zstd", unread="zstd")
    )
    result = compare([read_bundle_parts("x-one", bundle)], [BuiltIn()])
    # what bundler's nginx.conf does not use, that of the image may use
    assert names(result) == {"CVE-2026-93479", "CVE-2026-123640", "CVE-2026-123634"}
    assert {one.part.label for one in result.findings} == {
        "libnginx-mod-http 1:2+b1 (docker.io/site/web)"
    }
    assert "packages in docker.io/site/zstd: zstd" in result.unknown


def test_a_bundle_without_an_sbom_and_one_of_another_program_are_errors() -> None:
    with pytest.raises(OutputError, match="sbom.cdx.json is missing"):
        read_bundle_parts("x", {})
    for text in (b"{", b"[]", b'{"components": [1]}', b'{"components": ["x"]}'):
        with pytest.raises(OutputError, match="bundler did not write this SBOM"):
            read_bundle_parts("x", {SBOM: text})


def test_a_bundle_has_statements_about_what_does_not_apply_and_none_about_what_does() -> None:
    digest = f"sha256:{'0' * 64}"
    purl = "pkg:github/etcd-io/etcd@v3.4.23"
    bundle = make_bundle(
        Item(kind=ItemKind.ARTIFACT, name="etcd", version="3.4.23", digest=digest, purl=purl)
    )
    document = json.loads(make_bundle_vex("x-one", bundle, 86400))
    assert document["timestamp"] == "1970-01-02T00:00:00Z"
    found = {one["vulnerability"]["name"]: one for one in document["statements"]}
    assert "CVE-2026-73500" not in found  # it applies
    assert found["CVE-2026-33413"]["status"] == "not_affected"
    assert found["CVE-2026-33413"]["products"][0]["@id"] == purl
    assert found["CVE-2026-33413"]["impact_statement"]
    assert "GHSA-3wh4-j44w-pg92" in found
    unit = "rootfs/etc/systemd/system/etcd.service"
    changed = bundle | {unit: b"ExecStart=etcd --listen-client-http-urls=http://192.0.2.1:80"}
    again = json.loads(make_bundle_vex("x-one", changed, 86400))
    names = {one["vulnerability"]["name"] for one in again["statements"]}
    assert names == found.keys() - {"GHSA-3wh4-j44w-pg92"}


# --- OSV


def write_record(**record: Any) -> dict[str, Any]:
    return {"modified": "2026-11-28T01:02:03Z", "summary": "s", **record}


RECORDS = [
    write_record(
        id="GO-2027-1", aliases=["CVE-2027-1", "GHSA-x"],
        severity=[{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}],
        affected=[{
            "package": {"ecosystem": "Go", "name": "github.com/opencontainers/runc"},
            "ranges": [{"type": "SEMVER", "events": [
                {"introduced": "0"}, {"fixed": "1.2.10"}, {"introduced": "1.3.0"}, {"fixed": "1.3.7"},
            ]}],
        }],
    ),
    write_record(
        id="GHSA-x", aliases=["CVE-2027-1"], database_specific={"severity": "MODERATE"},
        affected=[{
            "package": {"ecosystem": "Go", "name": "github.com/opencontainers/runc"},
            "ranges": [{"type": "SEMVER", "events": [{"introduced": "0"}, {"last_affected": "1.3.6"}]}],
        }],
    ),
    write_record(
        id="DEBIAN-CVE-2027-2", upstream=["CVE-2027-2"],
        affected=[{
            "package": {"ecosystem": "Debian:12", "name": "nginx"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.22.1-9+deb12u12"}]}],
            "ecosystem_specific": {"urgency": "not yet assigned"},
        }],
    ),
    write_record(
        id="RHSA-2027:3", upstream=["CVE-2027-3"],
        affected=[{
            "package": {"ecosystem": "Red Hat:enterprise_linux:9::appstream", "name": "nginx-core"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2:1.20.1-16.el9_4.1"}]}],
        }],
    ),
    write_record(
        id="CVE-2027-4", withdrawn="2026-11-01T00:00:00Z",
        affected=[{
            "package": {"ecosystem": "Go", "name": "github.com/opencontainers/runc"},
            "ranges": [{"type": "SEMVER", "events": [{"introduced": "0"}]}],
        }],
    ),
    write_record(
        id="CVE-2027-5",
        affected=[{"package": {"ecosystem": "Go", "name": "github.com/opencontainers/runc"}, "versions": ["1.1.5"]}],
    ),
    write_record(
        id="CVE-2027-6",
        affected=[{"ranges": [{"type": "GIT", "repo": "https://x.example", "events": [{"introduced": "0"}]}]}],
    ),
]  # fmt: skip


@pytest.fixture(params=["zip", "directory"])
def osv(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A small export of OSV."""
    if request.param == "directory":
        for record in RECORDS:
            path = tmp_path / "osv" / "all" / f"{record['id']}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(record))
        return tmp_path / "osv"
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for record in RECORDS:
            archive.writestr(f"{record['id']}.json", json.dumps(record))
    return tmp_path / "all.zip"


def test_an_export_of_osv_adds_to_the_table_and_one_vulnerability_is_reported_once(
    osv: Path,
) -> None:
    result = audit(make_artifact("runc", "1.3.4", ""), db=osv)
    assert names(result) == {"CVE-2026-41579", "CVE-2027-1"}
    (one,) = [one for one in result.findings if one.id == "CVE-2027-1"]
    assert (one.aliases, one.severity, one.fixes) == (
        ("GHSA-x", "GO-2027-1"),
        "critical",
        ("1.3.7",),
    )
    assert names(audit(make_artifact("runc", "1.3.7", ""), db=osv)) == set()
    assert "CVE-2027-5" in names(audit(make_artifact("runc", "1.1.5", ""), db=osv))


def test_os_packages_are_compared_with_the_data_of_their_distribution(osv: Path) -> None:
    old, new = (deb("nginx", f"1.22.1-9+deb12u{n}") for n in (11, 12))
    assert names(audit(old, db=osv)) == {"CVE-2027-2"}
    assert names(audit(new, db=osv)) == set()
    for version, found in (("2:1.20.1-14.el9", {"CVE-2027-3"}), ("2:1.20.1-16.el9_4.1", set())):
        rpm = PackageURL("rpm", "rhel", "nginx-core", version, {"distro": "rhel-9"})
        assert names(audit(make_package(rpm), db=osv)) == found


def test_the_age_of_a_database_is_that_of_its_newest_advisory(osv: Path) -> None:
    database = open_database(osv)
    list(database.find([make_artifact("runc", "1.3.4", "")]))
    assert (database.day, database.size) == (date(2026, 11, 28), len(RECORDS))


@pytest.mark.parametrize(
    "record",
    [b"{", b"[]", b'{"affected": 3, "x": {"name": "github.com/opencontainers/runc"}}',
     b'{"affected": [{"package": {"ecosystem": "Go", "name": "github.com/opencontainers/runc"}}]}'],
)  # fmt: skip
def test_a_file_that_is_no_advisory_is_an_error_with_its_name(
    tmp_path: Path, record: bytes
) -> None:
    (tmp_path / "bad.json").write_bytes(record + b' "name": "github.com/opencontainers/runc"')
    with pytest.raises(ArtifactError, match=r"bad\.json: not an advisory in OSV's format"):
        audit(make_artifact("runc", "1.3.4", ""), db=tmp_path)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"PK\x03\x04 and nothing more", "not a database of advisories"),
        (b"hello", "not a database of advisories"),
        (b'{"a": 1}', "not a database of advisories"),
        (b"SQLite format 3\0 and nothing more", "not a database of Grype"),
        (b"", "not a database of advisories"),
    ],
)
def test_a_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes, error: str) -> None:
    (tmp_path / "db").write_bytes(content)
    with pytest.raises(ArtifactError, match=error):
        audit(make_artifact("runc", "1.3.4", ""), db=tmp_path / "db")


def test_an_empty_export_is_not_taken_for_one_without_advisories(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    zipfile.ZipFile(tmp_path / "empty.zip", "w").close()
    for path in (tmp_path / "empty", tmp_path / "empty.zip"):
        with pytest.raises(ArtifactError, match="no advisory of OSV is in it"):
            audit(make_artifact("runc", "1.3.4", ""), db=path)


# --- Debian's security tracker, and Grype


def test_the_tracker_of_debian_is_read_by_source_package_and_release(tmp_path: Path) -> None:
    def entry(**release: str) -> dict[str, Any]:
        return {"description": "d", "releases": {"bookworm": release, "sid": {"status": "open"}}}

    path = tmp_path / "debian.json"
    path.write_text(json.dumps({"nginx": {
        "CVE-2027-1": entry(status="open", urgency="high"),
        "CVE-2027-2": entry(status="resolved", fixed_version="1.22.1-9+deb12u12", urgency="medium"),
        "CVE-2027-3": entry(status="resolved", fixed_version="1.22.1-9+deb12u11", urgency="medium"),
        "CVE-2027-4": entry(status="resolved", fixed_version="0", urgency="medium"),
        "CVE-2027-5": entry(status="undetermined", urgency="medium"),
        "CVE-2027-6": {"releases": {"sid": {"status": "open"}}},
    }}))  # fmt: skip
    result = audit(deb("nginx-common", "1.22.1-9+deb12u11", upstream="nginx"), db=path)
    assert {(one.id, one.severity, one.fixes) for one in result.findings} == {
        ("CVE-2027-1", "high", ()), ("CVE-2027-2", "medium", ("1.22.1-9+deb12u12",)),
    }  # fmt: skip
    assert audit(deb("nginx", "1.1", "ubuntu-22.04"), db=path).findings == ()


GRYPE = """
CREATE TABLE db_metadata (build_timestamp datetime, model integer, revision integer, addition integer);
CREATE TABLE blobs (id integer primary key, value text);
CREATE TABLE packages (id integer primary key, ecosystem text, name text);
CREATE TABLE operating_systems (id integer primary key, name text, major_version text, minor_version text);
CREATE TABLE vulnerability_handles (id integer primary key, name text, status text, blob_id integer);
CREATE TABLE affected_package_handles (
    id integer primary key, vulnerability_id integer, operating_system_id integer, package_id integer, blob_id integer
);
"""


def write_grype(path: Path, model: int = 6) -> Path:
    """A database in the schema of grype/db/v6/models.go."""
    connection = sqlite3.connect(path)
    connection.executescript(GRYPE)
    run = connection.execute
    run("INSERT INTO db_metadata VALUES ('2026-11-27 01:02:03+00:00', ?, 1, 0)", (model,))
    run("INSERT INTO operating_systems VALUES (1, 'debian', '12', '')")
    run(
        "INSERT INTO packages VALUES (1, 'go-module', 'github.com/opencontainers/runc'), (2, 'deb', 'nginx')"
    )
    known = {
        "aliases": ["CVE-2027-1"],
        "severities": [{"scheme": "CVSS", "value": {"vector": "CVSS:3.1/AV:L/AC:L/PR:L/UI:N/S:U/C:L/I:N/A:N"}}],
    }  # fmt: skip
    go = {"ranges": [{"version": {"type": "semver", "constraint": "<1.2.8 || >=1.3.0,<1.3.7"}}]}
    os = {"ranges": [{"version": {"type": "dpkg", "constraint": "< 1.22.1-9+deb12u12"}}]}
    for number, blob in enumerate((known, go, os, {"severities": [{"value": "high"}]}), start=1):
        run("INSERT INTO blobs VALUES (?, ?)", (number, json.dumps(blob)))
    run(
        "INSERT INTO vulnerability_handles VALUES (1, 'GHSA-x', 'active', 1), (2, 'CVE-2027-2', 'active', 4), (3, 'CVE-2027-3', 'rejected', 4)"
    )
    run(
        "INSERT INTO affected_package_handles VALUES (1, 1, NULL, 1, 2), (2, 2, 1, 2, 3), (3, 3, 1, 2, 3)"
    )
    connection.commit()
    connection.close()
    return path


def test_a_database_of_grype_is_read(tmp_path: Path) -> None:
    path = write_grype(tmp_path / "vulnerability.db")
    found = audit(make_artifact("runc", "1.3.6", ""), deb("nginx", "1.22.1-9+deb12u11"), db=path)
    assert {(one.id, one.severity, one.fixes) for one in found.findings} == {
        ("CVE-2027-1", "low", ("1.3.7",)), ("CVE-2027-2", "high", ("1.22.1-9+deb12u12",)),
    }  # fmt: skip
    fixed = audit(make_artifact("runc", "1.3.7", ""), deb("nginx", "1.22.1-9+deb12u12"), db=path)
    assert fixed.findings == ()
    assert audit(deb("nginx", "1.22.1-9", "debian-11"), db=path).findings == ()
    assert open_database(path).day == date(2026, 11, 27)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["vulnerability.db"]


def test_another_version_of_greps_database_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="not version 6 of Grype's database"):
        open_database(write_grype(tmp_path / "vulnerability.db", model=5))


# --- ranges and severities


@pytest.mark.parametrize(
    ("scheme", "one", "version", "holds"),
    [
        ("golang", Range(introduced="0", fixed="1.2.3"), "1.2.3-rc.1", True),
        ("golang", Range(introduced="0", fixed="26.0.0+incompatible"), "20.10.24", True),
        ("golang", Range(introduced="v1.2.0", last="v1.2.5"), "1.2.5", True),
        ("deb", Range(fixed="1:2.0-1~deb12u1"), "1:2.0-1", False),
        ("deb", Range(fixed="1:2.0-1"), "1:2.0-1~deb12u1", True),
        ("rpm", Range(fixed="1.20.1-16.el9"), "1:1.20.1-14.el9", False),
        ("apk", Range(fixed="1.2.3-r10"), "1.2.3-r9", True),
        ("deb", Range(), "1", True),
        ("golang", Range(fixed="not a version"), "1.2.3", None),
    ],
)
def test_a_range_is_compared_by_the_rules_of_its_ecosystem(
    scheme: str, one: Range, version: str, holds: bool | None
) -> None:
    assert one.holds(scheme, version) is holds


@pytest.mark.parametrize(
    ("vector", "severity"),
    [
        ("CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N", "critical"),
        ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N", "high"),
        ("AV:N/AC:L/Au:N/C:P/I:N/A:N", "medium"),
        ("CVSS:3.1/nonsense", ""),
    ],
)
def test_a_vector_has_the_severity_of_its_score(vector: str, severity: str) -> None:
    assert rate_vector(vector) == severity


# --- the command


def make_old_site(directory: Path) -> SmallSite:
    """A site whose containerd and etcd have known vulnerabilities."""
    site = make_site(directory)
    description = site.inputs.description
    text = description.read_text().replace(
        "engine: containerd}", "engine: containerd, version: 2.3.4}\netcd: {version: 3.6.12}"
    )
    description.write_text(text)
    write_upstream(directory, description)
    return site


@pytest.mark.slow
def test_the_command_audits_a_directory_of_bundles(tmp_path: Path, osv: Path) -> None:
    dist = make_old_site(tmp_path / "site").build()
    done = run_bundler(["audit", dist, "--db", osv], text=True)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert lines[0].startswith("bundler's table ")
    assert f"{READ}  " in lines[0]
    assert lines[1].startswith(str(osv))
    assert "2026-11-28" in lines[1]
    assert any("CVE-2026-53495" in line and "containerd 2.3.4" in line for line in lines), lines
    assert run_bundler(["audit", dist, "--fail-on", "medium"]).returncode == 1
    vex = tmp_path / "vex.json"
    done = run_bundler(["audit", dist, "--json", "--vex", vex], text=True)
    data = read_shape(done.stdout, "audit")
    assert data["databases"][0]["date"] == str(READ)
    assert {one["component"] for one in data["vulnerabilities"]} >= {"containerd", "etcd"}
    statements = json.loads(vex.read_text())["statements"]
    assert {one["vulnerability"]["name"] for one in statements} == {
        one["id"] for one in data["not_affected"]
    }
    assert statements
    (bundle,) = dist.glob("*-one.tar.gz")
    own = run_bundler(["inspect", bundle, "--vex"], text=True)
    document = json.loads(own.stdout)
    assert document["@context"] == "https://openvex.dev/ns/v0.2.0"
    assert document["statements"] == statements


@pytest.mark.slow
def test_the_command_audits_cluster_yaml_before_a_build(tmp_path: Path) -> None:
    site = make_old_site(tmp_path / "site")
    arguments = ["-c", site.inputs.description, "--pins", site.inputs.pins]
    done = run_bundler(["audit", *arguments, "--json"], text=True)
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    found = {(one["component"], one["id"]) for one in data["vulnerabilities"]}
    assert ("containerd", "CVE-2026-53495") in found
    assert "containerd 2.3.4" in data["assumed_upstream"]
    assert "Compared as upstream's releases, but pinned otherwise: " in (
        run_bundler(["audit", *arguments], text=True).stdout
    )
    pins = json.loads(site.inputs.pins.read_text())
    pins["artifacts"]["containerd/amd64"]["made_from"] = [
        "pkg:deb/debian/containerd@2.3.4%2Bds1-1?distro=debian-13"
    ]
    site.inputs.pins.write_text(json.dumps(pins))
    data = read_shape(run_bundler(["audit", *arguments, "--json"], text=True).stdout, "audit")
    assert "containerd" not in {one["component"] for one in data["vulnerabilities"]}
    assert not any(label.startswith("containerd") for label in data["assumed_upstream"])


def test_the_command_says_what_it_needs(tmp_path: Path) -> None:
    for arguments in ([], [tmp_path, "-c", "cluster.yaml"]):
        done = run_bundler(["audit", *arguments], text=True)
        assert done.returncode == 2
        assert "give bundles, or -c cluster.yaml" in done.stderr
    done = run_bundler(["audit", tmp_path], text=True)
    assert done.returncode == 6
    assert "there is no bundle in it" in done.stderr
    done = run_bundler(["audit", tmp_path / "x.tar.gz"], text=True)
    assert done.returncode == 6


def test_statements_of_openvex_name_product_status_and_reason() -> None:
    result = audit(make_artifact("etcd", "3.5.31", "pkg:github/etcd-io/etcd@v3.5.31"))
    document = json.loads(make_openvex(result.not_affected, datetime(2026, 11, 30, tzinfo=UTC)))
    assert document["@context"] == "https://openvex.dev/ns/v0.2.0"
    assert (document["timestamp"], document["version"]) == ("2026-11-30T00:00:00Z", 1)
    (one,) = [
        s for s in document["statements"] if s["vulnerability"]["name"] == "GHSA-3wh4-j44w-pg92"
    ]
    assert one["products"][0]["@id"] == "pkg:github/etcd-io/etcd@v3.5.31"
    assert (one["status"], one["justification"]) == (
        "not_affected", "vulnerable_code_not_in_execute_path",
    )  # fmt: skip
    assert one["impact_statement"] == "bundler does not set --listen-client-http-urls"


def test_one_component_for_two_machines_is_one_finding_with_both_purls() -> None:
    parts = (
        make_artifact("etcd", "3.5.31", f"pkg:generic/etcd@3.5.31?arch={arch}")
        for arch in ("amd64", "arm64")
    )
    result = audit(*parts)
    assert result.compared == 1
    (one,) = [one for one in result.findings if one.id == "CVE-2026-73500"]
    assert one.purls == ("pkg:generic/etcd@3.5.31?arch=amd64", "pkg:generic/etcd@3.5.31?arch=arm64")
    document = json.loads(make_openvex(result.not_affected, datetime(2026, 11, 30, tzinfo=UTC)))
    assert [len(each["products"]) for each in document["statements"]] == [2, 2]
