"""The layout `split`: small tarballs, and one payload file for all nodes."""

import hashlib
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from support.json_shapes import read_shape
from support.media import SPLIT, faults_of, files_of, run
from support.small_builds import SmallSite, read_manifest, unpack

from bundler.bundle.layout import Layout, Media


@pytest.mark.slow
def test_split_holds_each_large_file_once_and_names_every_file(built: SmallSite) -> None:
    full, split = built.directory / "dist", built.directory / "shared"
    (payload,) = split.glob("payload-*.tar")
    for node in ("one", "two", "three"):
        manifest = read_manifest(split / f"small-{node}.tar.gz")
        assert files_of(manifest) == read_manifest(full / f"small-{node}.tar.gz")
        assert f"# payload {payload.stem.removeprefix('payload-')}" in "\n".join(manifest)
        assert not list((unpack(split / f"small-{node}.tar.gz", split / "x")).rglob("kubelet"))
    shutil.rmtree(split / "x")
    with tarfile.open(payload) as tar:
        names = tar.getnames()
    assert len(names) == len(set(names))
    assert names[0] == f"{payload.stem}/SHA256SUMS"
    assert faults_of(split) == []


def test_plain_tools_read_the_payload(built: SmallSite, tmp_path: Path) -> None:
    (payload,) = (built.directory / "shared").glob("payload-*.tar")
    subprocess.run(["tar", "-xf", payload, "-C", tmp_path], check=True)
    folder = tmp_path / payload.stem
    sums = (folder / "SHA256SUMS").read_bytes()
    assert f"payload-{hashlib.sha256(sums).hexdigest()[:16]}" == payload.stem
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=folder, check=True)
    for member in folder.glob("*.tar.gz"):
        subprocess.run(["tar", "-xzf", member, "-C", tmp_path], check=True)
        content = (tmp_path / member.name.removesuffix(".tar.gz")).read_bytes()
        assert f"{hashlib.sha256(content).hexdigest()}.tar.gz" == member.name


@pytest.mark.slow
def test_split_is_the_same_bytes_twice_and_its_payload_needs_no_state(site: SmallSite) -> None:
    first = (site.directory / "changed").parent
    one = site.build("a", SPLIT)
    two = site.build("b", SPLIT)
    assert (one / "SHA256SUMS").read_bytes() == (two / "SHA256SUMS").read_bytes()
    shutil.rmtree(first / "small.state")
    public = site.build("c", Media(layout=Layout.SPLIT, public_only=True))
    (ours,), (theirs,) = one.glob("payload-*.tar"), public.glob("payload-*.tar")
    assert ours.name == theirs.name
    assert ours.read_bytes() == theirs.read_bytes()
    assert not (first / "small.state").exists()


def test_verify_reports_a_damaged_missing_or_other_payload(site: SmallSite) -> None:
    directory = site.directory / "shared"
    (payload,) = directory.glob("payload-*.tar")
    whole = payload.read_bytes()
    payload.write_bytes(whole[:-2000])
    assert f"{payload.name}: its digest is" in "\n".join(faults_of(directory))
    payload.unlink()
    faults = "\n".join(faults_of(directory))
    assert f"{payload.name}: missing" in faults
    assert f"small-one.tar.gz: {payload.name} is missing or damaged" in faults


@pytest.mark.slow
def test_verify_checks_the_members_of_a_payload(site: SmallSite) -> None:
    directory = site.directory / "shared"
    (payload,) = directory.glob("payload-*.tar")
    before = hashlib.sha256(payload.read_bytes()).hexdigest()
    content = bytearray(payload.read_bytes())
    with tarfile.open(payload) as tar:
        content[tar.getmembers()[-1].offset_data + 20] ^= 1
    payload.write_bytes(content)
    sums = (directory / "SHA256SUMS").read_text()
    after = hashlib.sha256(content).hexdigest()
    (directory / "SHA256SUMS").write_text(sums.replace(before, after))
    faults = "\n".join(faults_of(directory))
    assert re.search(r"payload-\w+\.tar: \w{64}\.tar\.gz: differs from SHA256SUMS", faults)
    assert re.search(r"small-one\.tar\.gz: \S+: not in payload-", faults)


@pytest.mark.slow
def test_inspect_reads_a_payload_and_names_the_source_of_files(site: SmallSite) -> None:
    directory = site.directory / "shared"
    (payload,) = directory.glob("payload-*.tar")
    done = run("inspect", payload, "--json")
    assert done.returncode == 0, done.stderr
    report = read_shape(done.stdout, "inspect-payload")
    assert report["facts"]["PAYLOAD"].startswith(payload.stem.removeprefix("payload-"))
    done = run("inspect", directory / "small-one.tar.gz")
    assert re.search(r"rootfs/opt/k8s/bin/kubelet \(in the payload\)$", done.stdout, re.MULTILINE)
    assert re.search(
        r"^payload +payload-\w+\.tar \(holds \d+ files of this bundle\)$", done.stdout, re.MULTILINE
    )
    listed = read_shape(run("inspect", directory / "small-one.tar.gz", "--json").stdout, "inspect")
    sources = listed["elsewhere"]
    digests = {f["sha256"] for f in listed["files"] if sources.get(f["path"]) == "payload"}
    assert digests <= set(report["files"])
    payload.write_bytes(payload.read_bytes()[:-20_000])
    done = run("inspect", payload)
    assert done.returncode == 6


@pytest.mark.slow
def test_an_older_payload_in_the_directory_is_reported(site: SmallSite) -> None:
    done = run("build", *site.arguments, "-o", site.directory / "shared", "--layout", "split")
    assert done.returncode == 0, done.stderr
    assert re.search(r"payload-\w+\.tar is not part of this build", done.stderr)
    assert len(list((site.directory / "shared").glob("payload-*.tar"))) == 2


@pytest.mark.slow
def test_split_layout_in_volumes(site: SmallSite) -> None:
    directory = site.build("both", Media(layout=Layout.SPLIT, split=5_000))
    assert list(directory.glob("payload-*.tar.001"))
    assert faults_of(directory) == []
