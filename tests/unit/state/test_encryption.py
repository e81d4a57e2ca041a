"""The keys that encrypt Secrets: made once, rotated in stages, kept in the archive."""

import base64
import re
import stat
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path

import pytest
from support.interrupted_writes import interrupt_write
from support.pki_plans import NOW, make_plan, read_files

from bundler.errors import ConfigError, PkiError
from bundler.state.directory import State, open_state
from bundler.state.encryption import (
    ENCRYPTION,
    EncryptionKey,
    EncryptionStage,
    ensure_encryption_keys,
    note_stage,
    read_stage,
)
from bundler.state.stages import describe_stage, take_step

LATER = NOW + timedelta(days=1)
PLAN = make_plan()
NAME = "key-20260304T050607Z"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    with open_state(tmp_path / "state", create=True) as state:
        ensure_encryption_keys(state)
        state.make_directory(state.directory / "pki")
    return tmp_path / "state"


def step(directory: Path, *names: str, **options: object) -> tuple[str, ...]:
    """Take steps, each a day after the one before it."""
    said: tuple[str, ...] = ()
    for number, name in enumerate(names):
        when = NOW + timedelta(days=number)
        said = take_step(ENCRYPTION, directory, PLAN, name, when, **options).messages  # type: ignore[arg-type]
    return said


def load(directory: Path) -> list[EncryptionKey]:
    with open_state(directory) as state:
        return list(ensure_encryption_keys(state))


def test_the_key_has_32_random_bytes_and_is_created_once(directory: Path) -> None:
    (key,) = load(directory)
    assert (key.name, len(base64.b64decode(key.secret, validate=True))) == ("key1", 32)
    assert load(directory) == [key]
    assert stat.S_IMODE((directory / "encryption-key").stat().st_mode) == 0o600


def test_a_key_file_of_an_earlier_version_is_key1(directory: Path) -> None:
    (key,) = load(directory)
    (directory / "encryption-key").write_text(f"{key.secret}\n")
    assert load(directory) == [key]


@pytest.mark.parametrize(
    "text", ["", "c2hvcnQ=", "key1 ???", "my key1 x", "other:name " + "A" * 44]
)
def test_a_damaged_key_is_refused_and_kept(directory: Path, text: str) -> None:
    path = directory / "encryption-key"
    path.write_text(text)
    with pytest.raises(PkiError, match="expected a key's name and 32 bytes in base64") as caught:
        load(directory)
    assert "restore it from your backup" in str(caught.value.hint)
    assert path.read_text() == text


def test_a_key_that_other_users_can_read_is_refused(directory: Path) -> None:
    (directory / "encryption-key").chmod(0o640)
    with pytest.raises(PkiError, match="mode 0640"):
        load(directory)


def test_two_keys_of_one_name_are_refused(directory: Path) -> None:
    (directory / "encryption-key.next").write_bytes((directory / "encryption-key").read_bytes())
    (directory / "encryption-key.next").chmod(0o600)
    with pytest.raises(PkiError, match="two keys have the name key1"):
        load(directory)


def test_the_new_key_first_reads_then_writes_and_then_is_the_only_one(directory: Path) -> None:
    (old,) = load(directory)
    step(directory, "read")
    _, new = load(directory)
    assert new.name == NAME
    assert load(directory) == [old, new]
    assert read_stage(directory) is EncryptionStage.READ
    step(directory, "write")
    assert load(directory) == [new, old]
    assert read_stage(directory) is EncryptionStage.WRITE
    assert list(note_stage(directory)) == [
        "secrets rotate is in stage write; bundler secrets rotate shows the next step"
    ]
    step(directory, "drop")
    assert load(directory) == [new]
    assert read_stage(directory) is EncryptionStage.SETTLED
    assert list(note_stage(directory)) == []


def test_an_abandoned_rotation_leaves_the_state_as_it_was(directory: Path) -> None:
    before = read_files(directory)
    step(directory, "read", "abandon")
    after = read_files(directory)
    assert {p: c for p, c in after.items() if not p.startswith("archive/")} == before
    assert any(p.endswith("/encryption-key.next") for p in after)


def test_a_dropped_key_is_recalled_from_the_archive_by_its_name(directory: Path) -> None:
    (old,) = load(directory)
    step(directory, "read", "write", "drop")
    (new,) = load(directory)
    step(directory, "recall", names=("key1",))
    assert load(directory) == [new, old]
    assert read_stage(directory) is EncryptionStage.WRITE
    step(directory, "drop")
    assert load(directory) == [new]


@pytest.mark.parametrize("names", [(), ("key2",), (NAME,), ("key1", NAME)])
def test_only_an_archived_key_is_recalled(directory: Path, names: tuple[str, ...]) -> None:
    step(directory, "read", "write", "drop")
    with pytest.raises(ConfigError) as refused:
        step(directory, "recall", names=names)
    assert "the archive has key1;" in str(refused.value.hint)


@pytest.mark.parametrize(
    ("done", "name", "following"),
    [
        ((), "write", "read or bundler secrets rotate recall"),
        ((), "drop", "read or bundler secrets rotate recall"),
        (("read",), "read", "write or bundler secrets rotate abandon"),
        (("read",), "drop", "write or bundler secrets rotate abandon"),
        (("read", "write"), "read", "drop"),
        (("read", "write"), "abandon", "drop"),
        (("read", "write"), "recall", "drop"),
    ],
)
def test_a_step_out_of_order_is_refused_with_the_next_step(
    directory: Path, done: tuple[str, ...], name: str, following: str
) -> None:
    step(directory, *done)
    before = read_files(directory)
    with pytest.raises(ConfigError, match=f"secrets rotate {name} requires stage") as refused:
        step(directory, name)
    assert refused.value.hint == describe_stage(ENCRYPTION, directory)
    assert describe_stage(ENCRYPTION, directory).endswith(
        f"next: bundler secrets rotate {following}"
    )
    assert read_files(directory) == before


@pytest.mark.parametrize("name", ["read", "write", "drop"])
def test_a_dry_run_changes_nothing(directory: Path, name: str) -> None:
    step(directory, *{"read": (), "write": ("read",), "drop": ("read", "write")}[name])
    before = read_files(directory)
    assert step(directory, name, dry_run=True)
    assert read_files(directory) == before


def test_no_name_is_given_to_two_keys(directory: Path) -> None:
    step(directory, "read", "abandon")
    with pytest.raises(ConfigError, match=f"a key has the name {NAME} already"):
        step(directory, "read")


@pytest.mark.parametrize("moment", [1, 2, 3])
def test_a_kill_during_a_step_is_completed_by_the_next_command(
    directory: Path, moment: int
) -> None:
    (old,) = load(directory)
    step(directory, "read")
    _, new = load(directory)
    is_killed = moment < 3  # the step writes two files
    with interrupt_write(moment), pytest.raises(KeyboardInterrupt) if is_killed else nullcontext():
        step(directory, "write")
    assert load(directory) == [new, old]
    assert read_stage(directory) is EncryptionStage.WRITE


def test_a_lost_key_is_never_created_again(directory: Path) -> None:
    (directory / "encryption-key").unlink()
    (directory / "pki/kubernetes-ca").mkdir()
    with open_state(directory) as state, pytest.raises(PkiError, match="missing, but certificates"):
        ensure_encryption_keys(state)


def test_a_key_is_in_no_representation(directory: Path) -> None:
    (key,) = load(directory)
    assert key.secret not in repr(key)
    assert re.fullmatch(r"EncryptionKey\(name='key1'\)", repr(key))


def test_a_state_with_files_of_two_stages_is_refused(directory: Path, state_of: State) -> None:
    step(directory, "read")
    state_of.write_file(directory / "encryption-key.previous", b"x")
    with pytest.raises(PkiError, match="has both"):
        step(directory, "write")


@pytest.fixture
def state_of(directory: Path) -> State:
    return State(directory)
