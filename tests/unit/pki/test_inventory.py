"""bundler certs list: every certificate of the state or of a bundle, and warnings before its end."""

import base64
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.command import run_bundler
from support.json_shapes import read_shape
from support.projects import open_plan

from bundler.bundle.pack import pack
from bundler.cache.store import Cache
from bundler.cluster.loader import load_cluster
from bundler.errors import OutputError, PkiError
from bundler.pki.inventory import list_bundle_certificates
from bundler.project import Inputs
from bundler.render.node import render_node
from bundler.render.tree import File, Tree

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def bundles(description: Path, tmp_path: Path) -> dict[str, Path]:
    """Create the state, and the bundle of each node without its large files."""
    inputs = Inputs(description=description, cache=Cache(tmp_path / "cache"), offline=True)
    made = {}
    with open_plan(load_cluster(description).cluster, inputs) as (plan, secrets):
        for node in plan.nodes:
            made[node.name] = tmp_path / f"{node.name}.tar.gz"
            pack(render_node(plan, node, secrets), f"lab-{node.name}", made[node.name], mtime=0)
    return made


@pytest.fixture
def bundler(description: Path) -> Run:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_bundler(
            ["certs", "list", *arguments],
            cwd=description.parent, capture_output=True, text=True, check=False,
        )  # fmt: skip

    return run


@pytest.mark.slow
def test_every_certificate_of_the_state_is_listed_by_end(
    bundles: dict[str, Path], bundler: Run, description: Path
) -> None:
    assert bundles
    rows = read_shape(bundler("--json").stdout, "certs-list")["certificates"]
    files = list((description.parent / "lab.state").rglob("cert.pem"))
    assert len(rows) == len(files) > 20
    days = [row["days_left"] for row in rows]
    assert days == sorted(days)
    server = next(row for row in rows if row["path"].endswith("master1/apiserver"))
    assert "172.30.20.250" in server["names"]
    assert 363 <= server["days_left"] <= 365


@pytest.mark.slow
def test_warn_sets_the_exit_code(bundles: dict[str, Path], bundler: Run) -> None:
    assert bundles
    assert bundler("--warn", "60d").returncode == 0
    late = bundler("--warn", "400")
    assert late.returncode == 1
    assert late.stdout.startswith("!")
    assert bundler("--warn", "soon").returncode == 2


@pytest.mark.slow
def test_a_bundle_lists_only_its_own_certificates(bundles: dict[str, Path]) -> None:
    worker = list_bundle_certificates(bundles["worker1"], datetime.now(UTC))
    assert {entry.path for entry in worker} == {
        "rootfs/etc/kubernetes/pki/ca.crt",
        "rootfs/etc/kubernetes/pki/ca-signing.crt",
        "rootfs/etc/kubernetes/kube-proxy.kubeconfig",
    }
    master = {
        entry.path for entry in list_bundle_certificates(bundles["master1"], datetime.now(UTC))
    }
    assert "rootfs/etc/etcd/pki/peer.crt" in master
    assert "rootfs/etc/kubernetes/admin.kubeconfig" in master


@pytest.mark.slow
def test_certificates_in_secrets_of_a_bundle_are_listed(
    bundles: dict[str, Path], description: Path, tmp_path: Path
) -> None:
    assert bundles
    pem = (description.parent / "lab.state/pki/nodes/master1/apiserver/cert.pem").read_bytes()
    path = "rootfs/etc/kubernetes/addons/metrics-server.yaml"

    def list_it(encoded: bytes) -> list[str]:
        content = b"data:\n  tls.crt: " + encoded + b"\n  tls.key: c2VjcmV0\n"
        tree = Tree([File(path=path, mode=0o600, content=content, origin="test")])
        pack(tree, "lab", tmp_path / "lab.tar.gz", mtime=0)
        return [
            entry.path
            for entry in list_bundle_certificates(tmp_path / "lab.tar.gz", datetime.now(UTC))
        ]

    assert list_it(base64.b64encode(pem)) == [path]
    with pytest.raises(PkiError, match="not a certificate in base64"):
        list_it(b"x" * 33)


@pytest.mark.slow
def test_the_list_shows_issuer_and_names_in_short_lines(
    bundles: dict[str, Path], bundler: Run
) -> None:
    assert bundles
    listed = bundler().stdout
    assert max(map(len, listed.splitlines())) <= 100
    _, _, entry = listed.partition("pki/nodes/master1/apiserver\n")
    words = " ".join(entry.partition(" d  ")[0].split())
    assert words.startswith("CN=kube-apiserver by CN=kubernetes-ca,O=lab for ")
    assert "172.30.20.250" in words


def test_nothing_is_created_without_a_state_directory(bundler: Run, description: Path) -> None:
    done = bundler()
    assert done.returncode == 4
    assert "not a state directory" in done.stderr
    assert [path.name for path in description.parent.iterdir()] == ["cluster.yaml"]


@pytest.mark.slow
def test_volumes_list_the_same_certificates_as_the_bundle(bundles: dict[str, Path]) -> None:
    whole = bundles["master1"]
    expected = list_bundle_certificates(whole, datetime.now(UTC))
    content = whole.read_bytes()
    half = len(content) // 2
    whole.with_name("master1.tar.gz.001").write_bytes(content[:half])
    whole.with_name("master1.tar.gz.002").write_bytes(content[half:])
    whole.unlink()
    first = [(entry.path, entry.subject) for entry in expected]
    for given in (whole, whole.with_name("master1.tar.gz.002")):
        assert [
            (e.path, e.subject) for e in list_bundle_certificates(given, datetime.now(UTC))
        ] == first


def test_a_file_that_is_not_a_bundle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"no")
    with pytest.raises(OutputError):
        list_bundle_certificates(tmp_path / "x", datetime.now(UTC))
