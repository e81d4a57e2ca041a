"""Objects that kube-apply deletes: none of them is one that bundler applies."""

import re

from bundler.paths import templates_directory

ROWS = "control-plane/rootfs/etc/kubernetes/obsolete-objects"


def list_obsolete() -> list[tuple[str, str, str]]:
    lines = (templates_directory() / ROWS).read_text().splitlines()
    rows = [line.split(maxsplit=3) for line in lines if not line.startswith("#")]
    assert all(len(row) == 4 for row in rows), rows
    return [(kind, namespace, name) for kind, namespace, name, _ in rows]


def list_applied() -> set[tuple[str, str, str]]:
    """Kind, namespace and name of each object in a template, as far as they have no variables."""
    found = set()
    for path in templates_directory().glob("*/rootfs/etc/kubernetes/addons/*"):
        for document in re.split(r"^---$", path.read_text(), flags=re.MULTILINE):
            kind = re.search(r"^kind: (\S+)$", document, re.MULTILINE)
            name = re.search(r"^  name: (\S+)$", document, re.MULTILINE)
            namespace = re.search(r"^  namespace: (\S+)$", document, re.MULTILINE)
            if kind and name:
                found.add((kind[1], namespace[1] if namespace else "-", name[1]))
    return found


def test_no_object_is_applied_and_deleted() -> None:
    applied = list_applied()
    assert ("ClusterRole", "-", "bundler:csr-approver") in applied
    assert applied.isdisjoint(list_obsolete())


def test_each_object_is_named_once() -> None:
    rows = list_obsolete()
    assert sorted(set(rows)) == sorted(rows)
