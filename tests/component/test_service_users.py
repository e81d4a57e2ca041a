"""etcd, an API server and the jobs of a control plane run as their units' users, from copies of root's files."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.external_ca_cluster import Host, describe, find_programs, read_command
from support.networks import take_network
from support.unit_users import enter, give_files, make_own_directory, make_places

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="files cannot get other owners: the tests do not run as root"
)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    programs = find_programs(tmp_path / "programs")
    address = f"{take_network()}.1"
    made = Host.install(tmp_path / "host", programs, describe(address))
    make_places(made.root)
    yield made
    made.stop()


def as_unit(host: Host, unit: str, command: list[str]) -> list[str]:
    return enter(host.root, host.programs, unit, command)


def start(host: Host, unit: str) -> None:
    """What the unit's ExecStartPre and ExecStart do."""
    give_files(host.root, unit)
    with (host.root.parent / f"{unit}.log").open("wb") as log:
        process = subprocess.Popen(
            as_unit(host, unit, read_command(host.root, unit)),
            stdout=log, stderr=log, cwd="/", env={**os.environ, "DESTDIR": str(host.root)},
        )  # fmt: skip
    host.running.append(process)


def read_log(host: Host, unit: str) -> str:
    return (host.root.parent / f"{unit}.log").read_text(errors="replace")[-3000:]


def wait(host: Host, unit: str, holds: Callable[[], object], seconds: float = 180) -> None:
    started = time.monotonic()
    while not holds():
        assert all(process.poll() is None for process in host.running), read_log(host, unit)
        assert time.monotonic() - started < seconds, read_log(host, unit)
        time.sleep(0.5)


def uid_of(process: subprocess.Popen[bytes]) -> int:
    return os.stat(f"/proc/{process.pid}").st_uid


def owners(directory: Path) -> set[int]:
    return {path.lstat().st_uid for path in (directory, *directory.rglob("*"))}


def try_to_read(host: Host, unit: str, path: str) -> int:
    return subprocess.run(
        as_unit(host, unit, ["cat", str(host.root / path)]), capture_output=True, check=False
    ).returncode


def serial(host: Host, port: int) -> str:
    """Of the certificate that a server shows; empty if it does not answer."""
    shown = subprocess.run(
        ["openssl", "s_client", "-connect", f"{host.address}:{port}"],
        capture_output=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    command = ["openssl", "x509", "-noout", "-serial"]
    return subprocess.run(
        command, input=shown.stdout, capture_output=True, check=False
    ).stdout.decode()


def serial_of(file: Path) -> str:
    command = ["openssl", "x509", "-noout", "-serial", "-in", str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.long
def test_a_control_plane_runs_without_root(host: Host) -> None:
    data, audit = host.root / "var/lib/etcd", host.root / "var/log/kubernetes"
    data.mkdir(mode=0o700)
    (audit / "audit.log").write_text("")  # of a generation that ran as root

    start(host, "etcd")
    wait(host, "etcd", lambda: host.etcdctl("endpoint", "health").returncode == 0)
    start(host, "kube-apiserver")
    wait(
        host, "kube-apiserver",
        lambda: host.kubectl("get", "--raw=/readyz", check=False) == "ok",
    )  # fmt: skip
    assert [uid_of(process) for process in host.running] == [640, 641]
    assert owners(data) == {640}
    assert owners(audit) == {641}

    # kube-apply gives the administrator its rights with the front proxy's certificate
    give_files(host.root, "kube-apply")
    home = make_own_directory(host.root / "run/kube-apply", "kube-apply")
    environment = {
        "DESTDIR": str(host.root), "HOME": str(home), "API_LOCAL": f"https://{host.address}:6443",
        "PATH": f"{host.programs}:/usr/sbin:/usr/bin:/sbin:/bin",
    }  # fmt: skip
    words = [f"{key}={value}" for key, value in environment.items()]
    script = str(host.root / "opt/k8s/libexec/apply-addons.sh")
    applied = subprocess.run(
        as_unit(host, "kube-apply", ["env", *words, "sh", script]),
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert applied.returncode == 0, applied.stdout + applied.stderr
    assert "gave all rights to the group" in applied.stdout

    # a Secret goes through the encryption configuration, a token through the service-account key
    start(host, "kube-controller-manager")
    host.kubectl("create", "secret", "generic", "one", "--from-literal=a=b")
    accounts = ("get", "serviceaccount", "default", "-o", "jsonpath={.secrets[0].name}")
    wait(host, "kube-controller-manager", lambda: host.kubectl(*accounts, check=False))
    assert uid_of(host.running[2]) == 642
    assert (audit / "audit.log").stat().st_size > 0

    # no unit reads the secrets of another one
    assert try_to_read(host, "kube-apiserver", "etc/kubernetes/pki/sa.key") == 0
    for unit, path in (
        ("etcd", "etc/kubernetes/pki/sa.key"),
        ("kube-apiserver", "etc/kubernetes/pki/ca.key"),
        ("kube-apiserver", "etc/kubernetes/admin.kubeconfig"),
        ("kube-controller-manager", "etc/kubernetes/encryption-config.yaml"),
    ):
        assert (host.root / path).exists()
        assert try_to_read(host, unit, path) != 0, f"{unit} reads {path}"

    # renewed certificates: the running processes see the new copies
    pki, own = host.root / "etc/etcd/pki", host.root / "etc/kubernetes/pki"
    assert serial(host, 2379) == serial_of(pki / "server.crt")
    for suffix in (".crt", ".key"):
        shutil.copyfile(pki / f"peer{suffix}", pki / f"server{suffix}")
    give_files(host.root, "etcd")
    assert serial(host, 2379) == serial_of(pki / "peer.crt")
    former = serial(host, 6443)
    for suffix in (".crt", ".key"):
        shutil.copyfile(pki / f"peer{suffix}", own / f"apiserver{suffix}")
    give_files(host.root, "kube-apiserver")
    wait(host, "kube-apiserver", lambda: serial(host, 6443) not in {former, ""})
    assert serial(host, 6443) == serial_of(pki / "peer.crt")
