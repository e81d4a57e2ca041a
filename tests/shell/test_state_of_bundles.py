"""A host takes no bundle of another state: with other keys it could not be in its cluster."""

import hashlib
import json
import re
from pathlib import Path

import pytest
from support.fake_host import make_host
from support.generation_site import WENT_BACK, Site, make_site, patch_install_script, plant_failure
from support.shells import Sh
from support.trees import Trees, list_tree, rewrite_manifest

pytestmark = pytest.mark.slow  # every test runs a whole install.sh

OTHER = "f" * 64
SHOWN = OTHER[:16]
REFUSED = 3
DAY = 86400
NO_NAME = "note: state: the installed bundle does not name its state"


@pytest.fixture
def site(sh: Sh, trees: Trees, tmp_path: Path) -> Site:
    return make_site(sh, trees, tmp_path)


@pytest.fixture
def control_plane(sh: Sh, trees: Trees, tmp_path: Path) -> Site:
    host = make_host(sh, trees / "master1", tmp_path / "host")
    patch_install_script(host.bundle, host)
    rewrite_manifest(host.bundle)
    return Site(host=host, bundles=[host.bundle])


def change(bundle: Path, name: str, value: str | None) -> None:
    """Give the setting of state.env another value, or remove it as in an earlier bundler's bundle."""
    file = bundle / "state.env"
    lines = [x for x in file.read_text().splitlines() if not x.startswith(f"{name}=")]
    lines += [f"{name}='{value}'"] if value is not None else []
    file.write_text("".join(f"{line}\n" for line in lines))
    rewrite_manifest(bundle)


def read(directory: Path, name: str) -> str | None:
    found = re.search(rf"^{name}='(.*)'$", (directory / "state.env").read_text(), re.MULTILINE)
    return found[1] if found else None


def uninstall(site: Site) -> str:
    bundle = site.root / "opt/k8s/bundle"
    (site.host.bundle / "node.env").write_bytes((bundle / "node.env").read_bytes())
    done = site.host.uninstall()
    assert done.returncode == 0, done.stderr
    for unit in (site.host.directory / "active").iterdir():
        if unit.name != "chronyd.service":
            unit.unlink()
    return done.stdout


def test_data_of_another_cluster_are_refused_and_those_of_this_one_are_used(
    control_plane: Site,
) -> None:
    """uninstall.sh keeps etcd's data, and etcd would start with whatever is there."""
    data = control_plane.root / "var/lib/etcd"
    assert control_plane.install(1).returncode == 0
    (data / "member/snap").mkdir(parents=True)
    (data / "member/snap/db").write_text("objects")
    assert control_plane.install(1).stdout.endswith("nothing to do\n")
    ours = read(control_plane.bundles[0], "STATE_ID")
    assert (data / ".bundler-state").read_text() == f"{ours} lab master1\n"

    assert "/var/lib/etcd is kept" in uninstall(control_plane)
    assert control_plane.install(1).returncode == 0  # the same cluster goes on with its data
    uninstall(control_plane)
    change(control_plane.bundles[0], "STATE_ID", OTHER)
    refused = control_plane.install(1)
    assert refused.returncode == REFUSED
    assert (
        f"old-data: /var/lib/etcd has data of another cluster: of lab master1, made with state {str(ours)[:16]}"
        in refused.stderr
    )
    assert not (control_plane.root / "opt/k8s/bundle/node.env").exists()

    (data / ".bundler-state").unlink()
    refused = control_plane.install(1)
    assert (refused.returncode, "no record of its cluster" in refused.stderr) == (REFUSED, True)
    assert control_plane.install(1, "--skip-preflight", "old-data").returncode == 0
    assert (data / ".bundler-state").read_text() == f"{OTHER} lab master1\n"


def test_a_host_that_changes_its_cluster_does_not_take_its_data_along(control_plane: Site) -> None:
    assert control_plane.install(1).returncode == 0
    db = control_plane.root / "var/lib/etcd/member/snap/db"
    db.parent.mkdir(parents=True)
    db.write_text("objects")
    assert control_plane.install(1).stdout.endswith("nothing to do\n")
    change(control_plane.bundles[0], "STATE_ID", OTHER)
    refused = control_plane.install(1, "--new-state")
    assert (refused.returncode, "old-data: " in refused.stderr) == (REFUSED, True)
    db.unlink()
    assert control_plane.install(1, "--new-state").returncode == 0


def test_a_bundle_of_another_state_is_refused_before_anything_changes(site: Site) -> None:
    assert site.install(1).returncode == 0
    ours = read(site.bundles[0], "STATE_ID")
    assert ours
    change(site.bundles[1], "STATE_ID", OTHER)
    before = list_tree(site.root)
    for arguments in (
        (), ("--plan",), ("--dry-run",), ("--packages-only",), ("--wait", "15m"),
        ("--skip-preflight", "other-bundle"),
    ):  # fmt: skip
        done = site.install(2, *arguments)
        assert done.returncode in ({2} if "--skip-preflight" in arguments else {REFUSED})
        assert list_tree(site.root) == before
    assert f"state: the installed bundle was made with state {ours[:16]}" in site.install(2).stderr
    said = site.install(2, "--plan").stderr
    assert SHOWN in said
    assert "bundler state import FILE" in said
    assert "--new-state" in said
    (reason,) = json.loads(site.install(2, "--plan", "--json").stdout)["not_ready"]
    assert reason.startswith("state: the installed bundle")


def test_the_check_cannot_be_skipped_by_name(site: Site) -> None:
    done = site.install(1, "--skip-preflight", "state")
    assert (done.returncode, "not a check that may be skipped" in done.stderr) == (2, True)


def test_a_staged_directory_is_checked_too(
    site: Site, sh: Sh, trees: Trees, tmp_path: Path
) -> None:
    target = str(tmp_path / "staged")
    assert sh(trees / "worker2/install.sh", DESTDIR=target).returncode == 0
    change(trees / "worker2", "STATE_ID", OTHER)
    before = list_tree(tmp_path / "staged")
    done = sh(trees / "worker2/install.sh", DESTDIR=target)
    assert done.returncode == REFUSED, done.stderr
    assert list_tree(tmp_path / "staged") == before
    assert sh(trees / "worker2/install.sh", "--new-state", DESTDIR=target).returncode == 0


def test_a_new_state_on_purpose_is_needed_once(site: Site) -> None:
    assert site.install(1).returncode == 0
    for bundle in site.bundles[1:3]:
        change(bundle, "STATE_ID", OTHER)
    assert site.install(2, "--plan", "--new-state").returncode == 0
    done = site.install(2, "--new-state")
    assert done.returncode == 0, done.stderr
    assert read(site.root / "opt/k8s/bundle", "STATE_ID") == OTHER
    assert site.install(2).stdout == "worker1: nothing to do\n"
    assert site.install(3).returncode == 0
    assert site.install(1).returncode == REFUSED


def test_a_host_may_go_back_to_its_generation_of_the_former_state(site: Site) -> None:
    assert site.install(1).returncode == 0
    change(site.bundles[1], "STATE_ID", OTHER)
    assert site.install(2, "--new-state").returncode == 0
    done = site.run(site.root / "opt/k8s/bundle/install.sh", "--rollback")
    assert done.returncode == 0, done.stderr
    assert read(site.root / "opt/k8s/bundle", "STATE_ID") == read(site.bundles[0], "STATE_ID")


def test_a_host_goes_back_by_itself_from_an_unhealthy_new_state(site: Site) -> None:
    assert site.install(1).returncode == 0
    before = site.installed()
    change(site.bundles[1], "STATE_ID", OTHER)
    plant_failure(site.bundles[1])
    assert site.install(2, "--new-state").returncode == WENT_BACK
    assert site.installed() == before


def test_an_installation_of_an_earlier_bundler_is_adopted_with_one_line(site: Site) -> None:
    change(site.bundles[0], "STATE_ID", None)
    assert site.install(1).returncode == 0
    ours = read(site.bundles[1], "STATE_ID")
    announced = site.install(2, "--plan", "--json")
    assert announced.returncode == 0
    json.loads(announced.stdout)
    done = site.install(2)
    assert (done.returncode, done.stderr) == (0, f"{NO_NAME}; this host now has state {ours}\n")
    assert read(site.root / "opt/k8s/bundle", "STATE_ID") == ours
    assert site.install(3).stderr == ""


def test_a_host_may_go_back_to_a_generation_without_a_state_and_on_again(site: Site) -> None:
    change(site.bundles[0], "STATE_ID", None)
    assert site.install(1).returncode == 0
    assert site.install(2).returncode == 0
    done = site.run(site.root / "opt/k8s/bundle/install.sh", "--rollback")
    assert done.returncode == 0, done.stderr
    assert read(site.root / "opt/k8s/bundle", "STATE_ID") is None
    done = site.install(2)
    assert (done.returncode, NO_NAME in done.stderr) == (0, True)


def test_an_old_control_plane_is_known_by_its_key_for_service_accounts(
    control_plane: Site,
) -> None:
    (bundle,) = control_plane.bundles
    ours = read(bundle, "STATE_ID")
    change(bundle, "STATE_ID", None)
    assert control_plane.install(1).returncode == 0
    key = control_plane.root / "etc/kubernetes/pki/sa.pub"
    assert hashlib.sha256(key.read_bytes()).hexdigest() == ours
    change(bundle, "STATE_ID", ours)
    done = control_plane.install(1, "--plan")
    assert (done.returncode, done.stderr) == (0, "")
    change(bundle, "STATE_ID", OTHER)
    done = control_plane.install(1, "--plan")
    assert done.returncode == REFUSED
    assert SHOWN in done.stderr


def test_older_certificates_than_the_installed_ones_are_announced(site: Site) -> None:
    start = int(read(site.bundles[0], "NOT_BEFORE") or 0)
    change(site.bundles[1], "NOT_BEFORE", str(start - DAY))
    assert site.install(1).returncode == 0
    said = site.install(2, "--plan").stderr
    assert "warning: older-state: the newest certificate here is 24 hours newer" in said
    assert site.install(2, "--plan", "--skip-preflight", "older-state").stderr == ""
    assert site.install(2).returncode == 0
    assert site.install(3).stderr == ""
    done = site.run(site.root / "opt/k8s/bundle/install.sh", "--rollback")
    assert (done.returncode, done.stderr) == (0, "")
