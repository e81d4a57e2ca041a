"""A registry, read over the OCI distribution protocol: documents, blobs, tags, tokens.

Source: https://github.com/opencontainers/distribution-spec/blob/main/spec.md;
https://distribution.github.io/distribution/spec/auth/token/
"""

import difflib
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests

from bundler.formats.image_manifests import (
    FROM_DAEMON,
    INDICES,
    MANIFESTS,
    MAX_DOCUMENT,
)
from bundler.formats.image_references import HOSTS, Reference
from bundler.formats.safe_parse import read_json, split_url
from bundler.sources.download import ATTEMPTS, LONGEST_WAIT, FetchOptions
from bundler.sources.download_errors import AgainError, NotHereError, explained
from bundler.sources.images.credentials import Login, Logins
from bundler.sources.transport import TIMEOUT, Session, open_url

ACCEPT = ", ".join(INDICES + MANIFESTS)
CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
CLIENT = "bundler"
TOKEN = re.compile(r"[!-~]+")  # what may stand in a header
MAX_TOKEN = 1 << 20  # bytes of a token server's answer
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryOptions:
    """How the builder reaches registries: nothing here ends up in a bundle."""

    mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # registry → URLs
    insecure: frozenset[str] = frozenset()  # registries that are spoken to without TLS
    logins: Callable[[], Logins] = field(default=dict, repr=False)  # read where one is needed


@dataclass(frozen=True, slots=True)
class Document:
    """What a registry served, and what it says of it."""

    content: bytes
    media_type: str
    digest: str  # sha256:…; empty where it says nothing


class Repository(Session):
    """One repository at one place: a session that asks for a token where one is wanted.

    Threads may share it. The token and the login go to that place only, and ~/.netrc is not read.
    """

    def __init__(self, base: str, login: Login | None, session: Session) -> None:
        super().__init__()
        self.base = base  # …/v2/NAME
        self._login = login
        self._authorization = ""
        self._lock = threading.Lock()
        self.cookies.set_policy(session.cookies.get_policy())
        for prefix, adapter in session.adapters.items():  # its connections and authorities
            self.mount(prefix, adapter)

    def get(self, url: str | bytes, **words: Any) -> requests.Response:
        """As the base class; a request that is refused is made once more with a new token."""
        is_own = str(url).startswith(f"{self.base}/")
        used = self._authorization if is_own else ""
        response = super().get(url, auth=_Sign(used), **words)
        if not is_own or response.status_code != requests.codes.unauthorized:
            return response
        challenge = response.headers.get("WWW-Authenticate", "")
        response.close()
        with self._lock:
            if self._authorization == used:  # else another thread was given one meanwhile
                self._authorization = self._authorize(challenge)
        return super().get(url, auth=_Sign(self._authorization), **words)

    def read(self, path: str) -> Document:
        """A document of the repository: manifests/…, tags/list. NotHereError, AgainError."""
        url, trail = f"{self.base}/{path}", list[str]()
        with explained(url, trail), open_url(self, url, {"Accept": ACCEPT}, trail) as response:
            if response.status_code != requests.codes.ok:
                raise requests.HTTPError(response=response)
            return Document(
                _read_body(response, MAX_DOCUMENT),
                response.headers.get("Content-Type", ""),
                response.headers.get("Docker-Content-Digest", ""),
            )

    def _authorize(self, challenge: str) -> str:
        """The Authorization header that the registry asks for."""
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic" and self._login and self._login.password:
            return self._login.basic
        asked = dict(CHALLENGE.findall(rest))
        if scheme.lower() != "bearer" or not asked.get("realm"):
            raise NotHereError("HTTP 401: it wants a login")
        return f"Bearer {self._get_token(asked)}"

    def _get_token(self, asked: Mapping[str, str]) -> str:
        realm = asked["realm"]
        try:
            host = split_url(realm)
        except ValueError as error:
            raise NotHereError(f"wants a token from what is no web address ({error})") from error
        if host.scheme != "https" and urlsplit(self.base).scheme == "https":
            raise NotHereError(f"wants a token from {host.netloc} without TLS: refused")
        fields = {key: asked[key] for key in ("service", "scope") if key in asked}
        with explained(realm, [realm]), self._ask_for_token(realm, fields) as response:
            if response.status_code in {401, 403}:
                whose = "the login" if self._login else "an anonymous request"
                raise NotHereError(f"HTTP {response.status_code}: {host.netloc} refused {whose}")
            if response.status_code != requests.codes.ok:
                raise requests.HTTPError(response=response)
            text = _read_body(response, MAX_TOKEN)
        try:
            answer = read_json(text)
            token = str(answer.get("token") or answer["access_token"])
        except (ValueError, KeyError, AttributeError):
            token = ""
        if not TOKEN.fullmatch(token):
            raise NotHereError(f"{host.netloc} gave no token")
        return token

    def _ask_for_token(self, realm: str, fields: dict[str, str]) -> requests.Response:
        login = self._login
        if login and login.refresh_token:
            secret = {"grant_type": "refresh_token", "refresh_token": login.refresh_token}
            form = fields | secret | {"client_id": CLIENT}
            return self.post(realm, data=form, auth=_Sign(""), stream=True, timeout=TIMEOUT)
        header = login.basic if login else ""
        return super().get(realm, params=fields, auth=_Sign(header), stream=True, timeout=TIMEOUT)


class _Sign(requests.auth.AuthBase):
    """Puts in the header that it is told, and keeps requests from taking one out of ~/.netrc."""

    def __init__(self, authorization: str) -> None:
        self._authorization = authorization

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._authorization:
            request.headers["Authorization"] = self._authorization
        return request


def _read_body(response: requests.Response, most: int) -> bytes:
    """All that is sent, in however many pieces; NotHereError beyond `most` bytes."""
    content = b""
    for piece in response.iter_content(1 << 16):
        content += piece
        if len(content) > most:
            raise NotHereError(f"sends a document of more than {most >> 20} MiB")
    return content


def list_repositories(
    reference: Reference, options: RegistryOptions, session: Session
) -> tuple[Repository, ...]:
    """Where an image may be had: its mirrors in order, then its registry."""
    registry = reference.registry
    scheme = "http" if registry in options.insecure else "https"
    upstream = f"{scheme}://{HOSTS.get(registry, registry)}"
    repositories = []
    for url in (*options.mirrors.get(registry, ()), upstream):
        parts = urlsplit(url)
        name = f"{parts.path.strip('/')}/{reference.repository}".lstrip("/")
        login = options.logins().get(parts.netloc)
        repositories.append(
            Repository(f"{parts.scheme}://{parts.netloc}/v2/{name}", login, session)
        )
    return tuple(repositories)


def retry(ask: Callable[[], Answer], options: FetchOptions) -> Answer:
    """What `ask` gives, asked again after what may pass; NotHereError after what may not."""
    wait = options.backoff
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return ask()
        except AgainError as fault:
            pause = wait if fault.wait is None else fault.wait
            if attempt == ATTEMPTS:
                raise NotHereError(str(fault), hint=fault.hint) from fault
            if pause > LONGEST_WAIT:
                raise NotHereError(f"{fault}, which asks to wait {pause:.0f} s") from fault
        options.pause(pause)
        wait *= 2
    raise AssertionError("unreachable")


def hint_at(
    reference: Reference,
    repositories: tuple[Repository, ...],
    options: FetchOptions,
    tried: Mapping[str, NotHereError],
) -> str:
    """What to do about an image that no repository gave."""
    if any("HTTP 401" in str(reason) or "HTTP 403" in str(reason) for reason in tried.values()):
        return (
            "the name may be wrong; if the image is private, log in (docker login, without a"
            " credential helper: its password must be in ~/.docker/config.json, or in the file"
            " that REGISTRY_AUTH_FILE names)"
        )
    if any(reason.is_absent for reason in tried.values()):
        near = find_near_tags(reference, repositories, options)
        if near:
            return f"check the tag; tags near it: {', '.join(near)}"
    return (
        "check the name and the network, give --registry-mirror REGISTRY=URL, or bring the image"
        f" as a file ({FROM_DAEMON}) and name it with `file:` under `images`"
    )


def find_near_tags(
    reference: Reference, repositories: tuple[Repository, ...], options: FetchOptions
) -> tuple[str, ...]:
    """Up to three tags that resemble the one that is missing."""
    for repository in repositories:
        try:
            found = retry(partial(repository.read, "tags/list"), options)
        except NotHereError:
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
