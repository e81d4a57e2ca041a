"""What a request for a file may raise, sorted into what may pass and what will not."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import requests
from requests.utils import get_environ_proxies, select_proxy
from urllib3.exceptions import HTTPError, IncompleteRead, InvalidHeader
from urllib3.util import Retry

from bundler.errors import ArtifactError
from bundler.sources.mirrors import show_url
from bundler.sources.transport import RedirectRefusedError

AGAIN = {408, 425, 429, 500, 502, 503, 504}
"""HTTP statuses that may pass; every other 4xx is final."""
ONE_YEAR = 365 * 24 * 3600.0  # seconds
PRIVATE_AUTHORITY = (
    "if a private authority vouches for that server, or for a proxy on the way that opens TLS, give"
    " its certificate with --ca-file; look at the clock, too"
)


class NotHereError(Exception):
    """This source does not have the file, or cannot be reached: the next may."""

    def __init__(self, reason: str, *, hint: str = "", is_absent: bool = False) -> None:
        super().__init__(reason)
        self.hint = hint
        self.is_absent = is_absent  # the source works, and has no such file


class NowhereError(ArtifactError):
    """Every source that was asked works, and has no such file."""


class StoppedError(ArtifactError):
    """Another download failed in a way that ends the run, or the user interrupted it."""


class AgainError(Exception):
    """A fault that may pass; after `wait` seconds where the server says so."""

    def __init__(self, reason: str, *, wait: float | None = None, hint: str = "") -> None:
        super().__init__(reason)
        self.wait = wait
        self.hint = hint


@contextmanager
def explained(url: str, trail: list[str]) -> Iterator[None]:
    """Turn what a request raises into NotHereError or AgainError; `trail` is where it led."""
    try:
        yield
    except (
        requests.RequestException, HTTPError, ConnectionError, RedirectRefusedError, ValueError,
    ) as error:  # fmt: skip
        led = f"led to {show_url(trail[-1])}: " if len(trail) > 1 else ""
        raise _explain(error, led, trail[-1] if trail else url) from error


def _explain(error: Exception, led: str, url: str) -> Exception:
    if isinstance(error, requests.HTTPError):
        return _explain_status(error.response, led)
    if isinstance(error, RedirectRefusedError | ValueError):  # nothing that can be asked
        is_answer = not isinstance(
            error, RedirectRefusedError | requests.RequestException | HTTPError
        )
        what = "its answer cannot be understood: " if is_answer else ""
        return NotHereError(f"{led}{what}{_shorten(error)}")
    *_, cause = _causes(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return NotHereError(
            f"{led}TLS failed ({_shorten(cause)}); certificates are always checked",
            hint=PRIVATE_AUTHORITY,
        )
    if isinstance(cause, IncompleteRead):
        return AgainError(f"{led}the connection ended {cause.expected} bytes early")
    if isinstance(error, requests.exceptions.ProxyError):
        proxy = select_proxy(url, get_environ_proxies(url)) or ""
        return AgainError(
            f"{led}the proxy {show_url(proxy)} failed: {_shorten(cause)}",
            hint="proxies come from the variables HTTPS_PROXY, HTTP_PROXY and NO_PROXY",
        )
    return AgainError(f"{led}{_shorten(cause)}")


def _explain_status(response: requests.Response, led: str) -> Exception:
    status = response.status_code
    reason = f"{led}HTTP {status} {response.reason}"
    if status not in AGAIN:
        return NotHereError(reason, is_absent=status in {404, 410})
    try:
        wait = Retry().get_retry_after(response.raw)
    except (InvalidHeader, ValueError, OverflowError):
        wait = None
    wait = None if wait is None else min(wait, ONE_YEAR)  # digits may be many
    return AgainError(reason, wait=wait)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and what it was made from, inwards: the last says what happened."""
    while error is not None:
        yield error
        inner = (error.__cause__, error.__context__, *error.args, getattr(error, "reason", None))
        error = next((found for found in inner if isinstance(found, BaseException)), None)


def _shorten(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return text if len(text) < 200 else f"{text[:197]}..."
