"""Schema of `addons`: what is carried into the cluster."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from bundler.cluster.values import HEX, DnsLabel, HostPorts, Kind, Model
from bundler.formats.digests import DIGEST_LENGTHS
from bundler.formats.image_references import parse_reference
from bundler.formats.safe_parse import split_url

UNITS = {"s": 1, "m": 60, "h": 3600}
LONGEST = 24 * UNITS["h"]
OCI = "oci://"
WEB = ("https://", "http://")
MAX_RELEASE = 53  # characters of a release's name in Helm
CHART_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,248}[A-Za-z0-9])?")
CHART_VERSION = re.compile(
    r"v?\d{1,9}\.\d{1,9}\.\d{1,9}(-[0-9A-Za-z][-0-9A-Za-z.]{0,60})?(\+[0-9A-Za-z][-0-9A-Za-z.]{0,60})?",
    re.ASCII,
)
EXAMPLE_REPOSITORY = "https://kubernetes.github.io/ingress-nginx"


def _check_time(value: object) -> object:
    found = re.fullmatch(r"([1-9][0-9]{0,5})([smh])", str(value), re.ASCII)
    if not found or int(found[1]) * UNITS[found[2]] > LONGEST:
        raise ValueError("must be a time of at most 24h, such as 90s, 10m or 1h")
    return value


def _check_repository(value: str) -> str:
    if not value.startswith((OCI, *WEB)) or not value.isprintable() or " " in value:
        raise ValueError(f"must be an https or oci URL, such as {EXAMPLE_REPOSITORY}")
    parts = split_url(value)
    if "?" in value or "#" in value:
        raise ValueError("must have no ? and #: charts are found below its path")
    if value.startswith(OCI):
        if "@" in parts.netloc:
            raise ValueError("must have no name and password: log in with docker login")
        parse_reference(f"{value.removeprefix(OCI).rstrip('/')}/chart:1")
    return value


def _check_chart_name(value: str) -> str:
    if not CHART_NAME.fullmatch(value):
        raise ValueError("must be the name of a chart, such as ingress-nginx")
    return value


def _check_chart_version(value: object) -> object:
    if not isinstance(value, str) or not CHART_VERSION.fullmatch(value):
        raise ValueError("must be one full version, no range, such as 4.13.2")
    return value


Time = Annotated[str, BeforeValidator(_check_time), Kind("time")]
ChartRepository = Annotated[str, AfterValidator(_check_repository), Kind("URL")]
ChartName = Annotated[str, AfterValidator(_check_chart_name), Kind("name of a chart")]
ObjectTitle = Annotated[
    str,
    Field(pattern=r"^[A-Z][A-Za-z0-9]*(/[A-Za-z0-9][-A-Za-z0-9._:]{0,252}){1,2}$"),
    Kind("KIND/NAMESPACE/NAME"),
]
KindWithGroup = Annotated[
    str,
    Field(pattern=r"^[A-Z][A-Za-z0-9]{0,62}(\.[a-z0-9][-a-z0-9.]{0,252})?$"),
    Kind("KIND or KIND.GROUP"),
]
ObjectName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][-A-Za-z0-9._:@+~]{0,252}$"), Kind("name of an object")
]
ConditionType = Annotated[
    str, Field(pattern=r"^[A-Za-z][-A-Za-z0-9._/]{0,315}$"), Kind("type of a condition")
]
ChartVersion = Annotated[str, BeforeValidator(_check_chart_version), Kind("version")]


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


class Chart(Model):
    """A Helm chart: `repo`, `name` and `version` of a repository, or `path`."""

    repo: ChartRepository | None = Field(
        default=None,
        description="The repository: the URL below which its index.yaml is, or `oci://HOST/PATH`"
        " of a registry. `bundler lock` records the digest of the chart."
        f" Example: `{EXAMPLE_REPOSITORY}`.",
    )
    name: ChartName | None = Field(
        default=None, description="The name of the chart in `repo`. Example: `ingress-nginx`."
    )
    version: ChartVersion | None = Field(
        default=None, description="The exact version of the chart in `repo`. Example: `4.13.2`."
    )
    sha256: str | None = Field(
        default=None,
        description="The SHA-256 that the chart's package must have, in lower-case hexadecimal."
        " Default: the digest that the repository's index states, or else that of the first"
        " download.",
    )
    path: Path | None = Field(
        default=None,
        description="A chart of your own instead: a .tgz of `helm package`, or a folder with a"
        " Chart.yaml and all charts that it depends on. The path is relative to the file that"
        " names it. Example: `charts/shop/`.",
    )
    hooks_not_needed: tuple[ObjectTitle, ...] = Field(
        default=(),
        description="Hooks of the chart that run before or after a deletion or a rollback, and"
        " that you do without: bundler runs only hooks of installation and upgrade."
        " Example: `[Job/ingress/cleanup]`.",
    )

    @model_validator(mode="after")
    def _check_place(self) -> "Chart":
        of_repository = (self.repo, self.name, self.version)
        if self.path and any((*of_repository, self.sha256)):
            raise ValueError("give either path, or repo, name and version")
        if not self.path and not all(of_repository):
            raise ValueError("needs repo, name and version, or a path")
        length = DIGEST_LENGTHS["sha256"]
        if self.sha256 and not (len(self.sha256) == length and HEX.fullmatch(self.sha256)):
            raise ValueError(f"sha256 must be {length} lower-case hexadecimal digits")
        return self

    @property
    def repository(self) -> str:
        """`REPO/NAME`, with the password of the URL; empty for a path."""
        return f"{(self.repo or '').rstrip('/')}/{self.name}" if self.repo else ""


class Expected(Model):
    """An object that verify.sh looks for, and the condition that it must have."""

    kind: KindWithGroup = Field(
        description="The kind, with its API group if it is no kind of Kubernetes itself."
        " Example: `Certificate.cert-manager.io`."
    )
    name: ObjectName = Field(description="The name of the object. Example: `nfs.csi.k8s.io`.")
    namespace: DnsLabel | None = Field(
        default=None,
        description="Its namespace. Default: the add-on's; kinds without a namespace need none.",
    )
    condition: ConditionType | None = Field(
        default=None,
        description="The condition in its status that must be True. Default: it must exist."
        " Example: `Available`.",
    )


class Addon(Model):
    """Objects of the Kubernetes API that the control planes apply, and the images in them."""

    name: DnsLabel = Field(
        description="The name of the add-on, unique in the cluster. Example: `ingress`."
    )
    manifests: Path | None = Field(
        default=None,
        description="A YAML or JSON file, a folder of such files, or a folder with a"
        " kustomization.yaml, which the kubectl of the cluster's version renders. The path is"
        " relative to the file that names it. Give `manifests` or `chart`."
        " Example: `addons/ingress/`.",
    )
    chart: Chart | None = Field(
        default=None,
        description="A Helm chart, which Helm renders when the bundle is built. The add-on's name"
        " is the name of the release. Give `manifests` or `chart`.",
    )
    values: tuple[Path, ...] = Field(
        default=(),
        description="Files with values of the chart; later ones win. Paths are relative to the"
        " file that names them. Example: `[values/ingress.yaml]`.",
    )
    set: dict[str, object] = Field(
        default_factory=dict,
        description="Values of the chart that win over those in `values`."
        " Example: `{controller: {replicaCount: 2}}`.",
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
    reconcile: bool = Field(
        default=False,
        description="Whether control planes look every 10 minutes for objects that somebody changed"
        " or deleted, and apply the add-on again. Default: they stay as they are, and verify.sh"
        " names them.",
    )
    ports: tuple[HostPorts, ...] = Field(
        default=(),
        description="Ports that its pods use on the workers' own addresses (hostNetwork, hostPort):"
        " install.sh's advice for the host's firewall names them."
        " Example: `[4789/udp, 7946-7950/tcp]`.",
    )
    verify: tuple[Expected, ...] = Field(
        default=(),
        description="Objects that verify.sh looks for when the add-on is ready: those that its"
        " programs make, or whose state says that it works."
        " Example: `[{kind: CSIDriver, name: nfs.csi.k8s.io}]`.",
    )

    @model_validator(mode="after")
    def _check_source(self) -> "Addon":
        if bool(self.manifests) == bool(self.chart):
            raise ValueError("give manifests or chart, and not both")
        if not self.chart and (self.values or self.set):
            raise ValueError("values and set are of charts: this add-on has none")
        if self.chart and len(self.name) > MAX_RELEASE:
            raise ValueError(
                f"its name is that of a Helm release: at most {MAX_RELEASE} characters"
            )
        return self

    @property
    def source(self) -> str:
        """The key that says where its objects come from."""
        return "manifests" if self.manifests else "chart"
