"""Retryable and permanent download errors: which is which, how often to retry, and when.

A retryable error (a lost connection, HTTP 503) is retried at the same source: up to ATTEMPTS times
in a row, with a pause that doubles each time or that the server states. A permanent one (HTTP 404,
a bad certificate) is not retried; the caller tries the next source. Only this module decides that.
"""

import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar
from urllib.parse import urlsplit

import requests
from requests.utils import get_environ_proxies, select_proxy
from urllib3.exceptions import HTTPError, IncompleteRead, InvalidHeader
from urllib3.util import Retry

from bundler.errors import ArtifactError
from bundler.sources.transport import RedirectRefusedError
from bundler.urls import show_url

ATTEMPTS = 4  # in a row without progress
FIRST_WAIT = 1.0  # seconds before the second attempt; doubled each time
MAX_WAIT = 120.0  # seconds that a server may ask to wait; longer is permanent
RETRYABLE_STATUSES = {408, 425, 429, 500, 502, 503, 504}
"""HTTP statuses that are retried. Every other 4xx and 5xx is permanent."""
ABSENT_STATUSES = {404, 410}
"""HTTP statuses that mean that the server works and does not have the file."""

ONE_YEAR = 365 * 24 * 3600.0  # seconds
HINT_NETWORK = "check the network, DNS and proxy (HTTPS_PROXY) of this machine"
HINT_CA = (
    "if a private CA signed the certificate of that server, or of a TLS-inspecting proxy, give the"
    " CA certificate with --ca-file; check the clock of this machine, too"
)
Answer = TypeVar("Answer")


class RetryableError(Exception):
    """An error that a retry may solve; `wait` is the number of seconds that the server asks for."""

    def __init__(
        self, reason: str, *, wait: float | None = None, hint: str = "", is_answer: bool = False
    ) -> None:
        super().__init__(reason)
        self.wait = wait
        self.hint = hint
        self.is_answer = is_answer  # the server answered, with an error


class SourceError(Exception):
    """A permanent error of one source; the next source may have the file."""

    def __init__(
        self, reason: str, *, hint: str = "", is_absent: bool = False, is_answer: bool = True
    ) -> None:
        super().__init__(reason)
        self.hint = hint
        self.is_absent = is_absent  # the source works and does not have the file
        self.is_answer = is_answer  # false: there was no connection, or it broke


class UnavailableError(ArtifactError):
    """No source has the file, or none could be reached."""

    def __init__(self, label: str, tried: Mapping[str, SourceError], hint: str) -> None:
        lines = "\n".join(f"  {where}: {reason}" for where, reason in tried.items())
        super().__init__(
            f"{label}: no source has the file:\n{lines or '  no source is configured'}", hint=hint
        )
        self.label = label
        self.tried = tried  # source → its error


class NotFoundError(UnavailableError):
    """All sources work, and none of them has the file."""


def merge_failures(failures: Iterable[ArtifactError]) -> ArtifactError:
    """One error for all; files that could not be had for one reason share a message.

    A hint has parts; what several files have in common is said once.
    """
    first, *others = failures
    if not others:  # as it is: a caller may merge it with more
        return first
    shared: dict[object, list[ArtifactError]] = {}
    for failure in (first, *others):
        shared.setdefault(_reasons_of(failure) or failure.message, []).append(failure)
    messages = (_merge_messages(group) for group in shared.values())
    hints = dict.fromkeys(
        part
        for group in shared.values()
        for error in group
        for part in (error.hint or "").split("; ")
    )
    return ArtifactError("\n".join(messages), hint="; ".join(filter(None, hints)) or None)


def _reasons_of(failure: ArtifactError) -> tuple[str, ...]:
    """Why each source failed; nothing if one answered that it does not have the file."""
    tried = failure.tried.values() if isinstance(failure, UnavailableError) else ()
    return () if any(reason.is_absent for reason in tried) else tuple(map(str, tried))


def _merge_messages(group: Sequence[ArtifactError]) -> str:
    files = {f.label: f.tried for f in group if isinstance(f, UnavailableError)}
    if len(files) < 2:
        return group[0].message
    lines = []
    for number, reason in enumerate(_reasons_of(group[0])):
        sources = (list(tried)[number] for tried in files.values())
        hosts = dict.fromkeys(urlsplit(source).netloc or source for source in sources)
        lines.append(f"  {', '.join(hosts)}: {reason}")
    return "\n".join([f"{len(files)} files cannot be downloaded: {', '.join(files)}", *lines])


class StoppedError(ArtifactError):
    """The run ends: another download failed fatally, or the user interrupted it."""


def retry(
    attempt: Callable[[], Answer],
    *,
    first_wait: float,
    pause: Callable[[float], None],
    has_progress: Callable[[], bool] = lambda: False,
    report: Callable[[RetryableError, float], None] = lambda _, __: None,
) -> Answer:
    """Call `attempt` until it succeeds; SourceError if its errors are permanent or too many.

    `pause` waits some seconds, or raises StoppedError. If `has_progress` is true after an error,
    the count of attempts starts again. `report` is told each error that is retried, and the wait.
    """
    wait, failed = first_wait, 0
    while True:
        try:
            return attempt()
        except RetryableError as error:
            failed += 1
            if has_progress():
                wait, failed = first_wait, 0
            seconds = error.wait if error.wait is not None else wait
            if failed == ATTEMPTS:
                raise SourceError(str(error), hint=error.hint, is_answer=error.is_answer) from error
            if seconds > MAX_WAIT:
                raise SourceError(f"{error}, and asks to wait {seconds:.0f} s") from error
            report(error, seconds)
        pause(seconds)
        wait *= 2


@contextmanager
def classify_errors(url: str, trail: list[str]) -> Iterator[None]:
    """Turn what a request raises into SourceError or RetryableError.

    `trail` has the URLs that were requested, so that the message names the one that failed.
    """
    try:
        yield
    except (
        requests.RequestException, HTTPError, ConnectionError, RedirectRefusedError, ValueError,
    ) as error:  # fmt: skip
        redirected = f"redirected to {show_url(trail[-1])}: " if len(trail) > 1 else ""
        raise _classify(error, redirected, trail[-1] if trail else url) from error


def _classify(error: Exception, redirected: str, url: str) -> Exception:
    if isinstance(error, requests.HTTPError):
        return _classify_status(error.response, redirected)
    if isinstance(error, RedirectRefusedError | ValueError):  # an invalid URL or answer
        is_answer = not isinstance(
            error, RedirectRefusedError | requests.RequestException | HTTPError
        )
        what = "invalid answer: " if is_answer else ""
        return SourceError(f"{redirected}{what}{_shorten(error)}")
    *_, cause = _causes(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return SourceError(f"{redirected}TLS failed ({_shorten(cause)})", hint=HINT_CA)
    if isinstance(cause, IncompleteRead):
        return RetryableError(f"{redirected}the connection ended {cause.expected} bytes early")
    if isinstance(error, requests.exceptions.ProxyError):
        proxy = select_proxy(url, get_environ_proxies(url)) or ""
        return RetryableError(
            f"{redirected}the proxy {show_url(proxy)} failed: {_shorten(cause)}",
            hint="check the variables HTTPS_PROXY, HTTP_PROXY and NO_PROXY",
        )
    return RetryableError(f"{redirected}{_shorten(cause)}")


def _classify_status(response: requests.Response, redirected: str) -> Exception:
    status = response.status_code
    reason = f"{redirected}HTTP {status} {response.reason}"
    if status not in RETRYABLE_STATUSES:
        return SourceError(reason, is_absent=status in ABSENT_STATUSES)
    try:
        wait = Retry().get_retry_after(response.raw)
    except (InvalidHeader, ValueError, OverflowError):
        wait = None
    wait = min(wait, ONE_YEAR) if wait is not None else None  # the header may have many digits
    return RetryableError(reason, wait=wait, is_answer=True)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and its causes; the last one says what really happened."""
    while error is not None:
        yield error
        inner = (error.__cause__, error.__context__, *error.args, getattr(error, "reason", None))
        error = next((found for found in inner if isinstance(found, BaseException)), None)


def _shorten(error: BaseException) -> str:
    strerror = error.strerror if isinstance(error, OSError) else None
    text = strerror or str(error) or type(error).__name__
    return text if len(text) < 200 else f"{text[:197]}..."
