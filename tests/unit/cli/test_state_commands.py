"""Which commands need what: the state alone, a passphrase, and which of them may create a state."""

import contextlib
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.command import run_bundler

from bundler.cache.store import Cache
from bundler.pipeline import render
from bundler.project import Inputs

PINS = Path(__file__).parents[2] / "golden" / "pins.yaml"
PASSPHRASE = "correct horse battery"
NEVER_CREATE = {
    "admin create": ("--name", "alice"),
    "admin export": ("--p12", "admin.p12", "--password-file", "passphrase"),
    "admin revoke": (),
    "certs check": ("--live",),
    "certs list": (),
    "certs renew": ("--all",),
    "certs rotate": ("trust",),
    "tokens renew": ("--all",),
    "state export": ("-o", "backup", "--passphrase-file", "passphrase"),
}


@pytest.fixture
def site(description: Path) -> Path:
    """A directory with cluster.yaml and a file with a passphrase; no state."""
    (description.parent / "passphrase").write_text(f"{PASSPHRASE}\n")
    return description.parent


@pytest.fixture
def built(site: Path) -> Path:
    """The same, with the state of a first build."""
    inputs = Inputs(
        description=site / "cluster.yaml", cache=Cache(site / "cache"), offline=True, pins=PINS
    )
    render(inputs, site / "trees", text_only=True)
    return site


def run_without_terminal(
    *arguments: str, cwd: Path, give: bytes | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the program as cron does; its stdin is a pipe that stays open, or ends after `give`."""
    command = [sys.executable, "-m", "bundler", *arguments]
    read, write = os.pipe()
    try:
        if give is not None:
            os.write(write, give)
            os.close(write)
        return subprocess.run(
            command, cwd=cwd, stdin=read, capture_output=True, text=True, check=False,
            start_new_session=True, timeout=60,
        )  # fmt: skip
    finally:
        os.close(read)
        if give is None:
            os.close(write)


def run_in_terminal(*arguments: str, cwd: Path, types: str) -> tuple[int, str]:
    """Run the program with a terminal in which somebody types; the exit code and the screen."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(cwd)
        os.execv(sys.executable, [sys.executable, "-m", "bundler", *arguments])  # noqa: S606
    screen, answered = b"", 0
    answers = types.encode().splitlines(keepends=True)
    with contextlib.suppress(OSError):  # Linux reports the end of a terminal like this
        while chunk := os.read(terminal, 4096):
            screen += chunk
            if answered < min(len(answers), screen.count(b": ")):  # one for each prompt
                os.write(terminal, answers[answered])
                answered += 1
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), screen.decode()


@pytest.mark.parametrize("command", NEVER_CREATE)
def test_a_command_that_only_uses_the_state_never_creates_one(site: Path, command: str) -> None:
    before = sorted(path.name for path in site.iterdir())
    done = run_bundler([*command.split(), *NEVER_CREATE[command]], cwd=site, text=True)
    assert done.returncode == 4, done.stderr
    assert "lab.state: not a state directory" in done.stderr
    assert "bundler state import FILE" in done.stderr
    assert sorted(path.name for path in site.iterdir()) == before


@pytest.mark.slow
def test_a_state_that_a_killed_first_build_left_is_not_completed_by_admin_create(
    built: Path,
) -> None:
    shutil.rmtree(built / "lab.state/pki/kubernetes-ca")
    shutil.rmtree(built / "lab.state/pki/nodes")
    done = run_bundler(["admin", "create", "--name", "alice"], cwd=built, text=True)
    assert done.returncode == 4
    assert not (built / "alice.kubeconfig").exists()
    assert not (built / "lab.state/pki/kubernetes-ca").exists()


@pytest.mark.slow
def test_export_and_import_need_only_the_state(built: Path) -> None:
    """No images, no packages, no pins, and a lock that nobody can read."""
    shutil.rmtree(built.parent / ".lab")
    with (built / "cluster.yaml").open("a") as file:
        file.write("packages: {os: debian-12, dir: gone, keyring: gone.gpg}\n")
    (built / "cluster.lock.yaml").write_text("lock: [\n")
    given = ("--passphrase-file", "passphrase")
    done = run_bundler(["state", "export", "-o", "backup", *given], cwd=built, text=True)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(built / "lab.state")
    done = run_bundler(["state", "import", "backup", *given], cwd=built, text=True)
    assert done.returncode == 0, done.stderr
    assert (built / "lab.state/pki/kubernetes-ca/key.pem").is_file()


@pytest.mark.slow
def test_with_the_option_state_no_cluster_yaml_is_needed(built: Path, tmp_path: Path) -> None:
    given = ("--passphrase-file", f"{built}/passphrase", "--state")
    (tmp_path / "empty").mkdir()
    for words in (
        ("export", "-o", "backup", *given, f"{built}/lab.state"),
        ("import", "backup", *given, "other.state"),
    ):
        done = run_bundler(["state", *words], cwd=tmp_path / "empty", text=True)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "empty/other.state/pki/kubernetes-ca/key.pem").is_file()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cluster.yaml: No such file or directory"),
        ("nodes: []\n", "cluster.yaml:1:1: name: is missing"),
        ("apiVersion: x\nname: ../up\n", "cluster.yaml:2:1: name: "),
        ("apiVersion: x\nname: 7\n", "cluster.yaml:2:1: name: "),
        ("name: [\n", "not valid YAML"),
    ],
)
def test_a_cluster_yaml_without_a_usable_name_is_named_with_the_way_around_it(
    tmp_path: Path, text: str | None, message: str
) -> None:
    if text is not None:
        (tmp_path / "cluster.yaml").write_text(text)
    done = run_bundler(["state", "import", "backup"], cwd=tmp_path, text=True)
    assert done.returncode == 2
    assert message in done.stderr
    assert "--state DIR" in done.stderr


SECRETS = {
    "state export": (("-o", "backup"), "--passphrase-file"),
    "state import": (("backup",), "--passphrase-file"),
    "admin export": (("--p12", "admin.p12"), "--password-file"),
}


@pytest.mark.slow
@pytest.mark.parametrize("command", SECRETS)
def test_a_missing_passphrase_without_a_terminal_is_an_error_that_names_the_option(
    built: Path, command: str
) -> None:
    arguments, option = SECRETS[command]
    (built / "backup").write_bytes(b"bundler-state 1\n{}\n")
    if command == "state export":
        (built / "backup").unlink()
    for give in (None, b"", f"{PASSPHRASE}\n{PASSPHRASE}\n".encode()):
        done = run_without_terminal(*command.split(), *arguments, cwd=built, give=give)
        assert done.returncode == 2, done.stderr
        assert "there is no terminal" in done.stderr
        assert option in done.stderr
        assert "Traceback" not in done.stderr
        assert "Warning" not in done.stderr
    assert not (built / "admin.p12").exists()


@pytest.mark.slow
def test_the_passphrase_of_an_imported_key_needs_a_terminal_or_its_option(site: Path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-keyout", "ca.key", "-out", "ca.crt",
         "-passout", "pass:open sesame", "-days", "30", "-subj", "/CN=ca"],
        cwd=site, check=True, capture_output=True,
    )  # fmt: skip
    words = ("certs", "import", "--authority", "kubernetes-ca", "--cert", "ca.crt")
    done = run_without_terminal(*words, "--key", "ca.key", "--pins", str(PINS), cwd=site)
    assert done.returncode == 2, done.stderr
    assert "there is no terminal" in done.stderr
    assert "--passphrase-file" in done.stderr


@pytest.mark.slow
def test_a_passphrase_can_come_through_a_pipe_if_the_option_says_so(built: Path) -> None:
    words = ("state", "export", "-o", "backup", "--passphrase-file", "/dev/stdin")
    done = run_without_terminal(*words, cwd=built, give=f"{PASSPHRASE}\n".encode())
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_terminal_is_asked_for_the_passphrase_and_does_not_show_it(built: Path) -> None:
    code, screen = run_in_terminal(
        "state", "export", "-o", "backup", cwd=built, types=f"{PASSPHRASE}\n{PASSPHRASE}\n"
    )
    assert code == 0, screen
    assert "Passphrase" in screen
    assert PASSPHRASE not in screen
    assert (built / "backup").is_file()
