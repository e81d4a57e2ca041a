"""Manifests and volumes of bundles, and media of several kinds together."""

import hashlib
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.media import faults_of, run
from support.small_builds import SmallSite

from bundler.bundle.layout import Layout, Media
from bundler.bundle.signing import generate_key
from bundler.errors import OutputError
from bundler.formats.volumes import open_joined
from bundler.render.bundle_manifest import (
    ContentSource,
    make_header,
    parse_manifest,
)


def test_a_manifest_is_read_back_with_the_source_of_every_file() -> None:
    digest = "ab" * 32
    lines = f"{digest} 0755 12 rootfs/x\n{digest} 0644 1 node.env\n".encode()
    base, payload = "12" * 32, "34" * 32
    secret = f"{digest} 0600 5 rootfs/y.key\n".encode()
    header = make_header(
        {"rootfs/x": ContentSource.BASE, "images/1": ContentSource.PAYLOAD},
        base=base, payload=payload,
    )  # fmt: skip
    manifest = parse_manifest(header + lines + secret, "a test")
    assert (manifest.base, manifest.payload) == (base, payload)
    assert manifest.absent == {"rootfs/x": ContentSource.BASE, "images/1": ContentSource.PAYLOAD}
    assert [(e.path, e.mode, e.size) for e in manifest.entries] == [
        ("rootfs/x", 0o755, 12), ("node.env", 0o644, 1), ("rootfs/y.key", 0o600, 5),
    ]  # fmt: skip
    assert manifest.public_identity == hashlib.sha256(lines).hexdigest()
    assert make_header({}) == b""


@pytest.mark.parametrize("source", ["base", "payload"])
def test_a_manifest_that_does_not_name_the_source_of_its_files_is_refused(source: str) -> None:
    with pytest.raises(OutputError, match=f"`# from-{source}`, but no line `# {source}`"):
        parse_manifest(f"# from-{source} rootfs/x\n".encode(), "a test")


DIGEST = b"ab" * 32


@pytest.mark.parametrize(
    "content",
    [
        b"nothing", b"# from-moon x", b"ab 0644 12 x", b"\xff", b"# x",
        DIGEST + b" 0644 12 a b", DIGEST + b" 0644 12 \x1b[2Jx", DIGEST + b" 0644 -1 x",
        DIGEST + b" 0999 1 x", DIGEST + b" 0644 12 \xe2\x80\xaex",
    ],
)  # fmt: skip
def test_a_file_that_is_not_a_manifest_is_refused(content: bytes) -> None:
    with pytest.raises(OutputError, match="not the MANIFEST of a bundle"):
        parse_manifest(content, "a test")


def test_volumes_join_to_the_bundles_and_verify_without_joining(
    built: SmallSite,
) -> None:
    directory = built.directory / "volumes"
    with open_joined(directory / "small-one.tar.gz") as file:
        assert file.read() == (built.directory / "dist/small-one.tar.gz").read_bytes()
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=directory, check=True)
    assert "join.sh" in (directory / "SHA256SUMS").read_text()
    assert faults_of(directory) == []
    assert (directory / "small-one.tar.gz.001").stat().st_mode & 0o777 == 0o600


def test_verify_names_each_bad_volume(site: SmallSite) -> None:
    directory = site.directory / "volumes"
    volumes = sorted(directory.glob("small-one.tar.gz.0*"))
    volumes[0].unlink()
    *content, last = volumes[1].read_bytes()
    volumes[1].write_bytes(bytes([*content, last ^ 1]))
    shutil.copy(volumes[1], directory / "small-one.tar.gz.099")
    faults = "\n".join(faults_of(directory))
    assert "small-one.tar.gz.001: missing" in faults
    assert "small-one.tar.gz.002: its digest is" in faults
    assert "small-one.tar.gz.099: not in SHA256SUMS" in faults


def test_inspect_reads_volumes(built: SmallSite) -> None:
    done = run("inspect", built.directory / "volumes/small-one.tar.gz.002")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^node +one$", done.stdout, re.MULTILINE)


def test_a_build_without_volumes_removes_former_volumes(site: SmallSite) -> None:
    site.build("volumes")
    names = {path.name for path in (site.directory / "volumes").iterdir()}
    tarballs = {f"small-{n}.tar.gz" for n in ("one", "two", "three")}
    assert names == tarballs | {f"{name}.sha256" for name in tarballs} | {
        "RUNBOOK.md",
        "SHA256SUMS",
    }


def test_a_bad_size_is_refused_before_the_build_starts(site: SmallSite) -> None:
    done = run("build", *site.arguments, "-o", site.directory / "new", "--split", "4,4G")
    assert (done.returncode, "--split 4,4G: not a size" in done.stderr) == (2, True)
    assert not (site.directory / "new").exists()


@pytest.mark.slow
@pytest.mark.parametrize("moment", [0.8, 1.0, 1.2, 1.4])
def test_the_next_build_completes_one_that_was_killed(site: SmallSite, moment: float) -> None:
    output = site.directory / "volumes"
    command = [Path(sys.executable).parent / "bundler", "build", *site.arguments, "-o", output]
    options = ["--split", "3K", "--layout", "split"]
    with subprocess.Popen(
        [*command, *options], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as build:
        time.sleep(moment)
        build.kill()
    if (output / "SHA256SUMS").exists():  # killed before it began to write, or after its end
        assert faults_of(output) == []
    done = run("build", *site.arguments, "-o", output, *options)
    assert done.returncode == 0, done.stderr
    assert faults_of(output) == []
    fresh = site.build("fresh", Media(layout=Layout.SPLIT, split=3_000))
    assert {p.name: p.read_bytes() for p in output.iterdir()} == {
        p.name: p.read_bytes() for p in fresh.iterdir()
    }


@pytest.mark.slow
def test_signatures_cover_volumes_payloads_and_deltas(site: SmallSite) -> None:
    key = site.directory / "release.key"
    public = generate_key(key)
    media = Media(
        layout=Layout.SPLIT, split=5_000, since=(f"one={site.directory}/dist/small-one.tar.gz",)
    )
    directory = site.build("signed", media, sign=key)
    done = run("verify", directory, "--trust", public)
    assert done.returncode == 0, done.stderr
    assert "in the payload" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["write   DIST/small-one.tar.gz"]),
        (
            ["--split", "650M"],
            [
                "write   DIST/small-one.tar.gz; in volumes .001 … with join.sh if larger than 650000000 bytes"
            ],
        ),
        (
            ["--layout", "split"],
            ["write   DIST/payload-DIGEST.tar", "write   DIST/small-one.tar.gz"],
        ),
        (["--since", "OLD"], ["write   DIST/small-one.tar.gz, a delta to the bundle "]),
        (["--public-only"], ["write   DIST/small-one.public.tar.gz"]),
    ],
    ids=["full", "volumes", "split", "since", "public"],
)
def test_a_dry_run_names_the_files_that_a_build_would_write(
    site: SmallSite, arguments: list[str], expected: list[str]
) -> None:
    output = site.directory / "new"
    given = [str(site.directory / "dist") if word == "OLD" else word for word in arguments]
    done = run("build", *site.arguments, "-o", output, "--dry-run", *given)
    assert done.returncode == 0, done.stderr
    for line in expected:
        assert line.replace("DIST", str(output)) in done.stdout
    assert ("small.state" in done.stdout) == (arguments != ["--public-only"])
    assert not output.exists()
