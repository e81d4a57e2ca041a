"""The rendered files of the example, byte by byte: a change shows up in review.

`UPDATE_GOLDEN=1 pytest tests/golden` writes the expected trees again. Keys, certificates, tokens
and values made of them are replaced by [secret]. Files that are copied unchanged are left out.
"""

import difflib
import os
import re
from pathlib import Path

import pytest

from bundler.cache.store import Cache
from bundler.paths import templates_directory
from bundler.pipeline import render
from bundler.project import Inputs

GOLDEN = Path(__file__).parent / "lab"
NODES = ("master1", "worker1")
SECRETS = (
    re.compile(r"-----BEGIN [A-Z ]+-----.*?-----END [A-Z ]+-----", re.DOTALL),
    re.compile(r"(?<=-data: )\S+"),
    re.compile(r"(?<=secret: )\S+"),
    re.compile(r"(?<=token: )\S+"),
    re.compile(r"(?<=token-id: )\S+|(?<=bootstrap-token-)[a-z0-9]{6}\b"),
    re.compile(r"(?<=STATE_ID=')\w+"),
    re.compile(r"(?<=NOT_BEFORE=')\d+|(?<=NOT_AFTER=')\d+|(?<=TOKEN_EXPIRES=')\d+"),
    re.compile(r"(?<=TOKENS_SIGNED_WITH=')[^']+|(?<=TOKENS_ACCEPTED=')[^']+"),
    re.compile(r"(?<=expiration: )\S+|(?<=\t)\w{6}\t\d+(?=\tsystem:bootstrappers)"),
)


def is_rendered(path: str) -> bool:
    return any(templates_directory().glob(f"*/{path}.j2"))


def read_tree(directory: Path) -> dict[str, str]:
    """Path and mode → text of every rendered file."""
    found = {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_file() and is_rendered(name):
            text = path.read_text()
            for pattern in SECRETS:
                text = pattern.sub("[secret]", text)
            found[f"{name} {path.stat().st_mode & 0o777:o}"] = text
    return found


def dump(tree: dict[str, str]) -> str:
    return "".join(f"==> {name}\n{text}" for name, text in tree.items())


@pytest.fixture
def trees(description: Path, tmp_path: Path) -> Path:
    inputs = Inputs(
        description=description, cache=Cache(tmp_path / "cache"), offline=True,
        pins=Path(__file__).with_name("pins.yaml"),
    )  # fmt: skip
    render(inputs, tmp_path / "trees", text_only=True)
    return tmp_path / "trees"


@pytest.mark.parametrize("node", NODES)
def test_the_example_renders_as_reviewed(trees: Path, node: str) -> None:
    text = dump(read_tree(trees / node))
    golden = GOLDEN / f"{node}.txt"
    if "UPDATE_GOLDEN" in os.environ:
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    changes = difflib.unified_diff(golden.read_text().splitlines(), text.splitlines(), lineterm="")
    assert "\n".join(changes) == ""


def test_text_only_needs_no_download_and_leaves_out_large_files(trees: Path) -> None:
    files = {path.relative_to(trees).as_posix() for path in trees.rglob("*") if path.is_file()}
    assert "worker1/rootfs/etc/systemd/system/kubelet.service" in files
    assert "worker1/rootfs/opt/k8s/bin/kubelet" not in files
    assert not any(path.startswith("worker1/images/") for path in files)


def test_only_files_with_secrets_have_mode_0600(trees: Path) -> None:
    closed = {
        path.relative_to(trees / "master1").as_posix()
        for path in (trees / "master1").rglob("*")
        if path.is_file() and path.stat().st_mode & 0o777 == 0o600
    }
    assert all(
        path.endswith((".key", ".kubeconfig", "encryption-config.yaml", "bootstrap-tokens.yaml"))
        for path in closed
    )
    assert len(closed) == 18
