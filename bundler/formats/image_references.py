"""Image references: registry, repository, tag and digest.

Source: https://github.com/distribution/reference/blob/main/reference.go
"""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

DOCKER_HUB = "docker.io"
HOSTS = {DOCKER_HUB: "registry-1.docker.io"}
"""Registry → the host that serves it, if the names differ."""
API = "v2"
"""The part of every path of a registry's API."""

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_REGISTRY = re.compile(r"[a-zA-Z0-9](?:[-a-zA-Z0-9.]*[a-zA-Z0-9])?(?::[0-9]{1,5})?")
_TAG = re.compile(r"\w[-\w.]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
MAX_NAME = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """One image, by its tag, its digest, or both."""

    registry: str
    repository: str
    tag: str | None
    digest: str | None  # sha256:… of a manifest or an index

    @property
    def name(self) -> str:
        """`docker.io/library/nginx:1.22`: the name in container runtimes, without the digest."""
        return f"{self.registry}/{self.repository}:{self.tag or 'latest'}"

    @property
    def by_digest(self) -> str | None:
        """`docker.io/library/nginx@sha256:…`, if there is a digest."""
        return f"{self.registry}/{self.repository}@{self.digest}" if self.digest else None

    @property
    def wanted(self) -> str:
        """The digest if there is one, else the tag: what bundler requests from a registry."""
        return self.digest or self.tag or "latest"

    @property
    def url(self) -> str:
        """Where upstream serves the manifest; mirrors are not considered."""
        host = HOSTS.get(self.registry, self.registry)
        return f"https://{host}/v2/{self.repository}/manifests/{self.wanted}"


def parse_reference(text: str) -> Reference:
    """The parts of a reference; ValueError says what is wrong."""
    name, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise ValueError("must have a digest after @: sha256: and 64 hexadecimal digits")
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        registry, path = first, rest
    else:
        registry, path = DOCKER_HUB, name
    repository, colon, tag = path.partition(":")
    if registry == DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    if not _REGISTRY.fullmatch(registry):
        raise ValueError(f"must have a host name before the first /, not {registry!r}")
    if not _REPOSITORY.fullmatch(repository) or len(registry) + len(repository) >= MAX_NAME:
        raise ValueError(
            f"must have a repository such as library/nginx, not {repository!r} (lower-case letters"
            " and digits, with - _ . / between them)"
        )
    if colon and not _TAG.fullmatch(tag):
        raise ValueError(f"must have a tag such as 1.22, not {tag!r}")
    return Reference(
        registry=registry, repository=repository, tag=tag or None, digest=digest or None
    )


def is_api_url(url: str) -> bool:
    """Whether a mirror's URL is already one of the API: `https://HOST/v2/PROJECT`."""
    return API in urlsplit(url).path.split("/")


def needs_override_path(url: str) -> bool:
    """Whether containerd must not append /v2 to the path, as to Harbor's `/v2/PROJECT`."""
    return is_api_url(url) and not url.rstrip("/").endswith(f"/{API}")


def has_path(url: str) -> bool:
    """Whether a mirror is below its host's top."""
    return urlsplit(url).path.strip("/") != ""


def full_name(text: str) -> str:
    """The reference's full form without a digest: registry, repository and tag."""
    return parse_reference(text).name


def repository_name(text: str) -> str:
    """`pause` of `registry.k8s.io/pause:3.2`."""
    return text.rpartition("/")[2].partition("@")[0].partition(":")[0]
