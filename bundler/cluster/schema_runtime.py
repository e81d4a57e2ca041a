"""Schema of `runtime`: the container runtime of the workers, Docker or containerd."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from bundler.cluster.values import HostPath, Model, RegistryMirror, Version

CgroupDriver = Literal["cgroupfs", "systemd"]
CGROUP_DRIVER = (
    "The cgroup driver of the container runtime and of the kubelet. Default: cgroupfs before"
    " Kubernetes 1.30, systemd from 1.30."
)
CRICTL = "The version of crictl (cri-tools). `none` leaves crictl out."


class Docker(Model):
    """Docker: through the kubelet's dockershim before 1.24, through cri-dockerd from 1.24."""

    engine: Literal["docker"] = Field(
        default="docker",
        description="The container runtime of the workers: `docker` or `containerd`. Docker works"
        " before Kubernetes 1.24; from 1.24 it also needs `cri_dockerd`.",
    )
    version: Version = Field(
        default="20.10.23",
        description="The version of Docker. `bundler versions docker` lists the versions that have"
        " a built-in pin.",
    )
    cri_dockerd: Version | None = Field(
        default=None,
        description="The version of cri-dockerd, through which the kubelet talks to Docker from"
        " Kubernetes 1.24 on. Must be left out before 1.24. Example: `0.3.20`.",
    )
    crictl: Version | Literal["none"] | None = Field(
        default=None,
        description=f"{CRICTL} Default: with `cri_dockerd` the version that belongs to the"
        " Kubernetes minor, otherwise none.",
    )
    cgroup_driver: CgroupDriver | None = Field(default=None, description=CGROUP_DRIVER)
    registry_mirrors: tuple[RegistryMirror, ...] = Field(
        default=(),
        description="Mirrors of Docker Hub that dockerd tries first, in this order"
        " (`registry-mirrors` of daemon.json). Before Docker 25 without a path. Example:"
        " `[https://mirror.example:5000]`.",
    )
    data_root: HostPath = Field(
        default="/var/lib/docker",
        description="The directory of Docker's images, containers and volumes. uninstall.sh"
        " removes it only with --purge-data.",
    )
    log_max_size: Annotated[str, Field(pattern=r"^[0-9]+[kmg]$")] = Field(
        default="100m",
        description="The size at which a container's log file is rotated: a number and `k`, `m`"
        " or `g`.",
    )
    log_max_file: int = Field(
        default=5, ge=1, le=100, description="How many log files are kept for each container."
    )


class Registry(Model):
    """How containerd reaches one image registry."""

    host: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?(:[0-9]{1,5})?$")] = Field(
        description="The registry, as image names have it: HOST or HOST:PORT. `docker.io` is Docker"
        " Hub. Example: `registry.example:5000`."
    )
    mirrors: tuple[RegistryMirror, ...] = Field(
        default=(),
        description="Mirrors that containerd tries first, in this order; then it tries the registry"
        " itself. A path that contains `/v2/` is used as it is (a project of Harbor:"
        " `https://harbor.example/v2/PROJECT`); containerd appends `/v2` to any other. Example:"
        " `[https://mirror.example:5000]`.",
    )
    ca: Path | None = Field(
        default=None,
        description="A PEM file of CA certificates to trust for the mirrors (without mirrors: for"
        " the registry). The path is relative to cluster.yaml. Default: the CA certificates of the"
        " host.",
    )
    insecure: bool = Field(
        default=False,
        description="Do not check the TLS certificate of the mirrors (without mirrors: of the"
        " registry). Prefer `ca`: without the check anybody on the network can answer in their"
        " place.",
    )


class Containerd(Model):
    """containerd through CRI; the hosts have no Docker."""

    engine: Literal["containerd"] = Field(
        description="The container runtime of the workers: `docker` or `containerd`. containerd"
        " works with every Kubernetes minor."
    )
    version: Version | None = Field(
        default=None,
        description="The version of containerd, 1.4 or later (1.6 or later from Kubernetes 1.26)."
        " Default: the version that belongs to the Kubernetes minor.",
    )
    runc: Version | None = Field(
        default=None,
        description="The version of runc. Default: the version that belongs to the Kubernetes"
        " minor.",
    )
    crictl: Version | Literal["none"] | None = Field(
        default=None,
        description=f"{CRICTL} Default: the version that belongs to the Kubernetes minor.",
    )
    cgroup_driver: CgroupDriver | None = Field(default=None, description=CGROUP_DRIVER)
    registries: tuple[Registry, ...] = Field(
        default=(),
        description="Registries that workers pull other images from, with their mirrors and CA"
        " certificates (containerd's hosts.toml, from containerd 1.5). Images of the bundle need"
        " no registry.",
    )
    data_root: HostPath = Field(
        default="/var/lib/containerd",
        description="The directory of containerd's images and containers. uninstall.sh removes it"
        " only with --purge-data.",
    )


def _engine_of(value: object) -> object:
    """Docker, unless another engine is named."""
    return (
        value.get("engine", "docker") if isinstance(value, dict) else getattr(value, "engine", "")
    )


Runtime = Annotated[
    Annotated[Docker, Tag("docker")] | Annotated[Containerd, Tag("containerd")],
    Discriminator(_engine_of),
]
