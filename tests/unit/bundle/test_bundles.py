"""`bundler verify` of a directory of bundles, signatures, and keys."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.command import run_bundler
from support.descriptions import write_archive, write_upstream

from bundler.bundle.signing import generate_key, load_public_key, load_signing_key
from bundler.cache.store import Cache
from bundler.errors import ArtifactError, ConfigError, OutputError
from bundler.pipeline import build
from bundler.project import Inputs

DESCRIPTION = """\
apiVersion: bundler/v1alpha1
name: small
kubernetes: {version: 1.36.2}
runtime: {engine: containerd}
dns: {provider: none}
nodes:
  - {name: one, address: 192.0.2.1, roles: [etcd, control-plane, worker]}
  - {name: two, address: 192.0.2.2, roles: [worker]}
images:
  - {ref: "registry.k8s.io/pause:3.10.2", file: pause.tar}
"""


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Build the description, with something appended; the directory of bundles."""

    def run(more: str = "", sign: Path | None = None) -> Path:
        write_archive(tmp_path / "pause.tar", "registry.k8s.io/pause:3.10.2")
        description = tmp_path / "cluster.yaml"
        description.write_text(DESCRIPTION + more)
        inputs = Inputs(
            description=description, cache=Cache(tmp_path / "cache"),
            pins=write_upstream(tmp_path, description), mirrors=(str(tmp_path / "mirror"),),
        )  # fmt: skip
        build(inputs, tmp_path / "dist", signing_key=sign)
        return tmp_path / "dist"

    return run


def verify(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_bundler(
        ["verify", str(directory), *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_a_complete_directory_passes(make: Callable[..., Path]) -> None:
    done = verify(make())
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 3), done.stderr
    assert "ok  RUNBOOK.md  " in done.stdout
    assert "ok  small-one.tar.gz  " in done.stdout


@pytest.mark.slow
def test_each_bad_bundle_is_named(make: Callable[..., Path]) -> None:
    directory = make()
    bundle = directory / "small-one.tar.gz"
    bundle.write_bytes(bundle.read_bytes()[:-100])
    (directory / "small-two.tar.gz").rename(directory / "strange.tar.gz")
    done = verify(directory)
    assert done.returncode == 6
    assert "small-one.tar.gz: its digest is" in done.stderr
    assert "small-two.tar.gz: missing" in done.stderr
    assert "strange.tar.gz: not in SHA256SUMS" in done.stderr


def test_a_directory_without_sha256sums_is_reported_with_a_hint(tmp_path: Path) -> None:
    done = verify(tmp_path)
    assert done.returncode == 6
    assert "build again" in done.stderr


@pytest.mark.slow
def test_an_image_that_the_bundle_does_not_have_fails_the_build_with_its_place(
    make: Callable[..., Path], tmp_path: Path
) -> None:
    sandbox = "{plugins: {io.containerd.cri.v1.images: {pinned_images: {sandbox: 'mine/pause:9'}}}}"
    with pytest.raises(
        ArtifactError, match=r"config.toml:\d+: image mine/pause:9 is missing in `images`"
    ):
        make(f"extra: {{containerd: {{config: {sandbox}}}}}\n")
    assert not list((tmp_path / "dist").glob("*.tar.gz"))


@pytest.mark.slow
def test_signed_bundles_are_the_same_bytes_twice_and_verify_by_openssl(
    make: Callable[..., Path], tmp_path: Path
) -> None:
    key = tmp_path / "release.key"
    public = generate_key(key)
    directory = make(sign=key)
    first = (directory / "SHA256SUMS").read_bytes(), (directory / "SHA256SUMS.sig").read_bytes()
    make(sign=key)
    assert first == (
        (directory / "SHA256SUMS").read_bytes(),
        (directory / "SHA256SUMS.sig").read_bytes(),
    )
    done = subprocess.run(
        ["openssl", "dgst", "-sha256", "-verify", public, "-signature",
         directory / "SHA256SUMS.sig", directory / "SHA256SUMS"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "Verified OK\n"
    assert verify(directory, "--trust", str(public)).returncode == 0
    assert verify(directory).returncode == 0


@pytest.mark.slow
def test_unsigned_bundles_and_unknown_signers_are_refused(
    make: Callable[..., Path], tmp_path: Path
) -> None:
    ours, theirs = (generate_key(tmp_path / f"{name}.key") for name in ("ours", "theirs"))
    done = verify(make(), "--trust", str(ours))
    assert (done.returncode, "not signed by a trusted key" in done.stderr) == (6, True)
    directory = make(sign=tmp_path / "theirs.key")
    assert verify(directory, "--trust", str(ours)).returncode == 6
    assert verify(directory, "--trust", str(ours), "--trust", str(theirs)).returncode == 0


def test_private_keys_are_for_their_owner_and_not_overwritten(tmp_path: Path) -> None:
    key = tmp_path / "release.key"
    generate_key(key)
    assert key.stat().st_mode & 0o777 == 0o600
    with pytest.raises(OutputError, match="does not overwrite keys"):
        generate_key(key)
    key.chmod(0o644)
    with pytest.raises(ConfigError, match="other users can read this private key"):
        load_signing_key(key)
    with pytest.raises(ConfigError, match="not a private key in PEM"):
        load_signing_key(_write(tmp_path / "no.key", "nothing"))


def test_a_private_key_cannot_have_the_name_of_a_public_key(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=".pub is for the public key") as caught:
        generate_key(tmp_path / "release.pub")
    assert f"bundler keygen {tmp_path}/release.key" in (caught.value.hint or "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (".", "is not a file name"),
        ("nowhere/x.key", "No such file or directory"),
        ("file/x.key", "Not a directory"),
        ("x" * 300, "File name too long"),
    ],
)
def test_a_key_that_cannot_be_written_is_reported_with_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=expected) as caught:
        generate_key(Path(path))
    assert caught.value.hint


@pytest.mark.parametrize("curve", ["SM2", "brainpoolP224r1", "sect233k1", "secp112r1", "secp384r1"])
def test_keys_of_other_curves_are_refused_by_both_sides(tmp_path: Path, curve: str) -> None:
    key, public = tmp_path / "x.key", tmp_path / "x.pub"
    for command in (
        ["ecparam", "-name", curve, "-genkey", "-noout", "-out", key],
        ["ec", "-in", key, "-pubout", "-out", public],
    ):
        if subprocess.run(["openssl", *command], capture_output=True, check=False).returncode:
            pytest.skip(
                f"keys of other curves cannot be made: this openssl does not know the curve {curve}"
            )
    key.chmod(0o600)
    with pytest.raises(ConfigError, match=r"x\.key: not an ECDSA P-256 key"):
        load_signing_key(key)
    with pytest.raises(ConfigError, match=r"x\.pub: not an ECDSA P-256 key"):
        load_public_key(public)


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path
