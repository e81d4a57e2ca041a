"""Render kustomizations with the kubectl of the cluster's version, without a network."""

import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from bundler.cache.payload import ensure_members, read_payload
from bundler.catalog import KUBERNETES_ARCHIVE, MACHINES, Artifact, find_artifact
from bundler.catalog.kubernetes import MEMBERS, choose_file
from bundler.cluster.schema import Cluster
from bundler.errors import ArtifactError, ConfigError
from bundler.log import make_printable
from bundler.sources.artifacts import find_pinned
from bundler.sources.fetch import FetchOptions, ensure_artifact
from bundler.sources.lock import Lock

KUBECTL = next(member for member, name in MEMBERS.items() if name == "kubectl")
LIMIT = 120  # seconds that a kustomization may take
SHOWN = 5  # lines of an error
NOWHERE = "http://127.0.0.1:9"  # the discard port: a proxy that answers nothing
BY_HAND = "render it yourself: kubectl kustomize FOLDER > FILE.yaml, and name FILE.yaml"


def render_kustomization(
    folder: Path, cluster: Cluster, lock: Lock | None, options: FetchOptions
) -> bytes:
    """Render a folder with a kustomization.yaml to YAML.

    kubectl has a home of its own, no network and no other programs. Raises ArtifactError if there
    is no kubectl for this machine, ConfigError if kubectl refuses the folder.
    """
    artifact, member = find_kubectl(cluster, lock, find_machine())
    path = ensure_artifact(artifact, options)
    with tempfile.TemporaryDirectory(prefix="kustomize-", dir=options.cache.root) as home:
        program = Path(home) / "kubectl"
        if member:
            payload = ensure_members(artifact, path, (member,), options.cache)[member]
            with program.open("wb") as file:
                file.writelines(read_payload(payload))
        else:
            shutil.copyfile(path, program)
        program.chmod(0o700)
        return run_kustomize(program, folder, Path(home))


def find_machine() -> str:
    """The architecture of the build machine; ArtifactError where no kubectl of the catalog runs."""
    arches = {machine: arch for arch, machine in MACHINES.items()}
    system, machine = platform.system(), platform.machine()
    if system != "Linux" or machine not in arches:
        raise ArtifactError(
            f"kustomizations are rendered with kubectl, and there is none for {system} {machine}",
            hint=f"build on Linux ({' or '.join(arches)}); or {BY_HAND}",
        )
    return arches[machine]


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
            f"kustomizations are rendered with kubectl {version} ({arch}) on this machine, and it"
            " has no built-in pin",
            hint=f"add its sha256 to `artifacts` as kubectl/{arch}; or {BY_HAND}",
        )
    return artifact, member


def run_kustomize(program: Path, folder: Path, home: Path) -> bytes:
    """Run `kubectl kustomize` without a network; returns what it prints, or raises ConfigError."""
    environment = {
        "HOME": str(home), "PATH": str(home / "none"), "KUBECONFIG": os.devnull, "TZ": "UTC",
        "HTTP_PROXY": NOWHERE, "HTTPS_PROXY": NOWHERE, "NO_PROXY": "", "TMPDIR": str(home),
    }  # fmt: skip
    command = [*_find_isolation(), str(program), "kustomize", str(folder)]
    try:
        done = subprocess.run(
            command, env=environment, cwd=home, stdin=subprocess.DEVNULL, capture_output=True,
            check=False, timeout=LIMIT,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"{folder}: kubectl kustomize did not end within {LIMIT} s") from error
    except OSError as error:
        raise ConfigError(f"{folder}: kubectl cannot run here: {error.strerror}") from error
    if done.returncode != 0:
        lines = make_printable(done.stderr.decode(errors="replace"), keep="\n").split("\n")
        raise ConfigError(
            f"{folder}: kubectl kustomize: {'; '.join(line for line in lines if line)[:1000]}",
            hint="nothing is fetched: copy remote resources into the folder, and name the copies",
        )
    return done.stdout


@cache
def _find_isolation() -> tuple[str, ...]:
    """The words before a command that take its network away; none where that is not allowed."""
    words = ("unshare", "--net", "--map-root-user", "--")
    path = shutil.which(words[0])
    if not path:
        return ()
    probe = [path, *words[1:], "true"]
    is_possible = subprocess.run(probe, capture_output=True, check=False).returncode == 0
    return (path, *words[1:]) if is_possible else ()
