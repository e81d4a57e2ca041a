"""Render kustomizations with the kubectl of the cluster's version, without a network."""

from pathlib import Path

from bundler.catalog import KUBERNETES_ARCHIVE, Artifact, find_artifact
from bundler.catalog.kubernetes import MEMBERS, choose_file
from bundler.cluster.schema import Cluster
from bundler.errors import ArtifactError, ConfigError
from bundler.sources.artifacts import find_pinned
from bundler.sources.fetch import FetchOptions
from bundler.sources.lock import Lock
from bundler.sources.tools import FailedError, find_machine, run_program, unpack_program

KUBECTL = next(member for member, name in MEMBERS.items() if name == "kubectl")
NEED = "kustomizations are rendered with kubectl"
BY_HAND = "render it yourself: kubectl kustomize FOLDER > FILE.yaml, and name FILE.yaml"


def render_kustomization(
    folder: Path, cluster: Cluster, lock: Lock | None, options: FetchOptions
) -> bytes:
    """Render a folder with a kustomization.yaml to YAML.

    kubectl has a home of its own, no network and no other programs. Raises ArtifactError if there
    is no kubectl for this machine, ConfigError if kubectl refuses the folder.
    """
    artifact, member = find_kubectl(cluster, lock, find_machine(NEED, BY_HAND))
    with unpack_program(artifact, member, "kubectl", options) as program:
        return run_kustomize(program, folder, program.parent)


def find_kubectl(cluster: Cluster, lock: Lock | None, arch: str) -> tuple[Artifact, str]:
    """The upstream file with kubectl of the cluster's version, and its member there if any.

    Raises ArtifactError if no digest of it is known.
    """
    version = cluster.kubernetes.version
    pinned = cluster.list_pinned(arch)
    component, member = choose_file(KUBERNETES_ARCHIVE, KUBECTL, version, arch, pinned)
    if KUBERNETES_ARCHIVE not in pinned and find_artifact("kubectl", version, arch):
        component, member = "kubectl", ""  # a tenth of the archive
    artifact = find_pinned(cluster, lock, component, version, arch)
    if not artifact.digest:
        raise ArtifactError(
            f"{NEED} {version} ({arch}) on this machine, and it has no built-in pin",
            hint=f"add its sha256 to `artifacts` as kubectl/{arch}; or {BY_HAND}",
        )
    return artifact, member


def run_kustomize(program: Path, folder: Path, home: Path) -> bytes:
    """Run `kubectl kustomize` without a network; returns what it prints, or raises ConfigError."""
    try:
        return run_program([program, "kustomize", folder], home)
    except ConfigError as error:
        raise ConfigError(f"{folder}: {error.message}") from error
    except FailedError as error:
        raise ConfigError(
            f"{folder}: kubectl kustomize: {error}",
            hint="nothing is fetched: copy remote resources into the folder, and name the copies",
        ) from error
