"""The packages of a distribution inside an image: what dpkg and apk record in its layers.

Sources: dpkg's status format (deb-control(5)); distroless images have one file for each package in
status.d; apk's database (wiki.alpinelinux.org, Apk spec); os-release(5); for whiteouts the OCI
image specification, layer.md; rpm's database in SQLite: rpm_database.py.
"""

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from email.parser import HeaderParser

from bundler.formats.rpm_database import read_rpm_database

DPKG = "var/lib/dpkg/status"
DPKG_PARTS = f"{DPKG}.d/"
DPKG_FIELDS = ("Package", "Version", "Architecture")
APK = ("lib/apk/db/installed", "usr/lib/apk/db/installed")
RPM = ("var/lib/rpm/rpmdb.sqlite", "usr/lib/sysimage/rpm/rpmdb.sqlite")
RPM_LOGS = tuple(f"{path}-wal" for path in RPM)
"""Changes that are not in the database yet."""
OLD_RPM = ("var/lib/rpm/Packages", "var/lib/rpm/Packages.db", "usr/lib/sysimage/rpm/Packages.db")
"""Berkeley DB and ndb, which are not read."""
OS_RELEASE = ("usr/lib/os-release", "etc/os-release")
WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
FIELD = re.compile(r"[A-Za-z0-9.+~:^_-]+")
"""Names, versions and architectures of packages: no other characters."""

Files = Mapping[str, bytes]
"""Path → content: of a layer, with whiteouts, or of an image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePackage:
    """A package that is installed in an image."""

    kind: str  # deb, rpm or apk
    name: str
    version: str
    arch: str
    source: str = ""  # NAME, NAME@VERSION or of rpm a file's name, if it is not the package's own


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePackages:
    """The packages of an image; `unread` says why they could not be read."""

    release: str = ""  # ID-VERSION_ID of os-release
    packages: tuple[ImagePackage, ...] = ()
    unread: str = ""


def is_package_file(path: str) -> bool:
    """Whether a file of a layer is one that this module reads, or hides one in a lower layer."""
    name = posixpath.basename(path)
    if name.startswith(WHITEOUT):
        return True
    is_part = path.startswith(DPKG_PARTS) and not path.endswith(".md5sums")
    return is_part or path in {DPKG, *APK, *OS_RELEASE, *RPM, *RPM_LOGS, *OLD_RPM}


def merge_layers(layers: Iterable[Files]) -> Files:
    """What a container sees of the files, the lowest layer first."""
    seen: dict[str, bytes] = {}
    for layer in layers:
        for path in layer:
            folder, name = posixpath.split(path)
            if name == OPAQUE:
                seen = {at: data for at, data in seen.items() if not _is_below(at, folder)}
            elif name.startswith(WHITEOUT):
                hidden = posixpath.join(folder, name.removeprefix(WHITEOUT))
                seen = {at: data for at, data in seen.items() if not _is_below(at, hidden)}
        seen |= {
            path: data
            for path, data in layer.items()
            if not posixpath.basename(path).startswith(WHITEOUT)
        }
    return seen


def _is_below(path: str, folder: str) -> bool:
    return not folder or path == folder or path.startswith(f"{folder}/")


def read_packages(files: Files) -> ImagePackages:
    """The packages that the files of an image record."""
    if any(path in files for path in OLD_RPM):
        return ImagePackages(unread="its database of rpm is older than SQLite's")
    if any(files.get(path) for path in RPM_LOGS):
        return ImagePackages(unread="its database of rpm was copied while it was written")
    release = _read_release(next((files[path] for path in OS_RELEASE if path in files), b""))
    parts = [files[path] for path in sorted(files) if path == DPKG or path.startswith(DPKG_PARTS)]
    try:
        found = [package for part in parts for package in _read_dpkg(part)]
        found += [package for path in APK if path in files for package in _read_apk(files[path])]
        found += [package for path in RPM if path in files for package in _read_rpm(files[path])]
    except ValueError as error:
        return ImagePackages(release=release, unread=f"its list of packages is damaged ({error})")
    named = {(one.name, one.version, one.arch): one for one in found}
    return ImagePackages(release=release, packages=tuple(named[key] for key in sorted(named)))


def _read_release(content: bytes) -> str:
    """`debian-12`; empty if it is not stated."""
    lines = content.decode(errors="replace").splitlines()
    pairs = {key: value.strip("\"'") for key, _, value in (line.partition("=") for line in lines)}
    release = f"{pairs.get('ID', '')}-{pairs.get('VERSION_ID', '')}"
    return release if FIELD.fullmatch(release) and release.strip("-") else ""


def _read_dpkg(content: bytes) -> Iterator[ImagePackage]:
    for stanza in re.split(r"\n\s*\n", content.decode(errors="replace")):
        fields = HeaderParser().parsestr(stanza.strip())
        status = fields.get("Status", "install ok installed").split()
        if not stanza.strip() or status[-1:] != ["installed"]:
            continue
        source, _, version = str(fields.get("Source", "")).partition(" ")
        own = version.strip("()")
        name, installed, arch = (str(fields.get(key, "")) for key in DPKG_FIELDS)
        yield _make("deb", name, installed, arch, source=f"{source}@{own}" if own else source)


def _read_apk(content: bytes) -> Iterator[ImagePackage]:
    for stanza in content.decode(errors="replace").split("\n\n"):
        fields = dict(line.split(":", 1) for line in stanza.splitlines() if line[1:2] == ":")
        if "P" in fields:
            name, version, arch = (fields.get(key, "") for key in "PVA")
            origin = fields.get("o", "")
            yield _make("apk", name, version, arch, source=origin if origin != name else "")


def _read_rpm(content: bytes) -> Iterator[ImagePackage]:
    """Yield the packages of rpm, which may have several versions of one name."""
    for one in read_rpm_database(content):
        yield _make("rpm", one.name, one.version, one.arch, source=one.source)


def _make(kind: str, name: str, version: str, arch: str, *, source: str) -> ImagePackage:
    for text in (name, version, arch, *source.split("@")[: 2 if source else 0]):
        if not FIELD.fullmatch(text):
            raise ValueError(f"{text[:80]!r} is no name or version of a package")
    return ImagePackage(kind=kind, name=name, version=version, arch=arch, source=source)
