"""Renewal of certificates: old ones are archived, and a kill at any moment is recovered."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from support.command import run_bundler
from support.json_shapes import read_shape
from support.pki_plans import NOW, make_plan, read_files
from support.small_builds import SmallSite, make_site

from bundler.bundle.inspect import inspect
from bundler.errors import ConfigError, PkiError
from bundler.pki.cluster_pki import ensure_pki
from bundler.pki.renew import Renewal, Selection, renew
from bundler.state.directory import open_state
from bundler.state.replaced import get_archive_path

LATER = NOW + timedelta(days=300)
AFTER = LATER + timedelta(minutes=1)
PLAN = make_plan()


def choose(*names: str, **more: object) -> Selection:
    return Selection(names=names, **more)  # type: ignore[arg-type]


def changed(before: dict[str, bytes], after: dict[str, bytes]) -> set[str]:
    return {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}


@pytest.mark.slow
def test_named_certificates_are_renewed_and_the_old_ones_archived(state: Path) -> None:
    before = read_files(state)
    done = renew(state, PLAN, choose("pki/nodes/master1/apiserver", "admin"), LATER)
    assert [r.name for r in done] == ["pki/admin", "pki/nodes/master1/apiserver"]
    assert done[0].old_end < done[0].new_end
    after = read_files(state)
    kept = get_archive_path(state, LATER)
    assert kept.name == "20261229T050607Z"
    for name in ("pki/admin", "pki/nodes/master1/apiserver"):
        for file in ("cert.pem", "key.pem"):
            assert after[f"{name}/{file}"] != before[f"{name}/{file}"]
            assert (kept / name / file).read_bytes() == before[f"{name}/{file}"]
        new = x509.load_pem_x509_certificate(after[f"{name}/cert.pem"])
        old = x509.load_pem_x509_certificate(before[f"{name}/cert.pem"])
        assert new.not_valid_after_utc - old.not_valid_after_utc == timedelta(days=300)
        assert new.subject == old.subject
    touched = {path for path in changed(before, after) if not path.startswith("archive/")}
    assert len(touched) == 4
    for path in (kept, kept.parent, kept / "pki/nodes/master1"):
        assert path.stat().st_mode & 0o777 == 0o700
    assert (kept / "pki/admin/key.pem").stat().st_mode & 0o777 == 0o600
    with open_state(state) as opened:
        assert ensure_pki(opened, PLAN, LATER).notes == ()


def test_keep_keys_replaces_only_the_certificate(state: Path) -> None:
    before = read_files(state)
    renew(state, PLAN, choose("admin"), LATER, keep_keys=True)
    after = read_files(state)
    assert {p for p in changed(before, after) if not p.startswith("archive/")} == {
        "pki/admin/cert.pem"
    }


@pytest.mark.slow
def test_patterns_and_ends_select_certificates_but_never_cas(state: Path) -> None:
    every = renew(state, PLAN, choose(everything=True), LATER, dry_run=True)
    assert len(every) == 21
    assert not [r for r in every if r.name.endswith("-ca") or "service-account" in r.name]
    assert renew(state, PLAN, choose("pki/*"), LATER, dry_run=True) == every
    nodes = renew(state, PLAN, choose("nodes/master1/*"), LATER, dry_run=True)
    assert {Path(r.name).name for r in nodes} >= {"apiserver", "etcd-peer"}
    assert len(nodes) == 5
    soon = choose(before=LATER + timedelta(days=64))
    assert renew(state, PLAN, soon, LATER, dry_run=True) == ()
    assert renew(state, PLAN, choose(before=LATER + timedelta(days=66)), LATER) == every


def test_a_dry_run_writes_nothing(state: Path) -> None:
    before = read_files(state)
    renew(state, PLAN, choose(everything=True), LATER, dry_run=True)
    assert read_files(state) == before


@pytest.mark.slow
def test_ended_certificates_can_be_renewed(state: Path) -> None:
    late = NOW + timedelta(days=400)
    done = renew(state, PLAN, choose(before=late), late)
    assert len(done) == 21
    with open_state(state) as opened:
        assert ensure_pki(opened, PLAN, late).notes == ()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("kubernetes-ca", "a CA is replaced in stages"),
        ("pki/etcd-ca", "a CA is replaced in stages"),
        ("service-account", "it is replaced in stages"),
        ("nodes/master9/apiserver", "the cluster has no certificate of this name"),
    ],
)
def test_unknown_and_unrenewable_names_are_refused_before_anything_is_written(
    state: Path, name: str, message: str
) -> None:
    before = read_files(state)
    with pytest.raises(ConfigError, match=message):
        renew(state, PLAN, choose("admin", name), LATER)
    assert read_files(state) == before


def test_a_typing_error_gets_a_suggestion(state: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        renew(state, PLAN, choose("nodes/master1/apisever"), LATER)
    assert caught.value.hint == "did you mean pki/nodes/master1/apiserver?"


def test_no_state_directory_is_created(tmp_path: Path) -> None:
    with pytest.raises(PkiError, match="not a state directory"):
        renew(tmp_path / "none", PLAN, choose(everything=True), LATER)
    assert not (tmp_path / "none").exists()


def test_an_ended_ca_signs_nothing(state: Path) -> None:
    before = read_files(state)
    with pytest.raises(PkiError, match="ended on 2036"):
        renew(state, PLAN, choose(everything=True), NOW + timedelta(days=3651))
    assert read_files(state) == before


def test_a_renewal_reports_an_end_that_its_ca_shortens(state: Path) -> None:
    late = NOW + timedelta(days=3500)
    done = renew(state, PLAN, choose("admin"), late)
    assert done == (
        Renewal(
            name="pki/admin",
            old_end=done[0].old_end,
            new_end=(NOW + timedelta(days=3650)).replace(second=0, microsecond=0),
            is_cut_short=True,
        ),
    )


CHANGES = ("rename", "replace", "rmdir", "unlink", "mkdir")
"""Functions of os that change the directory tree; the test kills before each call of them."""


def die_before(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 0

    def wrap(name: str) -> None:
        real: Callable[..., object] = getattr(os, name)

        def counted(*arguments: object, **more: object) -> object:
            nonlocal count
            count += 1
            if count == step:
                os._exit(99)
            return real(*arguments, **more)

        monkeypatch.setattr(os, name, counted)

    for name in CHANGES:
        wrap(name)


@pytest.mark.slow
@pytest.mark.parametrize("keep_keys", [False, True])
def test_a_kill_before_any_step_is_recovered(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, keep_keys: bool
) -> None:
    before = read_files(made)
    names = ("admin", "nodes/master2/etcd-peer")
    step = 0
    while True:
        step += 1
        path = Path(shutil.copytree(made, tmp_path / f"state{step}"))
        child = os.fork()
        if child == 0:
            die_before(step, monkeypatch)
            renew(path, PLAN, choose(*names), LATER, keep_keys=keep_keys)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code != 0:  # the same command completes it; so does a build, below
            other = Path(shutil.copytree(path, tmp_path / f"again{step}"))
            again = renew(other, PLAN, choose(*names), AFTER, keep_keys=keep_keys)
            assert [one.name for one in again] == ["pki/admin", "pki/nodes/master2/etcd-peer"]
            kept = read_files(other)
            assert set(before.values()) <= set(kept.values()), f"lost at step {step}"
            assert {p for p in kept if not p.startswith("archive/")} == set(before)
        with open_state(path, create=True) as opened:
            ensure_pki(opened, PLAN, LATER)
            found = read_files(path)
            assert ensure_pki(opened, PLAN, LATER).notes == ()
        assert set(before.values()) <= set(found.values()), f"lost at step {step}"
        assert {p for p in found if not p.startswith("archive/")} == set(before)
        if code == 0:
            break
        assert code == 99
    assert step > 8


@pytest.fixture
def site(tmp_path: Path) -> SmallSite:
    return make_site(tmp_path / "site")


def run(site: SmallSite, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_bundler(
        [*arguments, *site.arguments],
        cwd=site.directory, capture_output=True, text=True, check=False,
    )  # fmt: skip


def digests(directory: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.glob("*.tar.gz"))
    }


@pytest.mark.slow
def test_one_command_renews_and_builds_the_small_bundles(site: SmallSite) -> None:
    dist = site.build()
    done = run(
        site,
        "certs",
        "renew",
        "nodes/one/apiserver",
        "nodes/one/kube-proxy",
        "--since",
        "dist",
        "-o",
        "new",
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[-1] for line in done.stdout.splitlines()] == [
        "pki/nodes/one/apiserver", "pki/nodes/one/kube-proxy",
    ]  # fmt: skip
    old, new = (
        inspect(d / "small-one.tar.gz", keep=1 << 20) for d in (dist, site.directory / "new")
    )
    assert new.facts["BASE"].startswith(old.parsed.public_identity)
    differ = {
        path for path in old.texts.keys() & new.texts.keys() if old.texts[path] != new.texts[path]
    }
    assert all(file.startswith("rootfs/opt/") for file in old.texts.keys() - new.texts.keys())
    differ -= {"MANIFEST", "provenance.intoto.json", "state.env"}
    assert differ == {
        "rootfs/etc/kubernetes/kube-proxy.kubeconfig",
        "rootfs/etc/kubernetes/pki/apiserver.crt",
        "rootfs/etc/kubernetes/pki/apiserver.key",
    }
    # every later build has them, byte for byte
    assert digests(site.build("third")) == digests(site.build("fourth"))


@pytest.mark.slow
def test_the_command_has_a_dry_run_and_refuses_conflicting_options(site: SmallSite) -> None:
    site.build()
    before = read_files(site.directory / "small.state")
    said = run(site, "certs", "renew", "--all", "--dry-run", "--json")
    assert len(read_shape(said.stdout, "certs-renew")["certificates"]) == 18
    assert run(site, "certs", "renew", "--expiring", "90d").stdout == ""
    for wrong in ([], ["--all", "admin"], ["--all", "-o", "x"], ["--expiring", "soon"]):
        assert run(site, "certs", "renew", *wrong).returncode == 2
    assert read_files(site.directory / "small.state") == before


@pytest.mark.slow
def test_the_archive_is_not_listed(site: SmallSite) -> None:
    site.build()
    run(site, "certs", "renew", "admin")
    listed = run_bundler(
        ["certs", "list", "--json"],
        cwd=site.directory, capture_output=True, text=True, check=True,
    )  # fmt: skip
    rows = read_shape(listed.stdout, "certs-list")["certificates"]
    assert [row["path"] for row in rows].count("pki/admin") == 1
    assert not [row for row in rows if "archive" in row["path"]]
    assert (datetime.fromisoformat(rows[0]["not_after"]) - datetime.now(UTC)).days > 300


def test_a_certificate_lost_by_a_kill_is_renewed(made: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(made, tmp_path / "state"))
    renew(path, PLAN, choose("admin"), LATER)
    shutil.rmtree(path / "pki/admin")
    shutil.rmtree(path / "pki/scheduler")  # was never renewed: a build issues it
    for selection in (choose(everything=True), choose(before=LATER)):
        found = {one.name: one for one in renew(path, PLAN, selection, AFTER, dry_run=True)}
        assert found["pki/admin"].old_end is None
        assert "pki/scheduler" not in found
