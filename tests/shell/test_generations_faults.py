"""Failures during a change: keys, damage, full disks, kills; the host can always go back."""

import re
from pathlib import Path

import pytest
from support.fake_host import FakeHost
from support.generation_site import (
    CONFIG,
    KEY,
    WENT_BACK,
    Site,
    make_site,
    plant_failure,
    plant_killer,
)
from support.shells import Sh, write_program
from support.trees import Trees, rewrite_manifest

from bundler.bundle.signing import (
    SIGNATURE,
    generate_key,
    load_signing_key,
    sign,
)

pytestmark = pytest.mark.slow


@pytest.fixture
def site(sh: Sh, trees: Trees, tmp_path: Path) -> Site:
    return make_site(sh, trees, tmp_path)


def kill_at(host: FakeHost, program: str, matching: str, call: int = 1) -> str:
    """The PATH of a run that is killed there."""
    plant_killer(host, program, matching, call)
    return f"{host.directory}/killers:{host.directory}/bin:/usr/bin:/bin:/usr/sbin:/sbin"


def test_keys_that_were_added_later_do_not_prevent_a_rollback(site: Site, tmp_path: Path) -> None:
    site.install(1)
    plant_failure(site.bundles[1])
    generate_key(tmp_path / "site.key")
    trusted = site.root / "etc/bundler/trust.d/our site.pub"
    trusted.parent.mkdir(parents=True)
    trusted.write_bytes((tmp_path / "site.pub").read_bytes())
    assert site.install(2).returncode == 3
    manifest = (site.bundles[1] / "MANIFEST").read_bytes()
    signature = sign(load_signing_key(tmp_path / "site.key"), manifest)
    (site.bundles[1] / SIGNATURE).write_bytes(signature)
    done = site.install(2)
    assert done.returncode == WENT_BACK, done.stdout + done.stderr
    assert (site.root / CONFIG).read_text() == "number: 1\n"
    asked = site.run(site.root / "opt/k8s/bundle/install.sh", "--trust", str(trusted), "--list")
    assert (asked.returncode, "it is not signed" in asked.stderr) == (3, True)


def test_a_slow_generation_becomes_healthy_and_a_rollback_target(site: Site) -> None:
    outcome = site.host.directory / "outcome"
    outcome.write_text("failed")
    assert (site.install(1).returncode, site.states()) == (4, {"1": "failed"})
    outcome.unlink()
    assert site.install(1).stdout == "worker1: nothing to do\n"
    assert site.states() == {"1": "healthy"}
    plant_failure(site.bundles[1])
    assert site.install(2).returncode == WENT_BACK


def test_skipped_checks_stay_skipped_on_the_way_back(site: Site) -> None:
    site.host.forbid("net.ipv4.ip_forward")
    skipped = ("--skip-preflight", "sysctls", "--skip-preflight", "swap")
    assert site.install(1, *skipped).returncode == 0
    site.host.swap_on()
    plant_failure(site.bundles[1])
    done = site.install(2, *skipped)
    assert done.returncode == WENT_BACK, done.stdout + done.stderr
    assert (site.current(), "/dev/sda2" in site.host.read("/proc/swaps")) == ("1", True)


def test_the_host_diff_is_made_again_after_another_run_changed_the_host(site: Site) -> None:
    site.install(1)
    overtaken, other = site.bundles[1], site.bundles[2]
    (overtaken / "rootfs" / CONFIG).write_text("number: 1\n")  # as it is installed, for now
    script = overtaken / "install.sh"
    meanwhile = (
        f"print_advice() {{ [ -e {site.host.directory}/overtaken ] || "
        f"{{ : >{site.host.directory}/overtaken; /bin/sh {other}/install.sh >/dev/null; }}; }}"
    )
    script.write_text(script.read_text().replace("\nmain ", f"\n{meanwhile}\nmain "))
    rewrite_manifest(overtaken)
    done = site.install(2)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "another run changed this host in the meantime: checking it again" in done.stdout
    assert (site.root / CONFIG).read_text() == "number: 1\n"
    assert site.install(2).stdout == "worker1: nothing to do\n"


def test_a_damaged_generation_is_repaired_before_it_is_replaced(site: Site) -> None:
    site.install(1)
    (site.store / "generations/1/rootfs" / CONFIG).write_text("altered\n")
    (site.store / "generations/1/rootfs" / KEY).unlink()
    plant_failure(site.bundles[1])
    done = site.install(2)
    assert "generation 1 was damaged, and is repaired" in done.stdout
    assert done.returncode == WENT_BACK, done.stdout + done.stderr
    assert (site.root / CONFIG).read_text() == "number: 1\n"


def test_without_a_rollback_target_nothing_is_changed(site: Site) -> None:
    site.install(1)
    (site.store / "generations/1/rootfs" / CONFIG).write_text("altered\n")
    (site.root / CONFIG).write_text("altered too\n")
    before = site.installed()
    refused = site.install(2)
    assert refused.returncode == 3, refused.stdout
    assert "so this host could not roll back" in refused.stderr
    assert (site.installed(), (site.store / "switch").exists()) == (before, False)
    path = kill_at(site.host, "systemctl", "daemon-reload")
    site.install(2, "--no-rollback", PATH=path)
    assert (site.store / "switch").read_text() == "1 2 forward\n"  # and so does a boot
    assert site.install(2).returncode == 0


def test_a_full_disk_leaves_nothing_half_written(site: Site) -> None:
    site.install(1)
    before = site.installed()
    for program, failing in (("tar", "-xf"), ("cp", ".bundler-new")):
        site.host.program(
            program, f'case "$*" in *"{failing}"*) exit 1 ;; esac\nexec /bin/{program} "$@"'
        )
        assert site.install(2).returncode == 1
        (site.host.directory / "bin" / program).unlink()
        assert site.installed() == before
        assert not [*site.root.rglob("*.part"), *site.root.rglob("*.bundler-*")]
    journal = site.store / "journal"
    journal.unlink()
    journal.mkdir()  # nothing can be written there
    assert site.install(2).returncode == 0


def test_units_that_were_disabled_during_a_change_are_enabled_at_boot(site: Site) -> None:
    first = site.bundles[0]
    (first / "rootfs/etc/systemd/system/gone.service").write_text("[Unit]\n")
    facts = first / "node.env"
    facts.write_text(
        re.sub("^UNITS='", "UNITS='gone.service ", facts.read_text(), flags=re.MULTILINE)
    )
    rewrite_manifest(first)
    site.install(1)
    site.install(2, PATH=kill_at(site.host, "systemctl", "daemon-reload"))
    assert not site.host.has("enabled/gone.service")
    (site.host.directory / "active/gone.service").unlink()
    assert site.install(2, "--prune", "1").returncode == 0
    assert sorted(site.states()) == ["1", "2"]  # both ends of the change
    done = site.boot()
    assert done
    assert done.returncode == 0, done.stderr
    assert site.host.has("enabled/gone.service")
    assert site.host.has("active/gone.service")


def test_a_boot_after_a_power_cut_removes_the_new_files(site: Site) -> None:
    """Before the first file moves: the generation that is in place works, and nobody runs anything."""
    site.install(1)
    before = site.installed()
    killed = site.install(2, PATH=kill_at(site.host, "mv", "switch"))
    assert killed.returncode in {-9, 137}
    assert list(site.root.rglob("*.bundler-new"))
    assert not (site.store / "switch").exists()
    done = site.boot()
    assert done
    assert done.returncode == 0, done.stderr
    assert (site.current(), site.installed()) == ("1", before)
    assert not list(site.root.rglob("*.bundler-new"))
    assert site.boot() is None
    assert site.install(1).stdout == "worker1: nothing to do\n"


def test_a_boot_after_a_power_cut_removes_programs_that_were_tried(site: Site) -> None:
    """Nothing has changed, so no script of a generation runs."""
    site.install(1)
    before = site.installed()
    write_program(site.bundles[1] / "rootfs/opt/k8s/bin/another", "exit 0\n")
    rewrite_manifest(site.bundles[1])
    killed = site.install(2, PATH=kill_at(site.host, "timeout", "another"))
    assert killed.returncode in {-9, 137}
    assert list(site.root.glob("opt/k8s/bin/.bundler-try.*"))
    assert not (site.store / "unfinished").exists()
    assert site.boot() is None
    assert (site.current(), site.installed()) == ("1", before)
    assert not (site.store / "trying").exists()
    assert site.install(1).stdout == "worker1: nothing to do\n"


def test_uninstall_removes_programs_that_a_killed_run_was_trying(site: Site) -> None:
    site.install(1)
    write_program(site.bundles[1] / "rootfs/opt/k8s/bin/another", "exit 0\n")
    rewrite_manifest(site.bundles[1])
    site.install(2, PATH=kill_at(site.host, "timeout", "another"))
    assert list(site.root.glob("opt/k8s/bin/.bundler-try.*"))
    done = site.run(site.root / "opt/k8s/bundle/uninstall.sh", "--yes")
    assert done.returncode == 0, done.stderr
    assert not list(site.root.glob("opt/k8s/bin/**"))


def test_a_kill_between_two_renames_of_a_directory_is_undone_at_boot(site: Site) -> None:
    site.install(1)
    before = site.installed()
    killers = site.host.directory / "killers"
    write_program(
        killers / "mv",
        'case "$*" in *etc/kubernetes/.bundler-new*) /bin/mv -f "$2" "${2%.bundler-new/*}"\n'
        '    kill -KILL $PPID; exit 1 ;; esac\nexec /bin/mv "$@"\n',
    )
    killed = site.install(2, PATH=f"{killers}:{site.host.directory}/bin:/usr/bin:/bin")
    assert killed.returncode in {-9, 137}
    changed = [path for path, facts in site.installed().items() if before.get(path) != facts]
    assert len({CONFIG, KEY} & set(changed)) == 1
    done = site.boot()
    assert done
    assert done.returncode == 0, done.stderr
    assert (site.current(), site.installed()) == ("1", before)
    assert not list(site.root.rglob("*.bundler-*"))


def test_replaced_and_abandoned_secrets_are_overwritten(site: Site) -> None:
    site.install(1)
    with (site.root / KEY).open("rb") as replaced:
        path = kill_at(site.host, "mv", "generations/2")
        site.install(2, PATH=path)
        with (site.store / "generations/2.part/rootfs" / KEY).open("rb") as given_up:
            site.install(3)
            assert b"secret" not in replaced.read() + given_up.read()
    with (site.root / KEY).open("rb") as installed:
        assert site.host.uninstall().returncode == 0
        assert b"secret" not in installed.read()


def test_the_state_directory_may_be_on_another_disk(site: Site) -> None:
    elsewhere = site.host.directory / "disk"
    elsewhere.mkdir()
    site.store.parent.mkdir(parents=True)
    site.store.symlink_to(elsewhere)
    for bundle in site.bundles[:2]:
        (bundle / "packages").mkdir()
        (bundle / "packages/some.deb").write_text("a package\n")
        rewrite_manifest(bundle)
    assert (site.install(1).returncode, site.install(2).returncode) == (0, 0)
    done = site.run(site.root / "opt/k8s/bundle/install.sh", "--rollback")
    assert done.returncode == 0, done.stderr
    assert site.current() == "1"
    assert site.host.uninstall().returncode == 0
    assert not list(elsewhere.iterdir())


def test_the_installed_script_says_what_to_do_after_a_first_run_that_was_killed(site: Site) -> None:
    site.install(1, PATH=kill_at(site.host, "systemctl", "daemon-reload"))
    done = site.run(site.root / "opt/k8s/bundle/install.sh")
    assert done.returncode == 3
    assert "unpack its bundle, and run install.sh there" in done.stderr


def test_the_generation_needs_free_space_too(site: Site) -> None:
    site.store.mkdir(parents=True)
    site.host.program(
        "df",
        "shift; echo Filesystem\n"
        "for each; do case $each in */var/lib/bundler/) echo any 1 1 51300 99% /var/lib ;;"
        " *) echo any 1 1 9999999 1% / ;; esac; done",
    )
    refused = site.install(1)
    assert refused.returncode == 3
    assert "space: /var/lib has 50 MiB free" in refused.stderr
