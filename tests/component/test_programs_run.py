"""Real programs of the lab: install.sh can start each of them before it installs it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support.paths import LAB_CACHE
from support.shells import TEMPLATES

SCRIPT = """
set -u
here={bundle} work={work}
for part in core/common preflight/checks preflight/host coordination/rollout-order preflight/programs; do
    . {lib}/$part.sh
done
prefix={root} skipped=' '
: >"$work/failures"; : >"$work/packages"
check_programs
cat "$work/failures"
"""


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A directory with every program of the lab, as in a bundle."""
    archives = [*LAB_CACHE.glob("mirror/*.com/**/*.tar.gz"), *LAB_CACHE.glob("mirror/**/*.tgz")]
    built = sorted(LAB_CACHE.glob("build/kubernetes-*/kube*"))
    if not archives or not built:
        pytest.skip(
            "a bundle's programs cannot run: there is no etcd or Kubernetes in the lab's cache (make lab)"
        )
    unpacked, bundle = tmp_path / "unpacked", tmp_path / "bundle/rootfs/opt"
    for archive in archives:
        shutil.rmtree(unpacked, ignore_errors=True)
        unpacked.mkdir()
        subprocess.run(["tar", "-xf", archive, "-C", unpacked], check=True)
        target = bundle / ("cni/bin" if "cni-plugins" in archive.name else "k8s/bin")
        target.mkdir(parents=True, exist_ok=True)
        for program in sorted(unpacked.rglob("*")):
            if program.is_file() and os.access(program, os.X_OK):
                shutil.move(program, target / program.name)
    for program in built:
        shutil.copy(program, bundle / "k8s/bin")
    if (real := LAB_CACHE / "host/runc").exists():  # the lab's own may be a wrapper
        shutil.copy(real, bundle / "k8s/bin/runc")
    changes = [
        f"new 0 0755 1 rootfs/opt/{path.relative_to(bundle)} /opt/{path.relative_to(bundle)}\n"
        for path in sorted(bundle.rglob("*"))
        if path.is_file()
    ]
    (tmp_path / "work").mkdir()
    (tmp_path / "work/changes").write_text("".join(changes))
    return tmp_path / "bundle"


def test_every_program_of_the_lab_starts_and_leaves_nothing(bundle: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    script = tmp_path / "script.sh"
    script.write_text(
        SCRIPT.format(
            bundle=bundle, work=tmp_path / "work", root=root, lib=TEMPLATES / "common/lib"
        )
    )
    done = subprocess.run(
        ["sh", script], capture_output=True, text=True, check=False, timeout=300, cwd=root
    )
    assert (done.stdout, done.stderr) == ("", "")
    tried = (tmp_path / "work/programs").read_text().split()[1::2]
    assert {"/opt/k8s/bin/kubelet", "/opt/k8s/bin/runc", "/opt/cni/bin/bridge"} <= set(tried)
    assert list(root.iterdir()) == []
