"""`bundler cache …`: upstream files on their way to another builder, looked after, taken away."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from bundler import log
from bundler.cache.archive import (
    Blob,
    export_blobs,
    import_blobs,
    list_blobs,
)
from bundler.cache.maintenance import Part, prune_cache, verify_cache
from bundler.cache.store import Cache
from bundler.catalog import Artifact
from bundler.cli.options import CachePath, Pins, make_inputs
from bundler.downloads import list_files, list_local_digests
from bundler.errors import ConfigError
from bundler.project import Project, load, resolve

app = typer.Typer(no_args_is_help=True, help="Upstream files that the builder keeps.")
Configs = Annotated[
    list[Path] | None,
    typer.Option("-c", "--config", help="A cluster description. May be repeated."),
]


@app.callback()
def _root() -> None:
    """Upstream files that the builder keeps: by digest, whole and checked."""


@app.command("list")
def list_command(cache: CachePath = None) -> None:
    """Print every file: digest and size in bytes."""
    for blob in list_blobs(_open(cache)):
        _show(blob)


@app.command("verify")
def verify_command(cache: CachePath = None) -> None:
    """Read every file again, and what was made of it; one that was altered is put aside.

    Exit code 3 then.
    """
    failed = False
    for file, good in verify_cache(_open(cache)):
        print(f"{'ok     ' if good else 'ALTERED'}  {file.size:>12}  {file.name}")
        failed |= not good
    if failed:
        log.error(
            "altered files were put aside",
            "bring them again with: bundler fetch; the next build makes segments anew",
        )
        raise typer.Exit(3)


@app.command("export")
def export_command(
    target: Annotated[Path, typer.Argument(help="The tar file to write.")],
    config: Configs = None,
    pins: Pins = None,
    cache: CachePath = None,
) -> None:
    """Write files into one tar file, for a builder without a network: all, or what -c needs.

    The same files give the same bytes. Names in it are digests: the other side checks each.
    """
    needed = [
        file
        for project in _load_all(config or [], pins, cache)
        for file in list_files(project, resolve(project))
    ]
    only = needed if config else None
    for blob in export_blobs(_open(cache), target, only):
        _show(blob)


@app.command("import")
def import_command(
    source: Annotated[Path, typer.Argument(help="What `bundler cache export` wrote.")],
    cache: CachePath = None,
) -> None:
    """Take the files of an export into the cache, each once its digest is known to hold."""
    for blob in import_blobs(_open(cache), source):
        _show(blob)


@app.command("prune")
def prune_command(
    config: Configs = None,
    pins: Pins = None,
    cache: CachePath = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would go, and take nothing away.")
    ] = False,
) -> None:
    """Take away every file that none of the descriptions needs; print what went.

    With it go the segments that were made of it, and what was put aside, or begun and not needed,
    if that is a day ago.
    """
    if not config:
        raise ConfigError("prune needs to know what to keep", hint="give -c cluster.yaml")
    needed: list[Artifact] = []
    local: set[str] = set()
    for project in _load_all(config, pins, cache):
        resolved = resolve(project)
        needed += list_files(project, resolved)
        local |= list_local_digests(project, resolved)
    for file in prune_cache(_open(cache), needed, local, dry_run=dry_run):
        _show(file)


def _open(cache: Path | None) -> Cache:
    return make_inputs(cache=cache).cache


def _load_all(configs: list[Path], pins: Path | None, cache: Path | None) -> Iterator[Project]:
    for config in configs:
        yield load(make_inputs(config, pins=pins, cache=cache, offline=True))


def _show(file: Blob | Part) -> None:
    print(f"{file.size:>12}  {file.name}")
