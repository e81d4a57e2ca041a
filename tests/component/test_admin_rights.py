"""Real etcd and API server: the administrator has rights by RBAC only, and they can be revoked."""

import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.external_ca_cluster import Host, describe, find_programs
from support.networks import take_network

from bundler.cluster.plan import ClusterPlan, make_plan
from bundler.cluster.schema import Cluster
from bundler.paths import default_state
from bundler.pki.cluster_pki import ensure_pki
from bundler.pki.user_access import BREAK_GLASS_GROUP, make_user_kubeconfig, revoke_admin
from bundler.state.directory import open_state

ADDRESS = f"{take_network()}.1"
BINDING = ("clusterrolebinding", "bundler:cluster-admins")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    programs = find_programs(tmp_path_factory.mktemp("programs") / "bin")
    host = Host.install(tmp_path_factory.mktemp("site"), programs, describe(ADDRESS))
    try:
        host.start_api()
        yield host
    finally:
        host.stop()


def ask(host: Host, kubeconfig: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [host.programs / "kubectl", "--kubeconfig", kubeconfig, *words],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def may_do_all(host: Host, kubeconfig: Path) -> bool:
    return ask(host, kubeconfig, "auth", "can-i", "*", "*", "-A").stdout.strip() == "yes"


def get_state(host: Host) -> tuple[Path, ClusterPlan]:
    directory = host.root.parents[1]
    cluster = Cluster.model_validate(describe(ADDRESS))
    return default_state(directory / "cluster.yaml", cluster.name), make_plan(cluster)


def test_the_administrator_has_no_right_before_the_binding_and_all_after_it(host: Host) -> None:
    admin = host.root / "etc/kubernetes/admin.kubeconfig"
    assert not may_do_all(host, admin)
    assert "Forbidden" in ask(host, admin, "get", "secrets", "-A").stderr
    said = host.apply_addons()
    assert "gave all rights to the group" in said
    assert "applied all manifests" in said
    assert may_do_all(host, admin)
    assert ask(host, admin, "get", "secrets", "-A").returncode == 0


def test_a_second_run_leaves_the_binding_alone(host: Host) -> None:
    version = ("get", *BINDING, "-o", "jsonpath={.metadata.resourceVersion}")
    before = host.kubectl(*version)
    assert "gave all rights" not in host.apply_addons()
    assert host.kubectl(*version) == before


def test_a_deleted_binding_takes_every_right_and_kube_apply_gives_it_back(host: Host) -> None:
    admin = host.root / "etc/kubernetes/admin.kubeconfig"
    host.kubectl("delete", *BINDING)
    host.wait("the rights are gone", lambda: not may_do_all(host, admin))
    host.apply_addons()
    assert may_do_all(host, admin)


def test_the_break_glass_kubeconfig_needs_no_binding(host: Host, tmp_path: Path) -> None:
    state, plan = get_state(host)
    now = datetime.now(UTC)
    with open_state(state) as opened:
        pki = ensure_pki(opened, plan, now)
    user = make_user_kubeconfig(pki, plan, now, name="repair", group=BREAK_GLASS_GROUP, days=1)
    file = tmp_path / "repair.kubeconfig"
    file.write_bytes(user.content)
    host.kubectl("delete", *BINDING)
    assert may_do_all(host, file)
    host.apply_addons()


def test_a_revoked_administrator_has_no_right_and_the_new_one_has_all(
    host: Host, tmp_path: Path
) -> None:
    admin = host.root / "etc/kubernetes/admin.kubeconfig"
    former = tmp_path / "former.kubeconfig"
    former.write_bytes(admin.read_bytes())
    state, plan = get_state(host)
    revoke_admin(state, plan, datetime.now(UTC))
    rendered = Host.install(tmp_path / "new", host.programs, describe(ADDRESS), state=state)
    for name in ("admin.kubeconfig", "addons/cluster-admins.yaml"):
        path = f"etc/kubernetes/{name}"
        (host.root / path).write_bytes((rendered.root / path).read_bytes())
    assert may_do_all(host, former)
    assert not may_do_all(host, admin)
    host.apply_addons()
    assert may_do_all(host, admin)
    assert not may_do_all(host, former)
    refused = ask(host, former, "get", "secrets", "-A")
    assert "Forbidden" in refused.stderr
