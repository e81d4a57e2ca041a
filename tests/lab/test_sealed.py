"""Sealed bundles install the five hosts, each with its own code or key, and with no other."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.lab import INSTALLED, Cluster, Host, build, docker, hosts_sh, side_by_side
from support.paths import LAB_CACHE
from support.sealed_bundles import list_members, list_needles, search

pytestmark = pytest.mark.long

BY_KEY = "worker2"
"""The host whose bundle is sealed to its certificate; the others have codes."""
REFUSED = 6
MAKE_KEY = (
    "umask 077 && openssl req -x509 -newkey rsa:3072 -nodes -days 30 -subj /CN=$(hostname)"
    " -keyout /root/unseal.key -out /root/unseal.crt"
)


@dataclass(frozen=True)
class Sealed:
    """Five hosts with nothing installed, their sealed bundles unpacked, and the codes by node."""

    cluster: Cluster
    dist: Path
    codes: dict[str, str]

    @property
    def options(self) -> list[str]:
        state = self.cluster.directory / "examples/lab.yaml"
        return ["-c", str(state), "--cache", str(LAB_CACHE / "product-cache"), "--pins",
                str(LAB_CACHE / "pins.yaml"), "--mirror", str(LAB_CACHE / "mirror"), "--offline"]  # fmt: skip

    def install(self, host: Host, arguments: str = "") -> subprocess.CompletedProcess[str]:
        """Without a terminal."""
        script = f"/root/lab-{host.name}/install.sh"
        return host.run(f"setsid -w {script} {arguments} </dev/null", check=False, timeout=900)

    def open(self, host: Host, tmp: Path, arguments: str = "") -> str:
        """Bring the host what opens its bundle, as an option of install.sh; arguments follow it."""
        if host.name == BY_KEY:
            return f"--unseal-key /root/unseal.key {arguments}"
        bring_code(host, self.codes[host.name], tmp)
        return f"--unseal-file /root/code {arguments}"


def bring_code(host: Host, code: str, tmp: Path) -> None:
    file = tmp / f"{host.name}.code"
    file.write_text(f"{code}\n")
    file.chmod(0o600)
    docker("cp", str(file), f"{host.container}:/root/code")


@pytest.fixture(scope="module")
def sealed(cluster: Cluster, product_cache: Path) -> Iterator[Sealed]:
    """The hosts again as after their first boot."""
    hosts = cluster.hosts
    hosts_sh("up", *(f"{host.name}={host.address}" for host in hosts.values()))
    certificate = cluster.directory / "unseal.crt"
    # the lab's hosts have no openssl until a bundle brings it
    plain = hosts[BY_KEY].unpack(cluster.bundle(hosts[BY_KEY]))
    hosts[BY_KEY].run(f"{plain}/install.sh --packages-only && rm -rf {plain}")
    hosts[BY_KEY].run(MAKE_KEY)
    docker("cp", f"{hosts[BY_KEY].container}:/root/unseal.crt", str(certificate))
    dist = cluster.directory / "sealed"
    build(
        cluster.directory / "examples/lab.yaml", dist, cache=product_cache,
        arguments=("--seal", "--seal-to", f"{BY_KEY}={certificate}"),
    )  # fmt: skip
    lines = [line.split("\t") for line in (dist / "UNSEAL.tsv").read_text().splitlines()]
    codes = {node: rest[0] for node, *rest in lines if not node.startswith("#")}
    side_by_side(lambda host: host.unpack(dist / f"lab-{host.name}.tar.gz"), hosts.values())
    yield Sealed(cluster=cluster, dist=dist, codes=codes)
    cluster.is_green = False


def test_no_secret_of_the_state_is_in_the_sealed_tarballs(sealed: Sealed) -> None:
    cluster = sealed.cluster
    needles = list_needles(cluster.directory / "examples/lab.state")
    assert sealed.codes.keys() == cluster.hosts.keys() - {BY_KEY}
    other = cluster.directory / "other"
    build(
        cluster.directory / "examples/lab.yaml", other, cache=LAB_CACHE / "product-cache",
        arguments=("--new-state", "--state", str(cluster.directory / "other.state")),
    )  # fmt: skip
    for name in cluster.hosts:
        known = list_members(other / f"lab-{name}.tar.gz")
        content = (sealed.dist / f"lab-{name}.tar.gz").read_bytes()
        assert search(content, needles, known) == set()
        plain = cluster.bundle(cluster.hosts[name]).read_bytes()
        assert search(plain, needles, known)


def test_a_host_with_a_wrong_code_or_none_stays_as_it_is(sealed: Sealed, tmp_path: Path) -> None:
    host = sealed.cluster.hosts["master1"]
    assert sealed.install(host, "--packages-only").returncode == 0
    before = host.list_files(INSTALLED)
    assert sealed.install(host).returncode == REFUSED
    bring_code(host, sealed.codes["master2"], tmp_path)
    done = sealed.install(host, "--unseal-file /root/code")
    assert (done.returncode, "not the code of this bundle" in done.stdout) == (REFUSED, True)
    assert host.list_files(INSTALLED) == before
    assert sealed.install(host, "--dry-run").returncode == 0
    assert host.list_files(INSTALLED) == before


def test_five_hosts_are_installed_from_sealed_bundles(sealed: Sealed, tmp_path: Path) -> None:
    hosts = sealed.cluster.hosts.values()
    side_by_side(lambda host: sealed.install(host, "--packages-only"), hosts)
    runs = side_by_side(
        lambda host: sealed.install(host, sealed.open(host, tmp_path, "--wait 15m")), hosts
    )
    for host, done in zip(hosts, runs, strict=True):
        assert done.returncode == 0, f"{host.name}: {done.stdout}"
    verified = sealed.cluster.verify()
    assert verified.returncode == 0, verified.stdout
    for host in hosts:
        assert host.output("ls -d /run/bundler-unsealed.* 2>/dev/null || true") == ""
        host.run("rm -f /root/code")
        assert sealed.install(host).stdout.endswith(f"{host.name}: nothing to do\n")


def test_a_renewal_is_sealed_and_needs_the_code(sealed: Sealed, tmp_path: Path) -> None:
    renewal = sealed.cluster.directory / "sealed-renewal"
    done = subprocess.run(
        [Path(sys.executable).parent / "bundler", "certs", "renew", "csr-approver", "--since",
         str(sealed.dist), "-o", str(renewal), *sealed.options],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    needles = list_needles(sealed.cluster.directory / "examples/lab.state")
    host = sealed.cluster.masters[0]
    content = (renewal / f"lab-{host.name}.tar.gz").read_bytes()
    assert search(content, needles) == set()
    host.unpack(renewal / f"lab-{host.name}.tar.gz")
    assert sealed.install(host).returncode == REFUSED
    opened = sealed.install(host, sealed.open(host, tmp_path, "--wait 15m"))
    assert opened.returncode == 0, opened.stdout
    rolled_back = host.run("/opt/k8s/bundle/install.sh --rollback --wait 15m", timeout=900)
    assert rolled_back.returncode == 0, rolled_back.stdout
