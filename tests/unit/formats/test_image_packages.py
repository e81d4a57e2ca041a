"""Packages inside images: what dpkg and apk record, seen through all layers."""

import base64
import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest
import zstandard

from bundler.cache.store import Cache
from bundler.formats.image_manifests import (
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    Descriptor,
    make_manifest,
)
from bundler.formats.image_packages import (
    ImagePackage,
    ImagePackages,
    is_package_file,
    merge_layers,
    read_packages,
)
from bundler.formats.stored_images import ByteRange, Layer, StoredImage
from bundler.sources.images import packages as reader
from bundler.sources.images.packages import list_image_packages

STATUS = b"""Package: libc6
Status: install ok installed
Architecture: amd64
Source: glibc
Version: 2.36-9+deb12u7
Description: x
 .
 more

Package: runc
Status: install ok installed
Architecture: amd64
Source: runc (1.1.5+ds1-1+deb12u1)
Version: 1.1.5+ds1-1+deb12u1+b6

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1
"""
APK = b"""C:Q1x=
P:libssl3
V:3.1.4-r5
A:x86_64
o:openssl

P:busybox
V:1.36.1-r15
A:x86_64
o:busybox
"""
DEBIAN = b'PRETTY_NAME="Debian"\nID=debian\nVERSION_ID="12"\n'
LIBC = ImagePackage(
    kind="deb", name="libc6", version="2.36-9+deb12u7", arch="amd64", source="glibc"
)


def test_installed_packages_of_dpkg_are_read_with_their_sources() -> None:
    found = read_packages({"var/lib/dpkg/status": STATUS, "etc/os-release": DEBIAN})
    assert found == ImagePackages(
        release="debian-12",
        packages=(
            LIBC,
            ImagePackage(
                kind="deb", name="runc", version="1.1.5+ds1-1+deb12u1+b6", arch="amd64",
                source="runc@1.1.5+ds1-1+deb12u1",
            ),
        ),
    )  # fmt: skip


def test_packages_of_distroless_images_are_files_of_their_own() -> None:
    part = b"Package: base-files\nVersion: 12.4+deb12u5\nArchitecture: amd64\n"
    found = read_packages(
        {"var/lib/dpkg/status.d/base": part, "var/lib/dpkg/status.d/libc6": STATUS}
    )
    assert [one.name for one in found.packages] == ["base-files", "libc6", "runc"]
    assert not is_package_file("var/lib/dpkg/status.d/base.md5sums")


def test_packages_of_apk_are_read() -> None:
    release = b"ID=alpine\nVERSION_ID=3.18.4\n"
    found = read_packages({"lib/apk/db/installed": APK, "etc/os-release": release})
    assert found.release == "alpine-3.18.4"
    assert [(one.kind, one.name, one.version, one.source) for one in found.packages] == [
        ("apk", "busybox", "1.36.1-r15", ""), ("apk", "libssl3", "3.1.4-r5", "openssl"),
    ]  # fmt: skip


def test_an_image_without_a_list_has_no_packages_and_one_of_rpm_says_so() -> None:
    assert read_packages({}) == ImagePackages()
    older = read_packages({"var/lib/rpm/Packages": b""})
    assert older.unread == "its database of rpm is older than SQLite's"


@pytest.mark.parametrize("name", ["a b", "a\x1b[31m", "", "é"])
def test_a_list_with_a_hostile_name_is_not_read(name: str) -> None:
    text = f"Package: {name}\nVersion: 1\nArchitecture: all\n".encode()
    found = read_packages({"var/lib/dpkg/status": text})
    assert "is no name or version of a package" in found.unread
    assert found.unread.isprintable()


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([{"a/b": b"1"}, {"a/b": b"2"}], {"a/b": b"2"}),
        ([{"a/b": b"1", "a/bc": b"2"}, {"a/.wh.b": b""}], {"a/bc": b"2"}),
        ([{"a/b/c": b"1"}, {"a/.wh.b": b""}, {"a/b/d": b"2"}], {"a/b/d": b"2"}),
        ([{"a/b": b"1", "x": b"2"}, {"a/.wh..wh..opq": b"", "a/c": b"3"}], {"x": b"2", "a/c": b"3"}),
        ([{"a": b"1"}, {".wh..wh..opq": b""}], {}),
    ],
)  # fmt: skip
def test_upper_layers_replace_and_hide_files_of_lower_ones(
    layers: list[dict[str, bytes]], expected: dict[str, bytes]
) -> None:
    assert merge_layers(layers) == expected


# --- layers on the builder's disk


def make_tar(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        link = tarfile.TarInfo("etc/mtab")
        link.type, link.linkname = tarfile.SYMTYPE, "/proc/mounts"  # as layers have it
        archive.addfile(link)
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def make_image(path: Path, content: bytes, media_type: str = OCI_LAYER) -> StoredImage:
    path.write_bytes(b"before" + content)
    descriptor = Descriptor(media_type, f"sha256:{'ab' * 32}", len(content))
    config = json.dumps({"architecture": "amd64", "rootfs": {"diff_ids": []}}).encode()
    layer = Layer(
        descriptor=descriptor,
        place=ByteRange(path=path, offset=6, size=len(content)),
        is_verified=False,
    )
    return StoredImage(
        manifest=make_manifest(config, (descriptor,)), config=config, layers=(layer,)
    )


FILES = {"./var/lib/dpkg/status": STATUS, "etc/os-release": DEBIAN, "bin/x": b"x"}


PACKERS = {
    OCI_LAYER: bytes,
    OCI_LAYER_GZIP: gzip.compress,
    # of two frames, as parallel compressors write them
    OCI_LAYER_ZSTD: lambda data: zstandard.compress(data[:700]) + zstandard.compress(data[700:]),
}


@pytest.mark.parametrize("media_type", PACKERS)
def test_a_layer_is_read_once_and_a_note_keeps_what_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, media_type: str
) -> None:
    image = make_image(tmp_path / "image", PACKERS[media_type](make_tar(FILES)), media_type)
    cache = Cache(tmp_path / "cache")
    (found,) = list_image_packages({("x", "amd64"): image}, cache).values()
    assert (found.release, found.packages[0], found.unread) == ("debian-12", LIBC, "")
    (note,) = (tmp_path / "cache" / reader.LAYERS).iterdir()
    assert base64.b64decode(json.loads(note.read_text())["var/lib/dpkg/status"]) == STATUS
    monkeypatch.setattr(reader, "read_files", lambda *_: pytest.fail("read again"))
    assert list_image_packages({("x", "amd64"): image}, cache) == {image.image_id: found}


@pytest.mark.parametrize(
    ("content", "media_type", "why"),
    [
        (b"x" * 100, OCI_LAYER_ZSTD, "no complete tar archive"),
        (zstandard.compress(make_tar(FILES))[:-20], OCI_LAYER_ZSTD, "no complete tar archive"),
        (b"x" * 1000, OCI_LAYER, "no complete tar archive"),
        (make_tar(FILES)[:600], OCI_LAYER, "no complete tar archive"),
        (gzip.compress(make_tar(FILES))[:-20], OCI_LAYER_GZIP, "no complete tar archive"),
    ],
)
def test_a_layer_that_cannot_be_read_says_why(
    tmp_path: Path, content: bytes, media_type: str, why: str
) -> None:
    image = make_image(tmp_path / "image", content, media_type)
    (found,) = list_image_packages({("x", "amd64"): image}, Cache(tmp_path / "cache")).values()
    assert found.packages == ()
    assert why in found.unread
    assert list((tmp_path / "cache" / reader.LAYERS).iterdir()) == []
