"""Red Hat's CSAF VEX files as a database of bundler audit."""

import io
import json
import tarfile
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import zstandard
from packageurl import PackageURL

from bundler.audit.compare import Result, compare
from bundler.audit.csaf import Csaf
from bundler.audit.database import open_database
from bundler.audit.parts import Contents, make_package
from bundler.errors import ArtifactError

STREAMS = {
    "BaseOS-9.4.0": "cpe:/o:redhat:enterprise_linux:9::baseos",
    "BaseOS-9.2.0.Z.EUS": "cpe:/o:redhat:rhel_eus:9.2::baseos",
    "BaseOS-8": "cpe:/o:redhat:enterprise_linux:8::baseos",
    "Other": "cpe:/a:redhat:openshift:4.14::el9",
}


def make_document(
    fixed: dict[str, list[str]], affected: dict[str, list[str]] | None = None, **vulnerability: Any
) -> dict[str, Any]:
    """A file of one CVE; `fixed` and `affected` have the purls of packages by stream."""
    products = {"fixed": fixed, "known_affected": affected or {}}
    purls = sorted(
        {purl for of in products.values() for several in of.values() for purl in several}
    )
    return {
        "document": {"category": "csaf_vex", "title": "bind: a title", "tracking": {"current_release_date": "2026-11-20T10:00:00+00:00"}},
        "product_tree": {
            "branches": [{"category": "vendor", "branches": [
                *({"product": {"product_id": name, "product_identification_helper": {"cpe": cpe}}} for name, cpe in STREAMS.items()),
                *({"product": {"product_id": purl, "product_identification_helper": {"purl": purl}}} for purl in purls),
            ]}],
            "relationships": [
                {"product_reference": purl, "relates_to_product_reference": name, "full_product_name": {"product_id": f"{name}:{purl}"}}
                for of in products.values() for name, several in of.items() for purl in several
            ],
        },
        "vulnerabilities": [{
            "cve": "CVE-2026-1", "product_status": {
                status: [f"{name}:{purl}" for name, several in of.items() for purl in several] for status, of in products.items()
            },
            "threats": [{"category": "impact", "details": "Important"}], **vulnerability,
        }],
    }  # fmt: skip


FIXED = make_document(
    {
        "BaseOS-9.4.0": ["pkg:rpm/redhat/bind@9.16.23-18.el9_4.6?arch=x86_64&epoch=32"],
        "BaseOS-9.2.0.Z.EUS": ["pkg:rpm/redhat/bind@9.16.23-11.el9_2.3?arch=x86_64&epoch=32"],
        "Other": ["pkg:rpm/redhat/bind@99-1.el9?arch=x86_64&epoch=32"],
    }
)


def audit(
    path: Path, name: str, version: str, release: str = "rhel-9.4", source: str = ""
) -> Result:
    epoch, _, rest = version.rpartition(":")
    where = {
        "distro": release,
        **({"epoch": epoch} if epoch else {}),
        **({"upstream": source} if source else {}),
    }
    part = make_package(PackageURL("rpm", "redhat", name, rest, where))
    return compare([Contents(name="one", parts=(part,))], [open_database(path)])


def write(path: Path, *documents: dict[str, Any]) -> Path:
    """Write files by the end of the path: one, a directory, or the archive as Red Hat packs it."""
    texts = {
        f"2026/cve-2026-{number}.json": json.dumps(one) for number, one in enumerate(documents)
    }
    if path.suffix == ".json":
        path.write_text(*texts.values())
    elif path.suffix == ".zst":
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for name, text in texts.items():
                info = tarfile.TarInfo(name)
                info.size = len(text)
                tar.addfile(info, io.BytesIO(text.encode()))
        path.write_bytes(zstandard.compress(packed.getvalue()))
    else:
        for name, text in texts.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_text(text)
    return path


@pytest.mark.parametrize("form", ["one.json", "directory", "csaf_vex.tar.zst"])
def test_every_form_is_read_and_has_the_day_of_its_newest_file(tmp_path: Path, form: str) -> None:
    path = write(tmp_path / form, FIXED)
    result = audit(path, "bind", "32:9.16.23-18.el9_4.5")
    (found,) = result.findings
    assert (found.id, found.severity, found.summary) == ("CVE-2026-1", "high", "bind: a title")
    assert found.fixes == ("32:9.16.23-18.el9_4.6",)
    database = Csaf(path)
    assert list(database.find([found.part]))
    assert (database.day, database.size) == (date(2026, 11, 20), 1)


@pytest.mark.parametrize(
    ("version", "release", "is_found"),
    [
        ("32:9.16.23-18.el9_4.6", "rhel-9.4", False),
        ("32:9.16.23-18.el9_4.1", "rhel-9.4", True),
        # 9.2 has a build of its own with the fix, which is older than that of 9.4
        ("32:9.16.23-11.el9_2.3", "rhel-9.2", False),
        ("32:9.16.23-11.el9_2.2", "rhel-9.2", True),
        # no build for 9.0: what is older than a build with the fix may be vulnerable
        ("32:9.16.23-1.el9_0", "rhel-9.0", True),
        ("32:9.16.23-24.el9", "rhel-9.5", False),
        ("32:9.11.36-8.el8", "rhel-8.9", False),
        ("32:9.16.23-18.el9_4.1", "rocky-9.4", False),
    ],
)
def test_a_package_is_compared_with_the_fix_of_its_release(
    tmp_path: Path, version: str, release: str, is_found: bool
) -> None:
    path = write(tmp_path / "one.json", FIXED)
    assert bool(audit(path, "bind", version, release).findings) is is_found


def test_a_package_that_nothing_fixes_is_affected_in_every_version(tmp_path: Path) -> None:
    path = write(
        tmp_path / "one.json", make_document({}, {"BaseOS-9.4.0": ["pkg:rpm/redhat/bind"]})
    )
    (found,) = audit(
        path, "bind-libs", "32:9.16.23-18.el9", source="bind-9.16.23-18.el9.src.rpm"
    ).findings
    assert found.fixes == ()
    assert audit(path, "bind", "1-1.el8", "rhel-8.9").findings == ()


def test_without_a_word_the_severity_is_that_of_the_vector(tmp_path: Path) -> None:
    vector = {"cvss_v3": {"vectorString": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}}
    document = make_document(
        {"BaseOS-9.4.0": ["pkg:rpm/redhat/bind@2-1.el9_4"]}, threats=[], scores=[vector]
    )
    (found,) = audit(write(tmp_path / "one.json", document), "bind", "1-1.el9_4").findings
    assert found.severity == "critical"


@pytest.mark.parametrize(
    "content",
    [
        b'{"document": {"category": "csaf_vex"}',
        b'{"document": {"category": "csaf_vex"}}',
        b'["csaf_vex", 1]',
        zstandard.compress(b"x" * 4096),
        zstandard.compress(b"x" * 4096)[:8],
    ],
)
def test_a_damaged_file_is_an_error_with_its_place(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "damaged"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="damaged"):
        audit(path, "bind", "1-1.el9")
