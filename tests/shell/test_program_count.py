"""install.sh starts few programs: on a slow host each one costs a hundredth of a second or more."""

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
from support.crash_points import PLACES, Killer
from support.shells import Sh
from support.trees import Trees

MOST_FIRST, MOST_SECOND = 200, 60


def count_programs(sh: Sh, counter: Killer, bundle: Path, root: Path) -> Counter[str]:
    counter.arm()  # kills nothing
    path = ":".join((str(counter.programs), *PLACES))
    done = sh(bundle / "install.sh", DESTDIR=str(root), PATH=path)
    assert done.returncode == 0, done.stderr
    return Counter(counter.started())


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("dash"), reason="programs cannot be counted: there is no dash")
@pytest.mark.parametrize("sh", [["dash"]], ids=["dash"], indirect=True)
def test_a_staged_installation_starts_few_programs(sh: Sh, trees: Trees, tmp_path: Path) -> None:
    bundle, root, counter = trees / "master1", tmp_path / "root", Killer(tmp_path / "counter")
    first = count_programs(sh, counter, bundle, root)
    assert first.total() > 0
    assert first.total() <= MOST_FIRST, first.most_common()
    second = count_programs(sh, counter, bundle, root)
    assert second.total() <= MOST_SECOND, second.most_common()
    assert os.path.exists(root / "opt/k8s/bundle/MANIFEST")
