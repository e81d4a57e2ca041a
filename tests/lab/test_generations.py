"""A bundle that is not well is left again by the host itself; a power cut leaves the one or the other."""

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
SEED = 20261123
PATCH = "1.20.9"
FIND = (
    "for p in /proc/[0-9]*; do case \"$(tr '\\0' ' ' <$p/cmdline 2>/dev/null)\" in"
    " *sh' /'*'/install.sh '*)"
)  # of each install.sh that runs
LEFTOVERS = "lock* switch unfinished restart-pending reload-pending generations/*.* *.new"

REWRITE = """
cd {directory} && awk '{{ print $4 }}' MANIFEST | xargs -r stat -c '%a %s %n' |
    while read -r mode size path; do
        printf '%s %04d %s %s\\n' "$(sha256sum <"$path" | cut -d' ' -f1)" "$mode" "$size" "$path"
    done >MANIFEST.new && mv MANIFEST.new MANIFEST
"""


@dataclass(frozen=True)
class Site:
    """The host with generation 1 installed, and its bundle's directory there."""

    host: Host
    bundle: str

    def spoil(self, command: str) -> str:
        """Another bundle: this one with a change to its files, and a manifest that agrees."""
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
        """path → type, mode, owner and digest of all that is where the bundle has files, strangers too."""
        recorded = self.host.output("cut -d' ' -f2 /var/lib/bundler/files | sort -u").split()
        roots = tuple({"/".join(path.split("/")[:3]) + "/" for path in recorded})
        assert all(root.startswith(("/etc/", "/opt/")) for root in roots)
        files = self.host.list_files(INSTALLED)
        return {path: what for path, what in files.items() if path.startswith(roots)}

    def leftovers(self) -> str:
        """What only a run that goes on may have."""
        return self.host.output(
            f"cd /var/lib/bundler && ls -d {LEFTOVERS} 2>&1 | grep -v 'No such file' || :"
        )

    def is_installing(self) -> bool:
        return (
            self.host.run(f"{FIND} echo yes ;; esac; done | grep -q yes", check=False).returncode
            == 0
        )


@pytest.fixture(scope="module")
def site(lab_directory: Path, product_cache: Path) -> Iterator[Site]:
    description = lab_directory / "examples" / "again.yaml"
    description.write_text(SOLO.replace("solo", "again").replace("172.30.20.31", "172.30.20.32"))
    build(description, lab_directory / "again", cache=product_cache)
    host = Host("again", "172.30.20.32")
    hosts_sh("up", f"{host.name}={host.address}")
    directory = host.unpack(lab_directory / "again" / "again-again.tar.gz")
    host.run(f"{directory}/install.sh")
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
        "echo garbage >rootfs/opt/k8s/bin/kube-scheduler", "kube-scheduler",
        id="a-program-that-is-none", marks=pytest.mark.long,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "telling"), FAULTS)
def test_a_host_goes_back_by_itself(site: Site, fault: str, telling: str) -> None:
    before = site.installed()
    directory = site.spoil(fault)
    begun = time.monotonic()
    done = site.host.run(f"{directory}/install.sh", check=False)
    taken = time.monotonic() - begun
    assert done.returncode == WENT_BACK, done.stdout
    assert telling in done.stdout
    assert "going back to generation 1" in done.stdout
    assert site.installed() == before
    site.check_green()
    assert time.monotonic() - begun < LIMIT
    assert site.host.output(f"{site.bundle}/install.sh").strip() == "again: nothing to do"
    FIGURES.append(f"back from {telling}: {taken:.0f} s")


def test_the_next_generation_and_back(site: Site) -> None:
    before = site.installed()
    directory = site.spoil("echo '# another' >>rootfs/etc/kubernetes/kubelet-config.yaml")
    assert "kubelet.service" in site.host.output(f"{directory}/install.sh")
    site.check_green()
    said = site.host.output("/opt/k8s/bundle/install.sh --rollback")
    assert "All units are ready." in said
    assert site.installed() == before
    listed = site.host.output("/opt/k8s/bundle/install.sh --list").splitlines()
    assert [line.split()[1] for line in listed[1:]] == ["healthy", "healthy"]
    site.check_green()


def start(site: Site, command: str) -> None:
    """Run it on the host, and do not wait."""
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


def cut_power(site: Site, command: str, after: float, *, whole_host: bool) -> bool:
    """Run it on the host; kill it, or the host, that many seconds later. Was it still at work?"""
    start(site, command)
    time.sleep(after)
    at_work = site.is_installing()
    if whole_host:
        restart_without_power(site)
    else:
        site.host.run(f"{FIND} kill -KILL ${{p#/proc/}} ;; esac; done")
    return at_work


def check_hits(hits: list[bool], what: str) -> None:
    """Most of the moments were within a run, whose length varies."""
    FIGURES.append(
        f"{what}: {len(hits)} kills and power cuts, {sum(hits)} amid an install.sh at work"
    )
    assert sum(hits) >= len(hits) / 2


def check_one_or_the_other(site: Site, trees: dict[str, dict[str, str]]) -> None:
    """After a power cut: no mixture, and nobody had to do anything."""
    assert site.host.run("cat /var/lib/bundler/switch", check=False).returncode != 0
    found = site.installed()
    assert found in trees.values(), [differences(tree, found) for tree in trees.values()]


def go_through_points(site: Site, other: str, count: int) -> None:
    """Kills and power cuts at moments of a fixed seed, spread over the way to the other bundle and back."""
    directories = {"one": site.bundle, "two": other}
    trees = {}
    for name, directory in directories.items():
        begun = time.monotonic()
        site.host.run(f"{directory}/install.sh")
        length = time.monotonic() - begun  # of the way to the other, at the end
        trees[name] = site.installed()
    assert trees["one"] != trees["two"]
    dice = random.Random(SEED)
    at, hits = "two", []
    for point in range(count):
        goal = "one" if at == "two" else "two"
        moment = dice.uniform(0.2, length)
        whole_host = bool(point % 2)
        command = f"{directories[goal]}/install.sh"
        hits.append(cut_power(site, command, moment, whole_host=whole_host))
        if whole_host:
            check_one_or_the_other(site, trees)
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
        site.host.run(f"{site.bundle}/install.sh")


def test_a_kill_and_a_power_cut_amid_a_change(site: Site) -> None:
    other = site.spoil(
        "for u in rootfs/etc/systemd/system/kube*.service; do echo '# two' >>$u; done;"
        " echo '# two' >>rootfs/etc/kubernetes/kubelet-config.yaml"
    )
    go_through_points(site, other, 2)


def test_a_power_cut_before_the_first_file_moves(site: Site) -> None:
    """What lies beside its place is gone after the boot, and nobody ran anything."""
    before = site.installed()
    other = site.spoil("echo '# another' >>rootfs/etc/kubernetes/kubelet-config.yaml")
    held = 'case "$*" in *switch.new*) : >/root/held/now; sleep 300 ;; esac; exec /bin/mv "$@"'
    site.host.run(
        f"rm -rf /root/held; mkdir /root/held; printf '#!/bin/sh\n%s\n' '{held}' >/root/held/mv;"
        " chmod 755 /root/held/mv"
    )
    start(site, f"PATH=/root/held:$PATH {other}/install.sh")
    wait_for(
        "all files are beside their places",
        lambda: site.host.run("test -f /root/held/now", check=False).returncode == 0,
        seconds=60,
    )
    assert set(site.installed()) > set(before)
    restart_without_power(site)
    assert differences(before, site.installed()) == {}
    assert site.leftovers() == ""
    assert site.host.output(f"{site.bundle}/install.sh").strip() == "again: nothing to do"
    site.check_green()


@pytest.fixture
def next_patch(site: Site, lab_directory: Path, tmp_path: Path) -> str:
    """Its bundle's directory on the host."""
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
def test_kills_and_power_cuts_amid_upgrades(site: Site, next_patch: str) -> None:
    """To the next patch of Kubernetes and back: all its programs are others."""
    go_through_points(site, next_patch, UPGRADES)


@pytest.mark.long
def test_kills_and_power_cuts_amid_first_installs(site: Site) -> None:
    """Packages, files, units, images: on a host that has nothing of it."""
    uninstall = "/opt/k8s/bundle/uninstall.sh --yes --purge-data --remove-packages"
    install = f"{site.bundle}/install.sh"
    before = site.installed()
    site.host.run(uninstall)
    begun = time.monotonic()
    site.host.run(install)
    length = time.monotonic() - begun
    dice, hits = random.Random(SEED), []
    for point in range(INSTALLS):
        site.host.run(uninstall)
        moment = dice.uniform(0.2, length)
        hits.append(cut_power(site, install, moment, whole_host=bool(point % 2)))
        done = site.host.run(install, check=False)
        what = (
            f"{'power cut' if point % 2 else 'kill'} {point} after {moment:.1f} s of {length:.0f}"
        )
        assert done.returncode == 0, f"{what}: {done.stdout}"
        assert site.installed() == before, what
        assert site.leftovers() == "", what
        site.check_green(what)
    check_hits(hits, "first installs")
