"""verify.sh compares what a kubelet runs with and the settings of its node."""

import json
import subprocess
from pathlib import Path

import pytest
from support.shells import TEMPLATES

PROGRAM = TEMPLATES / "common/lib/verify/configz.awk"
COMMON = 'failSwapOn\ttrue\nvolumePluginDir\t"/var/lib/kubelet/volume-plugins"\nevents\t0\n'
OWN = 'gpu1\tvolumePluginDir\t"/data/volume-plugins"\ngpu1\tcpu\t"500m"\ngpu2\tfailSwapOn\t-\n'


def compare(directory: Path, name: str, *, own: bool = True, **settings: object) -> list[str]:
    (directory / "common.tsv").write_text(COMMON)
    if own:
        (directory / "own.tsv").write_text(OWN)
    answer = json.dumps({"kubeletconfig": settings}, separators=(",", ":"))
    done = subprocess.run(
        ["awk", "-v", f"name={name}", "-v", "settings=common.tsv", "-v", "own=own.tsv", "-f", str(PROGRAM)],
        cwd=directory, input=answer, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return sorted(done.stdout.splitlines())


PLUGINS = {"volumePluginDir": "/var/lib/kubelet/volume-plugins"}
MINE = {
    "failSwapOn": True,
    "volumePluginDir": "/data/volume-plugins",
    "systemReserved": {"cpu": "500m"},
}


@pytest.mark.parametrize("own", [True, False])
def test_a_node_without_settings_of_its_own_has_the_common_ones(tmp_path: Path, own: bool) -> None:
    assert compare(tmp_path, "w1", own=own, failSwapOn=True, **PLUGINS) == []
    (line,) = compare(tmp_path, "w1", own=own, failSwapOn=False, **PLUGINS)
    assert line.startswith("w1: failSwapOn is false")


def test_a_node_with_settings_of_its_own_is_compared_with_these(tmp_path: Path) -> None:
    assert compare(tmp_path, "gpu1", **MINE) == []
    lines = compare(tmp_path, "gpu1", failSwapOn=True, **PLUGINS)
    assert [line.split()[1] for line in lines] == ["cpu", "volumePluginDir"]
    assert compare(tmp_path, "gpu2", **PLUGINS) == []
