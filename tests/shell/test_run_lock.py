"""Of those that begin at one moment, one goes on."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from shells import TEMPLATES, Sh

STARTERS = 4
SCRIPT = """
set -u
. {lib}/common.sh
store={store} lock_taken=no
trap '[ $lock_taken = yes ] || echo refused >>{store}/told' EXIT
take_lock 2>/dev/null
echo holds >>{store}/told
until [ "$(wc -l <{store}/told)" -ge {starters} ]; do sleep 0.1; done
"""


@pytest.mark.parametrize("left", ["nothing", "a lock", "a lock of an earlier version"])
def test_one_of_several_holds_the_lock(sh: Sh, tmp_path: Path, left: str) -> None:
    script = tmp_path / "starter.sh"
    for attempt in range(3):
        store = tmp_path / f"store{attempt}"
        store.mkdir()
        if left == "a lock":
            (store / "lock").write_text("999999 1\n")
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
