"""kube-certs.sh: report the ends of certificates, and restart servers in time."""

import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from support.expiring_certificates import KEY, make_pem
from support.shells import TEMPLATES, Sh, write_program
from support.trees import Trees

SCRIPT = TEMPLATES / "certificates/rootfs/opt/k8s/libexec/kube-certs.sh"
TEXTFILES = "var/lib/prometheus/node-exporter"

# API servers answer if their address is in $fake/healthy; servers present $fake/served-PORT.
INSTEAD = """
fake={fake} live={fake}/live
https_get() {{
    if grep -qxF "$1" "$fake/healthy"; then printf '200\\n{{ "gitVersion": "v1.20.2" }}\\n'; else printf '000\\nno answer\\n'; fi
}}
served_certificate() {{ cat "$fake/served-$1${{2:+-$2}}" 2>/dev/null; }}
"""
SYSTEMCTL = """
case $* in
    'show -p ExecMainStartTimestampMonotonic kube-apiserver.service') echo "ExecMainStartTimestampMonotonic=$(cat {fake}/started)" ;;
    '-q is-active kube-apiserver.service') ;;
    restart*) echo "$*" >>{fake}/restarted ;;
    *) exit 1 ;;
esac
"""
# Behaves like `etcdctl lock NAME -- COMMAND` if the lock is free.
ETCDCTL = """
[ ! -e {fake}/held-by-another ] || {{ sleep 60; exit 1; }}
while [ "$1" != -- ]; do shift; done
shift
echo lock >>{fake}/locks
exec "$@"
"""


@dataclass(frozen=True)
class Site:
    """The directories of a host."""

    sh: Sh
    fake: Path
    root: Path

    def run(self) -> subprocess.CompletedProcess[str]:
        script = self.fake / "kube-certs.sh"
        text = re.sub(
            r'^main "\$@"$', lambda _: f'{INSTEAD.format(fake=self.fake)}main "$@"',
            SCRIPT.read_text(), flags=re.MULTILINE,
        )  # fmt: skip
        script.write_text(text)
        path = f"{self.fake}/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        return self.sh(script, DESTDIR=str(self.root), PATH=path, READY_WITHIN="1")

    def say(self) -> list[str]:
        done = self.run()
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    def put(self, path: str, content: bytes) -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        return target

    def age(self, days: float) -> None:
        """Set the age of the API server process; the host started one day earlier."""
        uptime = (days + 1) * 86400
        (self.fake / "live/proc").mkdir(parents=True, exist_ok=True)
        (self.fake / "live/proc/uptime").write_text(f"{uptime:.2f} 1.00\n")
        (self.fake / "started").write_text(f"{86400 * 10**6}\n")

    def restarts(self) -> list[str]:
        file = self.fake / "restarted"
        return file.read_text().splitlines() if file.exists() else []


def make_site(sh: Sh, tree: Path, directory: Path) -> Site:
    site = Site(sh=sh, fake=directory / "fake", root=directory / "root")
    site.fake.mkdir(parents=True)
    (site.root / "var/lib/bundler").mkdir(parents=True)
    for name in ("lib", "node.env"):
        source, target = tree / name, site.root / "opt/k8s/bundle" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    write_program(site.fake / "bin/systemctl", SYSTEMCTL.format(fake=site.fake))
    write_program(site.fake / "bin/etcdctl", ETCDCTL.format(fake=site.fake))
    (site.fake / "healthy").write_text("172.30.20.11\n172.30.20.12\n172.30.20.13\n")
    site.age(10)
    return site


@pytest.fixture
def master(sh: Sh, trees: Trees, tmp_path: Path) -> Site:
    return make_site(sh, trees / "master1", tmp_path / "host")


@pytest.fixture
def worker(sh: Sh, trees: Trees, tmp_path: Path) -> Site:
    return make_site(sh, trees / "worker1", tmp_path / "host")


@pytest.mark.parametrize(
    ("days", "lifetime", "level"),
    [(100, 365, 6), (59, 365, 4), (13, 365, 3), (5, 14, 6), (4, 14, 6), (3, 14, 3)],
)
def test_the_log_priority_depends_on_the_days_left(
    worker: Site, days: int, lifetime: int, level: int
) -> None:
    worker.put("etc/kubernetes/pki/ca.crt", make_pem("the ca", days, lifetime=lifetime))
    assert worker.say() == [f"<{level}>{days} days left: /etc/kubernetes/pki/ca.crt (CN=the ca)"]


def test_an_ended_certificate_is_reported(worker: Site) -> None:
    worker.put("etc/kubernetes/pki/ca.crt", make_pem("the ca", -2))
    assert worker.say() == ["<3>ended: /etc/kubernetes/pki/ca.crt (CN=the ca)"]


def test_certificates_of_every_kind_of_file_are_reported(worker: Site) -> None:
    encoded = subprocess.run(
        ["openssl", "base64", "-A"], input=make_pem("system:kube-proxy", 200), capture_output=True,
        check=True,
    ).stdout.decode()  # fmt: skip
    worker.put(
        "etc/kubernetes/kube-proxy.kubeconfig",
        f"users:\n- user:\n    client-certificate-data: {encoded}\n    client-key-data: c2VjcmV0\n".encode(),
    )
    worker.put(
        "etc/kubernetes/addons/metrics-server.yaml", f"data:\n  tls.crt: {encoded}\n".encode()
    )
    worker.put("etc/kubernetes/bootstrap.kubeconfig", b"    token: abcdef.0123456789abcdef\n")
    worker.put("etc/etcd/pki/peer.crt", make_pem("one", 300) + make_pem("two", 20))
    pair = make_pem("system:node:worker1", 40, organization="system:nodes")
    key = KEY.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    real = worker.put("var/lib/kubelet/pki/kubelet-client-2026.pem", pair + key)
    real.with_name("kubelet-client-current.pem").symlink_to(real)
    worker.put("etc/etcd/pki/broken.crt", b"no certificate\n")
    said = worker.say()
    current = "/var/lib/kubelet/pki/kubelet-client-current.pem"
    assert sorted(said)[1:] == [
        "<4>20 days left: /etc/etcd/pki/peer.crt (CN=two)",
        "<6>200 days left: /etc/kubernetes/addons/metrics-server.yaml (CN=system:kube-proxy)",
        "<6>200 days left: /etc/kubernetes/kube-proxy.kubeconfig (CN=system:kube-proxy)",
        "<6>300 days left: /etc/etcd/pki/peer.crt (CN=one)",
        "<6>40 days left: " + current + " (O=system:nodes,CN=system:node:worker1)",
    ]
    assert "<3>/etc/etcd/pki/broken.crt: holds no readable certificate" in said


def test_metrics_are_written_only_if_the_directory_exists(worker: Site) -> None:
    pem = make_pem('a "b" c', 100)
    worker.put("etc/kubernetes/pki/ca.crt", pem)
    worker.say()
    assert not (worker.root / TEXTFILES).exists()
    (worker.root / TEXTFILES).mkdir(parents=True)
    worker.say()
    assert [path.name for path in (worker.root / TEXTFILES).iterdir()] == [
        "bundler-certificates.prom"
    ]
    file = worker.root / TEXTFILES / "bundler-certificates.prom"
    assert file.stat().st_mode & 0o777 == 0o644
    end = int(x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp())
    lines = file.read_text().splitlines()
    assert lines[1] == "# TYPE bundler_certificate_expiry_seconds gauge"
    subject = r'subject="CN=a \\\"b\\\" c"'
    assert lines[2:] == [
        f'bundler_certificate_expiry_seconds{{path="/etc/kubernetes/pki/ca.crt",{subject}}} {end}'
    ]


def test_of_certificates_with_one_subject_the_first_to_end_is_a_metric(worker: Site) -> None:
    (worker.root / TEXTFILES).mkdir(parents=True)
    early, late = make_pem("the ca", 50), make_pem("the ca", 500)
    worker.put("etc/kubernetes/pki/ca.crt", late + early)
    worker.say()
    text = (worker.root / TEXTFILES / "bundler-certificates.prom").read_text()
    end = int(x509.load_pem_x509_certificate(early).not_valid_after_utc.timestamp())
    assert [line.split()[-1] for line in text.splitlines()[2:]] == [str(end)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("node", "days", "is_restarted"),
    [
        ("master1", 299.9, False), ("master1", 300.1, True),
        ("master2", 302.9, False), ("master2", 303.1, True),
        ("master3", 305.9, False), ("master3", 306.1, True),
    ],
)  # fmt: skip
def test_each_api_server_restarts_in_time_on_its_own_day(
    sh: Sh, trees: Trees, tmp_path: Path, node: str, days: float, *, is_restarted: bool
) -> None:
    if node == "master3":
        shutil.copytree(trees / "master2", trees / "third")
        env = (trees / "third/node.env").read_text()
        env = env.replace("NODE='master2'", "NODE='master3'").replace(
            "ADDRESS='172.30.20.12'", "ADDRESS='172.30.20.13'"
        )
        (trees / "third/node.env").write_text(env)
        node = "third"
    site = make_site(sh, trees / node, tmp_path / "host")
    site.age(days)
    said = site.say()
    if is_restarted:
        assert site.restarts() == ["restart kube-apiserver.service"]
        assert (site.fake / "locks").read_text() == "lock\n"
        assert said[-1] == "<5>kube-apiserver is ready again"
        assert (
            "restarted kube-apiserver.service after"
            in (site.root / "var/lib/bundler/journal").read_text()
        )
    else:
        assert site.restarts() == []
        assert said[-1].startswith(
            f"<6>kube-apiserver has run for {int(days)} days; it will be restarted"
        )


def test_an_api_server_is_not_restarted_while_another_is_down(master: Site) -> None:
    master.age(320)
    (master.fake / "healthy").write_text("172.30.20.11\n172.30.20.12\n")
    assert master.say()[-1] == (
        "<4>kube-apiserver has run for 320 days and is due for a restart, but kube-apiserver of"
        " master3 is not ready (https://172.30.20.13:6443/readyz gives no answer): waiting for it"
    )
    assert master.restarts() == []


@pytest.mark.slow
def test_an_api_server_that_does_not_become_ready_is_a_failure(master: Site) -> None:
    master.age(320)
    (master.fake / "healthy").write_text("172.30.20.12\n172.30.20.13\n")
    done = master.run()
    assert done.returncode == 1
    assert "kube-apiserver is not ready after its restart" in done.stderr
    assert master.restarts() == ["restart kube-apiserver.service"]


def test_nothing_is_restarted_while_install_sh_runs(master: Site) -> None:
    master.age(320)
    lock = master.root / "var/lib/bundler/lock"
    lock.mkdir()
    started = Path(f"/proc/{os.getpid()}/stat").read_text().rpartition(") ")[2].split()[19]
    (lock / "owner").write_text(f"{os.getpid()} {started}\n")
    assert "is running" in master.say()[-1]
    assert master.restarts() == []


@pytest.mark.slow
def test_the_presented_loopback_certificate_decides(master: Site) -> None:
    served = master.fake / "served-6443-apiserver-loopback-client"
    served.write_bytes(make_pem("apiserver-loopback-client@1700000000", 80))
    said = master.say()
    assert (
        "<6>80 days left: kube-apiserver's memory (CN=apiserver-loopback-client@1700000000)" in said
    )
    assert master.restarts() == []
    served.write_bytes(make_pem("apiserver-loopback-client@1700000000", 10))
    master.say()
    assert master.restarts() == ["restart kube-apiserver.service"]
    # a server without this SNI name presents its usual certificate
    (master.fake / "restarted").unlink()
    served.write_bytes(make_pem("kube-apiserver", 10))
    assert not [line for line in master.say() if "memory" in line]
    assert master.restarts() == []


@pytest.mark.slow
def test_a_server_that_presents_an_old_certificate_is_reported(master: Site) -> None:
    file = master.put("etc/etcd/pki/server.crt", make_pem("master1", 300))
    (master.fake / "served-2379").write_bytes(make_pem("master1", 20))
    assert not [line for line in master.say() if "presents another" in line]  # changed just now
    earlier = time.time() - 300
    os.utime(file, (earlier, earlier))
    assert (
        "<3>port 2379 presents another certificate than that in /etc/etcd/pki/server.crt: restart it"
        in master.say()
    )
    (master.fake / "served-2379").write_bytes(file.read_bytes())
    assert not [line for line in master.say() if "presents another" in line]


@pytest.mark.parametrize(("code", "restarts"), [(0, ["restart kubelet.service"]), (1, [])])
def test_a_kubelet_with_certificates_of_a_previous_ca_is_restarted(
    worker: Site, code: int, restarts: list[str]
) -> None:
    program = worker.root / "opt/k8s/libexec/kubelet-join.sh"
    write_program(program, f'[ "$*" = --is-due ] || exit 9\nexit {code}\n')
    assert bool(worker.say()) is bool(restarts)
    assert worker.restarts() == restarts
