"""What install.sh tells other programs: exit codes with --exit-code, and JSON."""

import json
import os
import re
from pathlib import Path

import pytest
from support.generation_site import WENT_BACK, Site, make_site, plant_failure
from support.paths import PROJECT
from support.shells import Sh
from support.trees import Trees

PAGE = (PROJECT / "docs" / "reference" / "json.md").read_text()
NOTHING, CHANGED, WAITING = 0, 10, 11


@pytest.fixture
def site(sh: Sh, trees: Trees, tmp_path: Path) -> Site:
    return make_site(sh, trees, tmp_path)


def documented(shape: str) -> set[str]:
    section = PAGE.partition(f"\n## {shape}\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (.*?) \|", section, re.MULTILINE)
    return {field for cell in cells for field in re.findall(r"`([^`]+)`", cell)}


def test_a_dry_run_tells_changes_from_none_by_its_exit_code(
    sh: Sh, trees: Trees, tmp_path: Path
) -> None:
    bundle, root = trees / "worker1", tmp_path / "root"
    first = sh(bundle / "install.sh", "--dry-run", "--exit-code", DESTDIR=str(root))
    assert (first.returncode, first.stderr) == (CHANGED, "")
    assert not root.exists()
    plain = sh(bundle / "install.sh", "--dry-run", DESTDIR=str(root))
    assert (plain.returncode, plain.stdout) == (0, first.stdout)
    planned = sh(bundle / "install.sh", "--plan", "--json", "--exit-code", DESTDIR=str(root))
    assert planned.returncode == CHANGED
    assert json.loads(planned.stdout)["format"] == "host-diff/1"


@pytest.mark.slow
def test_a_staged_run_says_what_it_did(sh: Sh, trees: Trees, tmp_path: Path) -> None:
    bundle, root = trees / "worker1", tmp_path / "root"
    first = sh(bundle / "install.sh", "--exit-code", "--json", DESTDIR=str(root))
    data = json.loads(first.stdout)
    assert (first.returncode, data["outcome"], data["exit_code"]) == (CHANGED, "done", CHANGED)
    assert data["files_installed"] > 10
    assert set(data) == documented("install")
    assert "files staged in" in first.stderr
    again = sh(bundle / "install.sh", "--json", "--exit-code", DESTDIR=str(root))
    data = json.loads(again.stdout)
    assert (again.returncode, data["outcome"], data["files_installed"]) == (NOTHING, "nothing", 0)
    dry = sh(bundle / "install.sh", "--exit-code", "--dry-run", DESTDIR=str(root))
    assert dry.returncode == NOTHING


@pytest.mark.slow
def test_done_nothing_to_do_and_going_back_are_told_apart(site: Site) -> None:
    first = site.install(1, "--exit-code", "--json")
    data = json.loads(first.stdout)
    assert (first.returncode, data["outcome"], data["generation"]) == (CHANGED, "done", 1)
    assert (data["node"], data["problems"], data["units_not_ready"]) == ("worker1", [], [])
    assert site.install(1, "--exit-code").returncode == NOTHING
    plant_failure(site.bundles[1])
    back = site.install(2, "--json", "--exit-code")
    assert back.returncode == WENT_BACK, back.stdout + back.stderr
    data = json.loads(back.stdout)
    assert (data["outcome"], data["exit_code"], data["generation"]) == ("rolled-back", 5, 1)
    assert "going back to generation 1" in back.stderr
    kept = site.install(2, "--json", "--no-rollback")
    data = json.loads(kept.stdout)
    assert (kept.returncode, data["outcome"], data["generation"]) == (4, "not-ready", 2)


@pytest.mark.slow
def test_waiting_for_other_hosts_is_an_outcome_of_its_own(site: Site) -> None:
    site.host.mark("outcome", "pending")
    site.host.mark("unready", "kubelet.service")
    done = site.install(1, "--json", "--exit-code")
    data = json.loads(done.stdout)
    assert (done.returncode, data["outcome"]) == (WAITING, "waiting")
    assert "kubelet.service" in data["units_not_ready"]


@pytest.mark.slow
def test_a_run_that_is_killed_by_a_signal_or_refused_has_its_outcome(site: Site) -> None:
    (site.store / "generations").parent.mkdir(parents=True, exist_ok=True)
    bundle = site.bundles[0]
    (bundle / "rootfs/etc/kubernetes/kubelet-config.yaml").write_text("damaged")
    refused = site.install(1, "--json", "--exit-code")
    data = json.loads(refused.stdout)
    assert (refused.returncode, data["outcome"], data["files_installed"]) == (3, "refused", 0)
    assert "kubelet-config.yaml" in refused.stderr
    wrong = site.install(2, "--json", "--no-such-option")
    assert (wrong.returncode, wrong.stdout) == (2, "")


@pytest.mark.slow
def test_the_generations_are_listed_as_json(site: Site) -> None:
    assert json.loads(site.install(1, "--list", "--json").stdout) == {
        "format": "generations/1", "current": None, "interrupted": None, "generations": [],
    }  # fmt: skip
    for number in (1, 2):
        site.install(number)
    data = json.loads(site.install(2, "--json", "--list").stdout)
    assert (data["current"], data["interrupted"]) == (2, None)
    assert [(row["number"], row["state"]) for row in data["generations"]] == [(1, "healthy"), (2, "healthy")]  # fmt: skip
    fields = {
        key if key != "generations" else f"generations[].{inner}"
        for key in data
        for inner in data["generations"][0]
    }
    assert fields == documented("generations")
    (site.store / "switch").write_text("1 2 back\n")
    assert json.loads(site.install(2, "--list", "--json").stdout)["interrupted"] == "1 to 2"
    table = site.install(2, "--list").stdout
    assert table.startswith("N    STATE")


@pytest.mark.slow
def test_copying_a_large_bundle_says_how_far_it_is(site: Site) -> None:
    for bundle in site.bundles[:1]:
        part = bundle / "lib/transaction/generations.sh"
        part.write_text(part.read_text().replace("BATCH=67108864", "BATCH=1048576"))
        for number in range(4):
            (bundle / f"rootfs/opt/k8s/bin/large{number}").parent.mkdir(parents=True, exist_ok=True)
            (bundle / f"rootfs/opt/k8s/bin/large{number}").write_bytes(os.urandom(2 << 20))
    from support.trees import rewrite_manifest

    rewrite_manifest(site.bundles[0])
    done = site.install(1)
    assert done.returncode == 0, done.stderr
    said = re.findall(r"copied (\d+) of (\d+) MiB to", done.stdout)
    assert len(said) >= 3
    assert said[-1][0] == said[-1][1]
    assert [int(copied) for copied, _ in said] == sorted(int(copied) for copied, _ in said)
    kept = site.store / "generations/1/rootfs/opt/k8s/bin/large3"
    assert kept.read_bytes() == (site.bundles[0] / "rootfs/opt/k8s/bin/large3").read_bytes()
