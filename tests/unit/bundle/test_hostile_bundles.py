"""Bundles that hold more than their manifests say: `bundler inspect` and `verify` refuse them.

A host's tar may unpack what Python's does not show: data after an end, a directory over a file.
"""

import gzip
import hashlib
import io
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support.bundles import write_bundle
from support.command import run_bundler

from bundler.bundle.sbom import SBOM

END = bytes(1024)
FILES = {"rootfs/etc/a": (0o644, b"a"), "rootfs/etc/b/c": (0o644, b"c")}


def make_member(name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mode = kind, len(content), 0o755
    return info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


def add_members(*members: bytes) -> Callable[[bytes], bytes]:
    """Put members before the end of the archive."""
    return lambda packed: gzip.compress(
        gzip.decompress(packed).removesuffix(END) + b"".join(members) + END
    )


def add_after_end(data: bytes) -> Callable[[bytes], bytes]:
    return lambda packed: packed + gzip.compress(data)


EVIL = make_member("lab-one/evil", content=b"evil")
BAD: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "a directory over a file": (
        add_members(make_member("lab-one/rootfs/etc/a", tarfile.DIRTYPE)), "in the archive twice",
    ),
    "a file over a directory": (
        add_members(make_member("lab-one/rootfs/etc/b", content=b"x")), "in the archive twice",
    ),
    "a file below a file": (
        add_members(make_member("lab-one/rootfs/etc/a/x", content=b"x")), "below a file",
    ),
    "a member after the archive's end": (add_after_end(EVIL + END), "data follows the end"),
    "a member after one block of zeros": (add_members(bytes(512), EVIL), "data follows the end"),
    "a member after a bad header": (add_members(b"x" * 512, EVIL), "no valid header"),
    "half a header at the end": (
        lambda packed: gzip.compress(gzip.decompress(packed).removesuffix(END) + b"x" * 100),
        "no valid header",
    ),
    "many zeros after the archive's end": (add_after_end(bytes(1 << 20)), "data follows the end"),
    "text after the end of gzip": (lambda packed: packed + b"evil", "data follows the end"),
    "zeros after the end of gzip": (lambda packed: packed + bytes(512), "data follows the end"),
    "a gzip member after zeros": (
        lambda packed: packed + bytes(8) + gzip.compress(EVIL), "data follows the end",
    ),
    "a name with a command for the terminal": (
        add_members(make_member("lab-one/\x1b[2Jx")), "control characters",
    ),
    "a name with a line of its own": (
        add_members(make_member("lab-one/x\n3 files, all match the manifest")), "control characters",
    ),
    "a name that is not UTF-8": (add_members(make_member("lab-one/\udcff")), "not UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD)
def test_inspect_refuses_a_bundle_with(tmp_path: Path, fault: str) -> None:
    alter, reason = BAD[fault]
    bundle = write_bundle(tmp_path / "lab-one.tar.gz", FILES)
    assert run_bundler(["inspect", bundle]).returncode == 0
    bundle.write_bytes(alter(bundle.read_bytes()))
    done = run_bundler(["inspect", bundle], text=True)
    assert done.returncode == 6, done.stdout
    assert reason in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_verify_refuses_a_bundle_with_data_after_its_end(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "lab-one.tar.gz", FILES)
    bundle.write_bytes(bundle.read_bytes() + gzip.compress(EVIL + END))
    digest = hashlib.sha256(bundle.read_bytes()).hexdigest()
    (tmp_path / "SHA256SUMS").write_text(f"{digest}  {bundle.name}\n")
    done = run_bundler(["verify", tmp_path], text=True)
    assert (done.returncode, "data follows the end" in done.stderr) == (6, True)


def test_busybox_tar_unpacks_what_follows_one_block_of_zeros(tmp_path: Path) -> None:
    """The reason why a reader that stops there must not call the bundle intact."""
    bundle = write_bundle(tmp_path / "lab-one.tar.gz", FILES)
    alter, _ = BAD["a member after one block of zeros"]
    bundle.write_bytes(alter(bundle.read_bytes()))
    subprocess.run(["busybox", "tar", "-xzf", bundle, "-C", tmp_path], check=True)
    assert (tmp_path / "lab-one/evil").read_bytes() == b"evil"


def test_a_bundle_that_was_packed_again_by_tar_is_accepted(tmp_path: Path) -> None:
    """GNU tar adds directories, and pads the archive to records of 10 KiB."""
    bundle = write_bundle(tmp_path / "lab-one.tar.gz", FILES)
    subprocess.run(["tar", "-xzf", bundle, "-C", tmp_path], check=True)
    subprocess.run(["tar", "-czf", bundle, "-C", tmp_path, "lab-one"], check=True)
    assert run_bundler(["inspect", bundle]).returncode == 0


def test_inspect_shows_no_control_characters_of_a_bundle(tmp_path: Path) -> None:
    bundle = write_bundle(
        tmp_path / "x.tar.gz",
        {SBOM: (0o644, b'{"a": "\x1b[2J\xe2\x80\xae"}\n')},
        None,
        env="NODE='one\x1b]0;owned\x07'\nCLUSTER='lab\xc2\x9b31m'\n",
    )
    for options in ([], ["--json"], ["--sbom"]):
        done = run_bundler(["inspect", bundle, *options], text=True)
        assert done.returncode == 0, done.stderr
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(done.stdout + done.stderr)
    assert (
        "node                one\\x1b]0;owned\\x07"
        in run_bundler(["inspect", bundle], text=True).stdout
    )


def test_a_bundle_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bundler.formats.tar_safety.UNPACK_MINIMUM", 1 << 20)
    bundle = write_bundle(tmp_path / "x.tar.gz", {"zeros": (0o644, bytes(64 << 20))})
    done = run_bundler(["inspect", bundle], text=True)
    assert (done.returncode, "would unpack to more than" in done.stderr) == (6, True)


def test_a_payload_file_with_data_after_its_end_is_refused(tmp_path: Path) -> None:
    inner = gzip.compress(make_member("ab" * 32, content=b"x") + END)
    content = io.BytesIO()
    sums = f"{hashlib.sha256(inner).hexdigest()}  {'ab' * 32}.tar.gz\n".encode()
    name = f"payload-{hashlib.sha256(sums).hexdigest()[:16]}"
    content.write(make_member(f"{name}/SHA256SUMS", content=sums))
    content.write(make_member(f"{name}/{'ab' * 32}.tar.gz", content=inner) + END + EVIL)
    (tmp_path / f"{name}.tar").write_bytes(content.getvalue())
    done = run_bundler(["inspect", tmp_path / f"{name}.tar"], text=True)
    assert (done.returncode, "data follows the end" in done.stderr) == (6, True)
