"""Builds with real artifacts: the same bytes every time, and only the secrets that a node needs."""

import functools
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


def test_a_build_from_a_clean_cache_gives_the_same_bytes_in_another_environment(
    lab_bundles: Path, lab_directory: Path, tmp_path: Path
) -> None:
    """The bundles of the lab come from the cache of former runs, where there is one."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    build(
        lab_directory / "examples" / "lab.yaml", tmp_path / "second", cache=tmp_path / "cache",
        environment={"TZ": "Pacific/Kiritimati", "LC_ALL": "C.UTF-8", "LANG": "de_DE.UTF-8"},
        umask=0o077, cwd=elsewhere,
    )  # fmt: skip
    assert digests(tmp_path / "second") == digests(lab_bundles)
    shutil.rmtree(tmp_path / "cache")


def test_sha256sums_names_every_tarball_with_its_digest(lab_bundles: Path) -> None:
    lines = (lab_bundles / "SHA256SUMS").read_text().splitlines()
    listed = {name: digest for digest, name in (line.split("  ") for line in lines)}
    found = digests(lab_bundles)
    del found["SHA256SUMS"]
    tarballs = [name for name in found if name.endswith(".tar.gz")]
    assert len(tarballs) == 5
    for name in tarballs:
        line = (lab_bundles / f"{name}.sha256").read_text()
        assert line == f"{found[name]}  {name}\n"
        del found[f"{name}.sha256"]
    assert listed == found
    assert "RUNBOOK.md" in listed


@functools.cache  # two tests read the same bundles
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


def read_state_keys(directory: Path) -> dict[str, bytes]:
    """Map the directory of every private key in the state directory to the key."""
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
def test_a_bundle_holds_only_the_private_keys_that_its_node_needs(
    lab_bundles: Path, lab_directory: Path, node: str, forbidden: str
) -> None:
    files = read_small_files(lab_bundles / f"lab-{node}.tar.gz")
    keys = {
        name: key
        for name, key in read_state_keys(lab_directory).items()
        if re.search(forbidden, name)
    }
    assert keys
    everything = b"\n".join(content for _, content in files.values())
    for name, key in keys.items():
        body = key.split(b"\n")[1]
        assert body not in everything, f"{node}'s bundle holds the key of {name}"
    if node.startswith("worker"):
        assert "rootfs/etc/kubernetes/admin.kubeconfig" not in files


@pytest.mark.parametrize("node", ["master1", "worker1"])
def test_only_root_can_read_a_secret_of_a_bundle(lab_bundles: Path, node: str) -> None:
    marks = (b"PRIVATE KEY", b"client-key-data", b"token-secret", b"    token: ")
    secrets = {
        name: mode
        for name, (mode, content) in read_small_files(lab_bundles / f"lab-{node}.tar.gz").items()
        if any(mark in content for mark in marks) and not name.endswith((".sh", "MANIFEST"))
    }
    assert len(secrets) >= 2
    assert set(secrets.values()) == {0o600}
