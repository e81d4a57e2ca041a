"""Fetch upstream files into the cache: from mirrors in order, then upstream; verify each."""

import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from multiprocessing.pool import AsyncResult, ThreadPool
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from bundler import log
from bundler.catalog import Artifact, closest_versions
from bundler.errors import ArtifactError
from bundler.sources.download import (
    FetchOptions,
    NoProgress,
    Progress,
    receive,
)
from bundler.sources.mirrors import list_sources
from bundler.sources.retries import (
    HINT_NETWORK,
    NotFoundError,
    SourceError,
    StoppedError,
    UnavailableError,
    merge_failures,
)
from bundler.urls import show_url

__all__ = [
    "FetchOptions",
    "NoProgress",
    "Progress",
    "ensure_artifact",
    "ensure_artifacts",
    "ensure_blob",
    "fetch_from",
    "fetch_unpinned",
    "run_jobs",
    "try_sources",
]

GRACE = 0.5  # seconds that running jobs have to end by themselves
Result = TypeVar("Result")


def ensure_artifacts(artifacts: Sequence[Artifact], options: FetchOptions) -> dict[Artifact, Path]:
    """Fetch every file, verified, into the cache; one ArtifactError lists all failures."""
    wanted = list(dict.fromkeys(artifacts))
    calls = [partial(ensure_artifact, artifact, options) for artifact in wanted]
    return dict(zip(wanted, run_jobs(calls, options), strict=True))


def run_jobs(calls: Iterable[Callable[[], Result]], options: FetchOptions) -> list[Result]:
    """Run the calls, `options.jobs` at a time; return their results in order.

    One ArtifactError has the messages of all ArtifactErrors. Any other error, such as a full disk
    or an interrupt, stops the running downloads.
    """
    results: list[Result] = []
    failures: list[ArtifactError] = []
    # the pool's threads are daemons: one that waits for a silent server does not delay the exit
    with ThreadPool(options.jobs) as pool:
        jobs = [pool.apply_async(_run, (call, options)) for call in calls]
        try:
            for job in jobs:
                try:
                    results.append(job.get())
                except ArtifactError as error:
                    failures.append(error)
        except BaseException:
            options.stop.set()
            _wait_for(jobs, GRACE)
            raise
    if failures:
        raise merge_failures(failures)
    return results


def ensure_artifact(artifact: Artifact, options: FetchOptions) -> Path:
    """One file: from the cache, or from the first source that has it.

    If a source serves bytes that do not match the pin, no other source is tried: the user must see
    that.
    """
    fetch = partial(fetch_from, artifact, options)
    return ensure_blob(artifact, options, lambda: _try_all(artifact, options, fetch))


def ensure_blob(artifact: Artifact, options: FetchOptions, download: Callable[[], Path]) -> Path:
    """One file from the cache; if it is missing, `download` adds it while this run has the lock."""
    cache = options.cache
    name = f"{artifact.algorithm}-{artifact.digest}"
    with cache.lock(name, label=artifact.label, pause=options.pause):
        if cache.has_blob(artifact.algorithm, artifact.digest):
            log.detail(f"{artifact.label}: in the cache, {artifact.pin} ({artifact.source})")
            return cache.blob_path(artifact.algorithm, artifact.digest)
        return download()


def fetch_unpinned(artifact: Artifact, options: FetchOptions) -> tuple[Artifact, Path]:
    """Fetch a file without a known digest, for `bundler lock`; return it with its digest."""
    name = hashlib.sha256(artifact.url.encode()).hexdigest()
    path = options.cache.partial_path("unpinned", name)
    with options.cache.lock(f"unpinned-{name}", label=artifact.label, pause=options.pause):
        return _try_all(artifact, options, partial(_fetch_any, artifact, options, path))


def _wait_for(jobs: Iterable[AsyncResult[Any]], seconds: float) -> None:
    """Wait for all jobs together for at most that time."""
    end = time.monotonic() + seconds
    for job in jobs:
        job.wait(max(0.0, end - time.monotonic()))


def _run(call: Callable[[], Result], options: FetchOptions) -> Result:
    if options.stop.is_set():
        raise StoppedError("stopped")
    try:
        return call()
    except ArtifactError:
        raise
    except BaseException:
        options.stop.set()
        raise


def _try_all(artifact: Artifact, options: FetchOptions, fetch: Callable[[str], Result]) -> Result:
    sources = list_sources(artifact.url, options.mirrors, offline=options.offline)
    return try_sources(artifact.label, sources, fetch, partial(_hint, artifact, options), options)


def try_sources(
    label: str,
    sources: Iterable[str],
    fetch: Callable[[str], Result],
    hint: Callable[[Mapping[str, SourceError]], str],
    options: FetchOptions,
) -> Result:
    """Call `fetch` with each source until one has the file; ArtifactError if none has.

    NotFoundError if all sources work and none has the file. `hint` makes the hint from the error
    of each source.
    """
    tried: dict[str, SourceError] = {}
    for source in sources:
        for where, reason in list(tried.items())[-1:]:
            fault = (urlsplit(where).netloc, f"{reason}; trying the next source")
            if not reason.is_absent and (reason.is_answer or fault not in options.reported):
                options.reported.add(fault)
                log.warning(f"{label}: {where}: {fault[1]}")
        log.detail(f"{label}: from {show_url(source)}")
        try:
            return fetch(source)
        except SourceError as reason:
            tried[show_url(source)] = reason
    hints = dict.fromkeys(reason.hint for reason in tried.values() if reason.hint)
    kind = NotFoundError if all(r.is_absent for r in tried.values()) else UnavailableError
    raise kind(label, tried, "; ".join((*hints, hint(tried))))


def _hint(artifact: Artifact, options: FetchOptions, tried: Mapping[str, SourceError]) -> str:
    if options.offline:
        return (
            "give a directory that has the file with --mirror DIR, or build once without --offline"
        )
    if tried and not any(reason.is_answer for reason in tried.values()):
        return f"{HINT_NETWORK}; or use --mirror DIR or URL"
    close = closest_versions(artifact.component, artifact.version, artifact.arch)
    near = f"; similar pinned versions of {artifact.component}: {', '.join(close)}" if close else ""
    return f"check the version and the network, or use --mirror DIR or URL{near}"


def fetch_from(artifact: Artifact, options: FetchOptions, source: str) -> Path:
    """Download one file from one source into the cache; ArtifactError if the pin differs."""
    path = options.cache.partial_path(artifact.algorithm, artifact.digest)
    is_resumed = path.exists()
    found = receive(artifact, source, path, options)
    if found != artifact.digest and is_resumed:
        # the first bytes are from an earlier run or another source: download all from this one
        path.unlink()
        found = receive(artifact, source, path, options)
    if found != artifact.digest:
        quarantined = options.cache.quarantine(path, "wrong-digest")
        raise ArtifactError(
            f"{artifact.label} from {show_url(source)} does not match its pin:\n"
            f"  expected {artifact.pin} ({artifact.source})\n"
            f"  found    {artifact.algorithm}:{found}\n"
            f"  the file is quarantined and not used: {quarantined}",
            hint="find out who changed it before you trust the source or change the pin",
        )
    return options.cache.adopt(path, artifact.algorithm, artifact.digest)


def _fetch_any(
    artifact: Artifact, options: FetchOptions, path: Path, source: str
) -> tuple[Artifact, Path]:
    """Download the file into the cache; its digest is not known before."""
    path.unlink(missing_ok=True)  # an earlier download may be of another version
    digest = receive(artifact, source, path, options)
    found = dataclasses.replace(artifact, digest=digest, source=show_url(source))
    return found, options.cache.adopt(path, artifact.algorithm, digest)
