"""install.sh on a host that trusts only what certain keys signed."""

from collections.abc import Callable
from pathlib import Path

import pytest
from shells import Sh

from bundler.signing import SIGNATURE, generate_key, load_signing_key, sign


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """ours.key and theirs.key, each with its .pub."""
    for name in ("ours", "theirs"):
        generate_key(tmp_path / f"{name}.key")
    return tmp_path


@pytest.fixture
def bundle(trees: Path, keys: Path) -> Path:
    """worker1's bundle without its large files, signed by ours."""
    directory = trees / "worker1"
    manifest = (directory / "MANIFEST").read_bytes()
    (directory / SIGNATURE).write_bytes(sign(load_signing_key(keys / "ours.key"), manifest))
    return directory


@pytest.fixture
def version(sh: Sh, bundle: Path, tmp_path: Path) -> Callable[..., tuple[int, str]]:
    def run(*arguments: str) -> tuple[int, str]:
        done = sh(bundle / "install.sh", *arguments, "--version", DESTDIR=str(tmp_path / "host"))
        return done.returncode, done.stdout + done.stderr

    return run


def test_what_a_trusted_key_signed_is_taken(
    version: Callable[..., tuple[int, str]], keys: Path
) -> None:
    assert version()[0] == 0
    code, said = version("--trust", str(keys / "ours.pub"))
    assert code == 0, said
    assert "Kubernetes 1.20.2" in said
    both = ("--trust", str(keys / "theirs.pub"), "--trust", str(keys / "ours.pub"))
    assert version(*both)[0] == 0


def test_another_key_and_no_signature_are_refused(
    version: Callable[..., tuple[int, str]], keys: Path, bundle: Path
) -> None:
    code, said = version("--trust", str(keys / "theirs.pub"))
    assert code == 3
    assert "no key that this host trusts signed it" in said
    (bundle / SIGNATURE).unlink()
    code, said = version("--trust", str(keys / "ours.pub"))
    assert (code, "it is not signed" in said) == (3, True)


def test_keys_on_the_host_are_asked_without_being_named(
    version: Callable[..., tuple[int, str]], keys: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "host/etc/bundler/trust.d"
    directory.mkdir(parents=True)
    (directory / "site.pub").write_bytes((keys / "theirs.pub").read_bytes())
    assert version()[0] == 3
    (directory / "release.pub").write_bytes((keys / "ours.pub").read_bytes())
    assert version()[0] == 0


@pytest.mark.parametrize("path", ["lib/common.sh", "lib/strange.sh", "lib/runtime.sh", "node.env"])
def test_no_altered_or_added_script_is_run(
    version: Callable[..., tuple[int, str]], keys: Path, bundle: Path, path: str
) -> None:
    with (bundle / path).open("a") as file:
        file.write("\necho evil code ran\n")
    code, said = version("--trust", str(keys / "ours.pub"))
    assert code == 3
    assert "its scripts are not those that were signed" in said
    assert "evil code ran" not in said


def test_an_altered_manifest_is_no_longer_signed(
    version: Callable[..., tuple[int, str]], keys: Path, bundle: Path
) -> None:
    with (bundle / "MANIFEST").open("a") as file:
        file.write("0" * 64 + " 0755 1 lib/more.sh\n")
    assert version("--trust", str(keys / "ours.pub"))[0] == 3
