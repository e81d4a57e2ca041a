"""Objects that kube-apply deletes: none of them is one that bundler applies."""

import re
from pathlib import Path

import pytest
import yaml
from support.shells import PINS, TEMPLATES

from bundler.cache.store import Cache
from bundler.cluster.components import RUNTIME_CLASS_API
from bundler.pipeline import render
from bundler.project import Inputs

FLANNEL = "bundler:flannel-nodes"
BY_NAME = {("PodSecurityPolicy", "policy")}
"""Kinds that only some minors know, and that obsolete-objects names for these (tests/unit/cluster/test_policy.py)."""


@pytest.fixture(params=["static", "flannel"])
def kubernetes(request: pytest.FixtureRequest, description: Path, tmp_path: Path) -> Path:
    """/etc/kubernetes of a control plane, without and with flannel."""
    text = description.read_text()
    if request.param == "flannel":
        assert "plugin: static" in text
        description.write_text(text.replace("plugin: static", "plugin: flannel"))
    inputs = Inputs(
        description=description, cache=Cache(tmp_path / "cache"), offline=True, pins=PINS
    )
    render(inputs, tmp_path / "trees", text_only=True)
    return tmp_path / "trees/master1/rootfs/etc/kubernetes"


def list_obsolete(kubernetes: Path) -> list[tuple[str, str, str]]:
    lines = (kubernetes / "obsolete-objects").read_text().splitlines()
    rows = [line.split(maxsplit=3) for line in lines if not line.startswith("#")]
    assert all(len(row) == 4 for row in rows), rows
    return [(kind, namespace, name) for kind, namespace, name, _ in rows]


def list_applied(kubernetes: Path) -> set[tuple[str, str, str]]:
    """Kind, namespace and name of each object of the addons."""
    documents = [
        document
        for path in (kubernetes / "addons").iterdir()
        for document in yaml.safe_load_all(path.read_text())
    ]
    return {
        (one["kind"], one["metadata"].get("namespace", "-"), one["metadata"]["name"])
        for one in documents
    }


@pytest.mark.slow
def test_no_object_is_applied_and_deleted(kubernetes: Path) -> None:
    obsolete, applied = list_obsolete(kubernetes), list_applied(kubernetes)
    assert ("ClusterRole", "-", "bundler:csr-approver") in applied
    assert applied.isdisjoint(obsolete)
    assert sorted(set(obsolete)) == sorted(obsolete)


@pytest.mark.slow
def test_nodes_may_list_nodes_only_with_flannel(kubernetes: Path) -> None:
    """A cluster that had flannel loses the right, because kubectl apply deletes nothing."""
    for kind in ("ClusterRole", "ClusterRoleBinding"):
        rows = [*list_obsolete(kubernetes), *list_applied(kubernetes)]
        assert rows.count((kind, "-", FLANNEL)) == 1


def test_every_applied_kind_can_leave_again() -> None:
    """kube-apply looks for objects without a manifest in a list of kinds."""
    manifests = sorted(TEMPLATES.glob("*/rootfs/etc/kubernetes/addons/*"))
    assert len(manifests) > 10
    pattern = re.compile(r"^apiVersion: (?:(\S+)/)?v\w+\nkind: (\w+)$", re.MULTILINE)
    text = "\n".join(path.read_text() for path in manifests)
    for api in RUNTIME_CLASS_API.values():
        text += f"\napiVersion: {api}\nkind: RuntimeClass\n"
    text = text.replace("apiVersion: {{ runtime_class_api }}\nkind: RuntimeClass\n", "")
    applied = {(kind, group) for group, kind in pattern.findall(text)}
    assert len(pattern.findall(text)) == text.count("\nkind: ")
    script = TEMPLATES / "control-plane/rootfs/opt/k8s/libexec/apply-addons-prune.sh"
    known = script.read_text().partition("applied_kinds='")[2].partition("'")[0].split()
    groups = [resource.partition(".")[2] for resource in known[1::2]]
    listed = set(zip(known[::2], groups, strict=True))
    assert applied - {("Namespace", "")} - BY_NAME == listed
    assert applied - listed >= BY_NAME
