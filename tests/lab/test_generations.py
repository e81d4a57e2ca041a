"""A host rolls back a bundle whose units fail; a power cut leaves one generation or the other."""

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.lab import (
    FIGURES,
    INSTALLED,
    SOLO,
    Host,
    build,
    differences,
    docker,
    hosts_sh,
    wait_for,
)
from support.stamped import OLD, stamp, use

WENT_BACK = 5
LIMIT = 180  # seconds until a host is healthy again
INSTALLS, UPGRADES = 6, 24  # kills and power cuts, in `make test-long`
QUICK = "--settle 3"  # for runs that do not test how long units must last
SEED = 20261123
PATCH = "1.20.9"
FIND = (
    "for p in /proc/[0-9]*; do case \"$(tr '\\0' ' ' <$p/cmdline 2>/dev/null)\" in"
    " *sh' /'*'/install.sh '*)"
)  # finds each running install.sh
LEFTOVERS = "lock* switch unfinished trying restart-pending reload-pending generations/*.* *.new"

REWRITE = """
cd {directory} && awk '{{ print $4 }}' MANIFEST | xargs -r stat -c '%a %s %n' |
    while read -r mode size path; do
        printf '%s %04d %s %s\\n' "$(sha256sum <"$path" | cut -d' ' -f1)" "$mode" "$size" "$path"
    done >MANIFEST.new && mv MANIFEST.new MANIFEST
"""


@dataclass(frozen=True)
class Site:
    """The host with generation 1 installed, and the directory of its bundle there."""

    host: Host
    bundle: str

    def make_bundle(self, command: str) -> str:
        """Copy the bundle, change its files, and write a manifest that agrees."""
        directory = "/root/other"
        self.host.run(
            f"rm -rf {directory}; cp -r {self.bundle} {directory}; cd {directory}; {command}"
        )
        self.host.run(REWRITE.format(directory=directory))
        return directory

    def check_green(self, what: str = "") -> None:
        done = self.host.run("/opt/k8s/bundle/verify.sh", check=False, timeout=400)
        assert done.returncode == 0, f"{what}: {done.stdout}"

    def installed(self) -> dict[str, str]:
        """List every file in the directories where the bundle has files, unknown files too."""
        recorded = self.host.output("cut -d' ' -f2 /var/lib/bundler/files | sort -u").split()
        roots = tuple({"/".join(path.split("/")[:3]) + "/" for path in recorded})
        assert all(root.startswith(("/etc/", "/opt/")) for root in roots)
        files = self.host.list_files(INSTALLED)
        return {path: facts for path, facts in files.items() if path.startswith(roots)}

    def leftovers(self) -> str:
        """List state that only a running install.sh may have."""
        return self.host.output(
            f"cd /var/lib/bundler && ls -d {LEFTOVERS} 2>&1 | grep -v 'No such file' || :"
        )

    def is_installing(self) -> bool:
        return (
            self.host.run(f"{FIND} echo yes ;; esac; done | grep -q yes", check=False).returncode
            == 0
        )


@pytest.fixture(scope="module")
def site(lab_directory: Path, product_cache: Path, network: None) -> Iterator[Site]:
    description = lab_directory / "examples" / "again.yaml"
    description.write_text(SOLO.replace("solo", "again").replace("172.30.20.31", "172.30.20.32"))
    build(description, lab_directory / "again", cache=product_cache)
    host = Host("again", "172.30.20.32")
    hosts_sh("up", f"{host.name}={host.address}")
    directory = host.unpack(lab_directory / "again" / "again-again.tar.gz")
    host.run(f"{directory}/install.sh {QUICK} --ready-within 300")
    made = Site(host=host, bundle=directory)
    made.check_green()
    yield made
    docker("rm", "-fv", host.container)


FAULTS = [
    pytest.param(
        "sed -i 's/--authorization-mode=/--no-such-flag --authorization-mode=/' rootfs/etc/systemd/system/kube-apiserver.service",
        "unknown flag", id="a-broken-flag-of-kube-apiserver",
    ),
    pytest.param(
        "sed -i 's/^imageGCHighThresholdPercent: .*/imageGCHighThresholdPercent: 185/' rootfs/etc/kubernetes/kubelet-config.yaml",
        "GCHighThresholdPercent",
        id="a-kubelet-that-cannot-start", marks=pytest.mark.long,
    ),
    pytest.param(
        "printf '#!/bin/sh\\nexit 1\\n' >rootfs/opt/k8s/bin/kube-scheduler", "kube-scheduler",
        id="a-program-that-ends-at-once", marks=pytest.mark.long,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "reason"), FAULTS)
def test_a_host_rolls_back_by_itself(site: Site, fault: str, reason: str) -> None:
    before = site.installed()
    directory = site.make_bundle(fault)
    start = time.monotonic()
    done = site.host.run(f"{directory}/install.sh", check=False)
    taken = time.monotonic() - start
    assert done.returncode == WENT_BACK, done.stdout
    assert reason in done.stdout
    assert "going back to generation 1" in done.stdout
    assert site.installed() == before
    site.check_green()
    assert time.monotonic() - start < LIMIT
    assert site.host.output(f"{site.bundle}/install.sh").strip() == "again: nothing to do"
    FIGURES.append(f"rollback from {reason}: {taken:.0f} s")


def test_a_host_goes_to_the_next_generation_and_rolls_back(site: Site) -> None:
    before = site.installed()
    directory = site.make_bundle("echo '# another' >>rootfs/etc/kubernetes/kubelet-config.yaml")
    assert "kubelet.service" in site.host.output(f"{directory}/install.sh {QUICK}")
    site.check_green()
    said = site.host.output(f"/opt/k8s/bundle/install.sh --rollback {QUICK}")
    assert "All units are ready." in said
    assert site.installed() == before
    listed = site.host.output("/opt/k8s/bundle/install.sh --list").splitlines()
    assert [line.split()[1] for line in listed[1:]] == ["healthy", "healthy"]
    site.check_green()


def start_command(site: Site, command: str) -> None:
    """Start a command on the host and return at once."""
    docker("exec", "-d", site.host.container, "sh", "-c", f"{command} >/root/said 2>&1")


def restart_without_power(site: Site) -> None:
    docker("kill", site.host.container)
    docker("wait", site.host.container)
    docker("start", site.host.container)
    wait_for(
        "the host is up again",
        lambda: (
            site.host.run("systemctl is-system-running", check=False).stdout.strip()
            in {"running", "degraded"}
        ),
        seconds=90,
    )


def interrupt(site: Site, command: str, after: float, *, whole_host: bool) -> bool:
    """Run a command on the host, and kill it or the host after some seconds; return if it still ran."""
    start_command(site, command)
    time.sleep(after)
    was_running = site.is_installing()
    if whole_host:
        restart_without_power(site)
    else:
        site.host.run(f"{FIND} kill -KILL ${{p#/proc/}} ;; esac; done")
    return was_running


def check_hits(hits: list[bool], what: str) -> None:
    """Check that most kills hit a running install.sh, since the length of a run varies."""
    FIGURES.append(
        f"{what}: {len(hits)} kills and power cuts, {sum(hits)} of them while install.sh ran"
    )
    assert sum(hits) >= len(hits) / 2


def check_one_generation(site: Site, trees: dict[str, dict[str, str]]) -> None:
    """Check after a power cut that the files are those of one generation, without a manual step."""
    assert site.host.run("cat /var/lib/bundler/switch", check=False).returncode != 0
    found = site.installed()
    assert found in trees.values(), [differences(tree, found) for tree in trees.values()]


def interrupt_changes(site: Site, other: str, count: int, share: float = 1) -> None:
    """Kill installs of two bundles by turns, at moments of a fixed seed.

    The moments are in the first `share` of the time that an install takes.
    """
    directories = {"one": site.bundle, "two": other}
    trees = {}
    for name, directory in directories.items():
        start = time.monotonic()
        site.host.run(f"{directory}/install.sh {QUICK}")
        length = time.monotonic() - start  # in the end, of the install of the other bundle
        trees[name] = site.installed()
    assert trees["one"] != trees["two"]
    dice = random.Random(SEED)
    at, hits = "two", []
    for point in range(count):
        goal = "one" if at == "two" else "two"
        moment = dice.uniform(0.2, length * share)
        whole_host = bool(point % 2)
        command = f"{directories[goal]}/install.sh {QUICK}"
        hits.append(interrupt(site, command, moment, whole_host=whole_host))
        if whole_host:
            check_one_generation(site, trees)
        done = site.host.run(command, check=False)
        what = (
            f"{'power cut' if whole_host else 'kill'} {point} after {moment:.1f} s of {length:.0f}"
        )
        assert done.returncode == 0, f"{what}: {done.stdout}"
        assert site.installed() == trees[goal], what
        assert site.leftovers() == "", what
        site.check_green(what)
        at = goal
    check_hits(hits, "to another bundle and back")
    if at != "one":
        site.host.run(f"{site.bundle}/install.sh {QUICK}")


@pytest.mark.long
def test_a_kill_and_a_power_cut_during_a_change(site: Site) -> None:
    other = site.make_bundle(
        "for u in rootfs/etc/systemd/system/kube*.service; do echo '# two' >>$u; done;"
        " echo '# two' >>rootfs/etc/kubernetes/kubelet-config.yaml"
    )
    # early moments: a run that is shorter than the measured one must be hit too
    interrupt_changes(site, other, 2, share=0.6)


def test_a_power_cut_before_the_first_file_moves(site: Site) -> None:
    """The next boot removes the new files, which no rename has put in place."""
    before = site.installed()
    other = site.make_bundle("echo '# another' >>rootfs/etc/kubernetes/kubelet-config.yaml")
    held = 'case "$*" in *switch.new*) : >/root/held/now; sleep 300 ;; esac; exec /bin/mv "$@"'
    site.host.run(
        f"rm -rf /root/held; mkdir /root/held; printf '#!/bin/sh\n%s\n' '{held}' >/root/held/mv;"
        " chmod 755 /root/held/mv"
    )
    start_command(site, f"PATH=/root/held:$PATH {other}/install.sh")
    wait_for(
        "all new files are written, and none is in its place",
        lambda: site.host.run("test -f /root/held/now", check=False).returncode == 0,
        seconds=60,
    )
    assert set(site.installed()) > set(before)
    restart_without_power(site)
    assert "Starting bundler-recover.service" in site.host.output("journalctl -b --no-pager")
    assert differences(before, site.installed()) == {}
    assert site.leftovers() == ""
    assert site.host.output(f"{site.bundle}/install.sh").strip() == "again: nothing to do"
    site.check_green()


@pytest.fixture
def next_patch(site: Site, lab_directory: Path, tmp_path: Path) -> str:
    """The directory on the host of a bundle with the next patch version."""
    description = lab_directory / "examples" / "again.yaml"
    text = description.read_text()
    description.write_text(text.replace(OLD, PATCH))
    mirror = stamp(tmp_path / "stamped", PATCH)
    build(description, tmp_path / "dist", cache=tmp_path / "cache", arguments=use(mirror))
    description.write_text(text)
    site.host.run(f"mv {site.bundle} /root/first")
    unpacked = site.host.unpack(tmp_path / "dist" / "again-again.tar.gz")
    site.host.run(f"mv {unpacked} /root/patch; mv /root/first {site.bundle}")
    return "/root/patch"


@pytest.mark.long
def test_kills_and_power_cuts_during_upgrades(site: Site, next_patch: str) -> None:
    """The next patch version of Kubernetes and back: every program changes."""
    interrupt_changes(site, next_patch, UPGRADES)


@pytest.mark.long
def test_kills_and_power_cuts_during_first_installs(site: Site) -> None:
    """Packages, files, units and images, on a host that has none of them."""
    uninstall = "/opt/k8s/bundle/uninstall.sh --yes --purge-data --remove-packages"
    install = f"{site.bundle}/install.sh"
    before = site.installed()
    site.host.run(uninstall)
    start = time.monotonic()
    site.host.run(install)
    length = time.monotonic() - start
    dice, hits = random.Random(SEED), []
    for point in range(INSTALLS):
        site.host.run(uninstall)
        moment = dice.uniform(0.2, length)
        hits.append(interrupt(site, install, moment, whole_host=bool(point % 2)))
        done = site.host.run(install, check=False)
        what = (
            f"{'power cut' if point % 2 else 'kill'} {point} after {moment:.1f} s of {length:.0f}"
        )
        assert done.returncode == 0, f"{what}: {done.stdout}"
        assert site.installed() == before, what
        assert site.leftovers() == "", what
        site.check_green(what)
    check_hits(hits, "first installs")
