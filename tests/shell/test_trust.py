"""install.sh on a host that trusts only what certain keys signed."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.shells import Sh
from support.trees import Trees

from bundler.bundle.signing import (
    SIGNATURE,
    generate_key,
    load_signing_key,
    sign,
)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """ours.key and theirs.key, each with its .pub."""
    for name in ("ours", "theirs"):
        generate_key(tmp_path / f"{name}.key")
    return tmp_path


@pytest.fixture
def bundle(trees: Trees, keys: Path) -> Path:
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


def test_a_bundle_signed_by_a_trusted_key_is_accepted(
    version: Callable[..., tuple[int, str]], keys: Path
) -> None:
    assert version()[0] == 0
    code, said = version("--trust", str(keys / "ours.pub"))
    assert code == 0, said
    assert "Kubernetes 1.20.2" in said
    both = ("--trust", str(keys / "theirs.pub"), "--trust", str(keys / "ours.pub"))
    assert version(*both)[0] == 0


def test_another_signer_or_no_signature_is_refused(
    version: Callable[..., tuple[int, str]], keys: Path, bundle: Path
) -> None:
    code, said = version("--trust", str(keys / "theirs.pub"))
    assert code == 3
    assert "no key that this host trusts signed it" in said
    (bundle / SIGNATURE).unlink()
    code, said = version("--trust", str(keys / "ours.pub"))
    assert (code, "it is not signed" in said) == (3, True)


def test_keys_in_trust_d_are_used_without_an_option(
    version: Callable[..., tuple[int, str]], keys: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "host/etc/bundler/trust.d"
    directory.mkdir(parents=True)
    (directory / "site.pub").write_bytes((keys / "theirs.pub").read_bytes())
    assert version()[0] == 3
    (directory / "release.pub").write_bytes((keys / "ours.pub").read_bytes())
    assert version()[0] == 0


@pytest.mark.parametrize(
    "path", ["lib/core/common.sh", "lib/strange.sh", "lib/runtime.sh", "node.env"]
)
def test_no_altered_or_added_script_is_run(
    version: Callable[..., tuple[int, str]], keys: Path, bundle: Path, path: str
) -> None:
    with (bundle / path).open("a") as file:
        file.write("\necho evil code ran\n")
    code, said = version("--trust", str(keys / "ours.pub"))
    assert code == 3
    assert " are not those that were signed" in said
    assert "evil code ran" not in said


def test_an_altered_manifest_is_no_longer_signed(
    version: Callable[..., tuple[int, str]], keys: Path, bundle: Path
) -> None:
    with (bundle / "MANIFEST").open("a") as file:
        file.write("0" * 64 + " 0755 1 lib/more.sh\n")
    assert version("--trust", str(keys / "ours.pub"))[0] == 3


def test_a_misspelled_trust_option_is_refused(
    version: Callable[..., tuple[int, str]], keys: Path, bundle: Path
) -> None:
    with (bundle / "lib/core/common.sh").open("a") as file:
        file.write("\necho evil code ran\n")
    ours = str(keys / "ours.pub")
    for arguments, expected in (
        ([f"--trust={ours}"], f"unknown option --trust={ours}"),
        (["--trusted", ours], "unknown option --trusted"),
        (["--trust", ours, "--trust", str(keys)], f"a public key: {keys} is not a file"),
        (["--trust", str(keys / "nowhere.pub")], "nowhere.pub is not a file"),
    ):
        code, said = version(*arguments)
        assert (code, expected in said, "evil" in said) == (2, True, False), said


def test_trust_needs_a_key(sh: Sh, bundle: Path, keys: Path) -> None:
    for arguments in ((), ("--trust", str(keys / "ours.pub"))):
        done = sh(bundle / "install.sh", *arguments, "--trust", DESTDIR=str(keys / "host"))
        assert done.returncode == 2
        assert "trust: --trust needs the file of a public key\n" in done.stderr


@pytest.mark.slow
def test_a_file_in_trust_d_that_is_not_a_key_is_refused(
    version: Callable[..., tuple[int, str]], keys: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "host/etc/bundler/trust.d"
    directory.mkdir(parents=True)
    (directory / "release.pub").write_bytes((keys / "ours.pub").read_bytes())
    (tmp_path / "text").write_text("no key\n")
    for name, make in {
        "site.pub": lambda path: path.symlink_to("/nowhere"),
        "site.pem": lambda path: shutil.copy(keys / "ours.pub", path),
        ".hidden": lambda path: path.symlink_to("/nowhere"),
        "text.pub": lambda path: shutil.copy(tmp_path / "text", path),
        "private.pub": lambda path: shutil.copy(keys / "ours.key", path),
        "pipe.pub": os.mkfifo,
    }.items():
        make(directory / name)
        code, said = version()
        assert (code, f"trust.d/{name} is " in said) == (3, True), said
        (directory / name).unlink()
    assert version()[0] == 0
    shutil.rmtree(directory)
    directory.symlink_to("/nowhere")
    assert version()[0] == 3


@pytest.mark.parametrize(
    "path",
    [
        "lib/core/common.sh",
        "MANIFEST",
        "MANIFEST.sig",
        "rootfs/etc/systemd/system/kubelet.service",
        "lib",
    ],
)
def test_a_link_in_place_of_a_signed_file_is_refused(
    version: Callable[..., tuple[int, str]], keys: Path, bundle: Path, path: str
) -> None:
    (bundle / path).rename(keys / "elsewhere")
    (bundle / path).symlink_to(keys / "elsewhere")
    code, said = version("--trust", str(keys / "ours.pub"))
    assert code == 3
    assert f"these are not regular files:\n./{path}\n" in said


def test_unsigned_files_are_refused(
    version: Callable[..., tuple[int, str]], keys: Path, bundle: Path
) -> None:
    trust = ("--trust", str(keys / "ours.pub"))
    pipe = bundle / "rootfs/etc/pipe"
    os.mkfifo(pipe)
    assert "these are not regular files:\n./rootfs/etc/pipe\n" in version(*trust)[1]
    pipe.unlink()
    (bundle / "rootfs/etc/docker/daemon.json").unlink()
    (bundle / "more").mkdir()
    (bundle / "rootfs/more").write_text("")
    (bundle / "payload.tar").write_text("")
    (bundle / "node.env\nlib").mkdir()
    (bundle / "node.env\nlib/common.sh").write_text("")
    code, said = version(*trust)
    assert code == 3
    for fault in (
        "rootfs/etc/docker/daemon.json: missing",
        "rootfs/more: not in the manifest",
        "more/: not in the manifest",
        "payload.tar: not in the manifest",
        "b/common.sh: not in the manifest",
    ):
        assert f"{fault}\n" in said


def test_the_path_of_a_key_may_contain_spaces(
    version: Callable[..., tuple[int, str]], keys: Path
) -> None:
    spaced = shutil.copy(keys / "ours.pub", keys / "of the site.pub")
    assert version("--trust", str(spaced))[0] == 0


def test_a_host_without_openssl_gets_an_error(
    version: Callable[..., tuple[int, str]], keys: Path, bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("dirname", "cat"):
        (tmp_path / "bin" / name).symlink_to(f"/usr/bin/{name}")
    script = bundle / "install.sh"
    script.write_text(script.read_text().replace("\nPATH=", f"\nPATH={tmp_path}/bin # "))
    code, said = version("--trust", str(keys / "ours.pub"))
    assert (code, "this host has no openssl" in said) == (3, True), said


def test_a_kept_generation_is_checked_again_only_with_trust(
    sh: Sh, bundle: Path, keys: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "host/etc/bundler/trust.d"
    directory.mkdir(parents=True)
    shutil.copy(keys / "theirs.pub", directory)
    kept = tmp_path / "host/var/lib/bundler/generations/1"
    shutil.copytree(bundle, kept)
    (kept / "state").write_text("healthy\n")
    for arguments, code in (
        ((), 0),
        (("--trust", str(keys / "ours.pub")), 0),
        (("--trust", str(keys / "theirs.pub")), 3),
    ):
        done = sh(kept / "install.sh", *arguments, "--version", DESTDIR=str(tmp_path / "host"))
        assert done.returncode == code, done.stderr
    (kept / "more").write_text("")
    done = sh(kept / "install.sh", "--dry-run", DESTDIR=str(tmp_path / "host"))
    assert (done.returncode, "    more: not in the manifest\n" in done.stderr) == (3, True)
