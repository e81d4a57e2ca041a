"""Types of single values in cluster.yaml, each with its check, and the base of all models."""

import re
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
)

from bundler.formats.image_references import parse_reference
from bundler.formats.safe_parse import check_url, split_url

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
DNS_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
VERSION = re.compile(r"\d+\.\d+\.\d+", re.ASCII)
HEX = re.compile(r"[0-9a-f]+")
NO_IPV6 = "IPv6 and dual-stack are not supported: give an IPv4 address"


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


@dataclass(frozen=True, slots=True)
class Kind:
    """What a value is, in the words of the reference and of `bundler explain`."""

    words: str


WebAddress = Annotated[str, AfterValidator(check_url), Kind("URL")]
DnsLabel = Annotated[str, AfterValidator(_check_dns_label), Kind("DNS label")]
DnsName = Annotated[str, AfterValidator(_check_dns_name), Kind("DNS name")]
Version = Annotated[str, BeforeValidator(_check_version), Kind("version")]
Address = Annotated[IPv4Address, BeforeValidator(_check_text), Kind("IPv4 address")]
Cidr = Annotated[IPv4Network, BeforeValidator(_check_text), Kind("IPv4 range (CIDR)")]
PortRange = Annotated[str, BeforeValidator(_check_port_range), Kind("port range")]
HostPort = Annotated[str, BeforeValidator(_check_endpoint), Kind("HOST:PORT")]
HostPath = Annotated[str, AfterValidator(_check_path), Kind("absolute path")]
Interface = Annotated[str, AfterValidator(_check_interface), Kind("interface name")]
PackageName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9+.-]+$"), Kind("package name")]
RegistryMirror = Annotated[WebAddress, AfterValidator(_check_registry_mirror), Kind("URL")]
PackageMirror = Annotated[
    str, Field(min_length=1), AfterValidator(_check_mirror), Kind("repository")
]
ImageReference = Annotated[
    str, Field(min_length=1), AfterValidator(_check_reference), Kind("image reference")
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
