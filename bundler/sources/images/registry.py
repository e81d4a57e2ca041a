"""A client for the OCI distribution protocol: documents, blobs, tags, tokens.

Source: https://github.com/opencontainers/distribution-spec/blob/main/spec.md;
https://distribution.github.io/distribution/spec/auth/token/
"""

import difflib
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from bundler.catalog import Artifact
from bundler.errors import ArtifactError
from bundler.formats.image_manifests import (
    FROM_DAEMON,
    INDICES,
    MANIFESTS,
    MAX_DOCUMENT,
    digest_of,
)
from bundler.formats.image_references import API, HOSTS, Reference, is_api_url
from bundler.formats.safe_parse import read_json, split_url
from bundler.sources.download import FetchOptions
from bundler.sources.fetch import ensure_blob, fetch_from, try_sources
from bundler.sources.images.credentials import Login, find_login
from bundler.sources.images.options import RegistryOptions
from bundler.sources.retries import HINT_NETWORK, SourceError, classify_errors
from bundler.sources.transport import TIMEOUT, Session, open_url

ALGORITHM = "sha256"
ACCEPT = ", ".join(INDICES + MANIFESTS)
CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
CLIENT = "bundler"
TOKEN = re.compile(r"[!-~]+")  # the characters that a header may have
MAX_TOKEN = 1 << 20  # bytes of the answer of a token server


@dataclass(frozen=True, slots=True)
class RegistryDocument:
    """A document from a registry, with the media type and digest that the registry states."""

    content: bytes
    media_type: str
    digest: str  # sha256:…; empty if the registry states none


class Repository(Session):
    """One repository at one registry or mirror: a session that requests a token when needed.

    Threads may share it. It sends the token and the login only to that server, and ignores
    ~/.netrc.
    """

    def __init__(self, base: str, login: Login | None, session: Session) -> None:
        super().__init__()
        self.base = base  # …/v2/NAME
        self._login = login
        self._authorization = ""
        self.headers["Accept-Encoding"] = "identity"
        self._lock = threading.Lock()
        self.cookies.set_policy(session.cookies.get_policy())
        for prefix, adapter in session.adapters.items():  # its connections and CAs
            self.mount(prefix, adapter)

    def get(self, url: str | bytes, **words: Any) -> requests.Response:
        """As the base class; a request that is answered with 401 is repeated with a new token."""
        is_own = str(url).startswith(f"{self.base}/")
        used = self._authorization if is_own else ""
        response = super().get(url, auth=_Header(used), **words)
        if not is_own or response.status_code != requests.codes.unauthorized:
            return response
        challenge = response.headers.get("WWW-Authenticate", "")
        response.close()
        with self._lock:
            if self._authorization == used:  # else another thread got a new one
                self._authorization = self._authorize(challenge)
        return super().get(url, auth=_Header(self._authorization), **words)

    def read(self, path: str) -> RegistryDocument:
        """A document: manifests/…, tags/list. Raises SourceError or RetryableError."""
        url, trail = f"{self.base}/{path}", list[str]()
        with (
            classify_errors(url, trail),
            open_url(self, url, {"Accept": ACCEPT}, trail) as response,
        ):
            if response.status_code != requests.codes.ok:
                raise requests.HTTPError(response=response)
            return RegistryDocument(
                _read_body(response, MAX_DOCUMENT),
                response.headers.get("Content-Type", ""),
                response.headers.get("Docker-Content-Digest", ""),
            )

    def _authorize(self, challenge: str) -> str:
        """The Authorization header for a challenge of the registry."""
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic" and self._login and self._login.password:
            return self._login.basic
        asked = dict(CHALLENGE.findall(rest))
        if scheme.lower() != "bearer" or not asked.get("realm"):
            raise SourceError("HTTP 401: a login is required")
        return f"Bearer {self._get_token(asked)}"

    def _get_token(self, asked: Mapping[str, str]) -> str:
        realm = asked["realm"]
        try:
            host = split_url(realm)
        except ValueError as error:
            raise SourceError(f"requires a token from an invalid address ({error})") from error
        if host.scheme != "https" and urlsplit(self.base).scheme == "https":
            raise SourceError(f"requires a token from {host.netloc} without TLS: refused")
        fields = {key: asked[key] for key in ("service", "scope") if key in asked}
        with classify_errors(realm, [realm]), self._request_token(realm, fields) as response:
            if response.status_code in {401, 403}:
                whose = "the login" if self._login else "an anonymous request"
                raise SourceError(f"HTTP {response.status_code}: {host.netloc} refused {whose}")
            if response.status_code != requests.codes.ok:
                raise requests.HTTPError(response=response)
            text = _read_body(response, MAX_TOKEN)
        try:
            answer = read_json(text)
            token = str(answer.get("token") or answer["access_token"])
        except (ValueError, KeyError, AttributeError):
            token = ""
        if not TOKEN.fullmatch(token):
            raise SourceError(f"{host.netloc} sent no valid token")
        return token

    def _request_token(self, realm: str, fields: dict[str, str]) -> requests.Response:
        login = self._login
        if login and login.refresh_token:
            secret = {"grant_type": "refresh_token", "refresh_token": login.refresh_token}
            form = fields | secret | {"client_id": CLIENT}
            return self.post(realm, data=form, auth=_Header(""), stream=True, timeout=TIMEOUT)
        header = login.basic if login else ""
        return super().get(realm, params=fields, auth=_Header(header), stream=True, timeout=TIMEOUT)


class _Header(requests.auth.AuthBase):
    """Sets the Authorization header, and keeps requests from reading ~/.netrc."""

    def __init__(self, authorization: str) -> None:
        self._authorization = authorization

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._authorization:
            request.headers["Authorization"] = self._authorization
        return request


def _read_body(response: requests.Response, most: int) -> bytes:
    """The complete body; SourceError if it has more than `most` bytes.

    It is not decoded: bundler asks for no encoding, and a compressed answer may unpack to anything.
    """
    content = b""
    while piece := response.raw.read1(1 << 16, decode_content=False):
        content += piece
        if len(content) > most:
            raise SourceError(f"sent a document of more than {most >> 20} MiB")
    return content


def list_repositories(
    reference: Reference, options: RegistryOptions, session: Session
) -> tuple[Repository, ...]:
    """The repositories that may have an image: its mirrors in order, then its registry."""
    registry = reference.registry
    scheme = "http" if registry in options.insecure else "https"
    upstream = f"{scheme}://{HOSTS.get(registry, registry)}"
    repositories = []
    for url in (*options.mirrors.get(registry, ()), upstream):
        parts = urlsplit(url)
        folders = [folder for folder in parts.path.split("/") if folder]
        base = "/".join(folders if is_api_url(url) else [API, *folders])
        namespace = "/".join(folder for folder in folders if folder != API)
        login = find_login(
            options.logins(), parts.netloc, f"{namespace}/{reference.repository}".lstrip("/")
        )
        server = f"{parts.scheme}://{parts.netloc}"
        repositories.append(Repository(f"{server}/{base}/{reference.repository}", login, session))
    return tuple(repositories)


def ensure_repository_blob(
    blob: Artifact,
    options: FetchOptions,
    find: Callable[[], tuple[Repository, ...]],
    missing: Callable[[], ArtifactError],
) -> Path:
    """A blob from the cache, or from the first of the repositories that `find` returns.

    Raises `missing()` if it is not in the cache and `options` are offline.
    """

    def download() -> Path:
        if options.offline:
            raise missing()
        path = f"blobs/{blob.pin}"
        sources = {f"{each.base}/{path}": each for each in find()}
        return try_sources(
            blob.label,
            sources,
            lambda url: fetch_from(blob, replace(options, session=sources[url]), url),
            lambda _: "run it again: finished files are kept",
            options,
        )

    return ensure_blob(blob, options, download)


def check_digest(served: RegistryDocument, name: str, where: str) -> str:
    """The digest of a document that was asked for by tag or digest.

    Raises ArtifactError if the name, or else the registry, states another one.
    """
    expected = name if name.startswith(f"{ALGORITHM}:") else served.digest
    found = digest_of(served.content)
    if expected.startswith(f"{ALGORITHM}:") and found != expected:
        raise ArtifactError(
            f"{where} does not match its digest:\n  expected {expected}\n  found    {found}",
            hint="find out who changed it before you trust the registry",
        )
    return found


def make_hint(
    reference: Reference,
    repositories: tuple[Repository, ...],
    options: FetchOptions,
    tried: Mapping[str, SourceError],
) -> str:
    """The hint for an image that no repository has."""
    if tried and not any(reason.is_answer for reason in tried.values()):
        return f"{HINT_NETWORK}; or use --registry-mirror REGISTRY=URL"
    if any("HTTP 401" in str(reason) or "HTTP 403" in str(reason) for reason in tried.values()):
        return (
            "check the name; for a private image, log in with docker login, without a credential"
            " helper: the password must be in ~/.docker/config.json or in the file that"
            " REGISTRY_AUTH_FILE names"
        )
    if any(reason.is_absent for reason in tried.values()):
        near = find_similar_tags(reference, repositories, options)
        if near:
            return f"check the tag; similar tags: {', '.join(near)}"
    return (
        "check the name and the network, use --registry-mirror REGISTRY=URL, or save the image as"
        f" a file ({FROM_DAEMON}) and set `file:` under `images`"
    )


def find_similar_tags(
    reference: Reference, repositories: tuple[Repository, ...], options: FetchOptions
) -> tuple[str, ...]:
    """Up to three tags that are similar to the missing one."""
    for repository in repositories:
        try:
            found = options.retry(partial(repository.read, "tags/list"))
        except SourceError:
            continue
        tags = _read_tags(found.content)
        if near := difflib.get_close_matches(reference.tag or "", tags, n=3, cutoff=0.5):
            return tuple(near)
    return ()


def _read_tags(content: bytes) -> list[str]:
    try:
        return [str(tag) for tag in read_json(content).get("tags") or ()]
    except (ValueError, AttributeError, TypeError):
        return []
