"""CA rotation on hosts: TLS handshakes show the stage of other hosts, and old files are removed."""

import itertools
import os
import random
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.rotated_cas import DROP, ISSUE, NEW, SETTLED, TRUST, ClusterCas
from support.shells import TEMPLATES, Sh

NAMES = ("kubernetes-ca", "etcd-ca", "front-proxy-ca")
PORTS = {"etcd": 2379, "control-plane": 6443, "worker": 10250}
SCRIPT = """
set -u
work={work} here={work}/bundle dry_run=no slot_wait=0
NODE=m1 ADDRESS={own} API_PORT=6443 UNITS='{units}'
NODES='{nodes}'
. {lib}/core/common.sh; . {lib}/coordination/rollout-order.sh; . {lib}/coordination/keys.sh; . {lib}/coordination/key-stages.sh
prefix={work}/root store={work}/store
is_generation() {{ {is_generation}; }}
is_pending() {{ false; }}
: >"$work/restarts"
add_failure() {{ echo "FAILURE $1: $2"; }}
check_turn
"""


@pytest.fixture(scope="module")
def cas(tmp_path_factory: pytest.TempPathFactory) -> ClusterCas:
    return ClusterCas(tmp_path_factory.mktemp("cas"))


@dataclass
class Site:
    """A host and servers on loopback addresses that only this test uses."""

    sh: Sh
    work: Path
    cas: ClusterCas
    version: str
    net: str = field(
        default_factory=lambda: f"127.{random.randint(1, 254)}.{random.randint(0, 254)}"
    )
    servers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def serve(self, host: int, role: str, signs: str, trusted: str) -> None:
        """Start a server of the role, which requires a client certificate."""
        name = "etcd-ca" if role == "etcd" else "kubernetes-ca"
        file, others = (self.work / f"{next(self.numbers)}.{kind}" for kind in ("pem", "ca"))
        file.write_bytes(self.cas.issue(name, signs, "server"))
        others.write_bytes(self.cas.encode_cas((name,), trusted))
        address = (f"{self.net}.{host}", PORTS[role])
        self.servers.append(
            subprocess.Popen(
                ["openssl", "s_server", "-accept", "{}:{}".format(*address), "-cert", file, "-key", file,
                 "-CAfile", others, "-Verify", "1", "-verify_return_error", "-quiet", self.version],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
        )  # fmt: skip
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(address) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError(f"{address} does not listen")

    def cluster(self, stages: dict[str, tuple[str, str]]) -> None:
        """Start m2, m3 (etcd and control plane) and w1 with the CAs that sign and are trusted."""
        for name, (signs, trusted) in stages.items():
            host = {"m2": 2, "m3": 3, "w1": 4}[name]
            for role in ("worker",) if name == "w1" else ("etcd", "control-plane"):
                self.serve(host, role, signs, trusted)

    def ask(
        self, bundle: tuple[str, str], installed: tuple[str, str] | None, *, is_worker: bool = False,
        is_generation: bool = False,
    ) -> list[str]:  # fmt: skip
        """Run check_turn on m1, or on a second worker; returns its output."""
        both = "etcd,control-plane"
        nodes = [f"m{n}|{self.net}.{n}|{both}" for n in ((2, 3) if is_worker else (1, 2, 3))]
        nodes += [f"w1|{self.net}.4|worker"] + ([f"w2|{self.net}.1|worker"] if is_worker else [])
        for directory, values in (("bundle", bundle), ("root/opt/k8s/bundle", installed)):
            (self.work / directory).mkdir(parents=True, exist_ok=True)
            file = self.work / directory / "state.env"
            file.unlink(missing_ok=True)
            if values:
                file.write_text(
                    f"NOT_AFTER='1'\nAUTHORITY_SIGNS='{values[0]}'\nAUTHORITIES_BELIEVED='{values[1]}'\n"
                )
        lib = self.work / "bundle/lib"
        if not lib.exists():
            lib.symlink_to(TEMPLATES / "common/lib")
        script = self.work / "script.sh"
        script.write_text(
            SCRIPT.format(
                work=self.work, own=f"{self.net}.1", nodes=" ".join(nodes), lib=TEMPLATES / "common/lib",
                units="kubelet.service" if is_worker else "etcd.service kube-apiserver.service",
                is_generation="true" if is_generation else "false",
            )
        )  # fmt: skip
        done = self.sh(script)
        assert done.stderr == ""
        return done.stdout.splitlines()


@pytest.fixture
def start(sh: Sh, tmp_path: Path, cas: ClusterCas) -> Iterator[Callable[..., Site]]:
    sites: list[Site] = []

    def make(version: str = "-tls1_3") -> Site:
        sites.append(Site(sh, tmp_path, cas, version))
        return sites[-1]

    yield make
    for site in sites:
        for server in site.servers:
            server.kill()
            server.wait()


NO_TRUST = "FAILURE turn: port {} of {} does not trust the CA that signs this bundle's certificates: install the bundle of the previous rotation stage on {} first"
OLD_CERTIFICATE = "FAILURE turn: port {} of {} uses a certificate of a CA that this bundle no longer trusts: install the bundle of the previous rotation stage on {} first"

TOO_EARLY = "FAILURE turn: the API server of m3 does not use a certificate of the new CA yet: install control planes before workers"


@pytest.mark.slow
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_a_host_without_the_stage_before_is_reported(
    start: Callable[..., Site], version: str
) -> None:
    site = start(version)
    site.cluster({"m2": TRUST, "m3": SETTLED, "w1": TRUST})
    assert site.ask(TRUST, SETTLED) == []
    assert site.ask(ISSUE, TRUST) == [NO_TRUST.format(2379, "m3", "m3")]
    assert site.ask(DROP, ISSUE) == [OLD_CERTIFICATE.format(2379, "m2", "m2")]


@pytest.mark.slow
def test_workers_are_checked_too(start: Callable[..., Site]) -> None:
    site = start()
    site.cluster({"m2": ISSUE, "m3": ISSUE, "w1": TRUST})
    assert site.ask(ISSUE, TRUST) == []
    assert site.ask(DROP, ISSUE) == [OLD_CERTIFICATE.format(10250, "w1", "w1")]


@pytest.mark.slow
def test_the_next_stage_is_allowed_if_all_hosts_have_the_one_before(
    start: Callable[..., Site],
) -> None:
    site = start()
    site.cluster({"m2": ISSUE, "m3": DROP, "w1": ISSUE})
    assert site.ask(DROP, ISSUE) == []
    assert site.ask(TRUST, ISSUE, is_generation=True) == [NO_TRUST.format(2379, "m3", "m3")]


@pytest.mark.slow
def test_a_host_without_an_answer_is_an_obstacle(start: Callable[..., Site]) -> None:
    site = start()
    site.cluster({"m2": TRUST, "m3": TRUST})
    assert site.ask(ISSUE, TRUST) == [
        "FAILURE turn: port 10250 of w1 does not answer, so it is unknown which CAs w1 trusts"
    ]


def test_no_host_is_contacted_if_the_cas_stay_the_same(start: Callable[..., Site]) -> None:
    site = start()  # no server runs
    for bundle, installed in (
        (SETTLED, SETTLED), (SETTLED, ("", "")), (DROP, DROP), (DROP, None), (("", ""), SETTLED),
    ):  # fmt: skip
        assert site.ask(bundle, installed) == []


@pytest.mark.slow
def test_a_worker_waits_for_all_control_planes_to_sign_with_the_new_ca(
    start: Callable[..., Site],
) -> None:
    site = start()
    site.cluster({"m2": ISSUE, "m3": TRUST, "w1": TRUST})
    assert site.ask(TRUST, SETTLED, is_worker=True) == []
    assert site.ask(ISSUE, TRUST, is_worker=True) == [TOO_EARLY]
    assert site.ask(ISSUE, TRUST, is_worker=True, is_generation=True) == []


UNITS = """
. {lib}/core/common.sh; . {lib}/coordination/rollout-order.sh
here={lib}/..
print_name_units <<'EOF'
/O=lab/OU=2026T/CN=etcd-ca
/O=lab/CN=etcd-ca
O = lab, OU = 2026T, CN = etcd-ca
O = lab, CN = etcd-ca
O=lab, OU=2026T, CN=etcd-ca
CN=etcd-ca,OU=2026T,O=lab
issuer= /O=lab/OU=2026T/CN=etcd-ca
issuer=CN=etcd-ca
EOF
"""


def test_subjects_are_read_in_every_format_of_openssl(sh: Sh, tmp_path: Path) -> None:
    script = tmp_path / "script.sh"
    script.write_text(UNITS.format(lib=TEMPLATES / "common/lib"))
    assert sh(script).stdout.split() == ["2026T", "-", "2026T", "-", "2026T", "2026T", "2026T", "-"]


PRUNE = """
set -u
. {lib}/core/common.sh; . {lib}/transaction/files.sh; . {lib}/transaction/generations.sh
prefix={work} store={work}/store generations={work}/store/generations to=4 work={work}
prune_untrusted_generations
"""


def test_generations_with_untrusted_cas_are_pruned(sh: Sh, tmp_path: Path) -> None:
    for number, trusted in (("1", None), ("2", "-"), ("3", f"{NEW} -"), ("4", NEW), ("5", NEW)):
        directory = tmp_path / "store/generations" / number
        directory.mkdir(parents=True)
        (directory / "state").write_text("healthy 2026\n")
        (directory / "ca.key").write_text("secret")
        line = f"AUTHORITIES_BELIEVED='{trusted}'\n" if trusted else ""
        (directory / "state.env").write_text(line)
    script = tmp_path / "script.sh"
    script.write_text(PRUNE.format(lib=TEMPLATES / "common/lib", work=tmp_path))
    done = sh(script)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(os.listdir(tmp_path / "store/generations")) == ["4", "5"]
    assert (tmp_path / "store/journal").read_text().count("pruned generation") == 3
