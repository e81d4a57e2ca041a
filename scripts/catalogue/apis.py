"""Kinds that the API server of a source tree serves, or reads from files."""

import re
from collections.abc import Iterator

from scripts.catalogue.fields import SCHEDULER, SCHEDULER_KIND, list_scheduler_versions
from scripts.catalogue.golang import Declaration, Go, Package, text_of, walk

GROUPS = (
    re.compile(r"k8s\.io/api/\w+/v\d\w*$"),
    re.compile(r"k8s\.io/(apiextensions-apiserver|kube-aggregator)/pkg/apis/\w+/v\d\w*$"),
)
"""Import paths of the packages with the kinds of a group and version."""
CONFIGURATIONS = {
    "k8s.io/apiserver/pkg/apis/audit/v1": "Policy",
    "k8s.io/apiserver/pkg/apis/config/v1": "EncryptionConfiguration",
    "k8s.io/apiserver/pkg/apis/apiserver/v1": "EncryptionConfiguration",
    "k8s.io/kubelet/config/v1beta1": "KubeletConfiguration",
    "k8s.io/kube-proxy/config/v1alpha1": "KubeProxyConfiguration",
}
"""Package → the kind of a file that bundler writes."""


def read_apis(go: Go, minor: str) -> set[tuple[str, str]]:
    """Return (group/version, kind) of everything that the minor serves or reads."""
    found: set[tuple[str, str]] = set()
    for path in sorted(go.source.list_packages()):
        if any(pattern.fullmatch(path) for pattern in GROUPS):
            package = go.package(path)
            found |= {kind for kind in _kinds(go, package, minor) if package}
    wanted = CONFIGURATIONS | {
        SCHEDULER.format(version=version): SCHEDULER_KIND for version in list_scheduler_versions(go)
    }
    for path, kind in wanted.items():
        package = go.package(path)
        if package and kind in package.types:
            found.add((_group_version(go, package), kind))
    return found


def _kinds(go: Go, package: Package, minor: str) -> Iterator[tuple[str, str]]:
    group = _group_version(go, package)
    if not group:
        return
    for file in package.files:
        for call in (one for one in walk(file.root) if one.type == "call_expression"):
            if not text_of(call.child_by_field_name("function")).endswith(".AddKnownTypes"):
                continue
            given = text_of(call.child_by_field_name("arguments"))
            for kind in re.findall(r"&(\w+)\{\}", given):
                if not kind.endswith("List") and not _is_removed(package, kind, minor):
                    yield group, kind


def _group_version(go: Go, package: Package) -> str:
    """Return `apps/v1`, and `v1` for the core group; empty without one."""
    found = package.values.get("SchemeGroupVersion")
    if not found:
        return ""
    text = text_of(found.node)
    version = re.search(r'Version:\s*("(\w+)"|\w+)', text)
    group = _constant_of(go, package, "GroupName")
    name = version[2] or package.path.rpartition("/")[2] if version else ""
    return f"{group}/{name}" if group else name


def _constant_of(go: Go, package: Package, name: str) -> str:
    found: Declaration | None = package.values.get(name)
    if not found:
        return ""
    value = found.node.child_by_field_name("value")
    return go.constant(found, value.named_children[0], {}) or "" if value is not None else ""


def _is_removed(package: Package, kind: str, minor: str) -> bool:
    """Whether the kind's lifecycle says that this minor no longer serves it."""
    found = package.functions.get(f"{kind}.APILifecycleRemoved")
    match = re.search(r"return (\d+), (\d+)", text_of(found.node)) if found else None
    return match is not None and (int(match[1]), int(match[2])) <= tuple(map(int, minor.split(".")))
