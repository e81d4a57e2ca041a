"""Builds with real artifacts: the same bytes every time, and no secret where it does not belong."""

import hashlib
import re
import shutil
import tarfile
from pathlib import Path

import pytest
from support.lab import build


def digests(directory: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.iterdir())
    }


@pytest.fixture(scope="module")
def first(lab_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("first")
    build(
        lab_directory / "examples" / "lab.yaml", output,
        cache=tmp_path_factory.mktemp("cache"),
        environment={"TZ": "UTC", "LC_ALL": "C"},
    )  # fmt: skip
    return output


def test_two_builds_from_clean_caches_give_the_same_bytes_wherever_and_however_they_run(
    first: Path, lab_directory: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    build(
        lab_directory / "examples" / "lab.yaml", tmp_path / "second", cache=tmp_path / "cache",
        environment={"TZ": "Pacific/Kiritimati", "LC_ALL": "C.UTF-8", "LANG": "de_DE.UTF-8"},
        umask=0o077, cwd=elsewhere,
    )  # fmt: skip
    assert digests(tmp_path / "second") == digests(first)
    shutil.rmtree(tmp_path / "cache")


def test_sha256sums_names_every_tarball_with_its_digest(first: Path) -> None:
    lines = (first / "SHA256SUMS").read_text().splitlines()
    listed = {name: digest for digest, name in (line.split("  ") for line in lines)}
    found = digests(first)
    del found["SHA256SUMS"]
    assert listed == found
    assert sum(name.endswith(".tar.gz") for name in listed) == 5
    assert "RUNBOOK.md" in listed


def read_small_files(path: Path) -> dict[str, tuple[int, bytes]]:
    files = {}
    with tarfile.open(path) as tar:
        for member in tar:
            if member.isreg() and member.size < 1 << 20:
                content = tar.extractfile(member)
                assert content is not None
                files[member.name.partition("/")[2]] = (member.mode, content.read())
                assert (member.uid, member.gid) == (0, 0)
    return files


def state_keys(directory: Path) -> dict[str, bytes]:
    """Every private key of the state directory, by its place."""
    state = directory / "examples" / "lab.state" / "pki"
    return {
        str(path.parent.relative_to(state)): path.read_bytes().strip()
        for path in state.rglob("key.pem")
    }


@pytest.mark.parametrize(
    ("node", "forbidden"),
    [
        (
            "worker1",
            r"kubernetes-ca|etcd|front-proxy|service-account|apiserver|^admin|manager|sched|csr",
        ),
        ("master1", r"etcd-ca|front-proxy-ca"),
    ],
)
def test_a_bundle_holds_no_key_that_its_node_has_no_use_for(
    first: Path, lab_directory: Path, node: str, forbidden: str
) -> None:
    files = read_small_files(first / f"lab-{node}.tar.gz")
    keys = {
        name: key for name, key in state_keys(lab_directory).items() if re.search(forbidden, name)
    }
    assert keys
    everything = b"\n".join(content for _, content in files.values())
    for name, key in keys.items():
        body = key.split(b"\n")[1]
        assert body not in everything, f"{node}'s bundle holds the key of {name}"
    if node.startswith("worker"):
        assert "rootfs/etc/kubernetes/admin.kubeconfig" not in files


@pytest.mark.parametrize("node", ["master1", "worker1"])
def test_every_secret_of_a_bundle_is_for_root_only(first: Path, node: str) -> None:
    marks = (b"PRIVATE KEY", b"client-key-data", b"token-secret", b"    token: ")
    secrets = {
        name: mode
        for name, (mode, content) in read_small_files(first / f"lab-{node}.tar.gz").items()
        if any(mark in content for mark in marks) and not name.endswith((".sh", "MANIFEST"))
    }
    assert len(secrets) >= 2
    assert set(secrets.values()) == {0o600}
