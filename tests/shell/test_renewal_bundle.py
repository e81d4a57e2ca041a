"""A bundle with renewed certificates restarts only programs that do not reload their files."""

import shutil
from pathlib import Path

import pytest
from support.fake_host import make_host
from support.shells import Sh
from support.trees import Trees, rewrite_manifest

PKI = "rootfs/etc/kubernetes/pki"
ETCD = "rootfs/etc/etcd/pki"


HOT_RELOADED = [
    f"{PKI}/{name}.{kind}"
    for name in (
        "apiserver",
        "apiserver-etcd-client",
        "apiserver-kubelet-client",
        "front-proxy-client",
        "controller-manager",
        "scheduler",
    )
    for kind in ("crt", "key")
] + [
    f"{ETCD}/server.crt",
    f"{ETCD}/peer.key",
    f"{ETCD}/healthcheck-client.crt",
    "rootfs/etc/kubernetes/csr-approver.kubeconfig",
    "rootfs/etc/kubernetes/node-labeler.kubeconfig",
    "rootfs/etc/kubernetes/node-remover.kubeconfig",
    "rootfs/etc/kubernetes/admin.kubeconfig",
]
"""Files that cause no restart with Kubernetes 1.20 and etcd 3.4."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "restarted"),
    [
        (HOT_RELOADED, []),
        ([f"{ETCD}/ca.crt"], ["etcd"]),
        ([f"{PKI}/etcd-ca.crt", f"{PKI}/sa.key"], ["kube-apiserver", "kube-controller-manager", "kube-rotation"]),
        ([f"{PKI}/front-proxy-ca.crt"], ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-apply"]),
        (["rootfs/etc/kubernetes/scheduler.kubeconfig"], ["kube-scheduler"]),
    ],
)  # fmt: skip
def test_only_units_without_hot_reload_are_restarted_in_rollout_order(
    sh: Sh, trees: Trees, tmp_path: Path, names: list[str], restarted: list[str]
) -> None:
    old = trees / "master1"
    new = Path(shutil.copytree(old, trees / "new"))
    for name in names:
        with (new / name).open("a") as file:
            file.write("\n")
    rewrite_manifest(new)
    host = make_host(sh, old, tmp_path / "host")
    assert host.install().returncode == 0
    renewed = make_host(sh, new, tmp_path / "other")
    shutil.copytree(host.root, renewed.root, dirs_exist_ok=True)
    for unit in (old / "rootfs/etc/systemd/system").iterdir():
        renewed.mark(f"active/{unit.name}")
        renewed.mark(f"enabled/{unit.name}")
    # no other host answers, so restarts of shared servers are refused
    needs_turn = {"etcd", "kube-apiserver"} & set(restarted)
    said = renewed.install("--dry-run")
    assert ("turn: " in said.stderr) is bool(needs_turn)
    if needs_turn:
        said = renewed.install("--dry-run", "--skip-preflight", "turn")
    lines = [line.split()[1] for line in said.stdout.splitlines() if line.startswith("restart ")]
    assert [name for name in lines if name != "kube-certs.timer"] == [
        f"{name}.service" for name in restarted
    ], said.stdout + said.stderr
    changed = [line.split()[-1] for line in said.stdout.splitlines() if line.startswith("changed")]
    assert set(changed) >= {f"/{name.removeprefix('rootfs/')}" for name in names}
