"""Two real control planes: what leaves cluster.yaml leaves the cluster, and nothing else does."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from support.two_control_planes import ControlPlane, Site, run_site

pytestmark = pytest.mark.long

DENY = "bundler-default-deny"


def make_keys(handlers: list[str], closed: list[str]) -> dict[str, Any]:
    kinds = {name: {"program": f"/opt/{name}/bin/containerd-shim-{name}-v2"} for name in handlers}
    return {
        "runtime": {"engine": "containerd", "handlers": kinds},
        "network": {"policy": {"engine": "kube-router", "default_deny": closed}},
    }


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with run_site(
        tmp_path_factory, **make_keys(["kata", "gvisor"], ["ledger", "payments"])
    ) as site:
        yield site


def read_names(host: ControlPlane, *words: str) -> set[str]:
    items = json.loads(host.kubectl("get", *words, "-o", "json"))["items"]
    names = {(one["metadata"].get("namespace", ""), one["metadata"]["name"]) for one in items}
    return {"/".join(filter(None, name)) for name in names}


def apply(host: ControlPlane) -> str:
    code, said = host.run("apply-addons.sh")
    assert code == 0, said
    return said


def test_objects_leave_with_their_keys(site: Site) -> None:
    one, two = site.hosts
    former = {name: site.directory / "builds/0-first" / name for name in ("one", "two")}
    assert read_names(one, "runtimeclasses") == {"kata", "gvisor"}
    one.kubectl("-n", "payments", "create", "configmap", "of-the-site")
    foreign = {
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "of-the-site", "namespace": "payments"}, "spec": {"podSelector": {}},
    }  # fmt: skip
    one.kubectl("apply", "-f", "-", stdin=json.dumps(foreign))
    site.keys = make_keys(["kata", "runsc"], ["ledger"])
    trees = site.build("1-changed")

    one.install(trees["one"], restart=())
    said = apply(one)
    assert 'runtimeclass.node.k8s.io "gvisor" deleted' in said
    assert f'networkpolicy.networking.k8s.io "{DENY}" deleted' in said
    assert read_names(one, "runtimeclasses") == {"kata", "runsc"}
    policies = {f"ledger/{DENY}", "payments/of-the-site"}
    assert read_names(one, "networkpolicies", "-A") == policies
    assert "payments" in read_names(one, "namespaces")
    assert "payments/of-the-site" in read_names(one, "configmaps", "-A")

    # The other control plane starts again before it is installed: it applies what it has, and deletes nothing.
    assert "deleted" not in apply(two)
    assert read_names(one, "runtimeclasses") == {"kata", "runsc", "gvisor"}

    two.install(trees["two"], restart=())
    assert 'runtimeclass.node.k8s.io "gvisor" deleted' in apply(two)
    assert read_names(one, "runtimeclasses") == {"kata", "runsc"}
    assert read_names(one, "networkpolicies", "-A") == policies

    # Both go back.
    for host in site.hosts:
        host.install(former[host.name], restart=())
        apply(host)
    assert read_names(one, "runtimeclasses") == {"kata", "gvisor"}
    assert read_names(one, "networkpolicies", "-A") == policies | {f"payments/{DENY}"}


def test_every_object_has_the_label(site: Site) -> None:
    """With the label removed by somebody, the next start gives it again."""
    one = site.one
    one.kubectl("label", "clusterrole", "bundler:node-remover", "bundler/applied-by-")
    apply(one)
    selected = ("-l", "bundler/applied-by=kube-apply")
    bound = read_names(one, "clusterrolebindings", *selected)
    assert bound == {
        name for name in read_names(one, "clusterrolebindings") if name.startswith("bundler:")
    }
    assert "bundler:node-remover" in read_names(one, "clusterroles", *selected)
