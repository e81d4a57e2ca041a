"""Real etcd and API server: how long a stop takes while clients watch, and what remains of it."""

import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from support.external_ca_cluster import Host, describe, find_programs
from support.networks import take_network
from support.unit_files import read_unit

MARGIN = 0.9  # seconds, for a machine under load


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return find_programs(tmp_path_factory.mktemp("programs") / "bin")


def is_open(address: str) -> bool:
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex((address, 6443)) == 0


def stop_as_systemd(host: Host, seconds: float) -> tuple[float, float]:
    """SIGTERM, and SIGKILL after TimeoutStopSec: when its port was closed, and when it had ended."""
    server = host.running.pop()
    started = time.monotonic()
    server.send_signal(signal.SIGTERM)
    while is_open(host.address):
        time.sleep(0.05)
    closed = time.monotonic() - started
    try:
        server.wait(timeout=seconds - closed)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    return closed, time.monotonic() - started


@pytest.mark.long
def test_a_stop_of_an_api_server_with_open_watches_takes_less_than_five_seconds(
    tmp_path: Path, programs: Path
) -> None:
    host = Host.install(tmp_path, programs, describe(f"{take_network()}.1"))
    unit = read_unit((host.root / "etc/systemd/system/kube-apiserver.service").read_text())
    (limit,) = unit["[Service]TimeoutStopSec"]
    assert isinstance(limit, str)
    try:
        host.start_api()
        host.apply_addons()
        host.kubectl("create", "configmap", "kept", "--from-literal=a=b")
        watch = subprocess.Popen(
            [
                programs / "kubectl", "--kubeconfig", host.root / "etc/kubernetes/admin.kubeconfig",
                "get", "configmaps", "--watch",
            ],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert watch.stdout
        assert b"NAME" in watch.stdout.readline()
        closed, took = stop_as_systemd(host, float(limit))
        assert closed < 1, closed
        assert took <= float(limit) + MARGIN < 5, took
        watch.kill()
        watch.communicate()

        started = time.monotonic()
        host.start("kube-apiserver")
        host.wait(
            "the API answers", lambda: host.kubectl("get", "--raw=/readyz", check=False) == "ok"
        )
        print(
            f"port closed {closed:.1f} s, stop {took:.1f} s, start {time.monotonic() - started:.1f} s"
        )
        assert "kept" in host.kubectl("get", "configmaps", "-o", "name")
    finally:
        host.stop()
