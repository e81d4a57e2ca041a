"""Real etcd and API server: verify.sh finds an API server that shows objects to the wrong clients."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.external_ca_cluster import Host, describe, find_programs
from support.networks import take_network

CHECK = "apiserver-authorization"


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return find_programs(tmp_path_factory.mktemp("programs") / "bin")


@contextmanager
def run_host(directory: Path, programs: Path, **flags: object) -> Iterator[Host]:
    """etcd and the API server of one host, with more flags for the API server."""
    extra = {"kube-apiserver": {"flags": flags}} if flags else {}
    host = Host.install(directory, programs, {**describe(f"{take_network()}.1"), "extra": extra})
    try:
        host.start_api()
        host.apply_addons()
        yield host
    finally:
        host.stop()


def verify(host: Host) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", host.root.parent / "verify.sh", "--only", CHECK, "--timeout", "0"],
        capture_output=True, text=True, check=False,
        env={**os.environ, "DESTDIR": str(host.root), "HTTPS_TIMEOUT": "20"},
    )  # fmt: skip


def bind(host: Host, role: str, group: str) -> None:
    """Give the group a role; `pods` is one that only reads pods."""
    if role == "pods":  # without a controller manager, the role view has no rights
        host.kubectl("create", "clusterrole", "pods", "--verb=get,list", "--resource=pods")
    host.kubectl(
        "create", "clusterrolebinding", "broad", f"--clusterrole={role}", f"--group={group}"
    )


def test_the_api_server_of_bundler_refuses_everybody_without_rights(
    tmp_path: Path, programs: Path
) -> None:
    with run_host(tmp_path, programs) as host:
        done = verify(host)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "1 API servers and the endpoint" in done.stdout

        bind(host, "pods", "system:authenticated")
        done = verify(host)
        assert done.returncode == 1
        assert f"one ({host.address}:6443): pods as a user without rights: 200" in done.stdout
        assert "without credentials" not in done.stdout.partition("seen:")[2]
        host.kubectl("delete", "clusterrolebinding", "broad")
        assert verify(host).returncode == 0

        # whoever may not act as another user has not asked the question
        admin = host.root / "etc/kubernetes/admin.kubeconfig"
        kept = admin.read_bytes()
        shutil.copy(host.root / "etc/kubernetes/scheduler.kubeconfig", admin)
        done = verify(host)
        assert done.returncode == 1
        assert "as a user without rights: 403" in done.stdout
        admin.write_bytes(kept)

        server = host.running.pop()
        server.kill()
        server.wait()
        done = verify(host)
        assert done.returncode == 1
        assert "secrets without credentials: 000" in done.stdout


@pytest.mark.long
def test_anonymous_requests_are_found_when_a_binding_gives_them_rights(
    tmp_path: Path, programs: Path
) -> None:
    with run_host(tmp_path, programs, **{"anonymous-auth": True}) as host:
        assert verify(host).returncode == 0
        for role in ("pods", "cluster-admin"):
            bind(host, role, "system:unauthenticated")
            done = verify(host)
            assert done.returncode == 1
            assert f"one ({host.address}:6443): pods without credentials: 200" in done.stdout
            host.kubectl("delete", "clusterrolebinding", "broad")
        assert verify(host).returncode == 0


@pytest.mark.long
def test_an_api_server_that_allows_everything_is_found(tmp_path: Path, programs: Path) -> None:
    flags = {"authorization-mode": "Node,RBAC,AlwaysAllow"}
    with run_host(tmp_path, programs, **flags) as host:
        done = verify(host)
        assert done.returncode == 1
        assert f"one ({host.address}:6443): secrets as a user without rights: 200" in done.stdout
