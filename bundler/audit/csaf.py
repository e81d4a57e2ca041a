"""Red Hat's security data: CSAF VEX files (security.access.redhat.com/data/csaf/v2/vex).

One JSON file for each CVE. A product of `product_status` is `STREAM:PACKAGE`, which a relationship
splits: the stream has a CPE (enterprise_linux:9), the package a purl with the version that has the
fix, or without a version where nothing is fixed.
"""

import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import IO, Any

import zstandard
from packageurl import PackageURL

from bundler.audit.advisory import Advisory, DatabaseFile, Range, normalize_severity, rate_vector
from bundler.audit.parts import Part
from bundler.errors import ArtifactError
from bundler.formats.tar_safety import open_tar

ZSTD = b"\x28\xb5\x2f\xfd"
CATEGORY = b'"csaf_'
CPE = re.compile(r"cpe:/[aoh]:redhat:(?:enterprise_linux|rhel_\w+):(\d+)")
STREAM = re.compile(r"\.(?:module\+)?el\d+(?:_\d+)?")
"""The part of a release that names the minor release it was built for: .el9_4."""
MOST = 64 << 20
"""Bytes of one file."""


class Csaf(DatabaseFile):
    """One file, a directory of files, or an archive of them as Red Hat publishes it.

    `find` sets the day to that of the newest file that is about a part.
    """

    def find(self, parts: Iterable[Part]) -> Iterator[tuple[Part, Advisory]]:
        """Every CVE of a package of RHEL, of any version."""
        named: dict[str, list[Part]] = {}
        for part in parts:
            if part.scheme == "rpm" and part.distribution[0] == "rhel":
                for name in {part.name, part.source}:
                    named.setdefault(name, []).append(part)
        self.size, days = 0, [date.min]
        for place, content in _list_files(self.path):
            self.size += 1
            try:
                document = json.loads(content)
                days.append(_day_of(document))
                for name, major, advisory in _read(document, self.name):
                    for part in named.get(name, ()):
                        if part.distribution[1].split(".")[0] == major:
                            yield part, _choose_fixes(advisory, part)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise ArtifactError(f"{place}: not a CSAF file: {error!r}") from error
        if max(days) > date.min:
            self.day = max(days)


def is_csaf(path: Path) -> bool:
    """Whether a file or the first file of a directory is one of CSAF."""
    if path.is_dir():
        path = next(iter(sorted(path.rglob("*.json"))), path)
    if not path.is_file():
        return False
    with path.open("rb") as file:
        begin = file.read(1 << 12)
    return begin.startswith(ZSTD) or CATEGORY in begin


def _list_files(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the JSON files with their places; ArtifactError for a damaged archive."""
    if path.is_dir():
        yield from ((str(one), one.read_bytes()) for one in sorted(path.rglob("*.json")))
        return
    with path.open("rb") as file:
        is_archive = file.read(4) == ZSTD
    if not is_archive:
        yield str(path), path.read_bytes()
        return
    try:
        with _open_archive(path) as tar:
            for member in tar:
                content = tar.extractfile(member) if member.name.endswith(".json") else None
                if content and member.size <= MOST:
                    yield f"{path}: {member.name}", content.read()
                tar.members.clear()  # type: ignore[attr-defined] # hundreds of thousands of files
    except (tarfile.TarError, zstandard.ZstdError, OSError, EOFError) as error:
        raise ArtifactError(f"{path}: not a readable archive: {error}") from error


@contextmanager
def _open_archive(path: Path) -> Iterator[tarfile.TarFile]:
    with path.open("rb") as file:
        stream: IO[bytes] = zstandard.ZstdDecompressor().stream_reader(
            file, read_across_frames=True
        )
        with open_tar(mode="r|", fileobj=stream) as tar:
            yield tar


def _day_of(document: Mapping[str, Any]) -> date:
    return date.fromisoformat(document["document"]["tracking"]["current_release_date"][:10])


def _read(document: Mapping[str, Any], database: str) -> Iterator[tuple[str, str, Advisory]]:
    """Yield package, major release and advisory: with all fixes, or with none."""
    products = dict(_list_products(document["product_tree"].get("branches", ())))
    streams: dict[str, tuple[str, PackageURL]] = {}
    for one in document["product_tree"].get("relationships", ()):
        stream = products.get(one["relates_to_product_reference"], {})
        package = products.get(one["product_reference"], {})
        major = CPE.match(str(stream.get("cpe", "")))
        if major and str(package.get("purl", "")).startswith("pkg:rpm/"):
            purl = PackageURL.from_string(package["purl"])
            streams[one["full_product_name"]["product_id"]] = (major[1], purl)
    for vulnerability in document.get("vulnerabilities", ()):
        status = vulnerability.get("product_status", {})
        fixes: dict[tuple[str, str], list[str]] = {}
        for kind in ("fixed", "known_affected"):
            for product in status.get(kind, ()):
                if product in streams:
                    major_release, purl = streams[product]
                    fixed = fixes.setdefault((purl.name, major_release), [])
                    fixed += [_version_of(purl)] if kind == "fixed" else []
        for (name, major_release), versions in fixes.items():
            yield (
                name,
                major_release,
                Advisory(
                    id=vulnerability["cve"],
                    severity=_rate(vulnerability),
                    summary=str(vulnerability.get("title") or document["document"]["title"])[:200],
                    ranges=tuple(Range(fixed=version) for version in dict.fromkeys(versions))
                    or (Range(),),
                    database=database,
                ),
            )


def _list_products(
    branches: Iterable[Mapping[str, Any]],
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for branch in branches:
        if product := branch.get("product"):
            yield product["product_id"], product.get("product_identification_helper", {})
        yield from _list_products(branch.get("branches", ()))


def _version_of(purl: PackageURL) -> str:
    qualifiers = purl.qualifiers if isinstance(purl.qualifiers, dict) else {}
    epoch = str(qualifiers.get("epoch", "0"))
    return f"{epoch}:{purl.version}" if epoch != "0" else purl.version or ""


def _rate(vulnerability: Mapping[str, Any]) -> str:
    """Return Red Hat's own severity, else that of the CVSS vector."""
    threats = [one for one in vulnerability.get("threats", ()) if one.get("category") == "impact"]
    words = [normalize_severity(str(one.get("details", ""))) for one in threats]
    scores = [
        one.get("cvss_v3", {}).get("vectorString", "") for one in vulnerability.get("scores", ())
    ]
    return next((word for word in words if word), "") or next(
        (rated for vector in scores if vector and (rated := rate_vector(vector))), ""
    )


def _choose_fixes(advisory: Advisory, part: Part) -> Advisory:
    """Return the advisory with the fix of the part's own minor release, if one was made for it.

    9.2 and 9.4 get their own builds: one of 9.2 is older than that of 9.4, and has the fix too.
    """
    own = STREAM.findall(part.compared)
    same = [one for one in advisory.ranges if own and STREAM.findall(one.fixed) == own]
    return (
        advisory
        if not same
        else Advisory(
            id=advisory.id,
            severity=advisory.severity,
            summary=advisory.summary,
            ranges=tuple(same),
            database=advisory.database,
        )
    )
