"""Schema of `addons`: what is carried into the cluster."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from bundler.cluster.values import DnsLabel, Kind, Model

UNITS = {"s": 1, "m": 60, "h": 3600}
LONGEST = 24 * UNITS["h"]


def _check_time(value: object) -> object:
    found = re.fullmatch(r"([1-9][0-9]{0,5})([smh])", str(value), re.ASCII)
    if not found or int(found[1]) * UNITS[found[2]] > LONGEST:
        raise ValueError("must be a time of at most 24h, such as 90s, 10m or 1h")
    return value


Time = Annotated[str, BeforeValidator(_check_time), Kind("time")]


class Wait(Model):
    """How long an add-on may take."""

    timeout: Time = Field(
        default="5m",
        description="How long its workloads may take to become ready, after which the add-on has"
        " failed. Example: `10m`.",
    )

    @property
    def seconds(self) -> int:
        """The timeout in seconds."""
        return int(self.timeout[:-1]) * UNITS[self.timeout[-1]]


class Addon(Model):
    """Objects of the Kubernetes API that the control planes apply, and the images in them."""

    name: DnsLabel = Field(
        description="The name of the add-on, unique in the cluster. Example: `ingress`."
    )
    manifests: Path = Field(
        description="A YAML or JSON file, a folder of such files, or a folder with a"
        " kustomization.yaml, which the kubectl of the cluster's version renders. The path is"
        " relative to the file that names it. Example: `addons/ingress/`."
    )
    namespace: DnsLabel | None = Field(
        default=None,
        description="The namespace of objects that name none. It is created if no add-on has it."
        " Default: `default`.",
    )
    needs: tuple[DnsLabel, ...] = Field(
        default=(),
        description="Add-ons that must be ready before this one is applied. Example: `[policies]`.",
    )
    wait: Wait = Field(default=Wait(), description="How long the add-on may take.")
    prune: Literal["objects", "all"] = Field(
        default="objects",
        description="What is deleted when it is no longer in the add-on: `objects` keeps"
        " Namespaces, CustomResourceDefinitions and PersistentVolumeClaims, with which data would"
        " go; `all` deletes them too.",
    )
