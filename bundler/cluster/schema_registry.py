"""Schema of `registry`: an image registry on hosts of the cluster."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from bundler.cluster.values import (
    Calendar,
    DnsLabel,
    DnsName,
    HostPath,
    Joins,
    Kind,
    Model,
    Version,
)

MAX_NODES = 3
Port = Annotated[int, Field(ge=1, le=65535)]
RepositoryPrefix = Annotated[
    str,
    Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*(/[a-z0-9]+(-[a-z0-9]+)*)*$", max_length=200),
    Kind("repository prefix"),
]


class PushUser(Model):
    """A user who may push images."""

    name: DnsLabel = Field(description="The name for `docker login`. Example: `payments`.")
    prefix: RepositoryPrefix | None = Field(
        default=None,
        description="The repositories that the user may write: those below this name, without a"
        " dot. Default: the user's name. Example: `payments/apps`.",
    )
    password: Path = Field(
        description="A file with the hash of the password, one line of `openssl passwd -6`. The"
        " path is relative to cluster.yaml. Example: `secrets/payments.hash`.",
    )

    @property
    def writes(self) -> str:
        """The prefix of the repositories that the user may write."""
        return self.prefix or self.name


class RegistryPush(Model):
    """Who may push images, and where."""

    users: Annotated[tuple[PushUser, ...], Field(min_length=1), Joins("name")] = Field(
        description="The users, each with a prefix of its own. They may read everything."
        " Example: `[{name: payments, password: secrets/payments.hash}]`."
    )
    port: Port = Field(
        default=5001,
        description="The port of the first of `registry.nodes` that accepts pushes; every request"
        " to it needs a password.",
    )


class RegistryService(Model):
    """distribution's registry on hosts of the cluster."""

    nodes: Annotated[tuple[DnsLabel, ...], Field(min_length=1, max_length=MAX_NODES)] = Field(
        description="The names of the nodes that run the registry, at most three; they get the role"
        " registry. Each one has every image with `where: registry`; only the first accepts pushes,"
        " and the others do not have what is pushed. Example: `[master1, master2]`."
    )
    version: Version = Field(
        default="3.0.0",
        description="The version of the registry (distribution). `bundler versions registry` lists"
        " the versions that have a built-in pin.",
    )
    storage: HostPath = Field(
        default="/var/lib/registry",
        description="The directory of the images. uninstall.sh removes it only with --purge-data.",
    )
    port: Port = Field(
        default=5000, description="The port from which everybody may pull, with TLS."
    )
    name: DnsName | None = Field(
        default=None,
        description="A DNS name of the registry, for its certificate and for image names:"
        " containerd pulls NAME:PORT/REPOSITORY from the hosts of the registry without DNS. Clients"
        " that push need the name in their DNS, or use a node's address. Default: image names have"
        " a node's address. Example: `registry.example`.",
    )
    push: RegistryPush | None = Field(
        default=None, description="Who may push images. Default: nobody."
    )
    garbage_collection: Calendar = Field(
        default="Sun *-*-* 03:30:00",
        description="When space of removed images is freed: OnCalendar of systemd.time(7). The"
        " registry of that host stops meanwhile, and clients use another host.",
    )

    @model_validator(mode="after")
    def _check_ports(self) -> "RegistryService":
        if self.push and self.push.port == self.port:
            raise ValueError("port and push.port must differ")
        return self
