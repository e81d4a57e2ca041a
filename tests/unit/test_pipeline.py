"""A build reads each input file once."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.small_builds import make_site

from bundler.cluster.plan import ClusterPlan, make_plan
from bundler.cluster.schema import Cluster

COUNT_OPENS = """
import json, sys
opened = []
sys.addaudithook(lambda event, args: event == "open" and opened.append(str(args[0])))
from bundler.cli.app import main
try:
    main()
finally:
    sys.stdout.flush()
    print(json.dumps(opened))
"""


def list_opened(*arguments: str) -> list[str]:
    """Run the command line; every path that Python opened."""
    done = subprocess.run(
        [sys.executable, "-c", COUNT_OPENS, *arguments],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_a_build_opens_cluster_yaml_the_pins_and_the_lock_once(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    list_opened("lock", *site.arguments)
    opened = list_opened("build", *site.arguments, "-o", str(tmp_path / "dist"))
    counts = {
        name: opened.count(str(tmp_path / name))
        for name in ("cluster.yaml", "cluster.lock.yaml", "pins.yaml")
    }
    assert counts == {"cluster.yaml": 1, "cluster.lock.yaml": 1, "pins.yaml": 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", ["certs renew --all", "certs rotate trust", "tokens renew --all"]
)
def test_a_change_of_the_state_with_its_bundles_opens_each_file_once(
    tmp_path: Path, command: str
) -> None:
    site = make_site(tmp_path)
    site.build()
    options = ("--since", str(tmp_path / "dist"), "-o", str(tmp_path / "new"))
    opened = list_opened(*command.split(), *site.arguments, *options)
    assert [opened.count(str(tmp_path / name)) for name in ("cluster.yaml", "pins.yaml")] == [1, 1]


@pytest.mark.slow
def test_a_build_makes_the_plan_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = make_site(tmp_path)
    plans = []

    def count(cluster: Cluster, *more: Any) -> ClusterPlan:
        plans.append(make_plan(cluster, *more))
        return plans[-1]

    for module in [m for name, m in sys.modules.items() if name.startswith("bundler")]:
        if hasattr(module, "make_plan"):
            monkeypatch.setattr(module, "make_plan", count)
    site.build()
    assert len(plans) == 1
