"""HTTP sessions for downloads: proxies, private CAs, and rules for redirects.

A session uses HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY and ~/.netrc, as `requests` does.
Certificates are always verified: no option turns that off.
"""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag, urljoin

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import create_urllib3_context

from bundler.errors import ConfigError
from bundler.formats.safe_parse import split_url
from bundler.sources.limits import MAX_PARALLEL_DOWNLOADS
from bundler.sources.mirrors import WEB
from bundler.urls import show_url

TIMEOUT = (15, 60)  # seconds: to connect, and between two chunks
MAX_REDIRECTS = 10


class RedirectRefusedError(Exception):
    """A redirect that is not followed, with the reason."""


class Session(requests.Session):
    """A session that does not follow redirects; `open_url` does, by its own rules."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002
        """None: requests would read the complete body of a redirect, which may be large."""
        return None


def make_session(ca_file: Path | None = None) -> Session:
    """A session that threads may share; it trusts the CAs in `ca_file` and the public ones.

    Raises ConfigError if `ca_file` holds no certificate.
    """
    session = Session()
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    adapter = _Adapter(make_tls_context(ca_file))
    for scheme in WEB:
        session.mount(scheme, adapter)
    return session


def make_tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """A TLS context that trusts the CAs in `ca_file`; requests adds the public CAs to it."""
    context = create_urllib3_context()
    if not ca_file:
        return context
    try:
        context.load_verify_locations(cafile=ca_file)
    except ssl.SSLError as error:
        raise ConfigError(
            f"--ca-file {ca_file}: no certificate in PEM format ({error.reason or error})",
            hint="the file must have lines -----BEGIN CERTIFICATE-----; convert DER with:"
            " openssl x509 -inform DER -in FILE -out FILE.pem",
        ) from error
    except OSError as error:
        raise ConfigError(f"--ca-file {ca_file}: {error.strerror}") from error
    return context


@contextmanager
def open_url(
    session: requests.Session, url: str, headers: Mapping[str, str], trail: list[str]
) -> Iterator[requests.Response]:
    """Request a URL and follow redirects; the caller reads the body of the answer.

    Each URL that is requested is added to `trail`, for messages. Raises RedirectRefusedError, and
    what `requests` raises.
    """
    trail.append(url)
    while True:
        with session.get(trail[-1], headers=headers, stream=True, timeout=TIMEOUT) as response:
            target = _find_target(session, response, trail[-1])
            if target is None:
                yield response
                return
        trail.append(_check_redirect(trail, target))


def _find_target(session: requests.Session, response: requests.Response, base: str) -> str | None:
    """The URL that an answer redirects to, or None."""
    try:
        target = requests.Session.get_redirect_target(session, response)
        if target is not None:
            target = urldefrag(urljoin(base, target)).url
            split_url(target)
    except ValueError as error:
        shown = show_url(response.headers["Location"]).partition("?")[0][:200]
        raise RedirectRefusedError(
            f"redirects to {shown!r}, which is not a web address ({error})"
        ) from error
    return target


def _check_redirect(trail: list[str], target: str) -> str:
    """The target of a redirect that is followed; else RedirectRefusedError.

    Redirects to other hosts are followed, but never from https to plain http.
    """
    shown = show_url(target)
    if not target.startswith(WEB):
        raise RedirectRefusedError(f"redirects to {shown[:200]!r}, which is not a web address")
    if trail[-1].startswith("https:") and not target.startswith("https:"):
        raise RedirectRefusedError(
            f"redirects from https to {shown}: plain http is not protected, so the redirect is not"
            " followed"
        )
    if target in trail:
        circle = " → ".join(show_url(url) for url in (*trail[trail.index(target) :], target))
        raise RedirectRefusedError(f"redirects in a circle: {circle}")
    if len(trail) > MAX_REDIRECTS:
        raise RedirectRefusedError(f"redirects more than {MAX_REDIRECTS} times")
    return target


class _Adapter(HTTPAdapter):
    """Connections, direct and through proxies, that verify servers with one TLS context."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__(pool_maxsize=MAX_PARALLEL_DOWNLOADS)

    def init_poolmanager(self, *arguments: Any, **words: Any) -> None:
        """As the base class, with the context."""
        super().init_poolmanager(*arguments, ssl_context=self._context, **words)

    def cert_verify(self, *arguments: Any, **words: Any) -> None:
        """As the base class, which reads the CA file that the environment names."""
        try:
            super().cert_verify(*arguments, **words)  # type: ignore[no-untyped-call]
        except OSError as error:
            raise ConfigError(
                f"the file or directory of CA certificates is missing: {error}",
                hint="correct or unset the variables REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE",
            ) from error

    def proxy_manager_for(self, proxy: str, **words: Any) -> Any:
        """As the base class, with the context."""
        return super().proxy_manager_for(proxy, ssl_context=self._context, **words)
