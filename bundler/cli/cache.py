"""`bundler cache …`: maintenance of the cache, and its transport to another builder."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from bundler import log
from bundler.cache.archive import (
    Blob,
    export_blobs,
    import_blobs,
)
from bundler.cache.maintenance import CacheFile, prune_cache, verify_cache
from bundler.cache.names import list_named_blobs
from bundler.cache.store import Cache
from bundler.catalog import Artifact
from bundler.cli.json_output import print_json
from bundler.cli.options import CLUSTER_YAML, CachePath, Json, Pins, make_inputs
from bundler.downloads import list_files, list_local_digests
from bundler.errors import ConfigError
from bundler.project import Project, load, resolve
from bundler.sources.lock import lock_path, parse_lock

Configs = Annotated[
    list[Path] | None,
    typer.Option("-c", "--config", help="A cluster.yaml. May be repeated."),
]


def list_command(config: Configs = None, cache: CachePath = None, as_json: Json = False) -> None:
    """List every file with its size, digest and name.

    The size is in bytes. The cache stores files by digest. Names come from the built-in pins, from
    image tags and URLs that were downloaded, and from the lock of each cluster.yaml that is given
    (default: cluster.lock.yaml). `-`: nothing here has a name for the digest.
    """
    known = _read_lock_names(config or [CLUSTER_YAML])
    found = list_named_blobs(_open(cache), known)
    if as_json:
        files = [{"digest": b.name, "size": b.size, "name": name or None} for b, name in found]
        print_json("cache-list", files=files)
        return
    for blob, name in found:
        log.result(f"{blob.size:>12}  {blob.name}  {name or '-'}")


def _read_lock_names(configs: list[Path]) -> dict[str, str]:
    """Read the locks next to the given files: digest → name."""
    paths = [path for path in map(lock_path, configs) if path.is_file()]
    return {
        entry.digest: f"{entry.name} {entry.version} ({entry.arch})"
        for path in paths
        for entry in parse_lock(path.read_bytes(), path).entries
    }


def verify_command(cache: CachePath = None) -> None:
    """Read every file again and quarantine those that were altered.

    That includes the compressed segments that builds reuse. Exit code 3 if a file was altered.
    """
    failed = False
    for file, good in verify_cache(_open(cache)):
        log.result(f"{'ok     ' if good else 'ALTERED'}  {file.size:>12}  {file.name}")
        failed |= not good
    if failed:
        log.error(
            "altered files were moved to the cache's quarantine",
            "download them again with: bundler fetch; the next build compresses them again",
        )
        raise typer.Exit(3)


def export_command(
    target: Annotated[Path, typer.Argument(help="The tar file to write.")],
    config: Configs = None,
    pins: Pins = None,
    cache: CachePath = None,
) -> None:
    """Write files into one tar archive, for a builder without a network.

    Exports all files, or only those that the given cluster.yaml files need (-c). The same files
    give the same bytes. `bundler cache import` checks the digest of each file.
    """
    needed = [
        file
        for project in _load_all(config or [], pins, cache)
        for file in list_files(project, resolve(project))
    ]
    for blob in export_blobs(_open(cache), target, needed if config else None):
        _print_file(blob)


def import_command(
    source: Annotated[Path, typer.Argument(help="A file that `bundler cache export` wrote.")],
    cache: CachePath = None,
) -> None:
    """Import the files of an exported archive, after checking each digest.

    Prints size and digest of each file.
    """
    for blob in import_blobs(_open(cache), source):
        _print_file(blob)


def prune_command(
    config: Configs = None,
    pins: Pins = None,
    cache: CachePath = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be deleted; delete nothing.")
    ] = False,
) -> None:
    """Delete every file that no given cluster.yaml needs.

    Also deletes the compressed segments of these files, and quarantined and unfinished files that
    are older than a day. Prints what was deleted.
    """
    if not config:
        raise ConfigError("no cluster.yaml is given: prune would delete everything", hint="give -c")
    needed: list[Artifact] = []
    local: set[str] = set()
    for project in _load_all(config, pins, cache):
        resolved = resolve(project)
        needed += list_files(project, resolved)
        local |= list_local_digests(project, resolved)
    for file in prune_cache(_open(cache), needed, local, dry_run=dry_run):
        _print_file(file)


def _open(cache: Path | None) -> Cache:
    return make_inputs(cache=cache).cache


def _load_all(configs: list[Path], pins: Path | None, cache: Path | None) -> Iterator[Project]:
    for config in configs:
        yield load(make_inputs(config, pins=pins, cache=cache, offline=True))


def _print_file(file: Blob | CacheFile) -> None:
    log.result(f"{file.size:>12}  {file.name}")
