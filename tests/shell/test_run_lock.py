"""Of several runs that start at the same moment only one continues."""

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.shells import TEMPLATES, Sh

STARTERS = 4
SCRIPT = """
set -u
. {lib}/core/common.sh
store={store} lock_taken=no
trap '[ $lock_taken = yes ] || echo refused >>{store}/told' EXIT
take_lock 2>/dev/null
echo holds >>{store}/told
until [ "$(wc -l <{store}/told)" -ge {starters} ]; do sleep 0.1; done
"""


@pytest.mark.parametrize("left", ["nothing", "a lock", "a lock of an earlier version"])
def test_only_one_of_several_runs_gets_the_lock(sh: Sh, tmp_path: Path, left: str) -> None:
    script = tmp_path / "starter.sh"
    for attempt in range(3):
        store = tmp_path / f"store{attempt}"
        store.mkdir()
        if left == "a lock":
            (store / "lock").write_text("999999 1\n")
            (store / "lock.999998").write_text("999998 1\n")  # killed between its two steps
        elif left != "nothing":
            (store / "lock").mkdir()
            (store / "lock/owner").write_text("999999 1\n")
        script.write_text(
            SCRIPT.format(lib=TEMPLATES / "common/lib", store=store, starters=STARTERS)
        )
        with ThreadPoolExecutor(STARTERS) as pool:
            for _ in range(STARTERS):
                pool.submit(sh, script)
        told = (store / "told").read_text().split()
        assert sorted(told) == ["holds"] + ["refused"] * (STARTERS - 1)
        assert {path.name for path in store.iterdir()} == {"lock", "told"}


def test_a_zombie_process_holds_no_lock(sh: Sh, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    with subprocess.Popen(["sleep", "60"]) as holder:
        stat = Path(f"/proc/{holder.pid}/stat")
        begun = stat.read_text().rsplit(") ", 1)[1].split()[19]
        (tmp_path / "store/lock").write_text(f"{holder.pid} {begun}\n")
        script = tmp_path / "starter.sh"
        text = SCRIPT.format(lib=TEMPLATES / "common/lib", store=tmp_path / "store", starters=1)
        script.write_text(text)
        sh(script)
        assert (tmp_path / "store/told").read_text() == "refused\n"
        (tmp_path / "store/told").unlink()
        holder.kill()
        while ") Z " not in stat.read_text():
            time.sleep(0.01)
        sh(script)
    assert (tmp_path / "store/told").read_text() == "holds\n"
