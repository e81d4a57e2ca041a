"""The inputs of a command, and the project loaded from them: cluster, plan and lock, read once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from bundler import log
from bundler.cache.store import Cache
from bundler.cluster.loader import load_cluster
from bundler.cluster.plan import ClusterPlan, make_plan
from bundler.cluster.schema import Cluster
from bundler.errors import ConfigError
from bundler.formats.bounded_yaml import read_bytes
from bundler.paths import default_state
from bundler.sources.images.options import RegistryOptions
from bundler.sources.limits import PARALLEL_DOWNLOADS
from bundler.sources.lock import Lock, lock_path, parse_lock
from bundler.sources.resolved import Resolved, resolve_sources


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Everything that a build depends on."""

    description: Path  # cluster.yaml
    cache: Cache
    mirrors: tuple[str, ...] = ()  # see mirrors.parse_mirror
    ca_file: Path | None = None  # private CA certificates, PEM
    jobs: int = PARALLEL_DOWNLOADS
    offline: bool = False
    pins: Path | None = None
    state: Path | None = None  # None: NAME.state next to cluster.yaml
    strict: bool = False  # require a lock, trust sources, and no weakening that is not accepted
    registries: RegistryOptions = field(default_factory=RegistryOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """The loaded inputs. Each file is read once, and the plan is made once."""

    inputs: Inputs
    cluster: Cluster
    plan: ClusterPlan  # without pod subnets, which the state directory assigns
    lock: Lock | None
    digests: Mapping[str, str]  # input file → SHA-256 of the bytes that were read

    @property
    def lock_path(self) -> Path:
        """The path of cluster.lock.yaml."""
        return lock_path(self.inputs.description)

    @property
    def state_path(self) -> Path:
        """The path of the state directory."""
        return self.inputs.state or default_state(self.inputs.description, self.cluster.name)


def load(inputs: Inputs) -> Project:
    """Read and validate cluster.yaml, the pins and the lock; raises ConfigError."""
    loaded = load_cluster(inputs.description, inputs.pins)
    for warning in loaded.warnings:
        if not (inputs.strict and warning in loaded.weakenings):
            log.warning(warning)
    if inputs.strict:
        refuse_weakenings(loaded.weakenings)
    path = lock_path(inputs.description)
    content = _read_lock_bytes(path)
    digests = {
        "cluster.yaml": loaded.sha256,
        "cluster.lock.yaml": sha256(content).hexdigest() if content is not None else None,
        "pins.yaml": loaded.pins_sha256,
    }
    return Project(
        inputs=inputs,
        cluster=loaded.cluster,
        plan=make_plan(loaded.cluster),
        lock=parse_lock(content, path) if content is not None else None,
        digests={name: digest for name, digest in digests.items() if digest is not None},
    )


def resolve(project: Project) -> Resolved:
    """Find the URL and digest of every file, image and package; nothing is written or fetched."""
    return resolve_sources(
        project.plan, project.lock, project.lock_path, strict=project.inputs.strict
    )


def check(inputs: Inputs) -> Project:
    """Load and resolve the project: everything that can be validated without a download."""
    project = load(inputs)
    resolve(project)
    return project


def refuse_weakenings(found: Mapping[str, str]) -> None:
    """Raise a ConfigError that lists weakenings which security.accept does not name."""
    if found:
        names = ", ".join(sorted(set(found.values())))
        raise ConfigError(
            "\n".join(found),
            hint=f"remove them; or accept them with security: {{accept: [{names}]}}; or omit"
            " --strict",
        )


def _read_lock_bytes(path: Path) -> bytes | None:
    """Read the lock; None if there is no such file."""
    try:
        return read_bytes(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
