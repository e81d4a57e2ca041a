"""CAs and the service account key are rotated in stages; replaced files are archived."""

import shlex
import shutil
import subprocess
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from support.command import run_bundler
from support.interrupted_writes import interrupt_write
from support.json_shapes import read_shape
from support.pki_plans import NOW, make_plan, read_files
from support.small_builds import SmallSite, make_site

from bundler.bundle.inspect import inspect
from bundler.cli import certs_check
from bundler.cluster.plan import ClusterPlan
from bundler.errors import ConfigError, PkiError
from bundler.pki import issuing
from bundler.pki.cluster_pki import Pki, ensure_pki
from bundler.pki.inventory import list_state_certificates
from bundler.pki.rotation import CERTIFICATES
from bundler.pki.rotation_stages import SERVICE_ACCOUNT, RotationStage, read_stage
from bundler.pki.service_account import make_key_id
from bundler.state import transaction
from bundler.state.directory import open_state
from bundler.state.replaced import get_archive_path
from bundler.state.stages import Change, describe_stage, take_step

TRUST = NOW + timedelta(days=300)
ISSUE = TRUST + timedelta(days=1)
DROP = TRUST + timedelta(days=2)
ROTATION_ID = "20261229T050607Z"
PLAN = make_plan()
CA_NAMES = ("etcd-ca", "front-proxy-ca", "kubernetes-ca")


def rotate(
    state: Path, plan: ClusterPlan, step: str, now: datetime, *only: str, dry_run: bool = False
) -> Change:
    return take_step(CERTIFICATES, state, plan, step, now, names=only, dry_run=dry_run)


def load(state: Path, now: datetime = DROP, plan: ClusterPlan = PLAN) -> Pki:
    with open_state(state, create=True) as opened:
        return ensure_pki(opened, plan, now)


def certificates(pem: bytes) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(pem)


def is_signed_by(leaf: bytes, ca: bytes) -> bool:
    try:
        certificates(leaf)[0].verify_directly_issued_by(certificates(ca)[0])
    except (ValueError, InvalidSignature):
        return False
    return True


def all_leaves(made: Pki) -> dict[str, bytes]:
    return {
        f"{owner} {name}": pair.certificate_pem
        for owner, pairs in {"": made.cluster, **made.nodes}.items()
        for name, pair in pairs.items()
    }


def test_trust_creates_new_cas_that_sign_nothing(state: Path) -> None:
    before, old = read_files(state), load(state)
    change = rotate(state, PLAN, "trust", TRUST)
    assert [line.partition(":")[0] for line in change.messages] == [*CA_NAMES, SERVICE_ACCOUNT]
    after, made = read_files(state), load(state)
    assert {path for path in after if path not in before} == {
        *(f"pki/next/{name}/{file}.pem" for name in CA_NAMES for file in ("cert", "key")),
        *(f"pki/next/{SERVICE_ACCOUNT}/{file}.pem" for file in ("pub", "key")),
    }
    assert all(after[path] == content for path, content in before.items())
    assert all_leaves(made) == all_leaves(old)
    for name in CA_NAMES:
        present, new = certificates(made.trust.by_ca[name])
        assert issuing.encode_certificate(present) == old.trust.by_ca[name]
        assert new.subject.rfc4514_string() == f"CN={name},OU={ROTATION_ID},O=lab"
        assert made.cas[name].certificate_pem == old.cas[name].certificate_pem
    for pem in (made.trust.servers, made.trust.api):
        assert certificates(pem) == certificates(made.trust.by_ca["kubernetes-ca"])
    assert (made.signing_rotation_id, made.trusted_rotation_ids) == ("-", ("-", ROTATION_ID))
    assert (old.signing_rotation_id, old.trusted_rotation_ids) == ("-", ("-",))
    assert any("stage trust" in note for note in made.notes)
    for path in (state / "pki/next").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0


@pytest.mark.slow
def test_issue_reissues_every_certificate_and_still_trusts_the_previous_cas(state: Path) -> None:
    rotate(state, PLAN, "trust", TRUST)
    before = read_files(state)
    old, new = load(state), {name: before[f"pki/next/{name}/cert.pem"] for name in CA_NAMES}
    rotate(state, PLAN, "issue", ISSUE)
    made, after = load(state), read_files(state)
    assert not (state / "pki/next").exists()
    for name in CA_NAMES:
        assert made.cas[name].certificate_pem == new[name]
        assert made.trust.by_ca[name] == new[name] + old.cas[name].certificate_pem
        assert after[f"pki/{name}/key.pem"] == before[f"pki/next/{name}/key.pem"]
    assert sorted(after[p] for p in after if "previous" in p) == sorted(
        [
            *(before[f"pki/{name}/cert.pem"] for name in CA_NAMES),
            before[f"pki/{SERVICE_ACCOUNT}/pub.pem"],
        ]
    )
    assert (made.signing_rotation_id, made.trusted_rotation_ids) == (
        ROTATION_ID,
        (ROTATION_ID, "-"),
    )
    previous = all_leaves(old)
    for name, leaf in all_leaves(made).items():
        signer = next(n for n in CA_NAMES if is_signed_by(previous[name], old.cas[n].certificate_pem))  # fmt: skip
        assert is_signed_by(leaf, new[signer])
        assert certificates(leaf)[0].public_key() != certificates(previous[name])[0].public_key()
        assert certificates(leaf)[0].subject == certificates(previous[name])[0].subject
    kept = read_files(get_archive_path(state, ISSUE))
    gone = {
        p: before[p] for p in before if before[p] != after.get(p) and not p.startswith("pki/next")
    }
    assert gone.items() <= kept.items()
    assert len(gone) == 2 * (len(previous) + len(CA_NAMES) + 1)


@pytest.mark.slow
def test_drop_keeps_only_the_new_cas(state: Path) -> None:
    for step, when in (("trust", TRUST), ("issue", ISSUE), ("drop", DROP)):
        rotate(state, PLAN, step, when)
    made = load(state)
    assert read_stage(state) is RotationStage.SETTLED
    assert not (state / "pki/previous").exists()
    for name in CA_NAMES:
        assert certificates(made.trust.by_ca[name]) == certificates(made.cas[name].certificate_pem)
    assert (made.signing_rotation_id, made.trusted_rotation_ids) == (ROTATION_ID, (ROTATION_ID,))
    assert made.notes == ()
    kept = get_archive_path(state, DROP)
    assert sorted(p.parent.name for p in kept.rglob("cert.pem")) == list(CA_NAMES)
    rotate(state, PLAN, "trust", DROP)  # a further rotation can follow
    assert load(state).trusted_rotation_ids == (ROTATION_ID, f"{DROP:%Y%m%dT%H%M%SZ}")


def test_abandon_restores_the_state_before_trust(state: Path) -> None:
    before = read_files(state)
    rotate(state, PLAN, "trust", TRUST)
    rotate(state, PLAN, "abandon", ISSUE)
    assert {p: c for p, c in read_files(state).items() if not p.startswith("archive/")} == before
    assert read_stage(state) is RotationStage.SETTLED
    assert len(list(get_archive_path(state, ISSUE).rglob("*.pem"))) == 8


def list_accepted(state: Path) -> list[tuple[str, bytes]]:
    """The ids of the keys whose tokens are accepted, the one that signs first, with their keys."""
    return list(load(state).service_account.public_pem.items())


@pytest.mark.parametrize("only", [(), (SERVICE_ACCOUNT,)], ids=["all", "only"])
@pytest.mark.slow
def test_tokens_of_two_service_account_keys_are_accepted_until_the_old_one_is_dropped(
    state: Path, only: tuple[str, ...]
) -> None:
    (old,) = list_accepted(state)
    rotate(state, PLAN, "trust", TRUST, *only)
    _, new = list_accepted(state)
    assert list_accepted(state) == [old, new]
    rotate(state, PLAN, "issue", ISSUE)
    assert list_accepted(state) == [new, old]
    made = load(state)
    assert made.service_account.signs == new[0] == make_key_id(new[1])
    signing = load_pem_private_key(made.service_account.key_pem, None)
    assert issuing.encode_public_key(signing.public_key()) == new[1]
    rotate(state, PLAN, "drop", DROP)
    assert list_accepted(state) == [new]
    kept = get_archive_path(state, ISSUE) / "pki" / SERVICE_ACCOUNT
    assert sorted(path.name for path in kept.iterdir()) == ["key.pem", "pub.pem"]
    assert not (state / "pki/next").exists()
    assert not (state / "pki/previous").exists()


def test_the_service_account_key_alone_changes_no_certificate(state: Path) -> None:
    before = read_files(state)
    rotate(state, PLAN, "trust", TRUST, SERVICE_ACCOUNT)
    said = rotate(state, PLAN, "issue", ISSUE).messages
    assert said == (
        "service-account: the new key signs tokens, those of the previous one are still accepted",
    )
    after = read_files(state)
    changed = {path for path, content in before.items() if after[path] != content}
    assert changed == {f"pki/{SERVICE_ACCOUNT}/{file}.pem" for file in ("key", "pub")}
    assert load(state).trusted_rotation_ids == ("-",)


@pytest.mark.slow
def test_a_single_ca_can_be_rotated(tmp_path: Path) -> None:
    plan, state = make_plan(authorities="single", key="rsa-2048"), tmp_path / "state"
    load(state, NOW, plan)
    rotate(state, plan, "trust", TRUST)
    rotate(state, plan, "issue", ISSUE)
    made = load(state, ISSUE, plan)
    for name in CA_NAMES:
        assert len(certificates(made.trust.by_ca[name])) == 2
    assert all(
        is_signed_by(leaf, made.cas["kubernetes-ca"].certificate_pem)
        for leaf in all_leaves(made).values()
    )


@pytest.mark.parametrize(
    ("done", "step"),
    [
        ((), "issue"),
        ((), "drop"),
        ((), "abandon"),
        (("trust",), "trust"),
        (("trust",), "drop"),
        (("trust", "issue"), "trust"),
        (("trust", "issue"), "issue"),
        (("trust", "issue"), "abandon"),
    ],
)
@pytest.mark.slow
def test_a_step_out_of_order_is_refused_with_the_next_step(
    state: Path, done: tuple[str, ...], step: str
) -> None:
    for name in done:
        rotate(state, PLAN, name, TRUST)
    before = read_files(state)
    with pytest.raises(ConfigError) as refused:
        rotate(state, PLAN, step, ISSUE)
    assert refused.value.hint == describe_stage(CERTIFICATES, state)
    following = {(): "trust", ("trust",): "issue", ("trust", "issue"): "drop"}[done]
    assert f"next: bundler certs rotate {following}" in describe_stage(CERTIFICATES, state)
    assert read_files(state) == before


@pytest.mark.parametrize("step", ["trust", "issue", "drop"])
@pytest.mark.slow
def test_a_dry_run_changes_nothing(state: Path, step: str) -> None:
    for name in {"trust": (), "issue": ("trust",), "drop": ("trust", "issue")}[step]:
        rotate(state, PLAN, name, TRUST)
    before = read_files(state)
    assert rotate(state, PLAN, step, ISSUE, dry_run=True).messages
    assert read_files(state) == before


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(1, 12, 2))
def test_a_kill_during_a_step_is_completed_by_the_next_command(state: Path, moment: int) -> None:
    rotate(state, PLAN, "trust", TRUST)
    with interrupt_write(moment), pytest.raises(KeyboardInterrupt):
        rotate(state, PLAN, "issue", ISSUE)
    described = shutil.copytree(state, state.parent / "described")
    assert describe_stage(CERTIFICATES, described).startswith("stage issue: ")
    read = shutil.copytree(state, state.parent / "read")
    assert not [e for e in list_state_certificates(read, ISSUE) if e.path.startswith("pki/next")]
    asked = shutil.copytree(state, state.parent / "asked")
    trusted, _ = certs_check._load_state(asked, PLAN)
    assert len(trusted["etcd-ca"]) == 2
    made = load(state)  # the next command finishes it
    assert read_stage(state) is RotationStage.ISSUE
    assert (made.signing_rotation_id, made.trusted_rotation_ids) == (
        ROTATION_ID,
        (ROTATION_ID, "-"),
    )
    assert not any("issued again" in note for note in made.notes)


def test_a_kill_before_the_commit_changes_nothing(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_files(state)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(transaction, "write_directory_atomically", stop)
    with pytest.raises(KeyboardInterrupt):
        rotate(state, PLAN, "trust", TRUST)
    assert read_files(state) == before


@pytest.mark.slow
def test_external_cas_are_not_rotated(tmp_path: Path) -> None:
    state = tmp_path / "state"
    load(state, NOW)
    (state / "pki/kubernetes-ca/origin").write_text("imported\n")
    (state / "pki/kubernetes-ca/origin").chmod(0o600)
    with pytest.raises(PkiError, match="kubernetes-ca is an external CA") as refused:
        rotate(state, PLAN, "trust", TRUST)
    assert "external-ca.md" in str(refused.value.hint)
    assert (load(state).signing_rotation_id, load(state).trusted_rotation_ids) == ("", ())
    rotate(state, PLAN, "trust", TRUST, SERVICE_ACCOUNT)
    rotate(state, PLAN, "issue", ISSUE)
    rotate(state, PLAN, "drop", DROP)
    assert read_stage(state) is RotationStage.SETTLED


def test_a_state_with_files_of_two_stages_is_refused(state: Path) -> None:
    rotate(state, PLAN, "trust", TRUST)
    shutil.copytree(state / "pki/next", state / "pki/previous")
    with pytest.raises(PkiError, match="has both next and previous"):
        rotate(state, PLAN, "issue", ISSUE)


@pytest.fixture
def site(tmp_path: Path) -> SmallSite:
    return make_site(tmp_path / "site")


def run(site: SmallSite, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_bundler(
        [*arguments, *site.arguments],
        cwd=site.directory, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_each_stage_is_one_command_with_its_small_bundles(site: SmallSite) -> None:
    since = site.build().name
    texts: dict[str, dict[str, bytes]] = {}
    for step in ("trust", "issue", "drop"):
        dry = run(site, "certs", "rotate", step, "--dry-run", "--json")
        assert read_shape(dry.stdout, "rotation-step")["dry_run"] is True
        done = run(site, "certs", "rotate", step, "--since", since, "-o", step)
        assert done.returncode == 0, done.stderr
        assert "Then: install the bundles of this stage on every host" in done.stderr
        found = inspect(site.directory / step / "small-two.tar.gz", keep=1 << 20)
        assert "rootfs/opt/k8s/bin/kubelet" not in found.texts
        texts[step] = found.texts
        since = step
    counts = {
        step: [
            found[f"rootfs/etc/kubernetes/pki/{name}.crt"].count(b"BEGIN CERTIFICATE")
            for name in ("ca", "ca-signing")
        ]
        for step, found in texts.items()
    }
    assert counts == {"trust": [2, 1], "issue": [2, 1], "drop": [1, 1]}
    said = [
        [line for line in texts[step]["state.env"].decode().splitlines() if "AUTHORIT" in line]
        for step in texts
    ]
    rotation_id = said[-1][0].split("'")[1]
    assert said == [
        ["AUTHORITY_SIGNS='-'", f"AUTHORITIES_BELIEVED='- {rotation_id}'"],
        [f"AUTHORITY_SIGNS='{rotation_id}'", f"AUTHORITIES_BELIEVED='{rotation_id} -'"],
        [f"AUTHORITY_SIGNS='{rotation_id}'", f"AUTHORITIES_BELIEVED='{rotation_id}'"],
    ]


@pytest.mark.slow
def test_without_a_step_the_command_prints_the_stage(site: SmallSite) -> None:
    site.build()
    assert run(site, "certs", "rotate").stdout.startswith("stage settled: ")
    run(site, "certs", "rotate", "trust")
    assert read_shape(run(site, "certs", "rotate", "--json").stdout, "rotation-stage") == {
        "format": "rotation-stage/1", "stage": "trust",
    }  # fmt: skip
    for wrong in (["issue", "-o", "x"], ["drop"], ["turn"]):
        assert run(site, "certs", "rotate", *wrong).returncode == 2
    listed = read_shape(run_list(site), "certs-list")["certificates"]
    assert "pki/next/kubernetes-ca" in {row["path"] for row in listed}


@pytest.mark.slow
def test_impossible_builds_are_refused_before_the_state_changes(site: SmallSite) -> None:
    site.build()
    before = read_files(site.directory / "small.state")
    (site.directory / "file").write_text("")
    for wrong, code in (
        (["--since", "nodist", "-o", "new"], 2),
        (["--since", "dist", "-o", "file"], 6),
        (["--since", "dist", "-o", "new", "--sign", "nokey"], 2),
    ):
        for command in (["rotate", "trust"], ["renew", "--all"]):
            done = run(site, "certs", *command, *wrong)
            assert done.returncode == code, (wrong, done.stderr)
            assert "Traceback" not in done.stderr
            assert read_files(site.directory / "small.state") == before
    (site.directory / "new/small-one.tar.gz").mkdir(
        parents=True
    )  # found only when the bundle is written
    done = run(site, "certs", "rotate", "trust", "--since", "dist", "-o", "new")
    assert (done.returncode, "the state has changed" in done.stderr) == (6, True)
    assert run(site, "certs", "rotate").stdout.startswith("stage trust: ")
    (site.directory / "new/small-one.tar.gz").rmdir()
    said = next(line for line in done.stderr.splitlines() if "run: bundler build" in line)
    words = shlex.split(said.partition("run: bundler ")[2])
    assert run_bare(site, *words).returncode == 0
    assert (site.directory / "new/SHA256SUMS").is_file()


def run_bare(site: SmallSite, *words: str) -> subprocess.CompletedProcess[str]:
    return run_bundler(
        [*words],
        cwd=site.directory, capture_output=True, text=True, check=False,
    )  # fmt: skip


def run_list(site: SmallSite) -> str:
    return run_bundler(
        ["certs", "list", "--json"],
        cwd=site.directory, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
