"""Schema of `runtime`: the container runtime of the workers, Docker or containerd."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from bundler.cluster.values import (
    AnnotationPattern,
    Argument,
    DnsLabel,
    HostPath,
    Joins,
    LabelKey,
    LabelValue,
    Model,
    PerHost,
    RegistryMirror,
    Version,
)

CgroupDriver = Literal["cgroupfs", "systemd"]
CGROUP_DRIVER = (
    "The cgroup driver of the container runtime and of the kubelet. Default: cgroupfs before"
    " Kubernetes 1.30, systemd from 1.30."
)
CRICTL = "The version of crictl (cri-tools). `none` leaves crictl out."


class Handler(Model):
    """Another program that runs containers: of NVIDIA, Kata Containers, gVisor."""

    program: HostPath = Field(
        description="The program on the host. `containerd-shim-NAME-vN` is a shim of containerd,"
        " such as `/opt/kata/bin/containerd-shim-kata-v2` and"
        " `/usr/local/bin/containerd-shim-runsc-v1`. Any other is called as runc is, such as"
        " `/usr/bin/nvidia-container-runtime`."
    )
    node_selector: dict[LabelKey, LabelValue] = Field(
        default_factory=dict,
        description="Labels of the nodes that have the handler, for its RuntimeClass: the scheduler"
        " puts its pods there only. Needs Kubernetes 1.16. Example: `{accelerator: nvidia}`.",
    )


class ContainerdHandler(Handler):
    """A handler of containerd."""

    options: dict[str, str | int | bool] = Field(
        default_factory=dict,
        description="Options of the shim, as `options` of config.toml has them. Example:"
        " `{ConfigPath: /opt/kata/share/defaults/kata-containers/configuration-qemu.toml}`.",
    )
    pod_annotations: tuple[AnnotationPattern, ...] = Field(
        default=(),
        description="Annotations of pods that the handler gets; `*` stands for any text. Example:"
        " `[io.katacontainers.*]`.",
    )


class DockerHandler(Handler):
    """A handler of Docker."""

    arguments: tuple[Argument, ...] = Field(
        default=(),
        description="Arguments that the program gets (`runtimeArgs` of daemon.json). Example:"
        " `[--platform=systrap]`.",
    )


DEFAULT_HANDLER = "The handler of pods that name no RuntimeClass. Default: runc. Example: `nvidia`."
HANDLERS = (
    "Other programs that run containers, by name. Each gets a RuntimeClass of that name."
    " Example: `{nvidia: {program: /usr/bin/nvidia-container-runtime}}`."
)


class Docker(Model):
    """Docker: through the kubelet's dockershim before 1.24, through cri-dockerd from 1.24."""

    engine: Literal["docker"] = Field(
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
    cgroup_driver: Annotated[CgroupDriver | None, PerHost()] = Field(
        default=None, description=CGROUP_DRIVER
    )
    registry_mirrors: Annotated[tuple[RegistryMirror, ...], PerHost()] = Field(
        default=(),
        description="Mirrors of Docker Hub that dockerd tries first, in this order"
        " (`registry-mirrors` of daemon.json). Before Docker 25 without a path. Example:"
        " `[https://mirror.example:5000]`.",
    )
    data_root: Annotated[HostPath, PerHost()] = Field(
        default="/var/lib/docker",
        description="The directory of Docker's images, containers and volumes. uninstall.sh"
        " removes it only with --purge-data.",
    )
    handlers: Annotated[dict[DnsLabel, DockerHandler], PerHost()] = Field(
        default_factory=dict, description=HANDLERS
    )
    default_handler: Annotated[DnsLabel | None, PerHost()] = Field(
        default=None, description=DEFAULT_HANDLER
    )
    log_max_size: Annotated[str, Field(pattern=r"^[0-9]+[kmg]$"), PerHost()] = Field(
        default="100m",
        description="The size at which a container's log file is rotated: a number and `k`, `m`"
        " or `g`.",
    )
    log_max_file: Annotated[int, PerHost()] = Field(
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
        default="containerd",
        description="The container runtime of the workers: `docker` or `containerd`. containerd"
        " works with every Kubernetes minor.",
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
    cgroup_driver: Annotated[CgroupDriver | None, PerHost()] = Field(
        default=None, description=CGROUP_DRIVER
    )
    registries: Annotated[tuple[Registry, ...], PerHost(), Joins("host")] = Field(
        default=(),
        description="Registries that workers pull other images from, with their mirrors and CA"
        " certificates (containerd's hosts.toml, from containerd 1.5). Images of the bundle need"
        " no registry.",
    )
    data_root: Annotated[HostPath, PerHost()] = Field(
        default="/var/lib/containerd",
        description="The directory of containerd's images and containers. uninstall.sh removes it"
        " only with --purge-data.",
    )
    handlers: Annotated[dict[DnsLabel, ContainerdHandler], PerHost()] = Field(
        default_factory=dict, description=HANDLERS
    )
    default_handler: Annotated[DnsLabel | None, PerHost()] = Field(
        default=None, description=DEFAULT_HANDLER
    )


def _engine_of(value: object) -> object:
    """containerd, unless another engine is named."""
    if isinstance(value, dict):
        return value.get("engine", "containerd")
    return getattr(value, "engine", "")


Runtime = Annotated[
    Annotated[Docker, Tag("docker")] | Annotated[Containerd, Tag("containerd")],
    Discriminator(_engine_of),
]
