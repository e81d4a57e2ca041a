"""etcd cannot go back to an older minor: no host goes back past an etcd upgrade."""

import re
import shutil
from pathlib import Path

import pytest
from support.fake_host import make_host
from support.generation_site import Site, patch_install_script, plant_killer
from support.shells import Sh
from support.trees import Trees, rewrite_manifest

STEP = "etcd goes from 3.4.23 to 3.5.9 and cannot go back: this generation stays"
UNIT = "etc/systemd/system/etcd.service"


@pytest.fixture
def site(sh: Sh, trees: Trees, tmp_path: Path) -> Site:
    """A control plane, and three bundles for it: etcd's next minor comes with the second."""
    host = make_host(sh, trees / "master1", tmp_path / "host")
    patch_install_script(host.bundle, host)
    script = host.bundle / "install.sh"
    script.write_text(script.read_text().replace("\nmain ", "\nis_restart_due() { false; }\nmain "))
    bundles = []
    for number, version in enumerate(("3.4.23", "3.5.9", "3.5.9"), 1):
        bundle = Path(shutil.copytree(host.bundle, trees / f"bundle{number}"))
        facts = bundle / "node.env"
        facts.write_text(re.sub("(?<=ETCD_VERSION=')[^']*", version, facts.read_text()))
        with (bundle / "rootfs" / UNIT).open("a") as unit:
            unit.write(f"# {number}\n")
        rewrite_manifest(bundle)
        bundles.append(bundle)
    # A snapshot holds what was installed when it was taken.
    host.program(
        "etcdctl",
        f"[ ! -e {host.directory}/no-snapshot ] || exit 1\n"
        f'case " $*" in *" snapshot save "*) cat {host.root}/{UNIT} >"${{7:-$6}}" ;; esac',
    )
    return Site(host=host, bundles=bundles)


@pytest.mark.slow
def test_an_etcd_upgrade_is_announced_and_a_snapshot_taken_first(site: Site) -> None:
    assert site.install(1).returncode == 0
    before = site.installed()
    site.host.mark("no-snapshot")
    refused = site.install(2)
    assert (refused.returncode, STEP in refused.stdout) == (3, True), refused.stderr
    assert "no snapshot of etcd could be taken" in refused.stderr
    assert (site.installed(), (site.store / "switch").exists()) == (before, False)
    (site.host.directory / "no-snapshot").unlink()
    site.host.mark("outcome", "failed")
    done = site.install(2)
    assert done.returncode == 4, done.stdout + done.stderr
    assert done.stdout.index(STEP) < done.stdout.index("a snapshot of etcd's data is in")
    assert (site.store / "snapshots/before-3.5.9.db").read_text().endswith("# 1\n")
    assert "generation 2 is not healthy, and stays: etcd cannot go back" in done.stdout
    assert (site.current(), site.states()["2"]) == ("2", "failed")


@pytest.mark.slow
def test_a_kill_during_an_etcd_upgrade_does_not_let_the_host_go_back(site: Site) -> None:
    site.install(1)
    plant_killer(site.host, "systemctl", "--no-block", 1)
    path = f"{site.host.directory}/killers:{site.host.directory}/bin:/usr/bin:/bin:/usr/sbin:/sbin"
    site.install(2, PATH=path)
    assert (site.store / "switch").read_text() == "1 2 forward\n"
    refused = site.install(1)
    assert refused.returncode == 3, refused.stdout
    assert (
        "this host has etcd 3.5.9, and this bundle has 3.4.23: the minor version" in refused.stderr
    )
    site.host.mark("outcome", "failed")
    site.host.mark("no-snapshot")  # it was taken before the kill
    (site.host.directory / "kills").unlink()
    site.install(3, PATH=path)
    assert (site.store / "switch").read_text() == "1 3 forward\n"
    done = site.install(3)
    assert STEP in done.stdout
    assert "generation 3 is not healthy, and stays: etcd cannot go back" in done.stdout
    assert (done.returncode, site.current()) == (4, "3")


@pytest.mark.slow
def test_the_snapshot_before_an_upgrade_is_read_by_the_program_that_the_installed_etcd_has(
    site: Site,
) -> None:
    """etcdctl of 3.6 has no `snapshot status`."""
    for number, tool in enumerate(("etcdutl", "etcdutl", "etcdutl"), 1):
        facts = site.bundles[number - 1] / "node.env"
        version = "3.6.11" if number == 1 else "3.7.0"
        text = re.sub("(?<=SNAPSHOT_TOOL=')[^']*", tool, facts.read_text())
        facts.write_text(re.sub("(?<=ETCD_VERSION=')[^']*", version, text))
        rewrite_manifest(site.bundles[number - 1])
    site.host.program("etcdutl", "")
    site.install(1)
    done = site.install(2)
    assert done.returncode == 0, done.stdout + done.stderr
    calls = [call for call in site.host.calls if " snapshot " in f"{call} "]
    assert [call.partition(" ")[0] for call in calls] == ["etcdctl", "etcdutl"]
    assert calls[1].startswith("etcdutl snapshot status ")
