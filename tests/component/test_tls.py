"""`tls` in force: real servers refuse older versions of TLS and other cipher suites (openssl s_client)."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from support.containerd_program import NEEDS_CONTAINERD
from support.external_ca_cluster import Host, describe, find_programs
from support.networks import take_network
from support.paths import LAB_CACHE

GCM_128 = ["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]
SERVERS = {
    "etcd": 2379,
    "kube-apiserver": 6443,
    "kube-controller-manager": 10257,
    "kube-scheduler": 10259,
}
OFFERS = {
    "TLS 1.1": ("-tls1_1", "-cipher", "ALL:@SECLEVEL=0"),
    "TLS 1.2": ("-tls1_2",),
    "TLS 1.2 with AES-256": ("-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"),
    "TLS 1.2 with AES-128": ("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"),
    "TLS 1.3": ("-tls1_3",),
}  # fmt: skip


@contextmanager
def run_servers(directory: Path, tls: dict[str, object], etcd: str = "3.4.23") -> Iterator[Host]:
    """One host with its servers; the programs are those of the lab, whatever etcd's version here."""
    programs = find_programs(directory / "programs")
    (programs / "kube-scheduler").symlink_to(
        (programs / "kube-apiserver").resolve().parent / "kube-scheduler"
    )
    address = f"{take_network()}.1"
    own = dict.fromkeys(("healthzBindAddress", "metricsBindAddress"), f"{address}:10251")
    description = describe(address) | {
        "tls": tls, "etcd": {"version": etcd},
        # on its own address, because other tests run schedulers too
        "extra": {"kube-scheduler": {"config": own}},
    }  # fmt: skip
    host = Host.install(directory, programs, description)
    try:
        host.start_api()
        host.start("kube-controller-manager")
        host.start("kube-scheduler")
        for port in SERVERS.values():
            host.wait(f"{port} answers", lambda port=port: shake_hands(host.address, port, ()))
        yield host
    finally:
        host.stop()


def shake_hands(address: str, port: int, options: tuple[str, ...]) -> bool:
    """Whether the server and a client with these options agree on a version and a suite."""
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"{address}:{port}", *options],
        input="", capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    return "Cipher is (NONE)" not in done.stdout and "BEGIN CERTIFICATE" in done.stdout


def list_agreed(address: str, port: int) -> set[str]:
    return {name for name, options in OFFERS.items() if shake_hands(address, port, options)}


@pytest.fixture(scope="module")
def suites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    tls = {"min_version": "TLS1.2", "cipher_suites": GCM_128}
    with run_servers(tmp_path_factory.mktemp("suites"), tls) as host:
        yield host


@pytest.fixture(scope="module")
def newest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """etcd 3.4.23 has no TLS 1.3, so its flags here are those of an etcd without the setting."""
    with run_servers(
        tmp_path_factory.mktemp("newest"), {"min_version": "TLS1.3"}, "3.3.17"
    ) as host:
        yield host


@pytest.mark.parametrize("server", SERVERS)
def test_a_server_accepts_the_chosen_suites_only(suites: Host, server: str) -> None:
    agreed = list_agreed(suites.address, SERVERS[server])
    assert agreed - {"TLS 1.3"} == {"TLS 1.2", "TLS 1.2 with AES-128"}


@pytest.mark.parametrize("server", sorted(set(SERVERS) - {"etcd"}))
def test_a_server_refuses_everything_before_tls_1_3(newest: Host, server: str) -> None:
    assert list_agreed(newest.address, SERVERS[server]) == {"TLS 1.3"}


CRI = """\
version = 2
root = "{root}"
state = "{place}/state"
[grpc]
address = "{place}/c.sock"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{place}"
conf_dir = "{place}"
"""


@NEEDS_CONTAINERD
@pytest.mark.parametrize(
    ("case", "agreed"),
    [("suites", {"TLS 1.2", "TLS 1.2 with AES-128", "TLS 1.3"}), ("newest", {"TLS 1.3"})],
)
def test_the_kubelet_serves_as_its_rendered_file_says(
    request: pytest.FixtureRequest, tmp_path: Path, case: str, agreed: set[str]
) -> None:
    """A kubelet without an API server, with a real containerd; its file has the rendered `tls*` fields."""
    host: Host = request.getfixturevalue(case)
    rendered = yaml.safe_load((host.root / "etc/kubernetes/kubelet-config.yaml").read_text())
    own = {name: value for name, value in rendered.items() if name.startswith("tls")}
    place = Path(tempfile.mkdtemp(dir="/tmp"))  # short, for the names of sockets
    config = {
        "apiVersion": rendered["apiVersion"], "kind": rendered["kind"], "address": host.address,
        "authentication": {"webhook": {"enabled": False}, "anonymous": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"}, "healthzPort": 0, "failSwapOn": False,
        "cgroupsPerQOS": False, "enforceNodeAllocatable": [], **own,
    }  # fmt: skip
    (tmp_path / "kubelet.yaml").write_text(yaml.safe_dump(config))
    (place / "containerd.toml").write_text(CRI.format(root=tmp_path / "containerd", place=place))
    kubelet = LAB_CACHE / "build/kubernetes-1.20.2/kubelet"
    commands = (
        ["containerd", "-c", place / "containerd.toml"],
        [
            kubelet, f"--config={tmp_path}/kubelet.yaml", "--container-runtime=remote",
            f"--container-runtime-endpoint=unix://{place}/c.sock", f"--root-dir={place}/kubelet",
            f"--cert-dir={tmp_path}/certs", "--hostname-override=one", f"--volume-plugin-dir={place}",
        ],
    )  # fmt: skip
    running = []
    try:
        with (tmp_path / "log").open("wb") as log:
            for command in commands:
                running.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path))
                if command[0] == "containerd":
                    host.wait("containerd answers", (place / "c.sock").exists, seconds=60)
        host.wait("the kubelet answers", lambda: shake_hands(host.address, 10250, ()), seconds=90)
        # its own certificate has an RSA key here, because no API server signs one
        offers = {
            name: tuple(word.replace("ECDSA", "RSA") for word in options)
            for name, options in OFFERS.items()
        }
        found = {n for n, options in offers.items() if shake_hands(host.address, 10250, options)}
        assert found == agreed
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait()
        shutil.rmtree(place, ignore_errors=True)
