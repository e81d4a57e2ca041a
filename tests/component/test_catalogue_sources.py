"""The catalog has exactly the rows that the sources of Kubernetes 1.20 say, read from Debian's package."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("source")
    script = PROJECT / "scripts" / "lab" / "kubernetes-archive.sh"
    done = subprocess.run([script, directory], check=False, capture_output=True, text=True)
    found = [line for line in done.stdout.splitlines() if "/kubernetes_1.20." in line]
    if not found:
        pytest.skip(
            "Kubernetes 1.20 cannot be read: this machine has no Debian source package of it"
        )
    return Path(found[0])


def test_the_catalog_of_1_20_is_what_the_sources_say(archive: Path) -> None:
    command = [sys.executable, "-m", "scripts.catalogue", "1.20", str(archive)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=PROJECT)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "catalogue: 0 of 4 tables change\n"


@pytest.mark.long
def test_a_row_that_the_sources_do_not_have_is_shown(archive: Path, tmp_path: Path) -> None:
    """The comparison sees a missing, a surplus and a changed row: the tables are not only kept."""
    copy = tmp_path / "project"
    for folder in ("bundler", "scripts"):
        shutil.copytree(PROJECT / folder, copy / folder)
    catalog = copy / "bundler" / "catalog"
    changes = {
        "accepted-flags.tsv": ("kubelet\tmax-pods\t1.14\t", "kubelet\tmax-pods\t1.21\t"),
        "accepted-fields.tsv": ("kubelet\t\tmaxPods\tint32\t", "kubelet\t\tmaxPods\tint64\t"),
        "feature-gates.tsv": ("CSINodeInfo\t", "CSINodeInformation\t"),
        "apis.tsv": (
            "node.k8s.io/v1\tRuntimeClass\t1.20\t",
            "node.k8s.io/v1\tRuntimeClass\t1.21\t",
        ),
    }
    for name, (row, other) in changes.items():
        text = (catalog / name).read_text()
        assert row in text, name
        (catalog / name).write_text(text.replace(row, other))
    command = [sys.executable, "-m", "scripts.catalogue", "1.20", str(archive), "--write"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=copy)
    for line in (
        "+kubelet\tmax-pods\t1.20\t",
        "+kubelet\t\tmaxPods\tint32\t1.20\t1.21",
        "+CSINodeInfo\t1.20\t1.21\t1.20\ttrue",
        "+node.k8s.io/v1\tRuntimeClass\t1.20\t",
    ):
        assert line in done.stdout.splitlines(), line
    assert any(line.startswith("-CSINodeInformation\t") for line in done.stdout.splitlines())
    again = subprocess.run(command, check=True, capture_output=True, text=True, cwd=copy)
    assert again.stderr == "catalogue: 0 of 4 tables change\n"
