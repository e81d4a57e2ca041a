"""state export and import: complete, encrypted, authenticated, never overwriting."""

import json
import os
import stat
from pathlib import Path

import pytest
from support.command import run_bundler

from bundler.errors import (
    BundlerError,
    ConfigError,
    OutputError,
    PkiError,
)
from bundler.state.archive import COST, MAGIC, export_state, import_state

PASSPHRASE = "correct horse battery"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    directory = tmp_path / "lab.state"
    for name in ("encryption-key", "pki/ca/tls.key", "tokens/worker1", ".lock", ".tmp-left"):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_text(f"secret of {name}\n")
        path.chmod(0o600)
    for path in (directory, *directory.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return directory


def contents(directory: Path) -> dict[str, str]:
    return {
        path.relative_to(directory).as_posix(): path.read_text()
        for path in directory.rglob("*")
        if path.is_file() and not path.name.startswith((".lock", ".tmp"))
    }


@pytest.mark.slow
def test_an_import_restores_the_exported_files_for_the_owner_only(
    state: Path, tmp_path: Path
) -> None:
    file = tmp_path / "backup"
    assert export_state(state, file, PASSPHRASE) == 3
    assert b"secret" not in file.read_bytes()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    back = tmp_path / "elsewhere" / "lab.state"
    assert import_state(file, back, PASSPHRASE) == 3
    assert contents(back) == contents(state)
    assert {stat.S_IMODE(p.stat().st_mode) for p in back.rglob("*") if p.is_file()} == {0o600}
    assert {stat.S_IMODE(p.stat().st_mode) for p in (back, *back.rglob("*")) if p.is_dir()} == {
        0o700
    }


def test_a_state_that_is_too_large_to_import_is_not_exported(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bundler.state.archive.MAX_SIZE", 100)
    with pytest.raises(OutputError, match="larger than"):
        export_state(state, tmp_path / "backup", PASSPHRASE)
    assert not (tmp_path / "backup").exists()


@pytest.mark.slow
def test_impossible_paths_and_a_truncated_file_are_reported(state: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist") as caught:
        export_state(state, tmp_path / "none/backup", PASSPHRASE)
    assert caught.value.hint == "create it first"
    file = tmp_path / "backup"
    export_state(state, file, PASSPHRASE)
    for target in (file, file / "below"):
        with pytest.raises(OutputError, match="Not a directory|File exists"):
            import_state(file, target, PASSPHRASE)
    header = b"\n".join(file.read_bytes().split(b"\n", 2)[:2])
    file.write_bytes(header + b"\n123")  # cut within the nonce
    with pytest.raises(PkiError, match="damaged"):
        import_state(file, tmp_path / "new", PASSPHRASE)


def test_existing_files_and_directories_are_not_overwritten(state: Path, tmp_path: Path) -> None:
    file = tmp_path / "backup"
    export_state(state, file, PASSPHRASE)
    with pytest.raises(OutputError, match="already exists"):
        export_state(state, file, PASSPHRASE)
    with pytest.raises(OutputError, match="never overwritten"):
        import_state(file, state, PASSPHRASE)
    with pytest.raises(OutputError, match="does not exist"):
        export_state(state, tmp_path / "nowhere/backup", PASSPHRASE)


@pytest.mark.slow
def test_the_next_import_removes_keys_of_a_killed_one(state: Path, tmp_path: Path) -> None:
    file, back = tmp_path / "backup", tmp_path / "into" / "lab.state"
    export_state(state, file, PASSPHRASE)
    child = os.fork()
    if child == 0:
        Path.rename = lambda *_: os._exit(9)  # type: ignore[assignment,method-assign]
        import_state(file, back, PASSPHRASE)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert len(list(back.parent.iterdir())) == 1
    with pytest.raises(PkiError):
        import_state(file, back, "another passphrase")
    assert not list(back.parent.iterdir())
    import_state(file, back, PASSPHRASE)
    assert list(back.parent.iterdir()) == [back]


@pytest.mark.slow
@pytest.mark.parametrize("at", [20, 70, -1, -40])
def test_every_changed_byte_is_detected(state: Path, tmp_path: Path, at: int) -> None:
    file = tmp_path / "backup"
    export_state(state, file, PASSPHRASE)
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)
    with pytest.raises(BundlerError):
        import_state(file, tmp_path / "back", PASSPHRASE)
    assert not (tmp_path / "back").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"backup", "lab.state"}


@pytest.mark.slow
def test_wrong_and_short_passphrases_and_other_files_are_refused(
    state: Path, tmp_path: Path
) -> None:
    file = tmp_path / "backup"
    with pytest.raises(ConfigError, match="shorter than 12"):
        export_state(state, file, "short")
    export_state(state, file, PASSPHRASE)
    with pytest.raises(PkiError, match="the passphrase is wrong"):
        import_state(file, tmp_path / "back", "another passphrase")
    with pytest.raises(OutputError, match="not a file of bundler state export"):
        import_state(state / "encryption-key", tmp_path / "back", PASSPHRASE)
    with pytest.raises(PkiError, match="not a state directory"):
        export_state(tmp_path, tmp_path / "other", PASSPHRASE)


@pytest.mark.parametrize(
    ("cost", "fault"),
    [
        ({"n": 1 << 20}, r"n 1048576 \(at most 262144\)"),
        ({"n": 1 << 30, "r": 1}, "n 1073741824"),
        ({"r": 32}, r"r 32 \(at most 16\)"),
        ({"p": 16}, r"p 16 \(at most 4\)"),
        ({"n": 1 << 18, "r": 16}, r"512 MiB of memory \(at most 256\)"),
    ],
)
def test_an_import_refuses_scrypt_that_would_take_too_much_memory_or_time(
    tmp_path: Path, cost: dict[str, int], fault: str
) -> None:
    file = write_header(tmp_path, json.dumps({"salt": "", **COST, **cost}))
    with pytest.raises(OutputError, match=fault):
        import_state(file, tmp_path / "back", PASSPHRASE)
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize(
    "line",
    ["[" * 900, "", "{}", '{"salt": "", "n": 1e999, "r": 8, "p": 1}', '{"n": 1' + "0" * 2000],
)
def test_an_import_refuses_a_second_line_that_it_cannot_read(tmp_path: Path, line: str) -> None:
    with pytest.raises(OutputError, match="second line"):
        import_state(write_header(tmp_path, line), tmp_path / "back", PASSPHRASE)


def write_header(directory: Path, line: str) -> Path:
    file = directory / "backup"
    file.write_bytes(MAGIC + b"\n" + line.encode() + b"\n" + bytes(100))
    return file


@pytest.mark.slow
def test_an_import_unpacks_no_more_than_a_state_can_hold(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (state / "archive").mkdir(mode=0o700)
    (state / "archive/zeros").write_bytes(bytes(1 << 20))
    file = tmp_path / "backup"
    export_state(state, file, PASSPHRASE)
    assert file.stat().st_size < 10_000
    monkeypatch.setattr("bundler.state.archive.MAX_UNPACKED", 1 << 19)
    with pytest.raises(OutputError, match="would unpack to more than"):
        import_state(file, tmp_path / "back", PASSPHRASE)
    assert not (tmp_path / "back").exists()
    with pytest.raises(OutputError, match="larger than"):
        export_state(state, tmp_path / "another", PASSPHRASE)


@pytest.mark.slow
def test_the_export_and_import_commands(state: Path, tmp_path: Path) -> None:
    secret = tmp_path / "passphrase"
    secret.write_text(f"{PASSPHRASE}\n")
    for arguments, code in (
        (["export", "-o", f"{tmp_path}/b", "--state", f"{state}"], 0),
        (["import", f"{tmp_path}/b", "--state", f"{tmp_path}/back"], 0),
        (["import", f"{tmp_path}/b", "--state", f"{tmp_path}/back"], 6),
    ):
        command = ["state", *arguments]
        done = run_bundler(
            [*command, "--passphrase-file", secret], capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
        assert PASSPHRASE not in done.stdout + done.stderr
    assert contents(tmp_path / "back") == contents(state)
