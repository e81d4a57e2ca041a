"""Another user of the builder gains nothing from the cache: a real second user attacks it."""

import hashlib
import itertools
import json
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.cases import first_cases
from support.command import run_bundler
from support.second_user import NOBODY, as_nobody, needs_second_user, open_shared_directory
from support.small_builds import SmallSite, make_site

from bundler.bundle.signing import generate_key
from bundler.cache.payload import ensure_file
from bundler.cache.segments import COMPRESSOR
from bundler.cache.store import Cache

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("no_line_has_ended"),
    needs_second_user,
]
PROGRAM = "kubernetes/server/bin/kubelet"


@contextmanager
def masked(umask: int) -> Iterator[None]:
    before = os.umask(umask)
    try:
        yield
    finally:
        os.umask(before)


@dataclass(frozen=True)
class Attack:
    """A program that is not upstream's, compressed as the cache has it, and whose place it takes."""

    site: SmallSite
    digest: str
    segment: bytes
    archive: str  # the pin of the archive that upstream's program is in

    @property
    def cache(self) -> Path:
        return self.site.directory / "cache"

    def plant(self) -> None:
        """As nobody: a member's record, its segment, and the stamp that says it was checked."""
        self.write_segment(self.cache / "segments" / COMPRESSOR)
        key = hashlib.sha256(PROGRAM.encode()).hexdigest()
        record = {
            "archive": self.archive, "name": PROGRAM, "sha256": self.digest,
            "size": len(EVIL),
        }  # fmt: skip
        write(
            self.cache / "members" / self.archive.partition(":")[2] / f"{key}.json",
            json.dumps(record).encode(),
        )

    def replace_and_plant(self) -> None:
        """As nobody, with directories of nobody's own in the place of the cache's."""
        for name in ("members", "segments"):
            (self.cache / name).rename(self.cache / f"{name}.old")
        self.plant()

    def write_segment(self, directory: Path) -> None:
        path = directory / self.digest
        write(path, self.segment)
        status = path.stat()
        stamp = {
            "name": path.name,
            "pin": f"sha256:{hashlib.sha256(self.segment).hexdigest()}",
            "seen": [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino],
        }
        write(path.with_name(f".{path.name}.mark"), json.dumps(stamp).encode())


def write(path: Path, content: bytes) -> None:
    """A new file with the mode of a note."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    path.chmod(0o600)
    path.chmod(0o644 if content[:1] != b"{" else 0o600)


EVIL = b"#!/bin/sh\n# not upstream's kubelet\n"


@pytest.fixture
def site() -> Iterator[SmallSite]:
    with open_shared_directory() as directory:
        made = make_site(directory / "site")
        generate_key(made.directory / "release.key")
        assert run_bundler(["lock", *made.arguments]).returncode == 0
        shutil.rmtree(made.directory / "cache")
        yield made


@pytest.fixture
def attack(site: SmallSite, tmp_path: Path) -> Attack:
    (tmp_path / "evil").write_bytes(EVIL)
    payload = ensure_file(tmp_path / "evil", Cache(tmp_path / "attacker"))
    pins = json.loads((site.directory / "pins.yaml").read_bytes())["artifacts"]
    archive = f"sha256:{pins['kubernetes-server/amd64']['sha256']}"
    return Attack(site, payload.sha256, payload.segment.read_bytes(), archive)


def build(site: SmallSite, name: str = "dist") -> tuple[int, str]:
    """Exit code and messages of a signed, strict build."""
    done = run_bundler(
        ["build", *site.arguments, "--strict", "--offline", "--sign", site.directory / "release.key",
         "-o", site.directory / name], text=True,
    )  # fmt: skip
    return done.returncode, done.stderr


def read_sums(site: SmallSite, name: str) -> str:
    return (site.directory / name / "SHA256SUMS").read_text()


def open_to_all(cache: Path, mode: int = 0o777) -> None:
    """As an earlier version left its cache under umask 0, but also the directories of files."""
    for path in (cache, *cache.rglob("*")):
        if path.is_dir():
            path.chmod(mode)


def follow(message: str) -> None:
    """Run the command that the message gives as the fix."""
    command = re.search(r"fix: (?:.*: )?((?:chmod|rm) [^;]*)", message)
    assert command, message
    subprocess.run(["sh", "-c", command[1]], check=True)


def test_a_cache_that_is_made_under_umask_0_cannot_be_changed_by_another_user(
    site: SmallSite, attack: Attack
) -> None:
    """The attack that put another program into a signed and strict build."""
    with masked(0):
        assert build(site)[0] == 0
        fault = as_nobody(attack.replace_and_plant)
        assert build(site, "again")[0] == 0
    assert read_sums(site, "again") == read_sums(site, "dist")
    assert "PermissionError" in fault
    modes = {stat.S_IMODE(path.stat().st_mode) for path in attack.cache.rglob("*") if path.is_dir()}
    assert modes == {0o700}
    for path in attack.cache.rglob("*"):
        assert not path.stat().st_mode & 0o022, path


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o077, 0o777])
@pytest.mark.parametrize("what", ["cache", "state"])
def test_all_new_directories_are_private_whatever_the_umask(
    site: SmallSite, umask: int, what: str
) -> None:
    top = site.directory / "new"
    with masked(umask):
        Cache(top / "a/b").directory("blobs", "sha256") if what == "cache" else open_new(
            top / "a/b"
        )
    found = [path for path in (top, *top.rglob("*")) if path.is_dir()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in found} == {0o700}
    assert len(found) >= 4


def open_new(path: Path) -> None:
    from bundler.state.directory import open_state

    with open_state(path, create=True) as state:
        state.make_directory(path / "pki")
        state.write_directory(path / "pki/ca", {"key": b"x"})


PLACES = (".", "segments", f"segments/{COMPRESSOR}", "members", "blobs")
MODES = (0o777, 0o770, 0o1777, 0o707)
# First each place, then each mode once, then all other pairs.
OPEN_CACHES = list(
    dict.fromkeys(
        [*((p, MODES[0]) for p in PLACES), *((PLACES[0], m) for m in MODES),
         *itertools.product(PLACES, MODES)]
    )
)  # fmt: skip


@pytest.mark.parametrize(("place", "mode"), first_cases(OPEN_CACHES, len(PLACES) + len(MODES) - 1))
def test_a_cache_that_others_may_write_is_refused_with_the_fix(
    site: SmallSite, place: str, mode: int
) -> None:
    assert build(site)[0] == 0
    (site.directory / "cache" / place).chmod(mode)
    code, said = build(site, "again")
    assert (code, (site.directory / "again").exists()) == (6, False)
    assert f"{(site.directory / 'cache' / place)} can be written by " in said
    if mode != 0o1777:
        follow(said)
        assert build(site, "again")[0] == 0


def test_what_another_user_put_into_an_open_cache_is_never_used(
    site: SmallSite, attack: Attack
) -> None:
    """Whoever follows the messages gets the bundles of a clean cache."""
    assert build(site)[0] == 0
    open_to_all(attack.cache)
    assert as_nobody(attack.plant) == ""
    assert build(site, "again")[0] == 6
    for _ in range(10):
        code, said = build(site, "again")
        if code == 0:
            break
        follow(said)
    assert code == 0, said
    assert read_sums(site, "again") == read_sums(site, "dist")


def test_a_cache_whose_directories_another_user_owns_is_refused(
    site: SmallSite, attack: Attack
) -> None:
    assert build(site)[0] == 0
    attack.cache.chmod(0o777)
    assert as_nobody(attack.replace_and_plant) == ""
    attack.cache.chmod(0o755)
    code, said = build(site, "again")
    assert (code, "belongs to nobody, not to root" in said) == (6, True), said
    assert "fix: remove it, or if you trust what is in it: chown -R 0 " in said


def swap(one: Path, other: Path) -> None:
    """Give each file the other's name."""
    between = one.with_name("between")
    one.rename(between)
    other.rename(one)
    between.rename(other)


def test_notes_of_other_files_do_not_count(site: SmallSite, attack: Attack) -> None:
    """Nobody renames files that are root's: each note says which file it is about."""
    assert build(site)[0] == 0
    open_to_all(attack.cache)
    directory = attack.cache / "segments" / COMPRESSOR
    segments = sorted(p for p in directory.iterdir() if not p.name.startswith("."))

    def attack_by_names() -> None:
        for one, other in zip(segments[::2], segments[1::2], strict=False):
            swap(one, other)
            swap(one.with_name(f".{one.name}.mark"), other.with_name(f".{other.name}.mark"))
        for record in sorted((attack.cache / "members").iterdir()):
            notes = sorted(record.iterdir())
            for one, other in zip(notes[::2], notes[1::2], strict=False):
                swap(one, other)

    assert as_nobody(attack_by_names) == ""
    open_to_all(attack.cache, 0o755)
    assert build(site, "again")[0] == 0
    assert read_sums(site, "again") == read_sums(site, "dist")


HANDLES: dict[str, Callable[[Path, Path], object]] = {
    "a link": lambda path, own: path.symlink_to(own),
    "a file of another user": lambda path, own: shutil.copyfile(own, path),
}


@pytest.mark.parametrize("how", HANDLES)
def test_a_file_that_another_user_can_still_change_is_copied_before_its_use(
    site: SmallSite, attack: Attack, how: str
) -> None:
    """Its bytes are right when they are checked, and others when they are used."""
    assert build(site)[0] == 0
    blob = attack.cache / "blobs/sha256" / attack.archive.partition(":")[2]
    public = site.directory / "public"
    public.mkdir(mode=0o777)
    public.chmod(0o777)
    open_to_all(attack.cache)
    assert as_nobody(lambda: shutil.copyfile(blob, public / "own")) == ""
    assert as_nobody(lambda: (blob.unlink(), HANDLES[how](blob, public / "own"))) == ""
    open_to_all(attack.cache, 0o755)
    cache = Cache(attack.cache)
    assert cache.has_blob("sha256", blob.name)
    assert (blob.lstat().st_uid, stat.S_ISREG(blob.lstat().st_mode)) == (0, True)
    assert "PermissionError" in as_nobody(lambda: blob.write_bytes(b"evil"))
    assert as_nobody(lambda: (public / "own").write_bytes(b"evil")) == ""
    assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name


def test_a_file_with_wrong_bytes_of_another_user_is_quarantined(
    site: SmallSite, attack: Attack
) -> None:
    assert build(site)[0] == 0
    blob = attack.cache / "blobs/sha256" / attack.archive.partition(":")[2]
    open_to_all(attack.cache)
    assert as_nobody(lambda: (blob.unlink(), blob.write_bytes(b"evil"))) == ""
    open_to_all(attack.cache, 0o755)
    assert not Cache(attack.cache).has_blob("sha256", blob.name)
    assert [path.read_bytes() for path in (attack.cache / "quarantine").iterdir()] == [b"evil"]
    assert build(site, "again")[0] == 0


def test_a_download_is_not_written_through_a_link_of_another_user(
    site: SmallSite, attack: Attack
) -> None:
    victim = site.directory / "victim"
    victim.write_text("important")
    partial = Cache(attack.cache).partial_path("sha256", attack.archive.partition(":")[2])
    open_to_all(attack.cache)
    assert as_nobody(lambda: partial.symlink_to(victim)) == ""
    open_to_all(attack.cache, 0o755)
    assert build(site)[0] == 0
    assert victim.read_text() == "important"


def test_a_tag_of_another_user_does_not_choose_the_image(site: SmallSite, attack: Attack) -> None:
    from bundler.cache.refs import TAGS, list_refs, read_ref, write_ref

    cache = Cache(attack.cache)
    write_ref(TAGS, "docker.io/library/nginx:1.22", "sha256:good", cache)
    (note,) = (attack.cache / TAGS).iterdir()
    open_to_all(attack.cache)
    evil = note.read_bytes().replace(b"good", b"evil")
    assert as_nobody(lambda: write(note, evil)) == ""
    open_to_all(attack.cache, 0o755)
    assert read_ref(TAGS, "docker.io/library/nginx:1.22", cache) is None
    assert list_refs(TAGS, cache) == {}


def test_a_cache_below_a_directory_of_others_is_refused(site: SmallSite, attack: Attack) -> None:
    """They could rename it, and put another one in its place."""
    shared = site.directory / "shared"
    shared.mkdir()
    shared.chmod(0o775)
    options = [*site.arguments, "--cache", shared / "cache"]
    done = run_bundler(["fetch", *options], text=True)
    assert (done.returncode, (shared / "cache").exists()) == (6, False)
    assert f"{shared} can be written by its group (mode 0775)" in done.stderr
    assert f"fix: chmod go-w {shared}; or choose another directory with --cache" in done.stderr
    follow(done.stderr)
    assert run_bundler(["fetch", *options]).returncode == 0


def test_a_link_in_a_sticky_directory_must_be_ones_own(site: SmallSite) -> None:
    sticky = site.directory / "tmp"
    sticky.mkdir()
    sticky.chmod(0o1777)
    (sticky / "root").symlink_to(site.directory / "real")
    assert as_nobody(lambda: (sticky / "evil").symlink_to(site.directory / "real")) == ""
    assert as_nobody((sticky / "taken").mkdir) == ""
    Cache(sticky / "root/cache").directory("blobs")
    assert (site.directory / "real/cache/blobs").is_dir()
    for name, fault in (
        ("evil", "evil belongs to nobody"), ("taken/cache", "taken belongs to nobody"),
        ("", "choose a directory in it"),
    ):  # fmt: skip
        done = run_bundler(["cache", "list", "--cache", sticky / name], text=True)
        assert (done.returncode, fault in done.stderr) == (6, True), done.stderr


def test_a_state_that_others_may_change_is_refused(site: SmallSite) -> None:
    assert build(site)[0] == 0
    state = site.directory / "small.state"
    for place, mode, fault in (
        (state, 0o755, "holds the keys of the cluster"), (state, 0o777, "chmod -R go= "),
        (state / "pki", 0o770, "chmod -R go-w "), (site.directory, 0o777, "chmod go-w "),
    ):  # fmt: skip
        before = stat.S_IMODE(place.stat().st_mode)
        place.chmod(mode)
        code, said = build(site, "again")
        assert (code in {4, 6}, fault in said) == (True, True), said
        place.chmod(before)
    assert build(site, "again")[0] == 0
    key = next(path for path in (state / "pki").rglob("*") if path.is_file())
    os.chown(key, NOBODY, NOBODY)
    code, said = build(site, "again")
    assert (code, "accessible to other users, or not a file of this one" in said) == (4, True)


def test_mirrors_pins_and_locks_of_others_are_used_and_never_believed(site: SmallSite) -> None:
    for path in (site.directory / "mirror", *(site.directory / "mirror").rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    for name in ("pins.yaml", "cluster.lock.yaml"):
        os.chown(site.directory / name, NOBODY, NOBODY)
    assert build(site)[0] == 0
    server = next((site.directory / "mirror").rglob("kubernetes-server"))
    assert as_nobody(lambda: server.write_bytes(b"evil" + server.read_bytes()[4:])) == ""
    shutil.rmtree(site.directory / "cache")
    code, said = build(site, "again")
    assert (code, "does not match its pin" in said) == (3, True)
