"""Which upstream files a plan needs, and under which digests: the user's, else the catalogue's."""

from collections.abc import Iterator, Mapping

from bundler.catalog import Artifact, artifact_url, closest_versions, default_version, find_artifact
from bundler.components import minor_of
from bundler.config import Pin
from bundler.errors import ArtifactError
from bundler.plan import Plan, choose_flannel, runtime_versions
from bundler.render import list_fetched

Needs = dict[tuple[str, str], tuple[str, ...]]
"""(component, architecture) → the members of its archive that some node takes."""


def list_needs(plan: Plan) -> Needs:
    """What all nodes together take out of upstream archives."""
    needs: dict[tuple[str, str], dict[str, None]] = {}
    for node in plan.nodes:
        for fetched in list_fetched(plan, node):
            needs.setdefault((fetched.component, node.arch), {})[fetched.member] = None
    return {key: tuple(members) for key, members in needs.items()}


def resolve_artifacts(plan: Plan, needs: Needs) -> Mapping[tuple[str, str], Artifact]:
    """The pinned file behind each need; ArtifactError says how to pin those without."""
    versions = _choose_versions(plan)
    found: dict[tuple[str, str], Artifact] = {}
    faults: list[str] = []
    for component, arch in needs:
        version = versions[component]
        pins = plan.cluster.artifacts
        if own := pins.get(f"{component}/{arch}"):
            found[component, arch] = _from_pin(component, version, arch, own)
        elif pin := pins.get(component):
            found[component, arch] = _from_pin(component, version, arch, pin)
            faults += _check_single(component, plan, pin)
        elif built_in := find_artifact(component, version, arch):
            found[component, arch] = built_in
        else:
            faults.append(_explain_missing(component, version, arch))
    if faults:
        raise ArtifactError(
            "\n".join(dict.fromkeys(faults)),
            hint="bundler uses nothing that is not pinned: take the digest from upstream's release"
            " page, over a way that you trust, and add it to cluster.yaml",
        )
    return found


def _choose_versions(plan: Plan) -> dict[str, str]:
    cluster = plan.cluster
    minor = minor_of(cluster.kubernetes.version)
    return {
        "kubernetes-server": cluster.kubernetes.version,
        "etcd": plan.etcd_version,
        "cni-plugins": default_version("cni-plugins", minor),
        "flanneld": choose_flannel(cluster),
        **runtime_versions(cluster),
    }


def _from_pin(component: str, version: str, arch: str, pin: Pin) -> Artifact:
    algorithm = "sha512" if pin.sha512 else "sha256"
    return Artifact(
        component=component,
        version=version,
        arch=arch,
        url=pin.url or artifact_url(component, version, arch),
        algorithm=algorithm,
        digest=pin.sha512 or pin.sha256 or "",
        source="artifacts in cluster.yaml",
    )


def _check_single(component: str, plan: Plan, pin: Pin) -> Iterator[str]:
    """One digest is of one file, so of one architecture."""
    arches = sorted({node.arch for node in plan.nodes})
    if len(arches) > 1:
        digest = (pin.sha512 or pin.sha256 or "")[:12]
        yield (
            f"artifacts.{component} pins one file ({digest}…), but nodes are"
            f" {' and '.join(arches)}: pin {' and '.join(f'{component}/{a}' for a in arches)}"
        )


def _explain_missing(component: str, version: str, arch: str) -> str:
    close = closest_versions(component, version, arch)
    near = f"; pinned versions near it: {', '.join(close)}" if close else ""
    return (
        f"{component} {version} ({arch}) has no built-in pin{near}. To pin it:\n"
        "    artifacts:\n"
        f"      {component}:\n"
        f"        url: {artifact_url(component, version, arch)}\n"
        "        sha256: <64 hexadecimal digits>   # or sha512"
    )
