"""Upstream files into the cache: mirrors in order, then upstream; verified while streaming."""

import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from multiprocessing.pool import AsyncResult, ThreadPool
from pathlib import Path
from typing import Any, TypeVar

from bundler import log
from bundler.catalog import Artifact, closest_versions
from bundler.errors import ArtifactError
from bundler.sources.download import (
    MOST_BYTES,
    FetchOptions,
    NoProgress,
    Progress,
    receive,
)
from bundler.sources.download_errors import NotHereError, NowhereError, StoppedError
from bundler.sources.mirrors import list_sources, show_url

__all__ = [
    "FetchOptions",
    "NoProgress",
    "Progress",
    "ask_each",
    "ensure_artifact",
    "ensure_artifacts",
    "ensure_by",
    "fetch_unpinned",
    "run_jobs",
    "take_file",
]

SOON = 0.5  # seconds that running jobs have to end by themselves
Result = TypeVar("Result")


def ensure_artifacts(artifacts: Sequence[Artifact], options: FetchOptions) -> dict[Artifact, Path]:
    """Every file, verified, in the cache; all failures in one ArtifactError."""
    wanted = list(dict.fromkeys(artifacts))
    calls = [partial(ensure_artifact, artifact, options) for artifact in wanted]
    return dict(zip(wanted, run_jobs(calls, options), strict=True))


def run_jobs(calls: Iterable[Callable[[], Result]], options: FetchOptions) -> list[Result]:
    """What each call returns, `options.jobs` of them at a time; all ArtifactErrors as one.

    Any other fault, such as a full disk or an interrupt, stops the downloads that are running.
    """
    results: list[Result] = []
    failures: list[ArtifactError] = []
    # its threads are daemons: one that hears nothing, such as for a server that says nothing, is
    # left behind, and holds nobody up
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
            _wait_for(jobs, SOON)
            raise
    if failures:
        hints = dict.fromkeys(error.hint for error in failures if error.hint)
        raise ArtifactError(
            "\n".join(dict.fromkeys(error.message for error in failures)),
            hint="; ".join(hints) or None,
        )
    return results


def ensure_artifact(artifact: Artifact, options: FetchOptions) -> Path:
    """One file: from the cache, or the first source that has it.

    A source that serves other bytes than the pin says stops everything: that must be seen.
    """
    take = partial(take_file, artifact, options)
    return ensure_by(artifact, options, lambda: _ask(artifact, options, take))


def ensure_by(artifact: Artifact, options: FetchOptions, bring: Callable[[], Path]) -> Path:
    """One file from the cache; else what `bring` puts there, while no other run does."""
    cache = options.cache
    name = f"{artifact.algorithm}-{artifact.digest}"
    with cache.lock(name, label=artifact.label, pause=options.pause):
        if cache.has_blob(artifact.algorithm, artifact.digest):
            return cache.blob_path(artifact.algorithm, artifact.digest)
        return bring()


def fetch_unpinned(
    artifact: Artifact, options: FetchOptions, most: int = MOST_BYTES
) -> tuple[Artifact, Path]:
    """A file whose digest nobody has said, and what it turned out to be: for `bundler lock`.

    It has `most` bytes at the most.
    """
    name = hashlib.sha256(artifact.url.encode()).hexdigest()
    path = options.cache.partial_path("unpinned", name)
    with options.cache.lock(f"unpinned-{name}", label=artifact.label, pause=options.pause):
        return _ask(artifact, options, partial(_discover, artifact, options, path, most))


def _wait_for(jobs: Iterable[AsyncResult[Any]], seconds: float) -> None:
    """Give all of them together that time."""
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


def _ask(artifact: Artifact, options: FetchOptions, take: Callable[[str], Result]) -> Result:
    sources = list_sources(artifact.url, options.mirrors, offline=options.offline)
    return ask_each(artifact.label, sources, take, lambda _: _hint(artifact, options))


def ask_each(
    label: str,
    sources: Iterable[str],
    take: Callable[[str], Result],
    hint: Callable[[Mapping[str, NotHereError]], str],
) -> Result:
    """What `take` makes of the first source that has the file; ArtifactError where none has.

    NowhereError where all of them work. `hint` is given why each source has not.
    """
    tried: dict[str, NotHereError] = {}
    for source in sources:
        for where, reason in list(tried.items())[-1:]:
            if not reason.is_absent:
                log.warning(f"{label}: {where}: {reason}; the next source is asked")
        try:
            return take(source)
        except NotHereError as reason:
            tried[show_url(source)] = reason
    lines = "\n".join(f"  {where}: {reason}" for where, reason in tried.items()) or "  no source"
    hints = dict.fromkeys(reason.hint for reason in tried.values() if reason.hint)
    fault = NowhereError if all(r.is_absent for r in tried.values()) else ArtifactError
    raise fault(f"{label} cannot be had:\n{lines}", hint="; ".join((*hints, hint(tried))))


def _hint(artifact: Artifact, options: FetchOptions) -> str:
    if options.offline:
        return "give a directory that holds it with --mirror DIR, or build once without --offline"
    close = closest_versions(artifact.component, artifact.version, artifact.arch)
    near = f"; pinned versions near it: {', '.join(close)}" if close else ""
    return f"check the version and the network, or give --mirror DIR or URL{near}"


def take_file(artifact: Artifact, options: FetchOptions, source: str) -> Path:
    """The file as its pin says, in the cache."""
    path = options.cache.partial_path(artifact.algorithm, artifact.digest)
    is_resumed = path.exists()
    found = receive(artifact, source, path, options)
    if found != artifact.digest and is_resumed:
        # its beginning came from an earlier run, or from another source: this one is not to blame
        path.unlink()
        found = receive(artifact, source, path, options)
    if found != artifact.digest:
        aside = options.cache.quarantine(path, "wrong-digest")
        raise ArtifactError(
            f"{artifact.label} from {show_url(source)} is not what its pin says:\n"
            f"  expected {artifact.pin} ({artifact.source})\n"
            f"  found    {artifact.algorithm}:{found}\n"
            f"  the file is kept aside, and not used: {aside}",
            hint="find out who changed it before you trust the source or change the pin",
        )
    return options.cache.adopt(path, artifact.algorithm, artifact.digest)


def _discover(
    artifact: Artifact, options: FetchOptions, path: Path, most: int, source: str
) -> tuple[Artifact, Path]:
    """The file, whatever it is, in the cache."""
    path.unlink(missing_ok=True)  # of which version, nobody knows
    digest = receive(artifact, source, path, options, most)
    found = dataclasses.replace(artifact, digest=digest, source=show_url(source))
    return found, options.cache.adopt(path, artifact.algorithm, digest)
