"""Types of single values in cluster.yaml, each with its check, and the base of all models."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated, Any, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
)
from pydantic.fields import FieldInfo

from bundler.formats.image_references import parse_reference
from bundler.formats.safe_parse import check_url, split_url

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
LABEL_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
DNS_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
VERSION = re.compile(r"\d+\.\d+\.\d+", re.ASCII)
DISTRO = re.compile(r"[a-z]+-[0-9]+(\.[0-9]+)*")
HEX = re.compile(r"[0-9a-f]+")
LABEL_CHARACTERS = "at most 63 letters, digits and - _ . that begin and end with a letter or digit"
NO_IPV6 = "IPv6 and dual-stack are not supported: give an IPv4 address"


def _check_purl(value: str) -> str:
    from packageurl import PackageURL  # noqa: PLC0415 - few descriptions have one

    example = "for example pkg:deb/debian/runc@1.1.5%2Bds1-1?distro=debian-12"
    try:
        purl = PackageURL.from_string(value)
    except ValueError as error:
        raise ValueError(f"not a package URL: {error}; {example}") from error
    if purl.type not in {"deb", "rpm", "apk"} or not purl.version:
        raise ValueError(f"must be a package of a distribution with its version: {example}")
    if not (
        isinstance(purl.qualifiers, dict) and DISTRO.fullmatch(purl.qualifiers.get("distro", ""))
    ):
        raise ValueError(f"must name the distribution as distro=ID-VERSION: {example}")
    return purl.to_string()


def _check_dns_label(value: str) -> str:
    if not DNS_LABEL.fullmatch(value):
        raise ValueError(
            "must be a DNS label: lower-case letters, digits and '-', at most 63 characters"
        )
    return value


def _check_dns_name(value: str) -> str:
    if len(value) > 253 or not DNS_NAME.fullmatch(value):
        raise ValueError("must be a DNS name: lower-case labels joined by dots, no dot at the end")
    return value


class NotAVersionError(ValueError):
    """A value that is no full version; the message names one that is."""


def _check_version(value: object) -> object:
    text = str(value) if isinstance(value, str | float | int) else ""
    if not VERSION.fullmatch(text.removeprefix("v")):
        raise NotAVersionError("must be a full version such as 1.20.2")
    return text.removeprefix("v")


def _check_port_range(value: object) -> object:
    match = re.fullmatch(r"(\d{1,5})-(\d{1,5})", str(value), re.ASCII)
    if not match or not 1 <= int(match[1]) < int(match[2]) <= 65535:
        raise ValueError("must be two ports, low-high, such as 30000-32767")
    return value


def _check_host_ports(value: object) -> object:
    match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?/(tcp|udp)", str(value), re.ASCII)
    if not match or not 1 <= int(match[1]) <= int(match[2] or match[1]) <= 65535:
        raise ValueError(
            "must be a port or a range and its protocol, such as 4789/udp or 7946-7950/tcp"
        )
    return value


def _check_endpoint(value: object) -> object:
    if str(value).startswith("["):
        raise ValueError(NO_IPV6)
    match = re.fullmatch(r"([^:\s]+):(\d{1,5})", str(value), re.ASCII)
    if not match or not 1 <= int(match[2]) <= 65535:
        raise ValueError("must be HOST:PORT, such as 172.30.20.250:8443")
    return value


def _check_interface(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.@-]{1,15}", value):
        raise ValueError("must be the name of a network interface, such as eth0")
    return value


def _check_text(value: object) -> object:
    """Python's ipaddress also accepts numbers; in cluster.yaml they are a mistake."""
    if not isinstance(value, str | IPv4Address | IPv4Network):
        raise ValueError("must be text, such as 10.0.0.1 or 10.200.0.0/16")  # noqa: TRY004
    if ":" in str(value):
        raise ValueError(NO_IPV6)
    return value


def _check_path(value: str) -> str:
    if not re.fullmatch(r"/[-A-Za-z0-9_./]+", value) or ".." in value or value.endswith("/"):
        raise ValueError("must be an absolute path of letters, digits and - _ . /")
    return value


def _check_reference(value: str) -> str:
    parse_reference(value)
    return value


def _check_registry_mirror(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s\"\\/]+[^\s\"\\]*", value):
        raise ValueError("must be a URL that starts with https:// or http://")
    if "@" in value:
        raise ValueError("must have no name and password: every user of a host could read them")
    if "?" in value or "#" in value:
        raise ValueError("must have no ? and #: container runtimes use only host and path")
    return value


def _check_mirror(value: str) -> str:
    url, *suites = value.split()
    if not re.fullmatch(r"(https?://[^\s/]+|file:/)[^\s\"';]*", url):
        raise ValueError("must be URL or URL SUITE..., with an http, https or file URL")
    check_url(url)
    if not all(re.fullmatch(r"[A-Za-z0-9][-A-Za-z0-9.+~/]*[A-Za-z0-9]", suite) for suite in suites):
        raise ValueError("must be URL SUITE..., with suites such as bookworm-updates")
    return value


def _check_signature_url(value: str) -> str:
    url = value.replace("{url}", "https://host.example/file")
    try:
        split_url(url)
        if re.fullmatch(r"(https?|file)://[^\s{}]+", url):
            return value
    except ValueError:
        pass
    raise ValueError("must be a URL, in which {url} stands for the file's URL")


def _check_sysctl_value(value: object) -> object:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    text = str(value) if isinstance(value, str) or is_number else ""
    if not re.fullmatch(r"[-A-Za-z0-9_.:,/]+( [-A-Za-z0-9_.:,/]+)*", text, re.ASCII):
        raise ValueError("must be a number, or words of letters, digits and - _ . : , /")
    return text


def _check_san(value: object) -> object:
    text = str(value)
    if ":" in text:
        raise ValueError(NO_IPV6)
    if re.fullmatch(r"[0-9.]+", text):
        return IPv4Address(text)
    return _check_dns_name(text)


def _check_mode(value: object) -> object:
    """YAML reads 0644 as the number 420, so a mode is text."""
    if not isinstance(value, str) or not re.fullmatch(r"0[0-7]{3}", value):
        raise ValueError('must be four octal digits in quotes, such as "0644"')
    mode = int(value, 8)
    if mode & 0o022:
        raise ValueError(f"{value} lets others than the owner write: use 0644, 0755 or 0640")
    if not mode & 0o400:
        raise ValueError(f"{value} does not let the owner read: use 0644, 0755 or 0640")
    return value


def _check_owner(value: str) -> str:
    part = r"([a-z_][a-z0-9_-]{0,31}|[0-9]{1,9})"
    if not re.fullmatch(f"{part}:{part}", value):
        raise ValueError("must be USER:GROUP, names or numbers, such as root:adm")
    return value


def _check_unit(value: str) -> str:
    kinds = "service|socket|timer|path|target|mount"
    if not re.fullmatch(rf"[A-Za-z0-9:_.@-]+\.({kinds})", value, re.ASCII) or value[0] in "-.":
        raise ValueError("must be the name of a systemd unit, such as chrony.service")
    return value


def check_qualified_name(value: str) -> str:
    """Check a key as Kubernetes does (apimachinery, IsQualifiedName)."""
    prefix, slash, name = value.rpartition("/")
    if slash and not (len(prefix) <= 253 and DNS_NAME.fullmatch(prefix)):
        raise ValueError("must have a DNS name before the /, such as example.com/rack")
    if not LABEL_NAME.fullmatch(name):
        raise ValueError(
            f"must be NAME or PREFIX/NAME, with a name of {LABEL_CHARACTERS}; such as rack"
        )
    return value


def check_label_value(value: str) -> str:
    """Check a value of a label or taint as Kubernetes does (apimachinery, IsValidLabelValue)."""
    if value and not LABEL_NAME.fullmatch(value):
        raise ValueError(f"must be empty, or {LABEL_CHARACTERS}")
    return value


def _check_annotation_key(value: str) -> str:
    check_qualified_name(value.lower())
    return value


@dataclass(frozen=True, slots=True)
class Kind:
    """What a value is, in the words of the reference and of `bundler explain`."""

    words: str


@dataclass(frozen=True, slots=True)
class PerHost:
    """A mark of a key of the cluster: `defaults`, groups and nodes may have their own."""


@dataclass(frozen=True, slots=True)
class SameAs:
    """A mark of a key of a node: the cluster's key of that name, as this host has it."""


@dataclass(frozen=True, slots=True)
class Joins:
    """A mark of a list: a later layer (include, defaults, group, node) adds to it.

    An item replaces the one with the same `identity`, a key of mappings; items without one are
    compared whole. Lists without this mark are replaced.
    """

    identity: str = ""


Mark = TypeVar("Mark")


def find_mark(field: FieldInfo, kind: type[Mark]) -> Mark | None:
    """The mark of that kind in a field's metadata."""
    return next((mark for mark in field.metadata if isinstance(mark, kind)), None)


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models in a type, such as both in `tuple[Docker | Containerd, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from models_in(inner)


WebAddress = Annotated[str, AfterValidator(check_url), Kind("URL")]
DnsLabel = Annotated[str, AfterValidator(_check_dns_label), Kind("DNS label")]
DnsName = Annotated[str, AfterValidator(_check_dns_name), Kind("DNS name")]
Version = Annotated[str, BeforeValidator(_check_version), Kind("version")]
Address = Annotated[IPv4Address, BeforeValidator(_check_text), Kind("IPv4 address")]
Cidr = Annotated[IPv4Network, BeforeValidator(_check_text), Kind("IPv4 range (CIDR)")]
PortRange = Annotated[str, BeforeValidator(_check_port_range), Kind("port range")]
HostPorts = Annotated[str, BeforeValidator(_check_host_ports), Kind("port and protocol")]
HostPort = Annotated[str, BeforeValidator(_check_endpoint), Kind("HOST:PORT")]
HostPath = Annotated[str, AfterValidator(_check_path), Kind("absolute path")]
SysctlName = Annotated[
    str, Field(pattern=r"^[a-z][a-z0-9_]*(\.[A-Za-z0-9_-]+)+$"), Kind("kernel setting")
]
SysctlValue = Annotated[str, BeforeValidator(_check_sysctl_value), Kind("number or text")]
San = Annotated[IPv4Address | str, BeforeValidator(_check_san), Kind("DNS name or IPv4 address")]
AnnotationPattern = Annotated[
    str, Field(pattern=r"^[-A-Za-z0-9_./*]+$"), Kind("annotation or pattern")
]
Argument = Annotated[str, Field(pattern=r"^[-A-Za-z0-9_.,:/=@+]+$"), Kind("text")]
PartPath = Annotated[str, Kind("path")]
Interface = Annotated[str, AfterValidator(_check_interface), Kind("interface name")]
FileMode = Annotated[str, BeforeValidator(_check_mode), Kind("mode")]
FileOwner = Annotated[str, AfterValidator(_check_owner), Kind("USER:GROUP")]
UnitName = Annotated[str, AfterValidator(_check_unit), Kind("unit name")]
LabelKey = Annotated[str, AfterValidator(check_qualified_name), Kind("label key")]
LabelValue = Annotated[str, AfterValidator(check_label_value), Kind("label value")]
AnnotationKey = Annotated[str, AfterValidator(_check_annotation_key), Kind("annotation key")]
PackageName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9+.-]+$"), Kind("package name")]
PackagePurl = Annotated[
    str, Field(max_length=500), AfterValidator(_check_purl), Kind("package URL")
]
"""A package of a distribution: `pkg:deb/debian/runc@1.1.5%2Bds1-1?distro=debian-12`."""
LineName = Annotated[
    str, Field(pattern=r"^[a-z][a-z0-9]*(-[a-z]+)*-[0-9]+(\.[0-9]+)*$"), Kind("release line")
]
"""A component and the first parts of its version: `kubernetes-1.20`."""
Reason = Annotated[str, Field(min_length=3, max_length=200), Kind("text")]
RegistryMirror = Annotated[WebAddress, AfterValidator(_check_registry_mirror), Kind("URL")]
PackageMirror = Annotated[
    str, Field(min_length=1), AfterValidator(_check_mirror), Kind("repository")
]
ImageReference = Annotated[
    str, Field(min_length=1), AfterValidator(_check_reference), Kind("image reference")
]
Acknowledged = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9][-A-Za-z0-9_.:/@]{0,511}$"),
    Kind("image or KIND/NAMESPACE/NAME"),
]
SignatureUrl = Annotated[str, AfterValidator(_check_signature_url), Kind("URL")]
Calendar = Annotated[
    str,
    Field(pattern=r"^[-A-Za-z0-9*:/,.~]+( +[-A-Za-z0-9*:/,.~]+)*$"),
    Kind("calendar expression"),
]
"""When a timer runs: systemd.time(7), OnCalendar. systemd drops spaces at the ends."""

FlagValue = str | int | float | bool
"""A command-line flag's value as YAML gives it; `true` and `false` are written in lower case."""


class Arch(StrEnum):
    """The CPU architecture of a node, as Kubernetes writes it."""

    AMD64 = "amd64"
    ARM64 = "arm64"


class Model(BaseModel):
    """A frozen model that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)
