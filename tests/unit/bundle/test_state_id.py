"""The id of the state: recorded by lock, bundles and runbook; another state is refused everywhere."""

import gzip
import hashlib
import io
import shutil
import subprocess
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from support.command import run_bundler
from support.small_builds import SmallSite, make_site, read_manifest, unpack

from bundler.bundle.layout import Layout, Media
from bundler.cluster.loader import load_cluster
from bundler.cluster.plan import make_plan
from bundler.errors import PkiError
from bundler.formats.shell_settings import read_settings
from bundler.pki.cluster_pki import ensure_pki
from bundler.state.archive import export_state, import_state
from bundler.state.directory import open_state
from bundler.state.state_id import read_state_id

pytestmark = pytest.mark.slow  # most tests build

PASSPHRASE = "correct horse battery"
REFUSED = 4


class Site(SmallSite):
    """A site whose commands run as a user runs them."""

    @property
    def state(self) -> Path:
        return self.directory / "small.state"

    @property
    def lock(self) -> Path:
        return self.directory / "cluster.lock.yaml"

    @property
    def state_id(self) -> str:
        return (self.state / "state-id").read_text().strip()

    def run(self, *words: object) -> subprocess.CompletedProcess[str]:
        """Run a command that takes all options of a build."""
        return run_bundler([*words, *self.arguments], cwd=self.directory, text=True)

    def run_on_state(self, *words: object) -> subprocess.CompletedProcess[str]:
        """Run a command that takes only cluster.yaml, pins and the state."""
        return run_bundler([*words, "--pins", "pins.yaml"], cwd=self.directory, text=True)

    def snapshot(self) -> dict[str, bytes]:
        """Every file of the site but those of the cache and the state."""
        return {
            path.relative_to(self.directory).as_posix(): path.read_bytes()
            for path in sorted(self.directory.rglob("*"))
            if path.is_file() and not {"cache", "small.state"} & set(path.parts)
        }


def make_keys(site: Site, directory: Path) -> str:
    """Make another state for the same cluster; return its id."""
    plan = make_plan(load_cluster(site.directory / "cluster.yaml").cluster)
    with open_state(directory, create=True) as state:
        ensure_pki(state, plan, datetime.now(UTC))
    state_id = read_state_id(directory)
    assert state_id
    return state_id


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site with lock, state and dist/, as the first commands of the README make them."""
    site = Site(make_site(tmp_path_factory.mktemp("built") / "site").directory)
    for words in (("lock",), ("build", "-o", "dist")):
        done = site.run(*words)
        assert done.returncode == 0, done.stderr
    return site.directory


@pytest.fixture
def site(built: Path, tmp_path: Path) -> Site:
    return Site(Path(shutil.copytree(built, tmp_path / "site", symlinks=True)))


def read_state_env(tarball: Path) -> dict[str, str]:
    with tarfile.open(tarball) as archive:
        member = archive.extractfile(f"{tarball.name.removesuffix('.tar.gz')}/state.env")
        assert member
        return read_settings(member.read().decode())


def rewrite_state_env(tarball: Path, *, without: str = "", **settings: str) -> None:
    """Change state.env of a tarball, and its line in MANIFEST; only the small files stay."""
    changed = io.BytesIO()
    with tarfile.open(tarball) as old, tarfile.open(fileobj=changed, mode="w") as new:
        contents = {m: old.extractfile(m).read() for m in old if m.isreg() and m.size < 100_000}  # type: ignore[union-attr]
        by_path = {member.name.partition("/")[2]: member for member in contents}
        env = contents[by_path["state.env"]].decode().splitlines()
        env = [line for line in env if line.partition("=")[0] not in {without, *settings}]
        env += [f"{name}='{value}'" for name, value in settings.items()]
        text = "".join(f"{line}\n" for line in env).encode()
        lines = contents[by_path["MANIFEST"]].decode().splitlines()
        digest = f"{hashlib.sha256(text).hexdigest()} 0644 {len(text)} state.env"
        lines = [digest if line.endswith(" state.env") else line for line in lines]
        contents[by_path["state.env"]] = text
        contents[by_path["MANIFEST"]] = "".join(f"{line}\n" for line in lines).encode()
        for member, content in contents.items():
            member.size = len(content)
            new.addfile(member, io.BytesIO(content))
    tarball.write_bytes(gzip.compress(changed.getvalue()))


# What is recorded, and where


def test_a_first_build_records_the_id_in_state_lock_bundles_and_runbook(site: Site) -> None:
    public = (site.state / "pki/service-account/pub.pem").read_bytes()
    assert site.state_id == hashlib.sha256(public).hexdigest()
    assert yaml.safe_load(site.lock.read_text())["state"] == site.state_id
    assert site.state_id in (site.directory / "dist/RUNBOOK.md").read_text()
    for node in ("one", "two", "three"):
        tarball = site.directory / f"dist/small-{node}.tar.gz"
        assert read_state_env(tarball)["STATE_ID"] == site.state_id
    bundle = unpack(site.directory / "dist/small-one.tar.gz", site.directory / "unpacked")
    installed = (bundle / "rootfs/etc/kubernetes/pki/sa.pub").read_bytes()
    assert hashlib.sha256(installed).hexdigest() == site.state_id
    shown = run_bundler(["inspect", site.directory / "dist/small-one.tar.gz"], text=True)
    assert f"state id            {site.state_id}\n" in shown.stdout


def test_recording_it_does_not_change_what_the_next_build_writes(site: Site) -> None:
    before = site.snapshot()
    assert site.run("build", "-o", "dist").returncode == 0
    assert site.snapshot() == before
    assert site.run("lock").returncode == 0  # which has no state
    assert site.snapshot() == before


def test_a_lock_that_cannot_be_written_is_a_warning_and_gives_the_same_bytes(site: Site) -> None:
    before = site.snapshot()
    without = [line for line in site.lock.read_text().splitlines() if not line.startswith("state:")]
    shutil.rmtree(site.directory / "dist")
    site.lock.rename(site.directory / "elsewhere")
    (site.directory / "elsewhere").write_text("\n".join(without) + "\n")
    site.lock.symlink_to("elsewhere")  # bundler replaces no links
    done = site.run("build", "-o", "dist")
    assert done.returncode == 0, done.stderr
    assert f"cannot record state {site.state_id[:16]}" in done.stderr
    after = site.snapshot()
    assert {k: v for k, v in after.items() if k.startswith("dist/")} == {
        k: v for k, v in before.items() if k.startswith("dist/")
    }


def test_the_provenance_names_the_lock_as_it_is_on_disk(site: Site) -> None:
    bundle = unpack(site.directory / "dist/small-two.tar.gz", site.directory / "unpacked")
    assert (
        hashlib.sha256(site.lock.read_bytes()).hexdigest()
        in (bundle / "provenance.intoto.json").read_text()
    )


# The attack: the state is gone, or another one is in its place


@pytest.mark.parametrize("kept", ["lock", "dist", "both"])
def test_a_lost_state_does_not_become_a_new_cluster(site: Site, kept: str) -> None:
    shutil.rmtree(site.state)
    if kept == "dist":
        site.lock.unlink()
    elif kept == "lock":
        shutil.rmtree(site.directory / "dist")
    before = site.snapshot()
    for words in (("build", "-o", "dist"), ("build", "-o", "dist", "--dry-run")):
        done = site.run(*words)
        assert done.returncode == REFUSED
        assert "small.state is missing" in done.stderr
        assert f"bundler state import FILE --state {site.state}" in done.stderr
        assert "--new-state" in done.stderr
    assert site.snapshot() == before
    assert not site.state.exists()


def test_a_killed_build_leaves_enough_to_notice_a_lost_state(site: Site) -> None:
    """Without SHA256SUMS and RUNBOOK.md, and with half a tarball."""
    shutil.rmtree(site.state)
    site.lock.unlink()
    dist = site.directory / "dist"
    for name in ("SHA256SUMS", "RUNBOOK.md", "small-one.tar.gz", "small-three.tar.gz"):
        (dist / name).unlink()
    (dist / "small-two.tar.gz").write_bytes((dist / "small-two.tar.gz").read_bytes()[:100])
    done = site.run("build", "-o", "dist")
    assert done.returncode == REFUSED
    assert not site.state.exists()


@pytest.mark.parametrize("media", ["volumes", "split", "signed", "delta"])
def test_a_lost_state_is_noticed_with_every_kind_of_bundle(site: Site, media: str) -> None:
    key = site.directory / "release.key"
    run_bundler(["keygen", key], check=True)
    options = {
        "volumes": ("--split", "20000"),
        "split": ("--layout", "split"),
        "signed": ("--sign", key),
        "delta": ("--since", "dist"),
    }[media]
    assert site.run("build", "-o", "out", *options).returncode == 0
    site.lock.unlink()
    shutil.rmtree(site.state)
    assert site.run("build", "-o", "out", *options).returncode == REFUSED
    other = make_keys(site, site.state)
    done = site.run("build", "-o", "out", *options)
    assert done.returncode == REFUSED
    assert f"is state {other[:16]}" in done.stderr


USERS_OF_THE_STATE = {
    "build": ("-o", "dist"),
    "render": ("-o", "trees", "--text-only"),
    "certs renew": ("--all",),
    "certs rotate": ("trust",),
    "tokens renew": ("--all",),
    "admin revoke": (),
}
USERS_WITH_FEW_OPTIONS = {
    "admin create": ("--name", "alice"),
    "certs request": (),
    "certs import": ("--authority", "etcd-ca", "--cert", "ca.crt", "--key", "ca.key"),
}


@pytest.mark.parametrize("command", [*USERS_OF_THE_STATE, *USERS_WITH_FEW_OPTIONS])
@pytest.mark.parametrize("present", [False, True])
def test_every_command_refuses_another_state_and_changes_nothing(
    site: Site, command: str, *, present: bool
) -> None:
    ours = site.state_id
    shutil.rmtree(site.state)
    other = make_keys(site, site.state) if present else None
    before, words = site.snapshot(), command.split()
    if command in USERS_OF_THE_STATE:
        done = site.run(*words, *USERS_OF_THE_STATE[command])
    else:
        done = site.run_on_state(*words, *USERS_WITH_FEW_OPTIONS[command])
    assert done.returncode == REFUSED, done.stderr
    assert f"cluster.lock.yaml was made with state {ours[:16]}" in done.stderr
    assert "bundler state import FILE" in done.stderr
    assert site.snapshot() == before
    assert read_state_id(site.state) == other


def test_listing_and_checking_certificates_refuse_another_state_too(site: Site) -> None:
    shutil.rmtree(site.state)
    make_keys(site, site.state)
    for words in (("certs", "list"), ("certs", "check", "--live", "one:6443")):
        done = run_bundler(words, cwd=site.directory, text=True)
        assert done.returncode == REFUSED
        assert "was made with state" in done.stderr
    listed = run_bundler(["certs", "list", "--state", site.state], cwd=site.directory, text=True)
    assert listed.returncode == 0  # the directory itself is asked for
    assert run_bundler(["certs", "list", "--new-state"], cwd=site.directory).returncode == 0


def test_a_delta_to_bundles_of_another_state_is_refused(site: Site) -> None:
    shutil.rmtree(site.state)
    make_keys(site, site.state)
    site.lock.unlink()
    for words in (("build",), ("certs", "renew", "--all")):
        done = site.run(*words, "--since", "dist", "-o", "delta")
        assert done.returncode == REFUSED
        assert not (site.directory / "delta").exists()


# On purpose, restored, moved, copied


def test_a_new_state_on_purpose_replaces_what_is_recorded(site: Site) -> None:
    old = site.state_id
    shutil.rmtree(site.state)
    done = site.run("build", "-o", "dist", "--new-state")
    assert done.returncode == 0, done.stderr
    assert site.state_id != old
    assert yaml.safe_load(site.lock.read_text())["state"] == site.state_id
    assert read_state_env(site.directory / "dist/small-two.tar.gz")["STATE_ID"] == site.state_id
    assert site.run("build", "-o", "dist").returncode == 0


def test_a_wholly_new_project_builds_with_one_command(tmp_path: Path) -> None:
    site = Site(make_site(tmp_path).directory)
    assert site.run("build", "-o", "dist").returncode == 0
    other = Site(make_site(tmp_path / "with-lock").directory)
    assert other.run("lock").returncode == 0
    done = other.run("build", "-o", "dist")
    assert done.returncode == 0
    assert "cluster.lock.yaml: records state" in done.stderr


def test_a_restored_export_and_a_moved_state_are_the_same_state(site: Site) -> None:
    before = site.snapshot()
    export_state(site.state, site.directory.parent / "export", PASSPHRASE)
    shutil.rmtree(site.state)
    assert site.run("build", "-o", "dist").returncode == REFUSED
    import_state(site.directory.parent / "export", site.state, PASSPHRASE)
    assert site.run("build", "-o", "dist").returncode == 0
    moved = site.directory.parent / "elsewhere" / "keys"
    moved.parent.mkdir()
    site.state.rename(moved)
    assert site.run("build", "-o", "dist", "--state", moved).returncode == 0
    assert site.snapshot() == before


def test_garbage_in_the_output_does_not_stop_a_build(site: Site) -> None:
    folder = site.directory / "dist/notes"
    folder.mkdir()
    (folder / "MANIFEST").write_bytes(b"\xff not a manifest\n")
    (site.directory / "dist/small-two.tar.gz").write_bytes(b"half")
    done = site.run("build", "-o", "dist")
    assert done.returncode == 0, done.stderr


def test_export_and_import_say_which_state_it_is(site: Site) -> None:
    (site.directory / "secret").write_text(PASSPHRASE)
    given = ("--passphrase-file", "secret")
    for words in (("export", "-o", "file"), ("import", "file", "--state", "copy")):
        done = run_bundler(["state", *words, *given], cwd=site.directory, text=True)
        assert f"files of state {site.state_id[:16]}" in done.stderr


def test_a_second_builder_without_secrets_needs_no_state(site: Site) -> None:
    shutil.rmtree(site.state)
    assert site.run("build", "-o", "public", "--public-only").returncode == 0
    assert site.run("build", "-o", "public", "--public-only").returncode == 0
    assert not site.state.exists()


# The id stays


def test_a_rotation_of_all_cas_keeps_the_id(site: Site) -> None:
    first = site.state_id
    (site.state / "state-id").unlink()  # an earlier bundler made the state
    for name in ("trust", "issue", "drop"):
        assert site.run("certs", "rotate", name).returncode == 0
        assert site.run("build", "-o", "dist").returncode == 0
    assert site.state_id == first


def test_requested_and_imported_cas_keep_the_id(tmp_path: Path) -> None:
    site = Site(make_site(tmp_path).directory)
    assert site.run_on_state("certs", "request", "-o", "requests").returncode == 0
    first = site.state_id
    requests = site.directory / "requests"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "root.key", "-out",
         "root.crt", "-days", "900", "-subj", "/CN=root"],
        cwd=requests, check=True, capture_output=True,
    )  # fmt: skip
    for name in ("kubernetes-ca", "etcd-ca", "front-proxy-ca"):
        subprocess.run(
            ["openssl", "x509", "-req", "-in", f"{name}.csr", "-CA", "root.crt", "-CAkey", "root.key",
             "-CAcreateserial", "-days", "800", "-extfile", f"{name}.ext", "-out", f"{name}.crt"],
            cwd=requests, check=True, capture_output=True,
        )  # fmt: skip
    done = site.run_on_state("certs", "import", "requests")
    assert done.returncode == 0, done.stderr
    assert site.run("build", "-o", "dist").returncode == 0
    assert site.state_id == first


def test_the_same_imported_ca_in_a_new_state_is_another_state(site: Site) -> None:
    """Its keys for service accounts and for Secrets are others."""
    ca = site.state / "pki/etcd-ca"
    for name in ("cert.pem", "key.pem"):
        shutil.copy(ca / name, site.directory / name)
    first = site.state_id
    shutil.rmtree(site.state)
    words = ("certs", "import", "--authority", "etcd-ca", "--cert", "cert.pem", "--key", "key.pem")
    assert site.run_on_state(*words).returncode == REFUSED
    done = site.run_on_state(*words, "--new-state")
    assert done.returncode == 0, done.stderr
    assert site.state_id != first
    assert site.run("build", "-o", "dist").returncode == REFUSED


def test_a_copied_id_without_its_keys_is_not_that_state(site: Site) -> None:
    kept = (site.state / "state-id").read_bytes()
    shutil.rmtree(site.state)
    site.state.mkdir(mode=0o700)
    (site.state / "state-id").write_bytes(kept)
    (site.state / "state-id").chmod(0o600)
    done = site.run("build", "-o", "dist")
    assert done.returncode == REFUSED
    assert "Traceback" not in done.stderr
    assert not (site.state / "pki/kubernetes-ca").exists()


@pytest.mark.parametrize("content", [b"", b"another", b"../x\n", b"\xff\n"])
def test_a_damaged_id_is_an_error(site: Site, content: bytes) -> None:
    (site.state / "state-id").write_bytes(content)
    with pytest.raises(PkiError, match="expected 64 hexadecimal digits"):
        read_state_id(site.state)
    assert site.run("build", "-o", "dist").returncode == REFUSED


# From before the id was recorded


def forget(site: Site, *what: str) -> None:
    """Make state, lock or dist what an earlier bundler would have made."""
    if "state" in what:
        (site.state / "state-id").unlink()
    if "lock" in what:
        lines = site.lock.read_text().splitlines()
        site.lock.write_text("".join(f"{x}\n" for x in lines if not x.startswith("state:")))
    if "dist" in what:
        for tarball in (site.directory / "dist").glob("*.tar.gz"):
            rewrite_state_env(tarball, without="STATE_ID")


def test_state_lock_and_dist_of_an_earlier_bundler_are_adopted_with_a_notice(site: Site) -> None:
    first = site.state_id
    forget(site, "state", "lock", "dist")
    done = site.run("build", "-o", "dist")
    assert done.returncode == 0, done.stderr
    assert site.state_id == first
    assert done.stderr.count("records state") == 1
    assert f"state: {first}\n" in site.lock.read_text()


def test_old_bundles_of_workers_alone_are_taken_as_made_with_the_state(site: Site) -> None:
    forget(site, "lock", "dist")
    (site.directory / "dist/small-one.tar.gz").unlink()
    done = site.run("build", "-o", "dist")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("does not name its state") == 1


def test_an_old_bundle_of_a_control_plane_names_its_state_by_its_key(site: Site) -> None:
    forget(site, "lock", "dist")
    shutil.rmtree(site.state)
    done = site.run("build", "-o", "dist")
    assert done.returncode == REFUSED
    make_keys(site, site.state)
    done = site.run("build", "-o", "dist")
    assert done.returncode == REFUSED
    assert "small-one.tar.gz was made with state" in done.stderr


def test_copies_of_an_old_state_get_the_same_id(site: Site, tmp_path: Path) -> None:
    forget(site, "state")
    copy = Path(shutil.copytree(site.state, tmp_path / "copy"))
    for directory in (copy, site.state):
        with open_state(directory):
            pass
    assert (copy / "state-id").read_bytes() == (site.state / "state-id").read_bytes()
    assert (copy / "state-id").stat().st_mode & 0o777 == 0o600


# An older export of the same state


def test_a_state_from_an_older_export_is_noticed(site: Site) -> None:
    export_state(site.state, site.directory.parent / "export", PASSPHRASE)
    (newer,) = {
        read_state_env(t)["NOT_BEFORE"] for t in (site.directory / "dist").glob("*one*.tar.gz")
    }
    rewrite_state_env(site.directory / "dist/small-one.tar.gz", NOT_BEFORE=str(int(newer) + 86400))
    done = site.run("build", "-o", "dist")
    assert done.returncode == 0
    assert "was restored from an older export" in done.stderr
    assert "older export" not in site.run("build", "-o", "dist").stderr


# plan and verify


@pytest.fixture(scope="module")
def other_dist(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same cluster, built with another state."""
    directory = tmp_path_factory.mktemp("other")
    site = Site(Path(shutil.copytree(built, directory / "site", symlinks=True)))
    shutil.rmtree(site.state)
    done = site.run("build", "-o", "other", "--new-state")
    assert done.returncode == 0, done.stderr
    return site.directory / "other"


def test_plan_refuses_bundles_of_another_state(built: Path, other_dist: Path) -> None:
    done = run_bundler(["plan", built / "dist", other_dist], text=True)
    assert done.returncode == 2
    assert "made with different states" in done.stderr
    assert "bundler state import FILE" in done.stderr
    assert done.stdout == ""
    for tarball in ("small-one.tar.gz", "small-two.tar.gz"):
        one = run_bundler(["plan", built / "dist" / tarball, other_dist / tarball], text=True)
        assert one.returncode == 2
    done = run_bundler(["plan", built / "dist", other_dist, "--new-state"], text=True)
    assert done.returncode == 0


def test_plan_goes_on_with_bundles_that_do_not_name_their_state(
    site: Site, other_dist: Path
) -> None:
    forget(site, "dist")
    two = "small-two.tar.gz"
    old = site.directory / "dist"
    assert run_bundler(["plan", old / two, site.directory / "dist" / two]).returncode == 0
    done = run_bundler(
        ["plan", old / "small-one.tar.gz", other_dist / "small-one.tar.gz"], text=True
    )
    assert done.returncode == 2  # a control plane's key names it


def test_verify_finds_bundles_of_two_states_in_one_directory(site: Site, other_dist: Path) -> None:
    dist = site.directory / "dist"
    shutil.copy(other_dist / "small-two.tar.gz", dist / "small-two.tar.gz")
    lines = []
    for line in (dist / "SHA256SUMS").read_text().splitlines():
        digest, _, name = line.partition("  ")
        digest = hashlib.sha256((dist / name).read_bytes()).hexdigest()
        lines.append(f"{digest}  {name}\n")
    (dist / "SHA256SUMS").write_text("".join(lines))
    done = run_bundler(["verify", dist], text=True)
    assert done.returncode == 6
    assert "made with different states" in done.stderr


def test_a_damaged_id_in_a_bundle_is_a_fault_of_the_bundle(site: Site) -> None:
    tarball = site.directory / "dist/small-two.tar.gz"
    rewrite_state_env(tarball, STATE_ID="x\x1b[31m")
    for words in (("inspect", tarball), ("plan", tarball, tarball), ("build", "--since", tarball)):
        done = site.run(*words) if words[0] == "build" else run_bundler(words, text=True)
        assert done.returncode == 6
        assert "STATE_ID is not 64 hexadecimal digits" in done.stderr
        assert "\x1b" not in done.stderr


def test_a_split_build_and_a_delta_record_the_state(site: Site) -> None:
    site.build("split", Media(layout=Layout.SPLIT))
    delta = site.build("delta", Media(since=(str(site.directory / "dist"),)))
    assert any(line.startswith("# base ") for line in read_manifest(delta / "small-two.tar.gz"))
    for directory in ("split", "delta"):
        tarball = site.directory / directory / "small-two.tar.gz"
        assert read_state_env(tarball)["STATE_ID"] == site.state_id
