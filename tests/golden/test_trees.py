"""The rendered files of the example, byte by byte: a change shows up in review.

`UPDATE_GOLDEN=1 pytest tests/golden` writes the expected trees again. Keys, certificates, tokens
and values made of them are replaced by [secret]. Files that are copied unchanged are left out.
"""

import difflib
import os
import re
import shutil
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


FLEET = Path(__file__).parent / "fleet"
OTHERS = {"m2": "m1", "gpu1": "w1", "gpu2": "gpu1"}
"""Node of the fleet → the node of the same roles with which it is compared."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = tmp_path_factory.mktemp("fleet")
    shutil.copytree(FLEET, site, dirs_exist_ok=True)
    inputs = Inputs(
        description=site / "cluster.yaml", cache=Cache(site / "cache"), offline=True,
        pins=Path(__file__).with_name("pins.yaml"),
    )  # fmt: skip
    render(inputs, site / "trees", text_only=True)
    return site / "trees"


@pytest.mark.parametrize("node", OTHERS)
def test_nodes_of_a_fleet_differ_as_reviewed(fleet: Path, node: str) -> None:
    """Only the lines that are different on hosts of the same roles."""
    trees = {}
    for name in (OTHERS[node], node):
        env = (fleet / name / "node.env").read_text()
        (address,) = re.findall(r"^ADDRESS='(.*)'$", env, re.MULTILINE)
        own = re.compile(rf"\b({name}|{re.escape(address)})\b")
        trees[name] = own.sub("[own]", dump(read_tree(fleet / name))).splitlines()
    changes = difflib.unified_diff(*trees.values(), n=0, lineterm="")
    text = "\n".join(line for line in changes if not line.startswith(("@@", "---", "+++"))) + "\n"
    golden = FLEET / f"{node}.diff"
    if "UPDATE_GOLDEN" in os.environ:
        golden.write_text(text)
    assert text == golden.read_text()


def test_control_planes_know_how_single_kubelets_differ(fleet: Path) -> None:
    """verify.sh compares the kubelet of every worker from each control plane."""
    rows = (fleet / "m1/lib/kubelet-configz-nodes.tsv").read_text().splitlines()
    assert [row.split("\t") for row in rows] == [
        [name, *row]
        for name in ("gpu1", "gpu2")
        for row in (["volumePluginDir", '"/data/kubelet/volume-plugins"'], ["cpu", '"500m"'])
    ]  # fmt: skip


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
    assert len(closed) == 19
