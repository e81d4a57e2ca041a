"""install.sh starts few programs: on a slow host each one costs a hundredth of a second or more."""

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
from support.shells import Sh, write_program
from support.trees import Trees

MOST_FIRST, MOST_SECOND = 200, 60
PLACES = ("/usr/bin", "/bin", "/usr/sbin", "/sbin")


@pytest.fixture
def counting(tmp_path: Path) -> Path:
    """A directory for PATH: each program in it writes its name to `started`, and runs the real one."""
    directory = tmp_path / "counting"
    program = directory / "count"
    write_program(
        program,
        f'name=${{0##*/}}\necho "$name" >>{tmp_path}/started\n'
        'exec "$(PATH=${PATH#*:}; command -v "$name")" "$@"\n',
    )
    for name in {path.name for place in PLACES for path in Path(place).iterdir()}:
        (directory / name).symlink_to(program)
    return directory


def count_programs(sh: Sh, counting: Path, bundle: Path, root: Path) -> Counter[str]:
    started = counting.parent / "started"
    started.write_text("")
    path = ":".join((str(counting), *PLACES))
    done = sh(bundle / "install.sh", DESTDIR=str(root), PATH=path)
    assert done.returncode == 0, done.stderr
    return Counter(started.read_text().split())


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("dash"), reason="programs cannot be counted: there is no dash")
@pytest.mark.parametrize("sh", [["dash"]], ids=["dash"], indirect=True)
def test_a_staged_installation_starts_few_programs(
    sh: Sh, counting: Path, trees: Trees, tmp_path: Path
) -> None:
    bundle, root = trees / "master1", tmp_path / "root"
    first = count_programs(sh, counting, bundle, root)
    assert first.total() > 0
    assert first.total() <= MOST_FIRST, first.most_common()
    second = count_programs(sh, counting, bundle, root)
    assert second.total() <= MOST_SECOND, second.most_common()
    assert os.path.exists(root / "opt/k8s/bundle/MANIFEST")
